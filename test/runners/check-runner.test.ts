import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { checkRunner } from "../../src/cli/check-runner.ts";
import { checkStagingToken } from "../../src/cli/check-tokens.ts";
import { ConfigurationFile, type ConfigurationInput } from "../../src/config/schema.ts";
import type { Secrets } from "../../src/config/secrets.ts";
import { type FakeGitHub, startFakeGitHub } from "../fake-github/fake-github.ts";
import { NO_SECRETS } from "../support/no-secrets.ts";
import { COMPUTE, JOBS, type RemotePlace, root, STAGER, STAGING, startRemotePlace } from "../support/remote-place.ts";

describe("yaqa-bot doctor, of the runner", () => {
	let place: RemotePlace;
	let gitHub: FakeGitHub;
	before(async () => {
		place = await startRemotePlace();
		gitHub = await startFakeGitHub({
			folder: join(place.folder, "github"),
			workflowPath: join(root, "workflows", "quantize.yml"),
			path: place.programFolder,
			variables: {},
			secrets: {},
		});
	});
	after(async () => {
		await gitHub?.close();
		await place?.close();
	});

	async function brokenOnes(
		runner: ConfigurationInput["runner"],
		secrets: Partial<Secrets>,
	): Promise<readonly (readonly [name: string, remedy: string | null])[]> {
		const configuration = ConfigurationFile.parse({
			hub: { url: place.hub.url },
			runner: { stagingNamespace: STAGING, ...runner },
		});
		const given = { ...NO_SECRETS, stagingToken: STAGER, ...secrets };
		const findings = [await checkRunner(configuration, given), await checkStagingToken(configuration, given)].flat();
		return findings.filter(({ state }) => state === "broken").map(({ name, remedy }) => [name, remedy] as const);
	}

	test("HF Jobs: tokens that are not accepted and hardware that is not there are found before the first job", async () => {
		const hfJobs = { namespace: COMPUTE, image: "registry.example/yaqa-runner:1" };
		assert.deepEqual(await brokenOnes({ kind: "hf-jobs", hfJobs }, { jobsToken: JOBS }), []);
		const other = { ...hfJobs, flavor: "abacus" };
		const secrets = { jobsToken: "hf_expired", stagingToken: "hf_expired_too" };
		const broken = new Map(await brokenOnes({ kind: "hf-jobs", hfJobs: other }, secrets));
		assert.match(broken.get("HF Jobs") ?? "", /sets YAQA_BOT_JOBS_TOKEN/);
		assert.match(broken.get("Staging token") ?? "", /make a new one/);
		assert.ok(broken.has("Hardware"));
		const foreign = { ...hfJobs, namespace: "lab" };
		assert.match(
			new Map(await brokenOnes({ kind: "hf-jobs", hfJobs: foreign }, { jobsToken: JOBS })).get("HF Jobs") ?? "",
			/the right to start and manage jobs/,
		);
	});

	test("GitHub Actions: a revoked App and a missing workflow are found before the first job", async () => {
		const { url: apiUrl, repository, appId, privateKey } = gitHub;
		const runner = { kind: "github-actions", githubActions: { apiUrl, repository, appId } } as const;
		const secrets = { gitHubAppKey: privateKey };
		assert.deepEqual(await brokenOnes(runner, secrets), []);
		const elsewhere = { ...runner, githubActions: { ...runner.githubActions, workflow: "other.yml" } };
		assert.match((await brokenOnes(elsewhere, secrets))[0]?.[1] ?? "", /copies workflows\/quantize\.yml/);
		gitHub.arm("revoked");
		assert.match((await brokenOnes(runner, secrets))[0]?.[1] ?? "", /installs the App on that repo/);
		gitHub.disarm();
		assert.equal(gitHub.runs().length, 0);
	});

	test("this machine: a GPU that is asked for and not there is named", async () => {
		const [finding] = await brokenOnes({ kind: "local", device: "cuda", gpus: ["97"] }, {});
		assert.match(finding?.[1] ?? "", /runner\.gpus what `nvidia-smi -L` lists/);
	});
});
