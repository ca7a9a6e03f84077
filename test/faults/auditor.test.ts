import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { PGlite } from "@electric-sql/pglite";
import { createRepo, uploadFiles } from "@huggingface/hub";
import { createDiscussion } from "../../src/hub/create-discussion.ts";
import { startLocalHub } from "../../src/local-hub/start-local-hub.ts";

const OWNER = "hf_owner_token";
const BOT = "hf_bot_token";

/** An auditor that finds nothing proves something only when it finds what is there. */
test("the auditor of the storm finds what was lost, doubled and told", async (context) => {
	const folder = mkdtempSync(join(tmpdir(), "yaqa-audit-"));
	context.after(() => rmSync(folder, { recursive: true, force: true }));
	const hub = await startLocalHub({
		dataDirectory: join(folder, "hub"),
		users: [
			{ name: "owner", token: OWNER, role: "write" },
			{ name: "bot", token: BOT, role: "write" },
		],
	});
	context.after(() => hub.close());
	const access = (accessToken: string) => ({ hubUrl: hub.url, accessToken });
	const file = (path: string, value: unknown) => ({ path, content: new Blob([JSON.stringify(value)]) });
	const source = async (repo: string): Promise<string> => {
		await createRepo({ ...access(OWNER), repo, visibility: repo.endsWith("private") ? "private" : "public" });
		return (await uploadFiles({ ...access(OWNER), repo, files: [file("config.json", {})] }))?.commit.oid ?? "";
	};
	const heads = new Map<string, string>();
	for (const name of ["sound-good", "missed-good", "behind-good", "secret-private", "liar-hashes"]) {
		heads.set(`owner/${name}`, await source(`owner/${name}`));
	}
	const publish = async (name: string, job: string, revision: string, times: number): Promise<void> => {
		const target = `bot/${name}-YAQA-W4A16`;
		await createRepo({ ...access(BOT), repo: target, visibility: "public" });
		for (let time = 0; time < times; time++) {
			const manifest = { job, source: { repo: `owner/${name}`, revision } };
			await uploadFiles({
				...access(BOT),
				repo: target,
				files: [file("manifests/w4a16.json", manifest), file("README.md", { time, about: "secret-private" })],
				commitTitle: "Publish w4a16",
			});
		}
	};
	const head = (name: string): string => heads.get(`owner/${name}`) ?? "";
	await publish("sound-good", "sound", head("sound-good"), 1);
	await publish("behind-good", "behind", "0".repeat(40), 2);
	await publish("liar-hashes", "liar", head("liar-hashes"), 1);
	for (const title of ["Status", "Status again"]) {
		await createDiscussion({ ...access(BOT), repo: "owner/sound-good", title, description: "Done." });
	}
	await createRepo({ ...access(BOT), repo: "bot/staging-1", visibility: "private" });
	const database = await PGlite.create(join(folder, "database"));
	await database.exec(`
		create table deliveries (dedupe_key text, outcome text, detail text);
		create table jobs (id text, source_repo text, source_sha text, state text, status_text text);
		insert into deliveries values ('id:kept', 'accepted', null), ('id:given-up', 'failed', 'why')`);
	const rows: readonly (readonly [string, string, string])[] = [
		["sound", "sound-good", "done"],
		["sound-2", "sound-good", "done"],
		["behind", "behind-good", "running"],
		["secret", "secret-private", "done"],
		["liar", "liar-hashes", "done"],
	];
	for (const [id, name, state] of rows) {
		await database.query("insert into jobs values ($1, $2, $3, $4, '')", [id, `owner/${name}`, head(name), state]);
	}
	await database.close();
	const path = join(folder, "audit.json");
	writeFileSync(
		path,
		JSON.stringify({
			database: { directory: join(folder, "database") },
			hubUrl: hub.url,
			ownerToken: OWNER,
			botToken: BOT,
			botName: "bot",
			secrets: [BOT],
			accepted: ["kept", "given-up", "never-stored"],
			sources: [...heads].map(([repo, sha]) => ({ repo, head: sha })),
			issues: [
				{
					number: 3,
					comments: [
						{ id: 11, login: "maintainer", body: "@yaqa-bot status" },
						{ id: 12, login: "maintainer", body: "@yaqa-bot quantize" },
						{ id: 13, login: "maintainer", body: "@yaqa-bot plan" },
						{ id: 14, login: "yaqa-bot[bot]", body: `<!-- yaqa-bot: {"comment":"12","state":"running"} -->` },
						{ id: 15, login: "yaqa-bot[bot]", body: `<!-- yaqa-bot: {"comment":"13","state":"answered"} -->` },
						{ id: 16, login: "yaqa-bot[bot]", body: `<!-- yaqa-bot: {"comment":"13","state":"answered"} -->` },
					],
				},
			],
			publicPages: [{ where: "/jobs", text: `token ${BOT}` }],
		}),
	);
	const auditor = join(import.meta.dirname, "auditor.ts");
	// Not the synchronous call: the Hub that it asks is in this process.
	const { stdout: said } = await promisify(execFile)(process.execPath, [auditor, path]);
	const found: Record<string, string[]> = JSON.parse(said);
	const all = (kind: string): string => (found[kind] ?? []).join("\n");
	for (const lost of [
		/delivery given-up is failed/,
		/delivery never-stored was answered and is not there/,
		/behind-good@\w+ is running, not done/,
		/missed-good@\w+ has no job/,
		/secret-private has 0 published repos/,
		/bot\/behind-good-YAQA-W4A16 holds 0{40}/,
		/liar-hashes@\w+ is done, not failed/,
		/comment 11 in issue 3 has no answer: @yaqa-bot status/,
		/the answer to comment 12 in issue 3 stays running/,
	]) {
		assert.match(all("lost"), lost);
	}
	for (const doubled of [
		/2 jobs of owner\/sound-good@/,
		/behind-good-YAQA-W4A16 has two commits/,
		/owner\/sound-good has 2 discussions/,
		/bot\/staging-1 was left over/,
		/comment 13 in issue 3 has 2 answers/,
	]) {
		assert.match(all("duplicates"), doubled);
	}
	for (const told of [/\/jobs tells hf_bot_…/, /README\.md tells secret-private/, /published from a run that lied/]) {
		assert.match(all("leaks"), told);
	}
	assert.doesNotMatch(all("lost"), /delivery kept|sound-good/);
});
