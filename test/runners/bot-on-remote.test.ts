import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import express from "express";
import { systemClock } from "../../src/clock.ts";
import type { Database } from "../../src/db/database.ts";
import { listDeliveries } from "../../src/db/deliveries.ts";
import { getJob, listJobEvents } from "../../src/db/jobs.ts";
import { openDatabase } from "../../src/db/open-database.ts";
import { createGitHubAccess } from "../../src/github/github-access.ts";
import { silentLog } from "../../src/log.ts";
import { parseRecipe } from "../../src/protocol/recipe.ts";
import type { JobState } from "../../src/records/job.ts";
import { createGitHubActionsEngine, createGitHubActionsRunner } from "../../src/runners/github-actions.ts";
import { createHfJobsEngine, createHfJobsRunner } from "../../src/runners/hf-jobs.ts";
import { createHubStaging, type HubStaging } from "../../src/runners/hub-staging.ts";
import type { ProgressChannel, RemoteEngine } from "../../src/runners/remote-runner.ts";
import type { Runner } from "../../src/runners/runner.ts";
import { openProgress } from "../../src/server/progress-channel.ts";
import { gitHubWebhook } from "../../src/web/routes/github-webhook.ts";
import { progressIngest } from "../../src/web/routes/progress-ingest.ts";
import { type FakeGitHub, startFakeGitHub } from "../fake-github/fake-github.ts";
import type { DeliveryMode } from "../fake-github/webhooks.ts";
import { type EngineWithRequests, engineWithRequests } from "../support/engine-with-requests.ts";
import {
	COMPUTE,
	JOBS,
	READER,
	type RemotePlace,
	root,
	STAGER,
	STAGING,
	startRemotePlace,
} from "../support/remote-place.ts";
import { scriptedConfiguration, until, untilState, worldFolder } from "../support/scripted-bot.ts";
import { type ScriptedWorld, scriptedPorts, scriptedWorld } from "../support/scripted-ports.ts";
import { processesOf } from "./remote-faults.ts";

const SECRET = "what GitHub signs with, here";
/** Nothing but a hint makes the bot look again within a test. */
const NEVER = 3_600_000;

type Bench = {
	readonly runner: Runner;
	readonly engine: RemoteEngine;
	vanishNext(): void;
	/** The next start is taken, and its answer lost. */
	loseNextAnswer(): void;
};

function hfJobs(place: RemotePlace, staging: HubStaging = place.staging): Bench {
	const options = {
		hub: place.access(JOBS),
		namespace: COMPUTE,
		image: "registry.example/yaqa-runner:1",
		flavor: "t4-small",
		timeoutSeconds: 120,
		secrets: { stagingToken: STAGER, readToken: READER },
		staging,
		log: silentLog,
		timing: { pollMilliseconds: 100, settleMilliseconds: 3000, cancelMilliseconds: 10_000 },
	};
	return {
		runner: createHfJobsRunner(options),
		engine: createHfJobsEngine(options),
		vanishNext: () => place.hub.faults.set({ vanishingJobs: 1 }),
		loseNextAnswer: () =>
			place.hub.faults.set({ routes: [{ method: "POST", path: `/api/jobs/${COMPUTE}$`, kind: "silent-after" }] }),
	};
}

function gitHubActions(
	place: RemotePlace,
	gitHub: FakeGitHub,
	pollMilliseconds: number,
	queueMilliseconds = 60_000,
	progress: ProgressChannel | null = null,
): Bench {
	const options = {
		github: createGitHubAccess({
			apiUrl: gitHub.url,
			repository: gitHub.repository,
			appId: gitHub.appId,
			privateKey: gitHub.privateKey,
			timeoutMilliseconds: 2000,
		}),
		workflow: "quantize.yml",
		ref: "main",
		staging: place.staging,
		progress,
		log: silentLog,
		timing: { pollMilliseconds, queueMilliseconds, settleMilliseconds: 3000, cancelMilliseconds: 10_000 },
	};
	return {
		runner: createGitHubActionsRunner(options),
		engine: createGitHubActionsEngine(options),
		vanishNext: () => gitHub.arm("vanishes"),
		loseNextAnswer: () => gitHub.arm("silent-after-accept"),
	};
}

