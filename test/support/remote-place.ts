import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { createRepo, listModels, uploadFiles } from "@huggingface/hub";
import { createHubFetch } from "../../src/hub/hub-fetch.ts";
import { type LocalHub, type LocalHubOptions, startLocalHub } from "../../src/local-hub/start-local-hub.ts";
import { type JobSpec, parsedRecipe } from "../../src/protocol/job-spec.ts";
import { createHubStaging, type HubStaging } from "../../src/runners/hub-staging.ts";
import type { Observation, Runner } from "../../src/runners/runner.ts";
import { recipeOf } from "./recipe-of.ts";
import { until } from "./scripted-bot.ts";

export const root = fileURLToPath(new URL("../..", import.meta.url));
export const venv = join(root, "gpu-runner", ".venv", "bin");
const SCRIPTED = fileURLToPath(new URL("./scripted-runner.mjs", import.meta.url));

export const OWNER = "hf_remote_owner";
export const BOT = "hf_remote_bot_write";
export const READER = "hf_remote_bot_read";
export const STAGER = "hf_remote_bot_staging";
export const JOBS = "hf_remote_bot_jobs";
export const STAGING = "bot-staging";
export const COMPUTE = "bot-compute";

/** A Hub with a private model, and a bot whose tokens can each do one thing. */
export type RemotePlace = {
	readonly hub: LocalHub;
	readonly folder: string;
	readonly staging: HubStaging;
	/** Holds a `yaqa-runner` whose child is scripted; what goes over the network is the real program's. */
	readonly programFolder: string;
	readonly access: (token: string) => { hubUrl: string; accessToken: string; fetch: typeof fetch };
	/** A job on a model that says what its run does. */
	specOf(behaviour?: Readonly<Record<string, unknown>>): Promise<JobSpec>;
	/** Staging repos that are there. */
	stagingRepos(): Promise<readonly string[]>;
	close(): Promise<void>;
};

export async function startRemotePlace(
	options: {
		readonly programs?: "scripted" | "real";
		readonly environment?: readonly string[];
		/** Absent: the Hub runs jobs. */
		readonly jobs?: boolean;
		readonly onRequest?: LocalHubOptions["onRequest"];
	} = {},
): Promise<RemotePlace> {
	const folder = await mkdtemp(join(tmpdir(), "yaqa-remote-"));
	const programFolder = join(folder, "bin");
	await mkdir(programFolder);
	const program = join(programFolder, "yaqa-runner");
	const child =
		options.programs === "real"
			? "[sys.executable, '-m', 'yaqa_runner']"
			: JSON.stringify([process.execPath, SCRIPTED]);
	await writeFile(
		program,
		[
			`#!${join(venv, "python")}`,
			"import os, sys",
			...(options.environment ?? []).map((line) => `os.environ.setdefault(*${JSON.stringify(line.split("="))})`),
			"from yaqa_runner.cli import main",
			"from yaqa_runner.remote import launch",
			"real = launch.launch",
			`launch.launch = lambda run, program, interrupt: real(run, ${child}, interrupt)`,
			"sys.exit(main.main())",
		].join("\n"),
	);
	await chmod(program, 0o755);
	const hub = await startLocalHub({
		dataDirectory: join(folder, "hub"),
		users: [
			{ name: "owner", token: OWNER, orgs: [{ name: "lab", role: "admin" }] },
			{
				name: "bot",
				token: BOT,
				orgs: [
					{ name: "lab", role: "read" },
					{ name: STAGING, role: "admin" },
					{ name: COMPUTE, role: "admin" },
				],
				moreTokens: [
					{ token: READER, role: "read" },
					{ token: STAGER, role: "fineGrained", writeNamespaces: [STAGING] },
					{ token: JOBS, role: "fineGrained", writeNamespaces: [COMPUTE] },
				],
			},
		],
		...(options.onRequest === undefined ? {} : { onRequest: options.onRequest }),
		...(options.jobs === false ? {} : { jobs: { programFolders: [programFolder, venv] } }),
	});
	const access = (token: string) => ({
		hubUrl: hub.url,
		accessToken: token,
		fetch: createHubFetch({ hubUrl: hub.url, timeoutMilliseconds: 3000 }),
	});
	return {
		hub,
		folder,
		programFolder,
		access,
		staging: createHubStaging({
			hub: { ...access(STAGER), fetch: createHubFetch({ hubUrl: hub.url }) },
			namespace: STAGING,
		}),
		async specOf(behaviour = {}) {
			const name = `lab/model-${randomUUID().slice(0, 8)}`;
			const owner = { hubUrl: hub.url, accessToken: OWNER, repo: name };
			await createRepo({ ...owner, visibility: "private" });
			const done = await uploadFiles({
				...owner,
				files: [
					{ path: "config.json", content: new Blob(["{}"]) },
					{ path: "generation_config.json", content: new Blob([JSON.stringify(behaviour)]) },
				],
			});
			assert.ok(done !== undefined);
			const text = join(folder, "prose.txt");
			await writeFile(text, "Some words to calibrate with.\n");
			return {
				protocol: 1,
				job: randomUUID(),
				fence: 1,
				source: { repo: name, revision: done.commit.oid, path: "/nowhere" },
				calibration: { kind: "text", files: [text], sequences: 1, length: 8, seed: 0 },
				evaluation: {
					selection: [{ domain: "prose", path: text }],
					report: [],
					sequences: 2,
					length: 8,
					verificationSequences: 1,
				},
				sketch: { kind: "a", iterations: 6, sigmaInput: 0.01, sigmaOutput: 0.1 },
				tuning: { passes: 1 },
				variants: [{ id: randomUUID(), recipe: parsedRecipe(recipeOf("gguf:q4_0")) }],
				staging: { kind: "directory", path: "/nowhere" },
				limits: { device: "cpu" },
			};
		},
		async close() {
			await hub.close();
			await rm(folder, { recursive: true, force: true });
		},
		async stagingRepos() {
			const names: string[] = [];
			for await (const model of listModels({ hubUrl: hub.url, accessToken: BOT, search: { owner: STAGING } })) {
				names.push(model.name);
			}
			return names;
		},
	};
}

export async function ended(runner: Runner, handle: string): Promise<Exclude<Observation, { status: "running" }>> {
	return await until("the run to end", async () => {
		const observation = await runner.observe(handle);
		return observation.status === "running" ? null : observation;
	});
}
