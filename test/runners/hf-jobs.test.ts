import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { PermanentError } from "../../src/errors.ts";
import { silentLog } from "../../src/log.ts";
import { createHfJobsEngine, createHfJobsRunner, type HfJobsOptions } from "../../src/runners/hf-jobs.ts";
import type { Runner } from "../../src/runners/runner.ts";
import { call } from "../support/local-hub-fixture.ts";
import {
	BOT,
	COMPUTE,
	ended,
	JOBS,
	READER,
	type RemotePlace,
	STAGER,
	startRemotePlace,
} from "../support/remote-place.ts";
import { describeRemoteFaults, type RemoteFault } from "./remote-faults.ts";

function optionsFor(place: RemotePlace, more: Partial<HfJobsOptions> = {}): HfJobsOptions {
	return {
		hub: place.access(JOBS),
		namespace: COMPUTE,
		image: "registry.example/yaqa-runner:1",
		flavor: "t4-small",
		timeoutSeconds: 120,
		secrets: { stagingToken: STAGER, readToken: READER },
		staging: place.staging,
		log: silentLog,
		timing: { pollMilliseconds: 100, settleMilliseconds: 3000, cancelMilliseconds: 10_000 },
		...more,
	};
}

const START = { method: "POST", path: `/api/jobs/${COMPUTE}$` } as const;

function arm(place: RemotePlace, fault: RemoteFault): void {
	const { faults } = place.hub;
	switch (fault) {
		case "bad-gateway-after-accept":
			faults.set({ routes: [{ ...START, kind: "status-after", status: 502 }] });
			return;
		case "silent-after-accept":
			faults.set({ routes: [{ ...START, kind: "silent-after" }] });
			return;
		case "rate-limited":
			faults.set({ routes: [{ ...START, status: 429, retryAfterSeconds: 0, times: 2 }] });
			return;
		case "vanishes":
			faults.set({ vanishingJobs: 1 });
			return;
		case "succeeds-without-result":
			faults.set({ emptyJobs: 1 });
			return;
		case "expired-token":
			faults.set({ routes: [{ ...START, status: 401 }] });
			return;
		case "not-there":
			faults.set({ routes: [{ ...START, status: 404 }] });
			return;
	}
}

describeRemoteFaults("HF Jobs", async () => {
	const place = await startRemotePlace();
	return {
		place,
		newRunner: () => createHfJobsRunner(optionsFor(place)),
		engine: createHfJobsEngine(optionsFor(place)),
		arm: (fault) => arm(place, fault),
		disarm: () => place.hub.faults.clear(),
		close: async () => undefined,
		async everythingTold() {
			const { url } = place.hub;
			const list = await call(`${url}/api/jobs/${COMPUTE}`, { token: JOBS });
			const ids = (list.json as { id: string }[]).map((job) => job.id);
			const logs = await Promise.all(
				ids.map(async (id) => (await call(`${url}/api/jobs/${COMPUTE}/${id}/logs`, { token: JOBS })).text),
			);
			return [list.text, ...logs].join("\n");
		},
	};
});