describe("a bot whose runs are elsewhere", () => {
	let place: RemotePlace;
	let gitHub: FakeGitHub;
	const variables = { YAQA_PUSH_SECONDS: "0.2" };
	let database: Database;
	let world: ScriptedWorld;
	let folder: string;
	before(async () => {
		place = await startRemotePlace();
		folder = join(place.folder, "bot");
		gitHub = await startFakeGitHub({
			folder: join(place.folder, "github"),
			workflowPath: join(root, "workflows", "quantize.yml"),
			path: [place.programFolder, process.env["PATH"] ?? "/usr/bin:/bin"].join(":"),
			variables: Object.assign(variables, { YAQA_STAGING_NAMESPACE: STAGING, HF_ENDPOINT: place.hub.url }),
			secrets: { YAQA_STAGING_TOKEN: STAGER, YAQA_READ_TOKEN: READER },
		});
		database = await openDatabase({
			dataDirectory: folder,
			databaseUrl: null,
			poolSize: 2,
			clock: systemClock,
			log: silentLog,
		});
		world = scriptedWorld(worldFolder(folder));
	});
	after(async () => {
		await gitHub?.close();
		await database?.close();
		await place?.close();
	});

	async function withBot(bench: Bench, work: (engine: EngineWithRequests) => Promise<void>): Promise<void> {
		const configuration = scriptedConfiguration(folder);
		const engine = engineWithRequests({
			database,
			// The runner was made above; whose news of runs count is read from here.
			configuration: {
				...configuration,
				runner: {
					...configuration.runner,
					kind: bench.engine.title === "HF Jobs" ? "hf-jobs" : "github-actions",
					githubActions: { ...configuration.runner.githubActions, repository: gitHub.repository },
				},
			},
			ports: scriptedPorts(world),
			runner: bench.runner,
			superviseIntervalMs: 200,
		});
		await engine.start();
		try {
			await work(engine);
		} finally {
			await engine.stop();
		}
	}

	async function request(engine: EngineWithRequests, behaviour: Readonly<Record<string, unknown>>): Promise<string> {
		const { source } = await place.specOf(behaviour);
		world.setHead(source.repo, source.revision);
		const recipe = parseRecipe("w4a16");
		assert.ok(recipe.ok);
		const outcome = await engine.recordRequest({
			kind: "api",
			sourceRepo: source.repo,
			recipes: [recipe.recipe],
			requester: null,
			replyTo: null,
			dedupeKey: source.repo,
		});
		assert.ok(outcome.kind === "planned", JSON.stringify(outcome));
		return outcome.job.id;
	}

	async function publications(job: string): Promise<number> {
		const row = await getJob(database.handle, job);
		const name = row?.sourceRepo.split("/")[1] ?? "";
		return world.calls().filter(({ call, detail }) => call === "publish" && detail.includes(name)).length;
	}

	async function nothingIsLeft(bench: Bench, job: string, fences: readonly number[]): Promise<void> {
		assert.deepEqual(processesOf(job), []);
		for (const fence of fences) {
			const runs = await bench.engine.list({ job, fence });
			assert.ok(runs.every(({ state }) => state.kind === "ended" || state.kind === "succeeded"));
		}
		await until("the clean-up", async () =>
			(await place.stagingRepos()).some((name) => name.includes(job)) || world.stagingRepos().length > 0 ? null : true,
		);
	}

	for (const [title, benchOf] of [
		["HF Jobs", () => hfJobs(place)],
		["GitHub Actions", () => gitHubActions(place, gitHub, 100)],
	] as const) {
		test(`${title}: a run that vanishes gives another attempt, one result, one publication`, async () => {
			const bench = benchOf();
			await withBot(bench, async (engine) => {
				bench.vanishNext();
				const id = await request(engine, { steps: 1 });
				const job = await untilState(database, id, ["done", "failed"]);
				assert.equal(job.state, "done", job.statusText);
				assert.equal(job.fence, 2);
				assert.equal((await bench.engine.list({ job: id, fence: 2 })).length, 1);
				assert.equal(await publications(id), 1);
				await nothingIsLeft(bench, id, [1, 2]);
			});
		});

		test(`${title}: a completion that is told twice, late, and again after the end changes nothing`, async () => {
			const bench = benchOf();
			await withBot(bench, async (engine) => {
				const id = await request(engine, { steps: 1 });
				await untilState(database, id, ["done"]);
				await nothingIsLeft(bench, id, [1]);
				// As a replica that slept through it all: the run is still called a success, its result is gone.
				assert.equal((await bench.runner.observe(`${id}-1`)).status, "lost");
				const told = await engine.storeDelivery({
					source: "github",
					dedupeKey: `late ${id}`,
					receivedAt: new Date(),
					body: {
						event: "workflow_run",
						payload: {
							action: "completed",
							repository: { full_name: gitHub.repository },
							workflow_run: { display_title: `quant ${id} #1` },
						},
					},
				});
				await until("the delivery", async () => {
					const { items } = await listDeliveries(database.handle);
					return items.find((one) => one.id === told.id)?.outcome === "ignored" ? true : null;
				});
				const job = await getJob(database.handle, id);
				assert.deepEqual([job?.state, job?.fence], ["done", 1]);
				assert.equal(await publications(id), 1);
				assert.equal((await bench.engine.list({ job: id, fence: 1 })).length, 1);
				await nothingIsLeft(bench, id, [1]);
			});
		});

		test(`${title}: files that arrive cut off are found out, and nothing is published`, async () => {
			const bench = benchOf();
			await withBot(bench, async (engine) => {
				const id = await request(engine, { steps: 1, truncate: true });
				const job = await untilState(database, id, ["failed", "done"]);
				assert.equal(job.refusal?.code, "verification-failed", job.statusText);
				assert.equal(await publications(id), 0);
				await nothingIsLeft(bench, id, [1]);
			});
		});

		for (const when of ["before the start", "when its answer was lost"] as const) {
			test(`${title}: cancel while dispatching, ${when}, leaves no run and nothing published`, async () => {
				const bench = benchOf();
				await withBot(bench, async (engine) => {
					if (when === "before the start") world.setDelay("inspectSource", 700);
					else bench.loseNextAnswer();
					const id = await request(engine, { hang: true, steps: 1 });
					await untilState(database, id, ["dispatching"]);
					if (when !== "before the start") {
						await until("the run that nobody heard of", async () =>
							(await bench.engine.list({ job: id, fence: 1 })).length > 0 ? true : null,
						);
					}
					assert.ok((await engine.cancelJob(id)).ok);
					world.setDelay("inspectSource", 0);
					await untilState(database, id, ["cancelled"]);
					const runs = await bench.engine.list({ job: id, fence: 1 });
					assert.equal(runs.length, when === "before the start" ? 0 : 1);
					assert.equal(await publications(id), 0);
					await nothingIsLeft(bench, id, [1]);
				});
			});
		}

		for (const [state, behaviour] of [
			["running", { hang: true, ignoreTerm: true, steps: 1 }],
			["ingesting", { steps: 1 }],
			["verifying", { steps: 1 }],
		] as const satisfies readonly (readonly [JobState, object])[]) {
			test(`${title}: cancel while ${state} leaves no process, no run and nothing published`, async () => {
				const bench = benchOf();
				await withBot(bench, async (engine) => {
					const step = state === "ingesting" ? "stage" : "verify";
					if (state !== "running") world.setDelay(step, 700);
					const id = await request(engine, behaviour);
					await untilState(database, id, [state]);
					if (state === "running") {
						await until("the program to run", async () => (processesOf(id).length > 0 ? true : null));
					}
					assert.ok((await engine.cancelJob(id)).ok);
					world.setDelay(step, 0);
					await untilState(database, id, ["cancelled"]);
					assert.equal(await publications(id), 0);
					await nothingIsLeft(bench, id, [1]);
				});
			});
		}
	}

	for (const [name, benchOf, says] of [
		[
			"an expired token of HF Jobs",
			() => {
				place.hub.faults.set({ routes: [{ method: "POST", path: `/api/jobs/${COMPUTE}$`, status: 401 }] });
				return hfJobs(place);
			},
			/expired or was revoked\..*The operator makes a new one and sets YAQA_BOT_JOBS_TOKEN/,
		],
		[
			"no credits",
			() => {
				place.hub.faults.set({ routes: [{ method: "POST", path: `/api/jobs/${COMPUTE}$`, status: 402 }] });
				return hfJobs(place);
			},
			/no credits\..*Whoever pays for bot-compute adds credits/,
		],
		[
			"an expired staging token",
			() => hfJobs(place, createHubStaging({ hub: place.access("hf_expired"), namespace: STAGING })),
			/answered 401.*The operator sets YAQA_BOT_STAGING_TOKEN/,
		],
		[
			"a revoked App",
			() => {
				gitHub.arm("revoked");
				return gitHubActions(place, gitHub, 100);
			},
			/was revoked, removed.*The operator installs the App/,
		],
		[
			"a workflow file that is missing",
			() => {
				gitHub.arm("workflow-missing");
				return gitHubActions(place, gitHub, 100);
			},
			/There is no workflow quantize\.yml.*The operator copies workflows\/quantize\.yml/,
		],
		[
			"machines that are offline for longer than runs wait",
			() => {
				gitHub.arm("never-taken");
				return gitHubActions(place, gitHub, 100, 300);
			},
			/No machine of GitHub Actions took the run.*Whoever keeps those machines starts one/,
		],
	] as const) {
		test(`${name}: the job fails with a sentence that says who can mend it, and leaves nothing`, async () => {
			const bench = benchOf();
			await withBot(bench, async (engine) => {
				const id = await request(engine, { steps: 1 });
				const job = await untilState(database, id, ["failed", "done"]);
				assert.equal(job.refusal?.code, "runner-unavailable", job.statusText);
				assert.match(`${job.refusal?.message} ${job.refusal?.remedy}`, says);
				gitHub.disarm();
				place.hub.faults.clear();
				await until("the clean-up", async () =>
					(await place.stagingRepos()).some((repo) => repo.includes(id)) ? null : true,
				);
				assert.deepEqual(processesOf(id), []);
				assert.equal(await publications(id), 0);
			});
		});
	}

	test("GitHub Actions: a run tells the bot of its progress while it goes on, by a token of its own", async () => {
		// Nothing comes through the staging repo before the end.
		variables.YAQA_PUSH_SECONDS = "0";
		const server = createServer().listen(0, "127.0.0.1");
		await new Promise((resolve) => server.once("listening", resolve));
		const address = server.address();
		const port = typeof address === "object" && address !== null ? address.port : 0;
		const publicUrl = `http://127.0.0.1:${port}`;
		const { channel, door } = await openProgress(scriptedConfiguration(folder, { server: { publicUrl } }), database);
		const app = express();
		app.use(progressIngest({ ...door, maxBodyBytes: 1024 * 1024, log: silentLog }));
		server.on("request", app);
		const bench = gitHubActions(place, gitHub, 100, 60_000, channel);
		try {
			await withBot(bench, async (engine) => {
				const id = await request(engine, { hang: true, steps: 3 });
				const told = await until("three steps of progress", async () => {
					const events = await listJobEvents(database.handle, id, 0, 1000);
					const progress = events.filter(
						({ kind, body }) => kind === "runner" && (body as { event?: string }).event === "progress",
					);
					return progress.length >= 3 ? progress : null;
				});
				assert.equal(told.length, 3);
				assert.ok((await engine.cancelJob(id)).ok);
				await untilState(database, id, ["cancelled"]);
				await nothingIsLeft(bench, id, [1]);
				const left = await database.handle.selectFrom("pushed_events").selectAll().execute();
				assert.deepEqual(left, []);
				const log = JSON.stringify(gitHub.runs());
				assert.ok(!log.includes("p1."), "the token is in nobody's output");
			});
		} finally {
			variables.YAQA_PUSH_SECONDS = "0.2";
			server.closeAllConnections();
			server.close();
		}
	});

	for (const mode of ["once", "twice-and-backwards"] as const satisfies readonly DeliveryMode[]) {
		test(`GitHub Actions: deliveries that come ${mode} end the wait for the next look, and no more`, async () => {
			const bench = gitHubActions(place, gitHub, NEVER);
			let server: Server | null = null;
			try {
				await withBot(bench, async (engine) => {
					const app = express();
					app.use(
						gitHubWebhook({
							secrets: [SECRET],
							maxBodyBytes: 1024 * 1024,
							store: (delivery) => engine.storeDelivery(delivery),
							clock: systemClock,
							log: silentLog,
							onOutcome: () => undefined,
						}),
					);
					const listening = createServer(app).listen(0, "127.0.0.1");
					server = listening;
					await new Promise((resolve) => listening.once("listening", resolve));
					const address = listening.address();
					const port = typeof address === "object" && address !== null ? address.port : 0;
					const before = gitHub.webhooks.answers.length;
					gitHub.webhooks.sendTo({ url: `http://127.0.0.1:${port}/webhooks/github`, secret: SECRET, mode });
					const id = await request(engine, { steps: 2, delayMs: 100 });
					await untilState(database, id, ["done"]);
					await gitHub.webhooks.settle();
					const answers = gitHub.webhooks.answers.slice(before);
					assert.equal(answers.filter((status) => status === 202).length, 6);
					assert.equal(answers.filter((status) => status === 200).length, mode === "once" ? 0 : 6);
					assert.equal((await bench.engine.list({ job: id, fence: 1 })).length, 1);
					assert.equal(await publications(id), 1);
					await nothingIsLeft(bench, id, [1]);
				});
			} finally {
				(server as Server | null)?.closeAllConnections();
				(server as Server | null)?.close();
			}
		});
	}

	test("no source comes to the bot's own disk", () => {
		assert.ok(world.calls().some(({ call }) => call === "publish"));
		assert.equal(existsSync(join(folder, "sources")), false);
	});
});
