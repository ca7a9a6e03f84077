import { openAsBlob } from "node:fs";
import { mkdir, readdir, rename, rm, stat } from "node:fs/promises";
import { dirname, extname, join, relative, sep } from "node:path";
import { type CommitOperation, commit, createRepo, deleteRepo, downloadFile, modelInfo } from "@huggingface/hub";
import { diskFull, isDiskFull } from "../disk-full.ts";
import { PermanentError, RetryableError } from "../errors.ts";
import { downloadRepoFiles } from "../hub/download-repo-files.ts";
import type { HubAccess } from "../hub/hub-access.ts";
import { hubStatus } from "../hub/hub-request-error.ts";
import { listRepoFiles } from "../hub/list-repo-files.ts";
import type { ResultEvent } from "../protocol/events.ts";
import type { JobSpec } from "../protocol/job-spec.ts";
import { type Attempt, attemptHandle } from "../records/attempt.ts";
import { type NumberedEvent, parseEventLine } from "./run-events.ts";

type HubStagingOptions = {
	/** With the staging token: it writes to `namespace` and nowhere else. */
	readonly hub: HubAccess & { readonly accessToken: string };
	/** Holds nothing but staging repos. */
	readonly namespace: string;
};

/** The private repos between the bot and runs elsewhere: one an attempt, made before the run and deleted after it. */
export type HubStaging = {
	repoOf(attempt: Attempt): string;
	/** Makes the repo and puts the spec and every file it names there; found done, it is left as it is. */
	prepare(spec: JobSpec): Promise<void>;
	exists(attempt: Attempt): Promise<boolean>;
	/** The result that the run delivered together with its files. */
	result(attempt: Attempt): Promise<ResultEvent | null>;
	/** The events that the run has uploaded by now. */
	events(attempt: Attempt): Promise<readonly NumberedEvent[]>;
	/** Makes `directory` the run's output folder, whole or not at all. */
	collect(attempt: Attempt, directory: string): Promise<void>;
	discard(attempt: Attempt): Promise<void>;
};

const SPEC = "job.json";
const RESULT = "result.json";
const EVENTS = "events.jsonl";
const OUTPUT = "out/";
const MAXIMUM_EVENT_BYTES = 256 * 1024 * 1024;

type Upload = { readonly path: string; readonly source: string };

async function filesBelow(source: string, path: string): Promise<Upload[]> {
	if (!(await stat(source)).isDirectory()) return [{ path, source }];
	const entries = await readdir(source, { recursive: true, withFileTypes: true });
	return entries
		.filter((entry) => entry.isFile())
		.map((entry) => join(entry.parentPath, entry.name))
		.map((file) => ({ path: `${path}/${relative(source, file).split(sep).join("/")}`, source: file }));
}

/** The spec as the run gets it: files of this machine become files of the repo. */
async function withInputs(
	spec: JobSpec,
	repo: string,
): Promise<{ readonly spec: JobSpec; readonly uploads: readonly Upload[] }> {
	const uploads: Upload[] = [];
	async function place(source: string, name: string): Promise<string> {
		const path = `inputs/${name}`;
		uploads.push(...(await filesBelow(source, path)));
		return path;
	}
	const { calibration, evaluation, sketch } = spec;
	const { base } = spec.source;
	const { reuse, ...sketchSettings } = sketch;
	const textsOf = async (split: "selection" | "report") => {
		const placed: { domain: string; path: string }[] = [];
		for (const [index, text] of evaluation[split].entries()) {
			placed.push({ domain: text.domain, path: await place(text.path, `${split}-${index}.txt`) });
		}
		return placed;
	};
	const files: string[] = [];
	if (calibration.kind === "text") {
		for (const [index, file] of calibration.files.entries()) {
			files.push(await place(file, `calibration-${index}${extname(file) === "" ? ".txt" : extname(file)}`));
		}
	}
	return {
		spec: {
			...spec,
			// The run fetches the source, and an adapter's base, from the Hub's read side.
			source: {
				repo: spec.source.repo,
				revision: spec.source.revision,
				...(base === undefined ? {} : { base: { repo: base.repo, revision: base.revision } }),
			},
			calibration: calibration.kind === "text" ? { ...calibration, files } : calibration,
			evaluation: { ...evaluation, selection: await textsOf("selection"), report: await textsOf("report") },
			sketch: {
				...sketchSettings,
				// The run fetches a stored one itself: gigabytes need not pass through here.
				...(reuse === undefined || sketch.stored !== undefined ? {} : { reuse: await place(reuse, "sketch") }),
			},
			staging: { kind: "hub", repo },
		},
		uploads,
	};
}

function refused(repo: string, error: unknown): unknown {
	const status = hubStatus(error);
	if (status !== 401 && status !== 402 && status !== 403) return error;
	return new PermanentError(
		{
			code: "runner-unavailable",
			message: `The Hub answered ${status} when the bot wanted to make the staging repo ${repo}.`,
			remedy:
				"The operator sets YAQA_BOT_STAGING_TOKEN to a valid token that may write to runner.stagingNamespace, then retries the job.",
		},
		{ cause: error },
	);
}

