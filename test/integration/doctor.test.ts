import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { checkRunner } from "../../src/cli/check-runner.ts";
import { checkSignIn } from "../../src/cli/check-sign-in.ts";
import { checkPublisherToken, checkReadToken, checkStagingToken } from "../../src/cli/check-tokens.ts";
import { checkWatch, checkWebhook } from "../../src/cli/check-watch.ts";
import type { Finding } from "../../src/cli/finding.ts";
import { runCommand } from "../../src/cli/run-command.ts";
import { ConfigurationFile, type ConfigurationInput } from "../../src/config/schema.ts";
import type { Secrets } from "../../src/config/secrets.ts";
import type { LocalHubUser } from "../../src/local-hub/accounts.ts";
import { registerWebhook } from "../../src/server/register-webhook.ts";
import { call, createRepo, temporaryFolder, testHub } from "../support/local-hub-fixture.ts";
import { NO_SECRETS } from "../support/no-secrets.ts";
import { CLIENT_ID, CLIENT_SECRET, oauthApp } from "../support/oauth-person.ts";
import { recordingTerminal } from "../support/recording-terminal.ts";

const fineGrained = { role: "fineGrained", writeNamespaces: ["quants"] } as const;
const USERS: readonly LocalHubUser[] = [
	{
		name: "owner",
		token: "hf_owner",
		orgs: [
			{ name: "quants", role: "admin" },
			{ name: "readers", role: "admin" },
		],
	},
	{
		name: "yaqa-bot",
		token: "hf_bot_write",
		orgs: [
			{ name: "quants", role: "write" },
			{ name: "staging", role: "admin" },
			{ name: "readers", role: "read" },
		],
		moreTokens: [
			{ token: "hf_bot_right", ...fineGrained, discussions: true, webhooks: true },
			{ token: "hf_bot_repos_alone", ...fineGrained, permissions: ["repo.content.read", "repo.write"] },
			{ token: "hf_bot_looks", ...fineGrained, permissions: ["repo.content.read"], discussions: true, webhooks: true },
			{ token: "hf_bot_read", role: "read" },
			{
				token: "hf_bot_stage",
				...fineGrained,
				writeNamespaces: ["staging"],
				permissions: ["repo.content.read", "repo.write"],
			},
			{ token: "hf_bot_stage_both", ...fineGrained, writeNamespaces: ["staging", "quants"] },
			{ token: "hf_bot_jobs", ...fineGrained, writeNamespaces: ["staging"], permissions: ["job.write"] },
		],
	},
];
const HF_JOBS = {
	kind: "hf-jobs",
	stagingNamespace: "staging",
	hfJobs: { namespace: "staging", image: "registry.example/yaqa-runner:1" },
} as const;

async function setting(t: TestContext, jobs = true) {
	const hub = await testHub(t, { users: USERS, ...(jobs ? { jobs: { programFolders: [] } } : {}) });
	const configured = (more: ConfigurationInput = {}) =>
		ConfigurationFile.parse({ ...more, hub: { url: hub.url, namespace: "quants", ...more.hub } });
	const repos = async (): Promise<number> => {
		const answer = await call(`${hub.url}/api/models`, { token: "hf_owner" });
		return (answer.json as unknown[]).length;
	};
	return { hub, configured, repos };
}

function told(findings: readonly Finding[]): string {
	return findings.map(({ name, state, detail, remedy }) => `${state} ${name}: ${detail} → ${remedy ?? ""}`).join("\n");
}

