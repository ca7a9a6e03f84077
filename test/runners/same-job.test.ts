import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { openAsBlob } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { createRepo, uploadFiles } from "@huggingface/hub";
import { createGitHubAccess } from "../../src/github/github-access.ts";
import { silentLog } from "../../src/log.ts";
import type { ResultEvent } from "../../src/protocol/events.ts";
import { type JobSpec, parsedRecipe } from "../../src/protocol/job-spec.ts";
import { Manifest } from "../../src/protocol/manifest.ts";
import { createSketchStore } from "../../src/publish/sketch-store.ts";
import { compiledKernels } from "../../src/runners/compiled-kernels.ts";
import { createGitHubActionsRunner } from "../../src/runners/github-actions.ts";
import { createHfJobsRunner } from "../../src/runners/hf-jobs.ts";
import { createLocalRunner } from "../../src/runners/local.ts";
import type { Runner } from "../../src/runners/runner.ts";
import { type FakeGitHub, startFakeGitHub } from "../fake-github/fake-github.ts";
import { withoutPython } from "../support/local-hub-fixture.ts";
import { recipeOf } from "../support/recipe-of.ts";
import {
	BOT,
	COMPUTE,
	JOBS,
	OWNER,
	READER,
	type RemotePlace,
	root,
	STAGER,
	STAGING,
	startRemotePlace,
	venv,
} from "../support/remote-place.ts";
import { until } from "../support/scripted-bot.ts";
import { SHARED_KERNELS } from "../support/shared-kernels.ts";

const RECIPES = ["gguf:q4_0", "onnx:q4", "w4a16"];
const MODEL = "lab/tiny";
/** Twenty on an idle machine; the runs share two cores with whatever else goes on. */
const SECONDS = 500;

type Outcome = {
	readonly manifests: ReadonlyMap<string, Manifest>;
	readonly directory: string;
	readonly stages: readonly string[];
};

/** What a manifest says about the weights, without who made them where, and when. */
function withoutProvenance(manifest: Manifest): unknown {
	const { job, fence, variant, createdAt, versions, device, seconds, layers, ...rest } = manifest;
	return rest;
}

