import { createHash } from "node:crypto";
import { join } from "node:path";
import { attemptHandle } from "../records/attempt.ts";

/** Where things lie in the data directory. Names that come from outside are hashed, never used as they are. */
type WorkFolders = {
	/** A commit's snapshot, shared by every job on it. */
	source(repo: string, sha: string): string;
	sketch(key: string): string;
	/** What the local runner's run leaves. */
	output(job: string, fence: number): string;
	/** What one attempt brought back: `collected` from the runner, `staged` from the Hub. */
	collected(job: string, fence: number): string;
	staged(job: string, fence: number): string;
	attempt(job: string, fence: number): string;
};

function digest(text: string): string {
	return createHash("sha256").update(text).digest("hex").slice(0, 32);
}

export function workFolders(dataDirectory: string): WorkFolders {
	const attempt = (job: string, fence: number) => join(dataDirectory, "work", attemptHandle({ job, fence }));
	return {
		source: (repo, sha) => join(dataDirectory, "sources", digest(`${repo}@${sha}`)),
		sketch: (key) => join(dataDirectory, "sketches", digest(key)),
		output: (job, fence) => join(localRunnerFolders(dataDirectory).runsDirectory, attemptHandle({ job, fence }), "out"),
		attempt,
		collected: (job, fence) => join(attempt(job, fence), "collected"),
		staged: (job, fence) => join(attempt(job, fence), "staged"),
	};
}

/** Where the local runner keeps its runs, logs and compiled kernels. */
export function localRunnerFolders(dataDirectory: string): {
	readonly runsDirectory: string;
	readonly logsDirectory: string;
	readonly cacheDirectory: string;
} {
	return {
		runsDirectory: join(dataDirectory, "runs"),
		logsDirectory: join(dataDirectory, "logs"),
		cacheDirectory: join(dataDirectory, "cache"),
	};
}
