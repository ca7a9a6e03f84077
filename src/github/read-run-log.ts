import { z } from "zod";
import type { GitHubAccess } from "./github-access.ts";

const Jobs = z.object({ jobs: z.array(z.object({ id: z.int(), status: z.string() })) });
/** Logs reach hundreds of megabytes; people want their end. */
const MAXIMUM_LOG_BYTES = 64 * 1024 * 1024;
const STAMP = /^\uFEFF?\d{4}-\d\d-\d\dT[\d:.]+Z /;

/**
 * The log of an ended run, line by line, without GitHub's time stamps. GitHub gives a job's log once that job has ended,
 * at an address of its own that is good for a minute, and not for ever.
 */
export async function readRunLog(params: {
	readonly github: GitHubAccess;
	readonly id: number;
	readonly onLine: (line: string) => void;
	readonly signal: AbortSignal;
	readonly fetch?: typeof fetch;
}): Promise<void> {
	const { github, id, onLine, signal } = params;
	const listed = await github.request(
		"GET /repos/{owner}/{repo}/actions/runs/{run_id}/jobs",
		{ run_id: id, per_page: 30 },
		{ repeatable: true },
	);
	for (const job of Jobs.parse(listed.data).jobs) {
		if (job.status !== "completed") continue;
		const { location } = await github.request(
			"GET /repos/{owner}/{repo}/actions/jobs/{job_id}/logs",
			{ job_id: job.id },
			{ repeatable: true },
		);
		if (location === null) throw new Error("GitHub names no place of the log.");
		// Another server, which gets no token of ours.
		const response = await (params.fetch ?? fetch)(location, { signal, redirect: "error" });
		if (!response.ok || response.body === null) {
			await response.body?.cancel();
			throw new Error(`The log's server answered ${response.status}.`);
		}
		let pending = "";
		let received = 0;
		for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
			received += chunk.length;
			if (received > MAXIMUM_LOG_BYTES) throw new Error("The log is too long.");
			const lines = (pending + chunk).split("\n");
			pending = lines.pop() ?? "";
			for (const line of lines) onLine(line.replace(STAMP, "").trimEnd());
		}
		if (pending !== "") onLine(pending.replace(STAMP, ""));
	}
}
