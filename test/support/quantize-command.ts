import { spawn } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";

export const ROOT = join(import.meta.dirname, "../..");
export const PYTHON = join(ROOT, "gpu-runner/.venv/bin/python");

export type Output = { readonly code: number | null; readonly out: string; readonly errors: string };

/** Runs a program with one thread for its sums, and keeps what it says. */
export function runProgram(
	command: string,
	args: readonly string[],
	environment: Readonly<Record<string, string>> = {},
): Promise<Output> {
	return new Promise((resolve, reject) => {
		const child = spawn(command, args, {
			cwd: ROOT,
			stdio: ["ignore", "pipe", "pipe"],
			env: { ...process.env, OMP_NUM_THREADS: "1", OMP_WAIT_POLICY: "PASSIVE", HF_HUB_OFFLINE: "1", ...environment },
		});
		let out = "";
		let errors = "";
		child.stdout.setEncoding("utf8").on("data", (text: string) => {
			out += text;
		});
		child.stderr.setEncoding("utf8").on("data", (text: string) => {
			errors = (errors + text).slice(-20_000);
		});
		child.on("error", reject);
		child.on("close", (code) => resolve({ code, out, errors }));
	});
}

const Report = z.object({
	recipe: z.string(),
	directory: z.string(),
	verified: z.boolean(),
	checks: z.array(z.string()),
	files: z.array(z.object({ path: z.string() })),
	klNats: z.object({ mean: z.number() }).nullable(),
});
export const QuantizeAnswer = z.union([
	/** `ok` is false where a variant did not pass, or a recipe cannot hold the model. */
	z.object({
		ok: z.boolean(),
		variants: z.array(Report),
		refused: z.array(z.object({ recipe: z.string(), message: z.string() })),
	}),
	z.object({ ok: z.literal(false), error: z.object({ message: z.string() }) }),
]);
export type QuantizeAnswer = z.infer<typeof QuantizeAnswer>;

/** Small calibration and evaluation: the models are tiny, and it is the files that are judged. */
const SMALL = {
	quantization: {
		calibration: { sequences: 8, length: 48 },
		evaluation: { sequences: 4, length: 48, verificationSequences: 4 },
		sketch: { iterations: 1 },
	},
};

/** `yaqa-bot quantize MODEL RECIPE…` as people run it, with its JSON answer. */
export async function quantize(request: {
	readonly model: string;
	readonly recipes: readonly string[];
	/** A folder for what it writes. */
	readonly work: string;
}): Promise<QuantizeAnswer> {
	const { model, recipes, work } = request;
	const configuration = join(work, "yaqa-bot.json");
	await writeFile(configuration, JSON.stringify(SMALL));
	const { out, errors } = await runProgram(process.execPath, [
		join(ROOT, "bin/yaqa-bot.mjs"),
		"quantize",
		model,
		...recipes.flatMap((recipe) => ["--recipe", recipe]),
		"--config",
		configuration,
		"--output",
		join(work, "quantized"),
		"--json",
	]);
	const line = out.trim().split("\n").at(-1) ?? "";
	try {
		return QuantizeAnswer.parse(JSON.parse(line));
	} catch (error) {
		throw new Error(`quantize answered ${JSON.stringify(line.slice(0, 400))}; ${errors.slice(-2000)}`, {
			cause: error,
		});
	}
}
