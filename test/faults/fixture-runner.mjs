// In the place of the runner's Python: answers a job with the finished variants of test/fixtures/tiny, which the bot's own
// checks accept, and computes nothing. What goes wrong besides is said by the end of the source's name.
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const [module, verb, specPath, , out] = process.argv.slice(3);
// Anything else that the bot asks a Python for, such as whether runs can be isolated, it does not get here.
if (process.argv[2] !== "-m" || module !== "yaqa_runner" || verb !== "run") process.exit(97);
const spec = JSON.parse(readFileSync(specPath, "utf8"));
const kind = spec.source.repo.split("-").at(-1);
const isFirst = spec.fence === 1;
const TINY = join(import.meta.dirname, "../fixtures/tiny/variants");

const said = (event) => ({ job: spec.job, fence: spec.fence, at: new Date().toISOString(), ...event });
const emit = (event) => process.stdout.write(`${JSON.stringify(said(event))}\n`);
process.on("SIGTERM", () => process.exit(75));

emit({ event: "stage", stage: "load", status: "started" });
if (kind === "crash" && isFirst) process.kill(process.pid, "SIGKILL");
if (kind === "hang" && isFirst) await sleep(600_000);
if (kind === "garbage") {
	process.stdout.write('{"event":"result"\n\u0000\uFFFD\n[]\n{"event":"progress","done":-1}\nnull\n');
	process.stdout.write(`${"x".repeat(200_000)}\n`);
	emit({ event: "result", ok: true, job: "00000000-0000-4000-8000-000000000000", variants: [] });
}
if (kind === "flood") {
	const progress = { event: "progress", stage: "round", total: 5000, unit: "layers", etaSeconds: 1 };
	for (let done = 1; done <= 5000; done++) emit({ ...progress, done });
	for (let line = 0; line < 1000; line++) process.stderr.write(`${"what nobody reads ".repeat(50)}\n`);
}
await sleep(30);

const variants = [];
for (const { id, recipe } of spec.variants) {
	const directory = recipe.canonical.replaceAll(/[^A-Za-z0-9.-]/g, "-");
	const from = join(TINY, directory);
	mkdirSync(join(out, directory), { recursive: true });
	for (const name of readdirSync(from)) copyFileSync(join(from, name), join(out, directory, name));
	const manifest = JSON.parse(readFileSync(join(from, "manifest.json"), "utf8"));
	Object.assign(manifest, {
		job: spec.job,
		fence: kind === "fence" ? spec.fence + 1 : spec.fence,
		variant: id,
		recipe: recipe.canonical,
		createdAt: new Date().toISOString(),
	});
	Object.assign(manifest.source, { repo: spec.source.repo, revision: spec.source.revision });
	if (kind === "hashes") {
		const sha256 = createHash("sha256").update("other bytes").digest("hex");
		for (const file of manifest.files) if (file.path.endsWith(".safetensors")) file.sha256 = sha256;
	}
	writeFileSync(join(out, directory, "manifest.json"), JSON.stringify(manifest));
	variants.push({ id, recipe: recipe.canonical, directory });
}
copyFileSync(join(TINY, "verification.safetensors"), join(out, "verification.safetensors"));
const key = createHash("sha256").update(`${spec.source.repo}@${spec.source.revision}`).digest("hex");
const factors = Buffer.from(`factors of ${key}`);
mkdirSync(join(out, "sketch"), { recursive: true });
writeFileSync(join(out, "sketch", "block-0.safetensors"), factors);
const sha256 = createHash("sha256").update(factors).digest("hex");
writeFileSync(
	join(out, "sketch", "sketch.json"),
	JSON.stringify({
		key,
		kind: "b",
		iterations: 1,
		calibration: { sha256: "a".repeat(64), sequences: 8, length: 16 },
		files: { "block-0.safetensors": { size: factors.length, sha256 } },
	}),
);
emit({
	event: "result",
	ok: true,
	variants,
	sketch: { key, directory: "sketch" },
	verification: "verification.safetensors",
});
