import { linkSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";

/** The files of one run's folder. The supervisor writes them, the bot reads them, in this life or the next. */

export const RunSettings = z.strictObject({
	command: z.string(),
	arguments: z.array(z.string()),
	workingDirectory: z.string(),
	environment: z.record(z.string(), z.string()),
	timeoutSeconds: z.number(),
	memoryBytes: z.number().nullable(),
	graceSeconds: z.number(),
	maximumLogBytes: z.number(),
	maximumEventBytes: z.number(),
});
export type RunSettings = z.infer<typeof RunSettings>;

/** The supervisor: leader of the process group that holds the whole run. */
const RunProcess = z.object({ pid: z.int(), startTicks: z.string() });
type RunProcess = z.infer<typeof RunProcess>;

export const RunExit = z.object({
	code: z.int().nullable(),
	signal: z.string().nullable(),
	/** What the supervisor ended it for; `null`: it ended by itself. */
	ended: z.enum(["timed-out", "memory", "events", "cancelled", "spawn"]).nullable(),
	detail: z.string().nullable(),
	residentBytesPeak: z.number(),
});
export type RunExit = z.infer<typeof RunExit>;

export type RunFiles = {
	readonly folder: string;
	readonly spec: string;
	readonly settings: string;
	readonly process: string;
	readonly exit: string;
	readonly cancel: string;
	readonly events: string;
	readonly log: string;
	readonly staging: string;
	readonly home: string;
	readonly temporary: string;
};

export function runFiles(folder: string): RunFiles {
	return {
		folder,
		spec: join(folder, "job.json"),
		settings: join(folder, "run.json"),
		process: join(folder, "process.json"),
		exit: join(folder, "exit.json"),
		cancel: join(folder, "cancel"),
		events: join(folder, "events.jsonl"),
		log: join(folder, "stderr.log"),
		staging: join(folder, "out"),
		home: join(folder, "home"),
		temporary: join(folder, "tmp"),
	};
}

function readParsed<T>(path: string, schema: z.ZodType<T>): T | null {
	let text: string;
	try {
		text = readFileSync(path, "utf8");
	} catch (error) {
		if (error instanceof Error && "code" in error && error.code === "ENOENT") return null;
		throw error;
	}
	return schema.parse(JSON.parse(text));
}

export const readRunProcess = (files: RunFiles): RunProcess | null => readParsed(files.process, RunProcess);
export const readRunExit = (files: RunFiles): RunExit | null => readParsed(files.exit, RunExit);
export const readRunSettings = (files: RunFiles): RunSettings | null => readParsed(files.settings, RunSettings);

/** A reader sees the old file or the new one, never a part. */
export function writeWhole(path: string, content: string): void {
	const draft = `${path}.${process.pid}.draft`;
	writeFileSync(draft, content, { mode: 0o600 });
	renameSync(draft, path);
}

/** Creates the file whole, or returns `false` when it is there. */
export function claimWhole(path: string, content: string): boolean {
	const draft = `${path}.${process.pid}.draft`;
	writeFileSync(draft, content, { mode: 0o600 });
	try {
		linkSync(draft, path);
		return true;
	} catch (error) {
		if (error instanceof Error && "code" in error && error.code === "EEXIST") return false;
		throw error;
	} finally {
		rmSync(draft, { force: true });
	}
}
