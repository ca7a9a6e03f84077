import { rm } from "node:fs/promises";
import { join } from "node:path";
import { parseRecipe } from "../../src/protocol/recipe.ts";
import { manifestOf } from "../../src/verify/manifest-checks.ts";
import { onnxGraphPath } from "../../src/verify/onnx-checks.ts";
import { onnxKl } from "../../src/verify/onnx-kl.ts";
import { verifyVariant } from "../../src/verify/verify-variant.ts";
import type { startWorker, WorkerRow } from "./worker.ts";

/** One kind of model in one container. */
export type Row = {
	readonly architecture: string;
	readonly container: string;
	readonly recipe: string;
	/**
	 * `ok`: the engine computes what the manifest says. `refused`: by name, before anything was computed. `late`: refused
	 * after that. `wrong`: the engine, or the bot's verification, says otherwise. `crashed`: a bug in the runner.
	 */
	readonly outcome: "ok" | "refused" | "late" | "wrong" | "crashed";
	readonly engine: string | null;
	readonly manifestKl: number | null;
	readonly engineKl: number | null;
	/** Of the source's numbers, how many are quantized. */
	readonly share: number | null;
	readonly kept: readonly string[];
	readonly note: string;
};
/** `unmade`: why the tiny model could not be made. */
export type KindResult = { readonly rows: readonly Row[]; readonly unmade: string | null };

export const CONTAINERS = ["gguf", "onnx", "compressed-tensors", "gptq"] as const;
/** llama.cpp rounds activations to 8 bits as well; the others compute the decoded weights in another order of sums. */
const ALLOWANCE: Readonly<Record<string, { readonly relative: number; readonly absoluteNats: number }>> = {
	gguf: { relative: 1.5, absoluteNats: 2e-4 },
};
const USUAL_ALLOWANCE = { relative: 0.02, absoluteNats: 1e-6 };
const LIMITS = { milliseconds: 120_000, memoryBytes: 3e9, threads: 1 } as const;
const POLICY = { unmeasured: "refuse", floor: [] } as const;

/** All containers of one kind, each judged. The kind's folder is removed. */
export async function rowsOfKind(
	worker: ReturnType<typeof startWorker>,
	folder: string,
	kind: string,
	containers: readonly string[] = CONTAINERS,
): Promise<KindResult> {
	const made = await worker.quantize(kind, containers);
	try {
		if ("ended" in made) {
			return {
				rows: containers.map((container) => ({ ...blank(kind, container), outcome: "crashed", note: made.ended })),
				unmade: null,
			};
		}
		const rows: Row[] = [];
		for (const row of made.rows) rows.push(await judged(kind, row));
		return { rows, unmade: made.unmade ?? null };
	} finally {
		await rm(join(folder, kind), { recursive: true, force: true });
	}
}

function blank(architecture: string, container: string, recipe = ""): Row {
	return {
		architecture,
		container,
		recipe,
		outcome: "wrong",
		engine: null,
		manifestKl: null,
		engineKl: null,
		share: null,
		kept: [],
		note: "",
	};
}

async function judged(kind: string, found: WorkerRow): Promise<Row> {
	const base: Row = {
		...blank(kind, found.container, found.recipe),
		engine: found.engine ?? null,
		manifestKl: found.manifestKl ?? null,
		engineKl: found.engineKl ?? null,
		share: found.share ?? null,
		kept: found.kept ?? [],
		note: found.note ?? "",
	};
	if (found.outcome !== "finished") return { ...base, outcome: found.outcome };
	const { folder = "", verification = "" } = found;
	if ((found.unaccounted ?? []).length > 0) {
		return { ...base, note: `not accounted for: ${(found.unaccounted ?? []).slice(0, 3).join(", ")}` };
	}
	const parsed = parseRecipe(found.recipe);
	if (!parsed.ok) throw new Error(`${found.recipe} is no recipe`);
	const manifest = await manifestOf(folder);
	const verified = await verifyVariant({
		directory: folder,
		manifest,
		recipe: parsed.recipe,
		verificationPath: verification,
		policy: POLICY,
		limits: LIMITS,
	});
	if (!verified.ok) return { ...base, note: verified.refusal.message };
	const word = await engineWord(found, folder, verification, verified.manifest);
	if (word === null) return { ...base, note: "no engine measured it" };
	const { relative, absoluteNats } = ALLOWANCE[found.container] ?? USUAL_ALLOWANCE;
	const claimed = manifest.verification.klNats;
	const near = Math.abs(word.engineKl - claimed) <= relative * claimed + absoluteNats;
	return { ...base, ...word, outcome: near ? "ok" : "wrong", note: near ? "" : "the engine computes another KL" };
}

async function engineWord(
	found: WorkerRow,
	folder: string,
	verificationPath: string,
	manifest: Awaited<ReturnType<typeof manifestOf>>,
): Promise<{ readonly engine: string; readonly engineKl: number } | null> {
	if (found.container === "gguf") {
		const { engine } = manifest;
		return engine == null ? null : { engine: "llama.cpp", engineKl: engine.klNats.mean };
	}
	if (found.container === "onnx") {
		const graphPath = join(folder, onnxGraphPath(manifest));
		const result = await onnxKl({ graphPath, verificationPath, limits: LIMITS });
		return result.ok ? { engine: "onnxruntime", engineKl: result.kl.klNats } : null;
	}
	const { engine, engineKl } = found;
	return engine === undefined || engineKl === undefined ? null : { engine, engineKl };
}
