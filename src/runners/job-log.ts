import { z } from "zod";

const Line = z.object({ data: z.string() });
const MAXIMUM_PENDING = 4 * 1024 * 1024;
/** The Hub sends a comment every 30 seconds; a connection that is silent for longer is dead. */
const SILENCE_MILLISECONDS = 90_000;

/**
 * Reads one connection of a job's log, server-sent events with one line of output each, until the Hub ends it. The
 * stock client's reader cannot be broken off: it leaves its connection open.
 */
export async function readJobLog(params: {
	readonly hubUrl: string;
	readonly accessToken: string;
	readonly namespace: string;
	readonly jobId: string;
	readonly onLine: (line: string) => void;
	readonly signal: AbortSignal;
	readonly fetch?: typeof fetch;
}): Promise<void> {
	const { hubUrl, accessToken, namespace, jobId, onLine } = params;
	const silence = new AbortController();
	const timer = setTimeout(() => silence.abort(new Error("The log is silent.")), SILENCE_MILLISECONDS);
	timer.unref();
	try {
		const response = await (params.fetch ?? fetch)(
			`${hubUrl}/api/jobs/${encodeURIComponent(namespace)}/${encodeURIComponent(jobId)}/logs`,
			{
				headers: { accept: "text/event-stream", authorization: `Bearer ${accessToken}` },
				signal: AbortSignal.any([params.signal, silence.signal]),
				redirect: "error",
			},
		);
		if (!response.ok || response.body === null) {
			await response.body?.cancel();
			throw new Error(`The Hub answered ${response.status} for the log.`);
		}
		let pending = "";
		for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
			timer.refresh();
			pending += chunk;
			const lines = pending.split("\n");
			pending = lines.pop() ?? "";
			if (pending.length > MAXIMUM_PENDING) throw new Error("A line of the log is too long.");
			for (const line of lines) {
				if (!line.startsWith("data:")) continue;
				const data = dataOf(line.slice("data:".length));
				if (data !== null) onLine(data);
			}
		}
	} finally {
		clearTimeout(timer);
	}
}

function dataOf(text: string): string | null {
	try {
		return Line.parse(JSON.parse(text)).data;
	} catch {
		return null;
	}
}