describe("the same job on every runner", { skip: withoutPython }, () => {
	let place: RemotePlace;
	let gitHub: FakeGitHub;
	let revision = "";
	let model = "";
	const runners: Runner[] = [];
	const outcomes = new Map<string, Outcome>();

	before(async () => {
		const compiled = await compiledKernels({
			cacheDirectory: SHARED_KERNELS,
			python: join(venv, "python"),
			runnerDirectory: join(root, "gpu-runner"),
			environment: { PATH: process.env["PATH"] ?? "" },
		});
		place = await startRemotePlace({
			programs: "real",
			environment: [`NUMBA_CACHE_DIR=${compiled}`, "OMP_NUM_THREADS=2"],
		});
		model = join(place.folder, "tiny");
		execFileSync(join(venv, "python"), [join(root, "test/faults/make_tiny_model.py"), join(root, "demo/model"), model]);
		const owner = { hubUrl: place.hub.url, accessToken: OWNER, repo: MODEL };
		await createRepo({ ...owner, visibility: "private" });
		const names = await readdir(model);
		const files = await Promise.all(
			names.map(async (name) => ({ path: name, content: await openAsBlob(join(model, name)) })),
		);
		revision = (await uploadFiles({ ...owner, files }))?.commit.oid ?? "";
		gitHub = await startFakeGitHub({
			folder: join(place.folder, "github"),
			workflowPath: join(root, "workflows/quantize.yml"),
			path: [place.programFolder, process.env["PATH"] ?? "/usr/bin:/bin"].join(":"),
			variables: { YAQA_STAGING_NAMESPACE: STAGING, HF_ENDPOINT: place.hub.url, YAQA_PUSH_SECONDS: "2" },
			secrets: { YAQA_STAGING_TOKEN: STAGER, YAQA_READ_TOKEN: READER },
		});
		const timing = { pollMilliseconds: 500 };
		runners.push(
			createLocalRunner({
				runsDirectory: join(place.folder, "runs"),
				logsDirectory: join(place.folder, "logs"),
				cacheDirectory: SHARED_KERNELS,
				python: join(venv, "python"),
				runnerDirectory: join(root, "gpu-runner"),
				environment: { PATH: process.env["PATH"] ?? "" },
				timeoutSeconds: SECONDS,
				memoryBytes: null,
				graceSeconds: 5,
				log: silentLog,
			}),
			createHfJobsRunner({
				hub: place.access(JOBS),
				namespace: COMPUTE,
				image: "registry.example/yaqa-runner:1",
				flavor: "cpu-upgrade",
				timeoutSeconds: SECONDS,
				secrets: { stagingToken: STAGER, readToken: READER },
				staging: place.staging,
				log: silentLog,
				timing,
			}),
			createGitHubActionsRunner({
				github: createGitHubAccess({
					apiUrl: gitHub.url,
					repository: gitHub.repository,
					appId: gitHub.appId,
					privateKey: gitHub.privateKey,
				}),
				workflow: "quantize.yml",
				ref: "main",
				staging: place.staging,
				log: silentLog,
				timing,
			}),
		);
	});
	after(async () => {
		await gitHub?.close();
		await place?.close();
	});

	async function carryOut(
		runner: Runner,
		recipes: readonly string[],
		earlier: Pick<JobSpec["sketch"], "reuse" | "stored">,
	): Promise<Outcome> {
		const text = (name: string): string => join(root, "demo/text", `${name}.txt`);
		const spec: JobSpec = {
			protocol: 1,
			job: randomUUID(),
			fence: 1,
			source: { repo: MODEL, revision, path: model },
			calibration: { kind: "text", files: [text("calibration-prose")], sequences: 8, length: 32, seed: 0 },
			evaluation: {
				selection: [{ domain: "prose", path: text("selection-prose") }],
				report: [
					{ domain: "prose", path: text("report-prose") },
					{ domain: "code", path: text("report-code") },
				],
				sequences: 4,
				length: 32,
				verificationSequences: 1,
			},
			sketch: {
				kind: "a",
				iterations: 2,
				sigmaInput: 0.01,
				sigmaOutput: 0.1,
				...earlier,
			},
			tuning: { passes: 1 },
			variants: recipes.map((recipe) => ({ id: randomUUID(), recipe: parsedRecipe(recipeOf(recipe)) })),
			staging: { kind: "directory", path: "/nowhere" },
			limits: { threads: 2, device: "cpu" },
		};
		const { handle } = await runner.dispatch(spec);
		const result = await until<ResultEvent>(
			`${runner.name} to end`,
			async () => {
				const observation = await runner.observe(handle);
				assert.notEqual(observation.status, "lost", JSON.stringify(observation));
				return observation.status === "finished" ? observation.result : null;
			},
			SECONDS,
		);
		assert.ok(result.ok, JSON.stringify(result));
		const stages = (await runner.events(handle, 0)).flatMap(({ event }) =>
			event.event === "stage" && event.status !== "started" ? [`${event.stage}: ${event.status}`] : [],
		);
		const directory = join(place.folder, "collected", handle);
		await runner.collect(handle, directory);
		const manifests = new Map<string, Manifest>();
		for (const variant of result.variants) {
			const path = join(directory, variant.directory, "manifest.json");
			manifests.set(variant.recipe, Manifest.parse(JSON.parse(await readFile(path, "utf8"))));
		}
		await runner.discard(handle);
		return { manifests, directory, stages };
	}

	for (const [index, name] of ["local", "hf-jobs", "github-actions"].entries()) {
		test(`${name}: three variants, as everywhere`, async () => {
			const runner = runners[index];
			assert.ok(runner !== undefined, name);
			assert.ok(runner.name.startsWith(name));
			const outcome = await carryOut(runner, RECIPES, {});
			outcomes.set(name, outcome);
			assert.deepEqual([...outcome.manifests.keys()], RECIPES);
			assert.ok(outcome.stages.includes("sketch: finished"));
			const first = outcomes.get("local");
			assert.ok(first !== undefined);
			for (const recipe of RECIPES) {
				const one = first.manifests.get(recipe);
				const other = outcome.manifests.get(recipe);
				assert.ok(one !== undefined && other !== undefined);
				assert.deepEqual(withoutProvenance(other), withoutProvenance(one));
			}
		});
	}

	test("hf-jobs: another bit-width reuses the sketch and skips its stage", async () => {
		const runner = runners[1];
		const first = outcomes.get("hf-jobs");
		assert.ok(runner !== undefined && first !== undefined);
		const outcome = await carryOut(runner, ["gguf:q8_0"], { reuse: join(first.directory, "sketch") });
		assert.ok(outcome.stages.includes("sketch: skipped"), outcome.stages.join(", "));
		assert.equal(outcome.manifests.get("gguf:q8_0")?.sketch.reused, true);
	});

	test("github-actions: a sketch that HF Jobs took is found in the store and fetched by the run itself", async () => {
		const runner = runners[2];
		const first = outcomes.get("hf-jobs");
		assert.ok(runner !== undefined && first !== undefined);
		const key = first.manifests.get("gguf:q4_0")?.sketch.key ?? "";
		const store = createSketchStore({
			writer: place.access(BOT),
			reader: place.access(READER),
			repo: "bot/sketches",
			visibility: "private",
		});
		const stored = await store.keep({
			identity: { repo: MODEL, sha: revision, fingerprint: "0".repeat(32) },
			key,
			license: null,
			directory: join(first.directory, "sketch"),
		});
		const outcome = await carryOut(runner, ["gguf:q8_0"], { stored });
		assert.ok(outcome.stages.includes("sketch: skipped"), outcome.stages.join(", "));
		assert.equal(outcome.manifests.get("gguf:q8_0")?.sketch.reused, true);
	});

	test("nothing is left on the Hub", async () => {
		assert.deepEqual(await place.stagingRepos(), []);
		assert.deepEqual(gitHub.breaches, []);
	});
});