describe("HF Jobs alone", () => {
	let place: RemotePlace;
	let runner: Runner;
	before(async () => {
		place = await startRemotePlace();
		runner = createHfJobsRunner(optionsFor(place));
	});
	after(() => place.close());

	test("a log that closes early again and again loses and doubles no event", async () => {
		place.hub.faults.set({ shortJobLogs: { times: 3, lines: 3 } });
		const spec = await place.specOf({ steps: 12, delayMs: 100 });
		const { handle } = await runner.dispatch(spec);
		const seen: number[] = [];
		for (;;) {
			const observation = await runner.observe(handle);
			for (const { number } of await runner.events(handle, seen.at(-1) ?? 0)) seen.push(number);
			if (observation.status !== "running") break;
			await new Promise((resolve) => setTimeout(resolve, 50));
		}
		assert.deepEqual(
			seen,
			Array.from({ length: 14 }, (_, index) => index + 1),
		);
		await runner.discard(handle);
	});

	test("no credits, before or after the start, is told with who pays", async () => {
		place.hub.faults.set({ routes: [{ ...START, status: 402 }] });
		const spec = await place.specOf();
		await assert.rejects(runner.dispatch(spec), /no credits/);
		place.hub.faults.set({ unpaidJobs: 1 });
		const { handle } = await runner.dispatch(spec);
		const observation = await ended(runner, handle);
		assert.ok(observation.status === "lost" && !observation.retryable, JSON.stringify(observation));
		assert.match(observation.refusal.remedy, /adds credits/);
		await runner.discard(handle);
	});

	test("the estimate's choice is the hardware, unless the configuration names one", async () => {
		const [chosen, named] = [await place.specOf({ steps: 1 }), await place.specOf({ steps: 1 })];
		const auto = createHfJobsRunner(optionsFor(place, { flavor: "auto" }));
		await assert.rejects(auto.dispatch(chosen), /No hardware was chosen/);
		const first = await auto.dispatch(chosen, { flavor: "l4x1" });
		const second = await runner.dispatch(named, { flavor: "l4x1" });
		const list = await call(`${place.hub.url}/api/jobs/${COMPUTE}`, { token: JOBS });
		const flavors = new Map(
			(list.json as { flavor: string; labels: Record<string, string> }[]).map((job) => [
				job.labels["yaqa-job"],
				job.flavor,
			]),
		);
		assert.equal(flavors.get(`${chosen.job}.1`), "l4x1");
		assert.equal(flavors.get(`${named.job}.1`), "t4-small");
		for (const { handle } of [first, second]) {
			await ended(runner, handle);
			await runner.discard(handle);
		}
	});

	test("a Hub without jobs refuses the run in words, with what to set, and nothing stays of it", async () => {
		const without = await startRemotePlace({ jobs: false });
		try {
			const spec = await without.specOf();
			const other = createHfJobsRunner(optionsFor(without));
			await assert.rejects(other.dispatch(spec), (error) => {
				assert.ok(error instanceof PermanentError, String(error));
				assert.equal(error.refusal.message, "This Hub runs no jobs.");
				assert.match(error.refusal.remedy, /another runner\.kind/);
				return true;
			});
			const handle = await other.find(spec.job, spec.fence);
			if (handle !== null) await other.discard(handle);
			assert.deepEqual(await without.stagingRepos(), []);
		} finally {
			await without.close();
		}
	});

	test("a flavor that does not exist is refused with the setting to look at", async () => {
		const spec = await place.specOf();
		const other = createHfJobsRunner(optionsFor(place, { flavor: "abacus" }));
		await assert.rejects(other.dispatch(spec), (error) => {
			assert.ok(error instanceof Error && "refusal" in error);
			assert.match(JSON.stringify(error.refusal), /runner\.hfJobs.*abacus/);
			return true;
		});
		await place.staging.discard(spec);
	});

	test("a run that takes too long is ended by the Hub, and told so", async () => {
		const spec = await place.specOf({ hang: true, steps: 1 });
		const other = createHfJobsRunner(optionsFor(place, { timeoutSeconds: 3 }));
		const { handle } = await other.dispatch(spec);
		const observation = await ended(other, handle);
		// Ended by SIGTERM, the program has time to say so; killed outright, the Hub's word counts.
		if (observation.status === "finished") assert.ok(!observation.result.ok);
		else assert.equal(observation.refusal.code, "timed-out");
		await other.discard(handle);
	});

	test("a staging token that is not accepted fails with the variable's name", async () => {
		const spec = await place.specOf();
		const other = createHfJobsRunner(
			optionsFor(place, { secrets: { stagingToken: "hf_wrong_token", readToken: READER } }),
		);
		const { handle } = await other.dispatch(spec);
		const observation = await ended(other, handle);
		assert.ok(observation.status === "lost", JSON.stringify(observation));
		assert.match(observation.refusal.message, /staging token/);
		await other.discard(handle);
	});

	test("the staging token writes nothing but staging repos", async () => {
		for (const name of ["lab/other", "bot/other", `${COMPUTE}/other`]) {
			const [organization, repo] = name.split("/");
			const answer = await call(`${place.hub.url}/api/repos/create`, {
				token: STAGER,
				body: { organization, name: repo },
			});
			assert.equal(answer.status, 403, name);
		}
		assert.equal((await call(`${place.hub.url}/api/jobs/${COMPUTE}`, { token: STAGER })).status, 403);
		assert.equal((await call(`${place.hub.url}/api/jobs/${COMPUTE}`, { token: BOT })).status, 200);
	});
});
