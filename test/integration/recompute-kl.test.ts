import assert from "node:assert/strict";
import { cpSync, existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { cleanEnvironment, venvPython } from "../../demo/stack.ts";
import { bearsOut } from "../../src/cli/recompute-kl.ts";
import { startLocalHub } from "../../src/local-hub/start-local-hub.ts";
import { runBot } from "../support/run-bot.ts";
import { pushTinySource, readTinyManifest, tinyDirectory } from "../support/tiny-variants.ts";

const skip = existsSync(venvPython) ? false : "skipped: no gpu-runner/.venv (npm run setup)";
const OWNER = "hf_owner_of_the_original";
const REPO = "owner/original";

test("a figure bears another out within chance, and when it is lower", () => {
	const of = (mean: number, standardError: number) => ({ mean, standardError });
	assert.ok(bearsOut(of(0.11, 0.01), of(0.1, 0.01)));
	assert.ok(bearsOut(of(0.01, 0.001), of(0.1, 0.001)));
	assert.ok(!bearsOut(of(0.2, 0.01), of(0.1, 0.01)));
});

test("verify --kl measures the files anew, and finds a manifest that promises too much", { skip }, async (context) => {
	const folder = mkdtempSync(join(tmpdir(), "yaqa-kl-"));
	context.after(() => rmSync(folder, { recursive: true, force: true }));
	const hub = await startLocalHub({
		dataDirectory: join(folder, "hub"),
		users: [{ name: "owner", token: OWNER, role: "write" }],
	});
	context.after(() => hub.close());
	const access = { hubUrl: hub.url, accessToken: OWNER };
	const revision = await pushTinySource(access, REPO);
	const manifest = await readTinyManifest("w4a16");
	const source = { ...manifest.source, repo: REPO, revision };
	const claiming = (domain: string, mean: number) => ({
		...manifest.evaluation,
		texts: manifest.evaluation.texts.slice(-1).map((text) => ({ ...text, domain, sequences: 32, length: 128 })),
		measured: manifest.evaluation.measured.map((row) => ({
			...row,
			report: { ...row.report, klNats: { ...row.report.klNats, mean, standardError: 0.008 } },
		})),
	});
	const variants = join(folder, "variants");
	for (const [name, evaluation] of [
		["sound", claiming("self", 0.53)],
		["boasting", claiming("self", 0.005)],
		["others-texts", claiming("prose", 0.005)],
	] as const) {
		cpSync(tinyDirectory("w4a16"), join(variants, name), { recursive: true });
		writeFileSync(join(variants, name, "manifest.json"), JSON.stringify({ ...manifest, source, evaluation }));
	}
	const environment = cleanEnvironment({ HF_ENDPOINT: hub.url });
	const { code, out, err: said } = await runBot(["verify", variants, "--kl", "--json"], environment);
	const report: { variants: { directory: string; verified: boolean; checks: string[] }[] } = JSON.parse(
		out.trim().split("\n").at(-1) ?? "",
	);
	const of = (name: string) => report.variants.find((one) => one.directory.endsWith(name));
	assert.match(of("sound")?.checks.at(-1) ?? said, /^ok: KL 0\.[45].* nats a token on new samples/);
	assert.match(of("boasting")?.checks.at(-1) ?? said, /^failed: KL .* more than chance explains$/);
	assert.equal(of("boasting")?.verified, false);
	assert.match(of("others-texts")?.checks.at(-1) ?? said, /^noted: KL .* which are not public$/);
	assert.equal(of("sound")?.verified, true, said);
	assert.equal(code, 4, said);
});