/** The staging repos of runs elsewhere, one an attempt. Long as a list of its operations is: each stands alone. */
export function createHubStaging(options: HubStagingOptions): HubStaging {
	const { hub, namespace } = options;
	const repoOf = (attempt: Attempt): string => `${namespace}/run-${attemptHandle(attempt)}`;
	const designation = (attempt: Attempt) => ({ type: "model", name: repoOf(attempt) }) as const;

	async function head(attempt: Attempt): Promise<{ readonly sha: string; readonly private: boolean } | null> {
		try {
			const info = await modelInfo({
				...hub,
				name: repoOf(attempt),
				revision: "main",
				additionalFields: ["sha"],
			});
			return { sha: String(info.sha), private: info.private };
		} catch (error) {
			const status = hubStatus(error);
			if (status === 404) return null;
			throw refused(repoOf(attempt), error);
		}
	}

	async function readText(attempt: Attempt, path: string, limit: number): Promise<string | null> {
		const state = await head(attempt);
		if (state === null) return null;
		let blob: Blob | null;
		try {
			blob = await downloadFile({ ...hub, repo: designation(attempt), path, revision: state.sha, xet: false });
		} catch (error) {
			// The repo was deleted meanwhile: somebody else is through with the run.
			if (hubStatus(error) === 404) return null;
			throw refused(repoOf(attempt), error);
		}
		if (blob === null) return null;
		if (blob.size > limit) throw new Error(`${path} of ${repoOf(attempt)} is longer than ${limit} bytes.`);
		return await blob.text();
	}

	return {
		repoOf,
		async prepare(spec) {
			const repo = repoOf(spec);
			try {
				await createRepo({ ...hub, repo: designation(spec), visibility: "private" });
			} catch (error) {
				if (hubStatus(error) !== 409) throw refused(repo, error);
			}
			const state = await head(spec);
			if (state === null) throw new RetryableError(`${repo} was created, but the Hub does not show it yet.`);
			if (!state.private) {
				throw new PermanentError({
					code: "target-taken",
					message: `${repo} exists and is public; jobs are staged in private only.`,
					remedy: "The operator deletes that repo, then retries the job.",
				});
			}
			const present = await listRepoFiles({ ...hub, repo, revision: state.sha });
			if (present.some((file) => file.path === SPEC)) return;
			const { spec: placed, uploads } = await withInputs(spec, repo);
			const operations: CommitOperation[] = [
				{ operation: "addOrUpdate", path: SPEC, content: new Blob([JSON.stringify(placed, null, "\t")]) },
			];
			for (const { path, source } of uploads) {
				operations.push({ operation: "addOrUpdate", path, content: await openAsBlob(source) });
			}
			try {
				await commit({
					...hub,
					repo: designation(spec),
					title: "Stage the job",
					operations,
					branch: "main",
					parentCommit: state.sha,
				});
			} catch (error) {
				const status = hubStatus(error);
				if (status !== 409 && status !== 412) throw refused(repo, error);
				throw new RetryableError(`${repo} was written to meanwhile.`, { cause: error });
			}
		},
		exists: async (attempt) => (await head(attempt)) !== null,
		async result(attempt) {
			const text = await readText(attempt, RESULT, MAXIMUM_EVENT_BYTES);
			const event = text === null ? null : parseEventLine(text, attempt);
			return event?.event === "result" ? event : null;
		},
		async events(attempt) {
			const text = await readText(attempt, EVENTS, MAXIMUM_EVENT_BYTES);
			if (text === null) return [];
			return text.split("\n").flatMap((line) => {
				const event = parseEventLine(line, attempt);
				return event?.number === undefined ? [] : [{ number: event.number, event }];
			});
		},
		async collect(attempt, directory) {
			const repo = repoOf(attempt);
			const state = await head(attempt);
			if (state === null) throw new RetryableError(`The staging repo ${repo} is not there.`);
			const files = (await listRepoFiles({ ...hub, repo, revision: state.sha })).filter((file) =>
				file.path.startsWith(OUTPUT),
			);
			const draft = `${directory}.partial`;
			await mkdir(dirname(directory), { recursive: true });
			await mkdir(draft, { recursive: true });
			try {
				await downloadRepoFiles({
					...hub,
					repo,
					revision: state.sha,
					files,
					directory: draft,
					place: (path) => path.slice(OUTPUT.length),
				});
			} catch (error) {
				if (!isDiskFull(error)) throw error;
				await rm(draft, { recursive: true, force: true });
				throw new PermanentError(diskFull(directory), { cause: error });
			}
			await rm(directory, { recursive: true, force: true });
			await rename(draft, directory);
		},
		async discard(attempt) {
			try {
				await deleteRepo({ ...hub, repo: designation(attempt) });
			} catch (error) {
				if (hubStatus(error) !== 404) throw error;
			}
		},
	};
}
