import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { ROOT } from "../support/quantize-command.ts";
import { kindsToTry } from "./kinds.ts";
import { modelsPage } from "./models-page.ts";
import { CONTAINERS, type KindResult, type Row, rowsOfKind } from "./rows.ts";
import { startWorker } from "./worker.ts";

/**
 * `npm run test:models`: a tiny checkpoint of every architecture in every container, each judged by the engine that
 * people run it with. Takes up where it was ended; `--fresh` begins anew; `--kind NAME` tries some alone.
 */

const USAGE = `Usage: npm run test:models -- [--json] [--fresh] [--kind NAME]… [--container NAME]… [--log]

Writes docs/models.md when all kinds were tried. The last line with --json sums all of them up.
`;
const CACHE = join(ROOT, ".cache/models.json");
/** What every row depends on. */
const SOURCES = [
	"gpu-runner/yaqa_runner",
	"gpu-runner/tests/tiny_architectures.py",
	"gpu-runner/tests/tiny_checkpoints.py",
	"src/verify",
	"test/engines/open_folder.py",
	"test/models/quantize_kinds.py",
	"test/models/rows.ts",
	"test/models/worker.ts",
];
/** What rows of one container alone depend on. */
const OF_CONTAINER: Readonly<Record<(typeof CONTAINERS)[number], RegExp>> = {
	gguf: /formats\/gguf\/|verify\/(gguf|llama-cpp)-/,
	onnx: /formats\/onnx\/|verify\/onnx-/,
	"compressed-tensors": /formats\/compressed_tensors\/|verify\/compressed-tensors-/,
	gptq: /formats\/gptq\/|verify\/gptq-/,
};

/** A digest of what the rows of each container depend on. */
async function fingerprints(): Promise<ReadonlyMap<string, string>> {
	const digests = new Map(CONTAINERS.map((container) => [container, createHash("sha256")]));
	for (const source of SOURCES) {
		const found = /\.(py|ts)$/.test(source)
			? [source]
			: (await readdir(join(ROOT, source), { recursive: true }))
					.filter((path) => /\.(py|ts|json)$/.test(path))
					.sort()
					.map((path) => join(source, path));
		for (const path of found) {
			const content = await readFile(join(ROOT, path));
			const own = CONTAINERS.find((container) => OF_CONTAINER[container].test(path));
			for (const [container, digest] of digests) {
				if (own === undefined || own === container) digest.update(`${path}\0`).update(content);
			}
		}
	}
	return new Map([...digests].map(([container, digest]) => [container, digest.digest("hex")]));
}

/** Rows found before, by kind and container, each under the digest of what it depends on. */
type Cache = Record<string, { readonly unmade: string | null; readonly rows: Record<string, CachedRow> }>;
type CachedRow = { readonly key: string; readonly row: Row };

async function readCache(): Promise<Cache> {
	const text = await readFile(CACHE, "utf8").catch(() => null);
	return text === null ? {} : (JSON.parse(text) as Cache);
}

function shown(row: Row): string {
	const figure = (value: number | null): string => (value === null ? "–" : value.toPrecision(3));
	const note = row.note.replaceAll(/\s+/g, " ").slice(0, 200);
	return `${row.outcome.padEnd(8)} ${row.architecture.padEnd(20)} ${row.container.padEnd(19)} ${figure(row.manifestKl).padEnd(9)} ${figure(row.engineKl).padEnd(9)} ${note}\n`;
}

/** The last line of `--json`. */
export function summary(results: ReadonlyMap<string, KindResult>) {
	const rows = [...results.values()].flatMap((result) => result.rows);
	const count = (outcome: Row["outcome"]): number => rows.filter((row) => row.outcome === outcome).length;
	return {
		checkpoints: [...results.values()].filter(({ unmade }) => unmade === null).length,
		architectures: new Set(rows.map(({ architecture }) => architecture.replace(/:.*/, ""))).size,
		ok: Object.fromEntries(
			CONTAINERS.map((container) => [
				container,
				rows.filter((row) => row.container === container && row.outcome === "ok").length,
			]),
		),
		refused: count("refused"),
		late: count("late"),
		wrong: count("wrong"),
		crashed: count("crashed"),
		rows,
	};
}

async function main(): Promise<number> {
	const { values } = parseArgs({
		options: {
			json: { type: "boolean", default: false },
			fresh: { type: "boolean", default: false },
			log: { type: "boolean", default: false },
			help: { type: "boolean", short: "h", default: false },
			kind: { type: "string", multiple: true },
			container: { type: "string", multiple: true },
		},
	});
	if (values.help) {
		process.stdout.write(USAGE);
		return 0;
	}
	const some = values.kind !== undefined || values.container !== undefined;
	const known = await kindsToTry();
	const kinds = values.kind ?? Object.keys(known);
	const current = await fingerprints();
	const keyOf = (kind: string, container: string): string => `${current.get(container)} ${known[kind]}`;
	const cache = values.fresh ? {} : await readCache();
	const folder = await mkdtemp(join(tmpdir(), "yaqa-models-"));
	const worker = startWorker(folder, { showLog: values.log });
	const results = new Map<string, KindResult>();
	try {
		for (const kind of kinds) {
			const before = cache[kind];
			const wanted = (values.container ?? CONTAINERS).filter(
				(container) => some || before?.rows[container]?.key !== keyOf(kind, container),
			);
			const fresh = wanted.length === 0 ? null : await rowsOfKind(worker, folder, kind, wanted);
			const found: Record<string, CachedRow> = { ...before?.rows };
			for (const row of fresh?.rows ?? []) found[row.container] = { key: keyOf(kind, row.container), row };
			const kept = { unmade: fresh === null ? (before?.unmade ?? null) : fresh.unmade, rows: found };
			const rows = CONTAINERS.flatMap((container) => found[container]?.row ?? []).filter(
				({ container }) => !some || wanted.includes(container),
			);
			const result = { unmade: kept.unmade, rows: kept.unmade === null ? rows : [] };
			results.set(kind, result);
			if (result.unmade !== null) process.stderr.write(`unmade   ${kind.padEnd(20)} ${result.unmade}\n`);
			for (const row of result.rows) process.stderr.write(shown(row));
			cache[kind] = kept;
			await mkdir(join(ROOT, ".cache"), { recursive: true });
			await writeFile(CACHE, JSON.stringify(cache));
		}
	} finally {
		await worker.end();
		await rm(folder, { recursive: true, force: true });
	}
	const found = summary(results);
	if (!some) await writeFile(join(ROOT, "docs/models.md"), modelsPage(results));
	const { rows, ...totals } = found;
	process.stderr.write(`${JSON.stringify(totals)}\n`);
	if (values.json) process.stdout.write(`${JSON.stringify(found)}\n`);
	return rows.every(({ outcome }) => outcome === "ok" || outcome === "refused") ? 0 : 1;
}

if (import.meta.main) process.exitCode = await main();