test("a publisher's token is tried: what it may, what it may not, and what it lacks besides, each with the remedy", async (t: TestContext) => {
	const { configured, repos } = await setting(t);
	const check = async (publisherToken: string, more: ConfigurationInput = {}): Promise<string> =>
		told(await checkPublisherToken(configured(more), { ...NO_SECRETS, webhookSecret: "long-enough", publisherToken }));
	const publicly = { server: { publicUrl: "https://bot.example" } };
	const right = await check("hf_bot_right", publicly);
	assert.match(right, /^fine .*role fineGrained; it made, wrote and deleted a private repo in quants → $/);
	assert.match(await check("hf_bot_write", publicly), /^fine [^\n]*$/);
	const lacking = await check("hf_bot_repos_alone", publicly);
	assert.match(lacking, /^fine .*\nlacking .*discussion\.write: nobody is answered.*\nlacking .*user\.webhooks\.write/);
	assert.match(await check("hf_bot_repos_alone"), /user\.notifications\.read: comments are not found/);
	assert.match(await check("hf_bot_looks"), /^broken .*not given the right to write to quants → Tick "Write access/);
	assert.match(await check("hf_bot_read"), /^broken .*it may not write/);
	assert.match(await check("hf_gone"), /^broken .*does not accept it → It has expired/);
	assert.match(
		await check("hf_bot_write", { hub: { namespace: "nowhere" } }),
		/^broken .*no user or organisation nowhere/,
	);
	assert.match(await check("hf_bot_write", { hub: { namespace: "owner" } }), /^broken .*yaqa-bot is not in owner/);
	assert.match(
		await check("hf_bot_write", { hub: { namespace: "readers" } }),
		/^broken .*role "read" in readers → An admin/,
	);
	assert.match(
		await check("hf_bot_write", { hub: { botUser: "other" } }),
		/\nlacking Bot's account: .*hub\.botUser says "other"/,
	);
	assert.equal(await repos(), 0, "nothing is left behind");
});

test("a refusal that only the trial shows is told, and what a trial could not take away is named", async (t: TestContext) => {
	const { hub, configured } = await setting(t);
	const check = async (): Promise<string> =>
		told(await checkPublisherToken(configured(), { ...NO_SECRETS, publisherToken: "hf_bot_write" }));
	const arm = (path: string, status: number): void =>
		hub.faults.set({ routes: [{ path, kind: "status", status, times: 9 }] });
	arm("/commit/", 403);
	assert.match(await check(), /^broken .*may not write to quants/);
	arm("/repos/create", 402);
	assert.match(await check(), /^broken .*no private repos.*plan/);
	arm("/repos/delete", 403);
	assert.match(await check(), /^lacking .*but not delete.*→ Delete quants\/yaqa-bot-doctor-[0-9a-f]{12}/);
});

test("read and staging tokens: no more rights than they need, staging apart from what is published", async (t: TestContext) => {
	const { configured, repos } = await setting(t);
	const secrets = (more: Partial<Secrets>): Secrets => ({ ...NO_SECRETS, ...more });
	const read = async (readToken: string | null): Promise<string> =>
		told([await checkReadToken(configured(), secrets({ readToken }))]);
	assert.match(await read("hf_bot_read"), /^fine .*it may only read/);
	assert.match(await read("hf_bot_write"), /^lacking .*may write \(everything\)/);
	assert.match(await read("hf_bot_looks"), /^lacking .*may write \(discussion\.write, user\.webhooks\.write/);
	assert.match(await read(null), /^lacking .*not set/);

	const stage = async (stagingToken: string): Promise<string> =>
		told(await checkStagingToken(configured({ runner: HF_JOBS }), secrets({ stagingToken })));
	assert.match(
		await stage("hf_bot_stage"),
		/^fine Staging token.*\nfine Staging is apart: the staging token was refused in quants/,
	);
	assert.match(
		await stage("hf_bot_stage_both"),
		/\nbroken Staging is apart: .*runs are given it → Make a fine-grained one/,
	);
	assert.match(await stage("hf_bot_jobs"), /^broken Staging token.*may not write to staging/);
	assert.equal(await repos(), 0, "nothing is left behind");
});

test("a checkout of llama.cpp that is none is told, with the setting", async (t: TestContext) => {
	const folder = await temporaryFolder(t);
	const runner = { device: "cpu", llamaCpp: folder } as const;
	const checked = async () =>
		(await checkRunner(ConfigurationFile.parse({ runner }), NO_SECRETS)).map(({ state }) => state);
	assert.deepEqual(await checked(), ["broken"]);
	mkdirSync(join(folder, "conversion"));
	writeFileSync(join(folder, "conversion/base.py"), "");
	assert.deepEqual(await checked(), ["fine"]);
});

test("whether the Hub runs jobs is seen before the first one", async (t: TestContext) => {
	const check = async (place: Awaited<ReturnType<typeof setting>>, jobsToken: string): Promise<string> => {
		const secrets = { ...NO_SECRETS, stagingToken: "hf_bot_stage", jobsToken };
		return told(await checkRunner(place.configured({ runner: HF_JOBS }), secrets));
	};
	const place = await setting(t);
	assert.match(
		await check(place, "hf_bot_jobs"),
		/^fine HF Jobs: the token may list and start jobs of staging → \nfine/,
	);
	assert.match(await check(place, "hf_bot_stage"), /^broken HF Jobs: The token may not run jobs for staging/);
	assert.match(await check(await setting(t, false), "hf_bot_jobs"), /^broken HF Jobs: /);
});

test("watched names and the webhook are looked at, not assumed", async (t: TestContext) => {
	const { hub, configured } = await setting(t);
	await createRepo(hub, "owner/old", "hf_owner");
	await createRepo(hub, "owner/kept", "hf_owner");
	const body = { fromRepo: "owner/old", toRepo: "owner/new", type: "model" };
	await call(`${hub.url}/api/repos/move`, { token: "hf_owner", body });
	const secrets = { ...NO_SECRETS, publisherToken: "hf_bot_right", webhookSecret: "long-enough" };
	const watched = async (watch: ConfigurationInput["watch"]): Promise<string> =>
		told(await checkWatch(configured({ watch }), secrets));
	assert.match(await watched({ namespaces: ["owner"], repos: ["owner/kept"] }), /^fine .*all on the Hub/);
	assert.match(
		await watched({ namespaces: ["owner", "gone"], repos: ["owner/old", "owner/nothing"] }),
		/^lacking .*nothing called gone.*\nlacking .*owner\/old is called owner\/new now → .*watch add owner\/new.*\nlacking .*owner\/nothing/,
	);
	const publicUrl = "http://127.0.0.1:9";
	const configuration = configured({ server: { publicUrl }, watch: { namespaces: ["owner"] } });
	const webhook = async (): Promise<string> => told([await checkWebhook(configuration, secrets)]);
	assert.match(await webhook(), /^lacking .*not registered yet/);
	const access = { hubUrl: hub.url, accessToken: "hf_bot_right" };
	const register = async (names: ConfigurationInput["watch"]): Promise<void> => {
		const { watch } = configured({ watch: names });
		await registerWebhook({ hub: access, publicUrl, secret: "long-enough", watch, renewSecret: true });
	};
	await register({ repos: ["owner/kept"] });
	assert.match(await webhook(), /^lacking .*registered, but not for owner/);
	await register({ namespaces: ["owner"] });
	assert.match(await webhook(), /^lacking .*registered for owner; no bot answers at http/);
	const powerless = { ...secrets, publisherToken: "hf_bot_looks" };
	assert.match(told([await checkWebhook(configuration, powerless)]), /^lacking /);
});

test("doctor says what it has found while it still looks", async (t: TestContext) => {
	const { hub } = await setting(t);
	const path = join(await temporaryFolder(t), "bot.yaml");
	const data = join(await temporaryFolder(t), "data");
	const runner = JSON.stringify({ ...HF_JOBS, hfJobs: { ...HF_JOBS.hfJobs, flavor: "cpu-basic" } });
	writeFileSync(
		path,
		`hub: {url: "${hub.url}", namespace: quants}\nserver: {port: 0}\ndatabase: {dataDirectory: "${data}"}\nrunner: ${runner}\n`,
	);
	Object.assign(process.env, {
		YAQA_BOT_HUB_TOKEN: "hf_bot_right",
		YAQA_BOT_STAGING_TOKEN: "hf_bot_stage",
		YAQA_BOT_JOBS_TOKEN: "hf_bot_jobs",
	});
	// The answer about the token is late; what comes before it in the list is not.
	hub.faults.set({ routes: [{ path: "whoami", kind: "slow", delayMilliseconds: 3000, times: 9 }] });
	const times: number[] = [];
	const terminal = recordingTerminal(() => times.push(performance.now()));
	const code = await runCommand(["doctor", "--config", path], terminal);
	const { out } = terminal.said();
	assert.equal(code, 0, out);
	assert.match(out, /^✓ Node /);
	assert.match(out, /\n✓ HF Jobs /);
	assert.match(out, /\n✓ Staging is apart /);
	assert.match(out, /\nThe bot can work\.\n$/);
	assert.ok((times.at(-1) ?? 0) - (times[0] ?? 0) > 1500, times.join(" "));
});

test("whether people can sign in is asked of the Hub: the app, its address and its secret", async (t) => {
	const address = "https://bot.example";
	const hub = await testHub(t, { oauthApps: [oauthApp(`${address}/auth/callback`)] });
	const found = async (publicUrl: string, clientId: string, oauthClientSecret: string, hubUrl = hub.url) => {
		const configuration = ConfigurationFile.parse({
			hub: { url: hubUrl },
			server: { publicUrl },
			signIn: { clientId },
		});
		const findings = await checkSignIn(configuration, { ...NO_SECRETS, oauthClientSecret });
		return findings.map((finding) => `${finding.state}: ${finding.detail} ${finding.remedy ?? ""}`).join("");
	};
	assert.match(
		await found(address, CLIENT_ID, CLIENT_SECRET),
		/^fine: the Hub sends people back to https:\/\/bot\.example\/auth\/callback/,
	);
	const wrong = await found(address, CLIENT_ID, "another secret of the app");
	assert.match(wrong, /^broken: the Hub does not take the app's secret/);
	assert.ok(!wrong.includes("another secret"));
	assert.match(
		await found("https://elsewhere.example", CLIENT_ID, CLIENT_SECRET),
		/^broken: .*add https:\/\/elsewhere\.example\/auth/,
	);
	assert.match(await found(address, "nobody", CLIENT_SECRET), /^broken: the Hub does not take the app's id/);
	assert.match(
		await found(address, CLIENT_ID, CLIENT_SECRET, "http://127.0.0.1:9"),
		/^broken: the Hub does not answer/,
	);
	const configuration = ConfigurationFile.parse({});
	assert.deepEqual(await checkSignIn(configuration, NO_SECRETS), [], "off where no app is named");
});
