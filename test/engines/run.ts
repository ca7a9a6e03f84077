import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { z } from "zod";
import { Manifest } from "../../src/protocol/manifest.ts";
import { parseRecipe } from "../../src/protocol/recipe.ts";
import { PYTHON, QuantizeAnswer, quantize, ROOT, runProgram } from "../support/quantize-command.ts";
import { ENGINES } from "./engines.ts";

/**
 * `npm run test:engines`: every container of the demo model and of tiny architectures, made by `yaqa-bot quantize` and
 * opened in the engines that people run. One table: KL by the manifest and by the engine, over the same tokens.
 */

const Row = z.object({
	model: z.string(),
	recipe: z.string(),
	engine: z.string(),
	manifestKl: z.number().nullable(),
	engineKl: z.number().nullable(),
	tokensEqual: z.boolean().nullable(),
	ok: z.boolean(),
	/** The engine opens no folder of such a model that others open: `note` says why, and another engine judges it. */
	unsupported: z.literal(true).optional(),
	/** Why it is not ok, or why it was not asked. */
	note: z.string(),
});
type Row = z.infer<typeof Row>;

const GGUF = "gguf:q8_0,tune=off,refine=0";
const ONNX = "onnx:q8,tune=off,refine=0";
const PACKED = "w8a16,group=32,tune=off,refine=0";
const GPTQ = "gptq:8,group=32,tune=off,refine=0";
const MLX = "mlx:8bit,group=32,tune=off,refine=0";
const OTHERS = [GGUF, ONNX, PACKED, GPTQ];
const EVERY = [...OTHERS, MLX];
/** The containers that hold each. */
const MODELS: Readonly<Record<string, readonly string[]>> = {
	demo: [
		"gguf:q4_0,tune=off,refine=0",
		"onnx:q4,tune=off,refine=0",
		"w4a16,group=32,tune=off,refine=0",
		"gptq:4,group=32,tune=off,refine=0",
		"mlx:4bit,tune=off,refine=0",
	],
	llama: [...EVERY, "w4a16,group=32,tune=off,refine=0", "gptq:4,group=32,tune=off,refine=0"],
	qwen2: EVERY,
	qwen3: EVERY,
	mistral: EVERY,
	gemma: EVERY,
	// Their windows, and fewer layers than the pattern of them, are none for mlx-lm.
	gemma2: OTHERS,
	gemma3_text: OTHERS,
	phi3: [...EVERY, "gptq:4,group=32,tune=off,refine=0"],
	olmo2: EVERY,
	starcoder2: EVERY,
	gpt2: [GGUF, GPTQ],
	gpt_neox: [GGUF, PACKED, GPTQ],
};
export const SHORT = {
	models: ["llama", "qwen3", "gemma3_text"],
	recipes: [GGUF, ONNX],
	engines: ["llama.cpp", "onnxruntime"],
} as const;

/** Rows of one model in every engine of its containers. */
export async function rowsOf(request: {
	readonly model: string;
	readonly directory: string;
	readonly recipes: readonly string[];
	readonly engines: readonly string[];
	readonly work: string;
	/** Rows of an earlier run that are not asked for again. */
	readonly kept?: readonly Row[];
	readonly onRow?: (row: Row) => Promise<void>;
}): Promise<readonly Row[]> {
	const { model, directory, recipes, engines, work, kept = [], onRow } = request;
	const rows: Row[] = [];
	const add = async (row: Row): Promise<void> => {
		rows.push(row);
		await onRow?.(row);
	};
	const answer = await quantized({ model: directory, recipes, work });
	if ("error" in answer) {
		for (const recipe of recipes) await add(failed(model, recipe, "yaqa-bot quantize", answer.error.message));
		return rows;
	}
	for (const { recipe, message } of answer.refused) await add(failed(model, recipe, "yaqa-bot quantize", message));
	for (const variant of answer.variants) {
		const { recipe } = variant;
		if (!variant.verified) {
			await add(failed(model, recipe, "yaqa-bot quantize", variant.checks.at(-1) ?? "not verified"));
			continue;
		}
		const manifest = Manifest.parse(JSON.parse(await readFile(join(variant.directory, "manifest.json"), "utf8")));
		const parsed = parseRecipe(recipe);
		const container = parsed.ok ? parsed.recipe.name.container : "";
		for (const engine of ENGINES) {
			if (!engine.containers.includes(container) || !engines.includes(engine.name)) continue;
			if (parsed.ok && engine.bits?.includes(parsed.recipe.name.bits) === false) continue;
			if (engine.models?.includes(model) === false) continue;
			const manifestKl = manifest.verification.klNats;
			const known = kept.find((row) => isOfSame(row, { model, recipe, engine: engine.name }));
			if (known !== undefined) {
				await add(known);
				continue;
			}
			const missing = engine.missing();
			if (missing !== null) {
				await add({ ...failed(model, recipe, engine.name, missing), manifestKl });
				continue;
			}
			try {
				const verification = join(work, "quantized", "verification.safetensors");
				const word = await engine.open(variant.directory, manifest, verification);
				const { relative, absoluteNats } = engine.allowance;
				const near = Math.abs(word.engineKl - manifestKl) <= relative * manifestKl + absoluteNats;
				await add({
					model,
					recipe,
					engine: engine.name,
					manifestKl,
					engineKl: word.engineKl,
					tokensEqual: word.tokensEqual,
					ok: near && word.tokensEqual && word.generated,
					note: [word.version, ...(near ? [] : ["another KL"]), ...(word.generated ? [] : ["generates nothing"])].join(
						", ",
					),
				});
			} catch (error) {
				const why = error instanceof Error ? error.message : String(error);
				const known = engine.unsupported?.[model];
				await add(
					known?.word.test(why) === true
						? { ...failed(model, recipe, engine.name, known.why), manifestKl, unsupported: true }
						: { ...failed(model, recipe, engine.name, why), manifestKl },
				);
			}
		}
	}
	return rows;
}

