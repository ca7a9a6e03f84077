import { readFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { parseJson } from "../parse-json.ts";
import type { EngineFigures } from "../protocol/manifest.ts";
import { type ChildAnswer, type ChildLimits, runLimitedChild } from "./limited-child.ts";
import { FRAGILE_KERNELS, kernelsOf, otherKernels } from "./llama-cpp-kernels.ts";

const Compared = z.object({ klNats: z.number(), agreeing: z.int(), positions: z.int().min(1) });
const Ids = z.array(z.int());
const TokenizerComparison = z.object({
	texts: z.int(),
	different: z.array(z.object({ kind: z.string(), text: z.string(), expected: Ids, found: Ids })),
	/** `null` where they agree: how the tokenizer begins and ends a prompt, and which token ends a text. */
	opening: z.object({ expected: Ids, found: Ids }).nullable(),
	end: z.object({ expected: z.int(), found: z.int().nullable() }).nullable(),
});
export type TokenizerComparison = z.infer<typeof TokenizerComparison>;

const Measured = z.object({
	version: z.string().max(60),
	library: z.string().max(4096).nullable(),
	sequences: z.array(Compared).min(1),
	window: Compared.nullable(),
	tokenizer: TokenizerComparison.nullable(),
	greedy: z.object({ tokens: z.int(), equal: z.int() }).nullable(),
});
export type LlamaCppMeasurement = z.infer<typeof Measured>;

const LlamaCppAnswer = z.union([
	Measured,
	z.object({ version: z.string().max(60), loaded: z.literal(true) }),
	z.object({ missing: z.string() }),
	z.object({ error: z.string() }),
]);

/** What the child says as soon as the engine is open: the path of its library of kernels. */
const Opened = z.object({ library: z.string().max(4096).nullable() });

/** Which kernels computed, `zen4`; `ended`: those for this processor, which died of the file that others run. */
export type Kernels = NonNullable<EngineFigures["kernels"]>;

export type LlamaCppVerdict =
	| {
			readonly kind: "measured";
			readonly version: string;
			/** `null` where the system does not tell. */
			readonly kernels: Kernels | null;
			readonly measurement: LlamaCppMeasurement;
	  }
	/** It loads; there was nothing to measure against. */
	| { readonly kind: "loaded"; readonly version: string }
	/** The file is at fault: llama.cpp would not load or run it, or died of it. */
	| { readonly kind: "refused"; readonly reason: string }
	/** The engine is not on this machine. */
	| { readonly kind: "missing"; readonly reason: string };

export const LLAMA_CPP_REMEDY =
	"Run `npm run setup`: it installs the package node-llama-cpp with llama.cpp for the processor (Linux, macOS and Windows).";

/** The engine's own binary, beside its libraries of kernels. */
const ADDON = "llama-addon.node";
const CHILD = fileURLToPath(new URL("./llama-cpp-child.ts", import.meta.url));

/** Version of the npm package that brings llama.cpp, or `null` where it is not installed. */
export function llamaCppPackageVersion(): string | null {
	try {
		const record = new URL("../package.json", import.meta.resolve("node-llama-cpp"));
		return z.object({ version: z.string() }).parse(parseJson(readFileSync(record))).version;
	} catch {
		return null;
	}
}

/**
 * llama.cpp's own word on a GGUF file, in a child process: it may abort of a file that it does not like. Where the
 * kernels that it chose are known to abort of good files, it is asked once more without them, within the same limits.
 */
export async function judgeWithLlamaCpp(request: {
	/** The file, or the first of its parts; `null`: only the engine is opened. */
	readonly modelPath: string | null;
	/** `null`: the file is only loaded. */
	readonly verificationPath: string | null;
	readonly limits: ChildLimits;
	readonly signal?: AbortSignal;
	/** Kernels whose abort is not yet the file's fault. */
	readonly fragile?: ReadonlySet<string>;
	readonly script?: string;
}): Promise<LlamaCppVerdict> {
	const { modelPath, verificationPath, limits, signal, fragile = FRAGILE_KERNELS, script = CHILD } = request;
	const packageVersion = llamaCppPackageVersion();
	if (packageVersion === null) return { kind: "missing", reason: "the package node-llama-cpp is not installed" };
	const begun = performance.now();
	const ask = (kernels: readonly string[], milliseconds: number): Promise<ChildAnswer> =>
		runLimitedChild({
			engine: "llama.cpp",
			script,
			arguments: [modelPath ?? "", verificationPath ?? "", String(limits.threads), ...kernels],
			// node-llama-cpp tries its binary in a process of its own before it loads it.
			mayStartProcesses: true,
			limits: { ...limits, milliseconds },
			...(signal === undefined ? {} : { signal }),
		});
	const first = await ask([], limits.milliseconds);
	const fallen = first.ok || first.killedBy === null ? null : libraryIn(first.output);
	const ended = fallen === null ? null : kernelsOf(fallen);
	if (fallen === null || ended === null || !fragile.has(ended)) return verdictOf(first, packageVersion, null);
	const folder = await otherKernels(fallen);
	try {
		const left = Math.max(1, Math.round(limits.milliseconds - (performance.now() - begun)));
		const second = await ask([join(dirname(fallen), ADDON), folder], left);
		return verdictOf(second, packageVersion, ended);
	} finally {
		await rm(folder, { recursive: true, force: true });
	}
}

/** The library that the child said it had chosen, if it came so far. */
function libraryIn(output: string): string | null {
	const parsed = Opened.safeParse(parseJson(output.split("\n")[0] ?? ""));
	return parsed.success ? parsed.data.library : null;
}

function verdictOf(answer: ChildAnswer, packageVersion: string, ended: string | null): LlamaCppVerdict {
	if (!answer.ok) return { kind: "refused", reason: answer.reason };
	const parsed = LlamaCppAnswer.safeParse(parseJson(answer.line));
	if (!parsed.success) return { kind: "refused", reason: "llama.cpp's answer cannot be read" };
	const found = parsed.data;
	if ("error" in found) return { kind: "refused", reason: found.error.slice(0, 1000) };
	if ("missing" in found) return { kind: "missing", reason: found.missing.slice(0, 400) };
	const version = `${found.version} (node-llama-cpp ${packageVersion})`;
	if ("loaded" in found) return { kind: "loaded", version };
	const used = found.library === null ? null : kernelsOf(found.library);
	return { kind: "measured", version, kernels: used === null ? null : { used, ended }, measurement: found };
}
