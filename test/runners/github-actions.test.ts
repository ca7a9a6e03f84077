import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { createGitHubAccess } from "../../src/github/github-access.ts";
import { silentLog } from "../../src/log.ts";
import {
	createGitHubActionsEngine,
	createGitHubActionsRunner,
	type GitHubActionsOptions,
} from "../../src/runners/github-actions.ts";
import { type FakeGitHub, type GitHubFault, startFakeGitHub } from "../fake-github/fake-github.ts";
import { ended, READER, type RemotePlace, root, STAGER, STAGING, startRemotePlace } from "../support/remote-place.ts";
import { describeRemoteFaults, type RemoteFault } from "./remote-faults.ts";

async function gitHubFor(place: RemotePlace, stagingToken = STAGER): Promise<FakeGitHub> {
	return await startFakeGitHub({
		folder: join(place.folder, "github"),
		workflowPath: join(root, "workflows", "quantize.yml"),
		path: [place.programFolder, process.env["PATH"] ?? "/usr/bin:/bin"].join(":"),
		variables: { YAQA_STAGING_NAMESPACE: STAGING, HF_ENDPOINT: place.hub.url, YAQA_PUSH_SECONDS: "0.2" },
		secrets: { YAQA_STAGING_TOKEN: stagingToken, YAQA_READ_TOKEN: READER },
	});
}

function optionsFor(place: RemotePlace, gitHub: FakeGitHub): GitHubActionsOptions {
	return {
		github: createGitHubAccess({
			apiUrl: gitHub.url,
			repository: gitHub.repository,
			appId: gitHub.appId,
			privateKey: gitHub.privateKey,
			timeoutMilliseconds: 3000,
		}),
		workflow: "quantize.yml",
		ref: "main",
		staging: place.staging,
		log: silentLog,
		timing: { pollMilliseconds: 100, settleMilliseconds: 3000, cancelMilliseconds: 10_000 },
	};
}

function faultOf(fault: RemoteFault): GitHubFault {
	switch (fault) {
		case "expired-token":
			return "revoked";
		case "not-there":
			return "workflow-missing";
		default:
			return fault;
	}
}

const opened: FakeGitHub[] = [];
describeRemoteFaults("GitHub Actions", async () => {
	const place = await startRemotePlace();
	const gitHub = await gitHubFor(place);
	opened.push(gitHub);
	return {
		place,
		newRunner: () => createGitHubActionsRunner(optionsFor(place, gitHub)),
		engine: createGitHubActionsEngine(optionsFor(place, gitHub)),
		arm: (fault) => gitHub.arm(faultOf(fault)),
		disarm: () => gitHub.disarm(),
		everythingTold: async () =>
			gitHub
				.runs()
				.map((run) => JSON.stringify(run))
				.join("\n"),
		close: () => gitHub.close(),
	};
});

describe("GitHub Actions alone", () => {
	let place: RemotePlace;
	let gitHub: FakeGitHub;
	before(async () => {
		place = await startRemotePlace();
		gitHub = await gitHubFor(place);
		opened.push(gitHub);
	});
	after(async () => {
		await gitHub?.close();
		await place?.close();
	});

	test("a server that does not name the run it started still gives one run", async () => {
		gitHub.arm("no-run-details");
		const spec = await place.specOf({ steps: 1 });
		const runner = createGitHubActionsRunner(optionsFor(place, gitHub));
		const { handle } = await runner.dispatch(spec);
		const observation = await ended(runner, handle);
		assert.ok(observation.status === "finished" && observation.result.ok);
		assert.equal(gitHub.runs().length, 1);
		await runner.discard(handle);
	});

	test("a run that no machine takes is given up, cancelled, and told with who starts one", async () => {
		gitHub.arm("never-taken");
		const spec = await place.specOf();
		const options = optionsFor(place, gitHub);
		const runner = createGitHubActionsRunner({ ...options, timing: { ...options.timing, queueMilliseconds: 300 } });
		const { handle } = await runner.dispatch(spec);
		const observation = await ended(runner, handle);
		assert.ok(observation.status === "lost" && !observation.retryable);
		assert.equal(observation.refusal.code, "runner-unavailable");
		assert.match(observation.refusal.remedy, /Whoever keeps those machines starts one/);
		assert.equal(gitHub.runs().at(-1)?.conclusion, "cancelled");
		await runner.discard(handle);
	});

	test("a run that a plain cancel does not end is forced", async () => {
		gitHub.arm("needs-force");
		const spec = await place.specOf({ hang: true, steps: 1 });
		const options = optionsFor(place, gitHub);
		const runner = createGitHubActionsRunner({ ...options, timing: { ...options.timing, cancelMilliseconds: 300 } });
		const { handle } = await runner.dispatch(spec);
		await runner.cancel(handle);
		const run = gitHub.runs().at(-1);
		assert.deepEqual([run?.cancels, run?.conclusion], [["plain", "force"], "cancelled"]);
		await runner.discard(handle);
	});

	test("what a failed run printed is told with the failure, as long as GitHub has it", async () => {
		const other = await gitHubFor(place, "hf_wrong_token");
		opened.push(other);
		try {
			for (const fault of [null, "logs-gone"] as const) {
				if (fault !== null) other.arm(fault, 10);
				const spec = await place.specOf();
				const runner = createGitHubActionsRunner(optionsFor(place, other));
				const { handle } = await runner.dispatch(spec);
				const observation = await ended(runner, handle);
				assert.ok(observation.status === "lost", JSON.stringify(observation));
				assert.equal(/staging token/.test(observation.refusal.message), fault === null, observation.refusal.message);
				assert.match(observation.refusal.remedy, /operator looks at the log/);
				await runner.discard(handle);
			}
		} finally {
			await other.close();
		}
	});

	test("the job's identity is the only input, and what is none never reaches a shell", async () => {
		const { github, workflow } = optionsFor(place, gitHub);
		const before = gitHub.runs().length;
		await github.request(
			"POST /repos/{owner}/{repo}/actions/workflows/{workflow_id}/dispatches",
			{ workflow_id: workflow, ref: "main", inputs: { job: '"; touch pwned; echo "', fence: "1" } },
			{ repeatable: false },
		);
		const run = gitHub.runs()[before];
		while (run?.status !== "completed") await new Promise((resolve) => setTimeout(resolve, 50));
		assert.equal(run.conclusion, "failure");
		assert.deepEqual(run.log, ["Not a job's id."]);
	});
});

test("requests and answers kept to GitHub's own description", () => {
	assert.equal(opened.length, 3);
	assert.deepEqual(
		opened.flatMap((gitHub) => gitHub.breaches),
		[],
	);
});