/** Its variants, or those of an earlier run in the same folder. */
async function quantized(request: Parameters<typeof quantize>[0]): Promise<QuantizeAnswer> {
	const path = join(request.work, "answer.json");
	if (existsSync(path)) return QuantizeAnswer.parse(JSON.parse(await readFile(path, "utf8")));
	await rm(request.work, { recursive: true, force: true });
	await mkdir(request.work, { recursive: true });
	const answer = await quantize(request);
	await writeFile(path, JSON.stringify(answer));
	return answer;
}

function failed(model: string, recipe: string, engine: string, note: string): Row {
	return { model, recipe, engine, manifestKl: null, engineKl: null, tokensEqual: null, ok: false, note };
}

/** Tiny models by name; the demo model lies in the checkout. */
export async function makeModels(names: readonly string[], folder: string): Promise<void> {
	const tiny = names.filter((name) => name !== "demo");
	if (tiny.length === 0) return;
	const made = await runProgram(PYTHON, [join(ROOT, "test/engines/make_models.py"), folder, ...tiny]);
	if (made.code !== 0) throw new Error(`the tiny models could not be made: ${made.errors.slice(-1000)}`);
}

function isOfSame(one: Row, other: Pick<Row, "model" | "recipe" | "engine">): boolean {
	return one.model === other.model && one.recipe === other.recipe && one.engine === other.engine;
}

async function keptRows(path: string): Promise<readonly Row[]> {
	return existsSync(path) ? z.array(Row).parse(JSON.parse(await readFile(path, "utf8"))) : [];
}

function shown(row: Row): string {
	const figure = (value: number | null): string => (value === null ? "–" : value.toPrecision(3));
	const tokens = row.tokensEqual === null ? "–" : row.tokensEqual ? "equal" : "DIFFER";
	const note = row.note.replaceAll(/\s+/g, " ").slice(0, 160);
	return `${row.ok ? "✓" : row.unsupported ? "–" : "✗"} ${row.model.padEnd(12)} ${row.recipe.padEnd(36)} ${row.engine.padEnd(16)} ${figure(row.manifestKl).padEnd(10)} ${figure(row.engineKl).padEnd(10)} ${tokens.padEnd(7)} ${note}\n`;
}

async function main(): Promise<number> {
	const { values } = parseArgs({
		options: {
			json: { type: "boolean", default: false },
			short: { type: "boolean", default: false },
			model: { type: "string", multiple: true },
			engine: { type: "string", multiple: true },
			/** A folder that keeps variants and rows: what is there and came out well is not made again. */
			resume: { type: "string" },
		},
	});
	const models = values.model ?? (values.short ? [...SHORT.models] : Object.keys(MODELS));
	const engines = values.engine ?? (values.short ? [...SHORT.engines] : ENGINES.map(({ name }) => name));
	const wanted = ENGINES.filter(({ name }) => engines.includes(name)).flatMap((engine) => engine.containers);
	const folder = values.resume ?? (await mkdtemp(join(tmpdir(), "yaqa-engines-")));
	const rowsPath = join(folder, "rows.json");
	const kept = (await keptRows(rowsPath)).filter(({ ok, unsupported }) => ok || unsupported === true);
	const rows: Row[] = [];
	const onRow = async (row: Row): Promise<void> => {
		rows.push(row);
		process.stderr.write(shown(row));
		// Read anew: another run may keep other engines' rows in the same folder.
		const others = (await keptRows(rowsPath)).filter((one) => !rows.some((made) => isOfSame(made, one)));
		await writeFile(rowsPath, JSON.stringify([...others, ...rows]));
	};
	try {
		await makeModels(
			models.filter((model) => !existsSync(join(folder, model))),
			folder,
		);
		for (const model of models) {
			const recipes = (MODELS[model] ?? []).filter((recipe) => {
				const parsed = parseRecipe(recipe);
				return parsed.ok && wanted.includes(parsed.recipe.name.container);
			});
			const directory = model === "demo" ? join(ROOT, "demo/model") : join(folder, model);
			const work = join(folder, `${model}.work`);
			await rowsOf({ model, directory, recipes, engines, work, kept, onRow });
			if (values.resume === undefined) await rm(work, { recursive: true, force: true });
		}
	} finally {
		if (values.resume === undefined) await rm(folder, { recursive: true, force: true });
	}
	const unsupported = rows.filter((row) => row.unsupported === true);
	const judged = rows.filter((row) => row.unsupported !== true);
	if (values.json) process.stdout.write(`${JSON.stringify({ rows: judged, unsupported })}\n`);
	return judged.every(({ ok }) => ok) ? 0 : 1;
}

if (import.meta.main) process.exitCode = await main();
