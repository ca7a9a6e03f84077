// A program that keeps to the runner's protocol without computing anything: `run job.json --out DIR`.
// What it does besides is said by `behaviour.json` in the source folder; by `generation_config.json` where the source
// comes from a Hub, since runs fetch none but a model's own files.
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const [, specPath, , out] = process.argv.slice(2);
const spec = JSON.parse(readFileSync(specPath, "utf8"));
const behaviourPath = ["behaviour.json", "generation_config.json"]
	.map((name) => join(spec.source.path, name))
	.find((path) => existsSync(path));
const behaviour = behaviourPath === undefined ? {} : JSON.parse(readFileSync(behaviourPath, "utf8"));
const { steps = 5, delayMs = 20 } = behaviour;
const onlyFence = behaviour.onlyFence ?? null;
const applies = onlyFence === null || onlyFence === spec.fence;

function emit(event) {
	process.stdout.write(
		`${JSON.stringify({ job: spec.job, fence: spec.fence, at: new Date().toISOString(), ...event })}\n`,
	);
}
const baseOf = ({ base = null }) =>
	base === null ? null : { repo: base.repo, revision: base.revision, license: "apache-2.0" };
const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

process.stderr.write(`environment: ${JSON.stringify(process.env)}\n`);
process.stderr.write(`arguments: ${JSON.stringify(process.argv.slice(2))}\n`);
process.on("SIGTERM", () => {
	if (behaviour.ignoreTerm) return;
	process.exit(75);
});
if (behaviour.started) writeFileSync(behaviour.started, String(process.pid));

emit({ event: "stage", stage: "load", status: "started" });
for (let done = 1; done <= steps; done++) {
	await sleep(delayMs);
	emit({ event: "progress", stage: "round", done, total: steps, unit: "layers", etaSeconds: (steps - done) * 0.1 });
}
if (applies && behaviour.checkpoint) {
	mkdirSync(join(out, "sketch.partial"), { recursive: true });
	writeFileSync(join(out, "sketch.partial", `block-of-${spec.fence}.json`), "{}");
	mkdirSync(join(out, "half-a-variant"), { recursive: true });
}
if (applies && behaviour.hang) await sleep(600_000);
if (applies && behaviour.killItself) process.kill(process.pid, "SIGKILL");
if (applies && behaviour.allocate) {
	const kept = [];
	for (let bytes = 0; bytes < behaviour.allocate; bytes += 16 * 1024 * 1024) {
		kept.push(Buffer.alloc(16 * 1024 * 1024, 1));
		await sleep(10);
	}
	await sleep(60_000);
}
if (applies && behaviour.failure) {
	emit({ event: "result", ok: false, error: { code: behaviour.failure, message: "scripted", remedy: "none" } });
	process.exit(behaviour.exitCode ?? 70);
}
if (applies && behaviour.exitCode !== undefined) process.exit(behaviour.exitCode);

const metrics = {
	klNats: { mean: 0.01, standardError: 0.001, median: 0.005, p90: 0.02, p99: 0.05 },
	topOneAgreement: 0.95,
	perplexity: { original: 10, quantized: 10.1, ratio: 1.01 },
	sequences: 4,
	tokens: 100,
};
const sketchKey = sha256(`${spec.source.repo}@${spec.source.revision}`);
const variants = [];
for (const { id, recipe: parsed } of spec.variants) {
	const recipe = parsed.canonical;
	const directory = recipe.replaceAll(/[^A-Za-z0-9.-]/g, "-");
	mkdirSync(join(out, directory), { recursive: true });
	const bytes = Buffer.from(`weights of ${spec.source.repo}@${spec.source.revision} as ${recipe}`);
	// Cut off, as a disk or a network does it; the manifest tells of the whole.
	writeFileSync(join(out, directory, "model.bin"), behaviour.truncate ? bytes.subarray(0, 5) : bytes);
	const manifest = {
		manifest: 1,
		job: spec.job,
		fence: behaviour.lieAboutFence ? spec.fence + 1 : spec.fence,
		variant: id,
		recipe,
		createdAt: new Date().toISOString(),
		source: {
			repo: spec.source.repo,
			revision: spec.source.revision,
			license: "apache-2.0",
			base: behaviour.base === undefined ? baseOf(spec.source) : behaviour.base,
		},
		files: [{ path: "model.bin", size: bytes.length, sha256: sha256(bytes) }],
		generator: { name: "yaqa-runner", version: "0.0.0" },
		versions: {},
		device: { kind: "cpu", name: "scripted", driver: null },
		seeds: {},
		calibration: { kind: "self", sha256: sha256(""), sequences: 1, length: 8, tokens: 8 },
		sketch: { kind: "a", key: sketchKey, iterations: 6, reused: spec.sketch.reuse !== undefined },
		seconds: {},
		quantizer: "two-sided",
		gate: {
			selection: [{ quantizer: "two-sided", klNats: { mean: 0.01, standardError: 0.001 } }],
			winner: "two-sided",
			reason: "scripted",
		},
		evaluation: {
			convention: "scripted",
			texts: [],
			measured: [{ quantizer: "two-sided", bytes: bytes.length, report: metrics, byDomain: {} }],
		},
		verification: { klNats: 0.01, sequences: 1, positions: 1 },
		layers: [],
		unquantized: [],
	};
	writeFileSync(join(out, directory, "manifest.json"), JSON.stringify(manifest));
	variants.push({ id, recipe, directory });
}
mkdirSync(join(out, "sketch"), { recursive: true });
const factors = Buffer.from(`factors of ${spec.source.repo}`);
writeFileSync(join(out, "sketch", "block-0.safetensors"), factors);
writeFileSync(
	join(out, "sketch", "sketch.json"),
	JSON.stringify({
		key: sketchKey,
		kind: "a",
		iterations: 6,
		calibration: { sha256: sha256(""), sequences: 1, length: 8 },
		files: { "block-0.safetensors": { size: factors.length, sha256: sha256(factors) } },
	}),
);
writeFileSync(join(out, "verification.safetensors"), "scripted");
emit({
	event: "result",
	ok: true,
	variants,
	sketch: { key: sketchKey, directory: "sketch" },
	verification: "verification.safetensors",
});
