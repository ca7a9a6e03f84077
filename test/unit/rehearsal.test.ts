import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { loadConfiguration } from "../../src/config/load.ts";
import { readUsersFile } from "../../src/local-hub/users-file.ts";
import { rehearsalSteps } from "../support/rehearsal-steps.ts";

function hereDocument(name: string): string {
	const all = rehearsalSteps()
		.map(({ commands }) => commands)
		.join("\n");
	const found = new RegExp(`^cat > "[^"]*${name}[^"]*" <<'?END'?\\n([\\s\\S]*?)^END$`, "m").exec(all)?.[1];
	assert.ok(found !== undefined, name);
	return found;
}

test("the rehearsal's steps are all there, and a shell can read them", () => {
	const steps = rehearsalSteps();
	const wanted = ["The Hub", "Doctor", "Watch", "A push", "A comment", "Gate, rename, delete", "The end"];
	for (const title of wanted)
		assert.ok(
			steps.some((step) => step.title === title),
			title,
		);
	const all = steps.map(({ commands }) => commands).join("\n");
	const read = spawnSync("bash", ["-n"], { input: all, encoding: "utf8" });
	assert.equal(read.status, 0, read.stderr);
});

test("the rehearsal's two files are ones that the local Hub and the bot take", (t: TestContext) => {
	const folder = mkdtempSync(join(tmpdir(), "yaqa-rehearsal-files-"));
	t.after(() => rmSync(folder, { recursive: true, force: true }));
	const people = join(folder, "people.yaml");
	writeFileSync(people, hereDocument("people.yaml"));
	assert.equal(readUsersFile(people).users.length, 3);
	const configuration = join(folder, "bot.yaml");
	const values: Readonly<Record<string, string>> = {
		HF_ENDPOINT: "http://127.0.0.1:7861",
		BOT: "http://127.0.0.1:7862",
		BOT_PORT: "7862",
		PLACE: folder,
		PWD: join(import.meta.dirname, "../.."),
	};
	writeFileSync(
		configuration,
		hereDocument("YAQA_BOT_CONFIG").replaceAll(/\$([A-Z_]+)/g, (whole, name: string) => values[name] ?? whole),
	);
	const loaded = loadConfiguration({
		path: configuration,
		env: { YAQA_BOT_STAGING_TOKEN: "hf_bot_stage", YAQA_BOT_JOBS_TOKEN: "hf_bot_jobs" },
	});
	assert.ok(loaded.ok, JSON.stringify(loaded));
});
