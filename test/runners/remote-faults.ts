import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { commit } from "@huggingface/hub";
import { PermanentError, RetryableError } from "../../src/errors.ts";
import type { JobSpec } from "../../src/protocol/job-spec.ts";
import type { RemoteEngine } from "../../src/runners/remote-runner.ts";
import type { Runner } from "../../src/runners/runner.ts";
import { BOT, ended, JOBS, READER, type RemotePlace, STAGER } from "../support/remote-place.ts";
import { until } from "../support/scripted-bot.ts";

/** What goes wrong at the next start of a run, or with the run it starts. */
export type RemoteFault =
	| "bad-gateway-after-accept"
	| "silent-after-accept"
	| "rate-limited"
	| "vanishes"
	| "succeeds-without-result"
	| "expired-token"
	| "not-there";

/** One engine under test, on a service of this machine. */
type RemoteBench = {
	readonly place: RemotePlace;
	/** As a bot that has just started sees it. */
	newRunner(): Runner;
	readonly engine: RemoteEngine;
	arm(fault: RemoteFault): void;
	disarm(): void;
	/** Everything the service tells about its runs, as text. */
	everythingTold(): Promise<string>;
	/** Ends the service, if it is not the Hub itself. */
	close(): Promise<void>;
};

/** Living processes whose command line names the job. */
export function processesOf(job: string): readonly string[] {
	return readdirSync("/proc").filter((name) => {
		if (!/^\d+$/.test(name) || Number(name) === process.pid) return false;
		try {
			return readFileSync(`/proc/${name}/cmdline`, "utf8").includes(job);
		} catch {
			return false;
		}
	});
}

/** As a job's step does: what may pass is tried again. */
async function dispatchAsSteps(runner: Runner, spec: JobSpec): Promise<{ readonly handle: string }> {
	for (let tries = 1; ; tries++) {
		try {
			return await runner.dispatch(spec);
		} catch (error) {
			if (!(error instanceof RetryableError) || tries === 3) throw error;
		}
	}
}

