import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { loadConfiguration } from "../../src/config/load.ts";
import { runnerEnvironment } from "../../src/config/runner-environment.ts";
import type { Configuration, ConfigurationInput } from "../../src/config/schema.ts";
import type { Database } from "../../src/db/database.ts";
import { getJob } from "../../src/db/jobs.ts";
import type { JobsContext } from "../../src/jobs/context.ts";
import { localRunnerFolders } from "../../src/jobs/work-folders.ts";
import { type Log, silentLog } from "../../src/log.ts";
import type { JobRecord, JobState } from "../../src/records/job.ts";
import { createLocalRunner } from "../../src/runners/local.ts";
import type { Runner } from "../../src/runners/runner.ts";
import { type EngineWithRequests, engineWithRequests } from "./engine-with-requests.ts";
import { type ScriptedWorld, scriptedComments, scriptedPorts } from "./scripted-ports.ts";

/** An engine whose runner computes nothing and whose Hub is a folder; everything between is the real thing. */
export type ScriptedBot = {
	readonly engine: EngineWithRequests;
	readonly configuration: Configuration;
	readonly runner: Runner;
};

export function scriptedConfiguration(
	dataDirectory: string,
	overrides: ConfigurationInput = {},
	env: Readonly<Record<string, string>> = {},
): Configuration {
	const loaded = loadConfiguration({
		env,
		overrides: {
			...overrides,
			database: { dataDirectory },
			watch: {
				namespaces: ["acme"],
				recipes: ["gguf:q4_0", "w4a16"],
				rules: [{ match: "acme/text-only-*", pipelineTags: ["text-generation"] }],
				...overrides.watch,
			},
			runner: { graceSeconds: 1, ...overrides.runner },
			sweep: { enabled: false, ...overrides.sweep },
		},
	});
	if (!loaded.ok) throw new Error(JSON.stringify(loaded.problems));
	return loaded.configuration;
}

export function scriptedRunner(configuration: Configuration, log: Log = silentLog): Runner {
	return createLocalRunner({
		...localRunnerFolders(configuration.database.dataDirectory),
		python: process.execPath,
		programArguments: [fileURLToPath(new URL("./scripted-runner.mjs", import.meta.url))],
		runnerDirectory: configuration.database.dataDirectory,
		environment: runnerEnvironment({ PATH: process.env["PATH"] }),
		timeoutSeconds: configuration.runner.timeoutSeconds,
		memoryBytes: configuration.runner.memoryBytes,
		graceSeconds: configuration.runner.graceSeconds,
		log,
	});
}

export function scriptedBot(options: {
	readonly database: Database;
	readonly world: ScriptedWorld;
	readonly dataDirectory: string;
	readonly overrides?: ConfigurationInput;
	readonly estimator?: JobsContext["estimator"];
	readonly log?: Log;
}): ScriptedBot {
	const configuration = scriptedConfiguration(options.dataDirectory, options.overrides);
	const runner = scriptedRunner(configuration);
	const engine = engineWithRequests({
		database: options.database,
		configuration,
		ports: scriptedPorts(options.world),
		handleComment: scriptedComments(options.world),
		runner,
		estimator: options.estimator ?? null,
		log: options.log ?? silentLog,
		superviseIntervalMs: 300,
	});
	return { engine, configuration, runner };
}

export function worldFolder(dataDirectory: string): string {
	return join(dataDirectory, "world");
}

export async function until<T>(what: string, look: () => Promise<T | null>, seconds = 30): Promise<T> {
	const deadline = Date.now() + seconds * 1000;
	for (;;) {
		const found = await look();
		if (found !== null) return found;
		if (Date.now() > deadline) throw new Error(`Waited ${seconds} seconds for ${what}.`);
		await new Promise((resolve) => setTimeout(resolve, 50));
	}
}

export async function untilState(
	database: Database,
	id: string,
	states: readonly JobState[],
	seconds = 30,
): Promise<JobRecord> {
	let last = "nothing";
	try {
		return await until(
			`job ${id} to be ${states.join(" or ")}`,
			async () => {
				const job = await getJob(database.handle, id);
				last = `${job?.state}: ${job?.statusText}`;
				return job !== null && states.includes(job.state) ? job : null;
			},
			seconds,
		);
	} catch (error) {
		throw new Error(`${error instanceof Error ? error.message : error} It is ${last}`);
	}
}

export function push(repo: string): unknown {
	return {
		event: { action: "update", scope: "repo.content" },
		repo: { type: "model", name: repo },
		updatedRefs: [{ ref: "refs/heads/main", oldSha: null, newSha: "0".repeat(40) }],
		webhook: { id: "abc", version: 3 },
	};
}