/** The faults that every remote runner has to get over: one run, one result, the right state. */
export function describeRemoteFaults(title: string, start: () => Promise<RemoteBench>): void {
	describe(title, () => {
		let bench: RemoteBench;
		before(async () => {
			bench = await start();
		});
		after(async () => {
			await bench.close();
			await bench.place.close();
		});

		test("a run is started, followed, taken over byte for byte and cleared away; secrets stay secret", async () => {
			const runner = bench.newRunner();
			const spec = await bench.place.specOf({ steps: 4, delayMs: 50 });
			const { handle } = await runner.dispatch(spec);
			assert.equal(await bench.newRunner().find(spec.job, 1), handle);
			const seen: number[] = [];
			const observation = await until("the run to end", async () => {
				const now = await runner.observe(handle);
				for (const { number } of await runner.events(handle, seen.at(-1) ?? 0)) seen.push(number);
				return now.status === "running" ? null : now;
			});
			assert.ok(observation.status === "finished" && observation.result.ok, JSON.stringify(observation));
			assert.deepEqual(seen, [1, 2, 3, 4, 5, 6]);
			assert.deepEqual(
				(await bench.newRunner().events(handle, 2)).map(({ number }) => number),
				[3, 4, 5, 6],
			);
			const to = join(bench.place.folder, "collected", handle);
			await runner.collect(handle, to);
			await runner.collect(handle, to);
			const manifest = JSON.parse(readFileSync(join(to, "gguf-q4-0", "manifest.json"), "utf8"));
			const bytes = readFileSync(join(to, "gguf-q4-0", "model.bin"));
			assert.equal(createHash("sha256").update(bytes).digest("hex"), manifest.files[0].sha256);
			assert.ok(existsSync(join(to, "verification.safetensors")) && existsSync(join(to, "sketch", "sketch.json")));
			const told = await bench.everythingTold();
			for (const secret of [BOT, READER, STAGER, JOBS]) assert.ok(!told.includes(secret));
			// What loads models prints its environment, for this very check.
			assert.match(told, /environment: \{/);
			assert.match(told, /\\?"HF_HUB_OFFLINE\\?":\\?"1/);
			await runner.discard(handle);
			await runner.discard(handle);
			assert.ok(!(await bench.place.stagingRepos()).some((name) => name.includes(spec.job)));
		});

		for (const fault of ["bad-gateway-after-accept", "silent-after-accept", "rate-limited"] as const) {
			test(`${fault}: exactly one run and one result`, async () => {
				const spec = await bench.place.specOf({ steps: 2 });
				bench.arm(fault);
				const runner = bench.newRunner();
				const { handle } = await dispatchAsSteps(runner, spec);
				bench.disarm();
				assert.deepEqual(await bench.newRunner().dispatch(spec), { handle });
				const observation = await ended(runner, handle);
				assert.ok(observation.status === "finished" && observation.result.ok, JSON.stringify(observation));
				assert.equal((await bench.engine.list({ job: spec.job, fence: 1 })).length, 1);
				await runner.discard(handle);
			});
		}

		test("a run that vanishes is lost, and may be tried again", async () => {
			const spec = await bench.place.specOf();
			bench.arm("vanishes");
			const runner = bench.newRunner();
			const { handle } = await runner.dispatch(spec);
			bench.disarm();
			const observation = await ended(runner, handle);
			assert.ok(observation.status === "lost" && observation.retryable, JSON.stringify(observation));
			assert.equal(observation.refusal.code, "runner-lost");
			await runner.cancel(handle);
			await runner.discard(handle);
		});

		test("a run that succeeds without a result is a failure that names who looks at what", async () => {
			const spec = await bench.place.specOf();
			bench.arm("succeeds-without-result");
			const runner = bench.newRunner();
			const { handle } = await runner.dispatch(spec);
			bench.disarm();
			const observation = await ended(runner, handle);
			assert.ok(observation.status === "lost" && !observation.retryable, JSON.stringify(observation));
			assert.match(observation.refusal.message, /delivered no result/);
			assert.match(observation.refusal.remedy, /operator/);
			await runner.discard(handle);
		});

		test("a result with an old fence is no result", async () => {
			const spec = { ...(await bench.place.specOf()), fence: 2 };
			bench.arm("succeeds-without-result");
			const runner = bench.newRunner();
			const { handle } = await runner.dispatch(spec);
			bench.disarm();
			const old = {
				event: "result",
				job: spec.job,
				fence: 1,
				at: new Date().toISOString(),
				ok: true,
				variants: [],
				sketch: { key: "k", directory: "sketch" },
				verification: "verification.safetensors",
			};
			await commit({
				...bench.place.access(STAGER),
				repo: bench.place.staging.repoOf(spec),
				title: "Too late",
				operations: [{ operation: "addOrUpdate", path: "result.json", content: new Blob([JSON.stringify(old)]) }],
			});
			const observation = await ended(runner, handle);
			assert.equal(observation.status, "lost", JSON.stringify(observation));
			await runner.discard(handle);
		});

		test("of two runs of one attempt, one does the work and one is ended", async () => {
			const spec = await bench.place.specOf({ steps: 10, delayMs: 100 });
			const runner = bench.newRunner();
			await bench.place.staging.prepare(spec);
			await Promise.all([1, 2].map(() => bench.engine.start(spec, bench.place.staging.repoOf(spec), { flavor: null })));
			await until("both runs to show", async () =>
				(await bench.engine.list({ job: spec.job, fence: 1 })).length === 2 ? true : null,
			);
			const observations = await until("both runs to end", async () => {
				const runs = await bench.engine.list({ job: spec.job, fence: 1 });
				return runs.every((run) => run.state.kind === "succeeded" || run.state.kind === "ended") ? runs : null;
			});
			assert.equal(observations.filter((run) => run.state.kind === "succeeded").length, 1);
			const { handle } = await runner.dispatch(spec);
			const observation = await ended(runner, handle);
			assert.ok(observation.status === "finished" && observation.result.ok, JSON.stringify(observation));
			assert.deepEqual(
				(await runner.events(handle, 0)).map(({ number }) => number),
				Array.from({ length: 12 }, (_, index) => index + 1),
			);
			await runner.discard(handle);
		});

		test("cancel leaves no run, no process and no staging repo; again is fine", async () => {
			const spec = await bench.place.specOf({ hang: true, ignoreTerm: true, steps: 1 });
			const runner = bench.newRunner();
			const { handle } = await runner.dispatch(spec);
			await until("the program to run", async () => ((await runner.events(handle, 0)).length > 0 ? true : null));
			assert.ok(processesOf(spec.job).length > 0);
			// Another process of the bot does it: one that knows nothing but the handle.
			const other = bench.newRunner();
			await other.cancel(handle);
			assert.deepEqual(processesOf(spec.job), []);
			const runs = await bench.engine.list({ job: spec.job, fence: 1 });
			assert.ok(runs.every((run) => run.state.kind === "ended"));
			await other.cancel(handle);
			assert.equal((await other.observe(handle)).status, "lost");
			await other.discard(handle);
			assert.deepEqual(await bench.place.stagingRepos(), []);
			assert.equal(await other.find("00000000-0000-4000-8000-000000000000", 1), null);
		});

		test("a failure of the program is told in its own words", async () => {
			const spec = await bench.place.specOf({ failure: "out-of-memory", exitCode: 4, steps: 1 });
			const runner = bench.newRunner();
			const { handle } = await runner.dispatch(spec);
			const observation = await ended(runner, handle);
			assert.ok(observation.status === "finished" && !observation.result.ok, JSON.stringify(observation));
			assert.equal(observation.result.error.code, "out-of-memory");
			await runner.discard(handle);
		});

		for (const fault of ["expired-token", "not-there"] as const) {
			test(`${fault}: told with who can mend it`, async () => {
				const spec = await bench.place.specOf();
				bench.arm(fault);
				const runner = bench.newRunner();
				await assert.rejects(runner.dispatch(spec), (error) => {
					assert.ok(error instanceof PermanentError);
					assert.equal(error.refusal.code, "runner-unavailable");
					assert.match(error.refusal.remedy, /operator|owner/i);
					return true;
				});
				bench.disarm();
				await bench.place.staging.discard(spec);
			});
		}
	});
}
