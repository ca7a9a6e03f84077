import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { parseJson } from "../parse-json.ts";
import { type ChildLimits, runLimitedChild } from "./limited-child.ts";

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

export type LlamaCppVerdict =
	| { readonly kind: "measured"; readonly version: string; readonly measurement: LlamaCppMeasurement }
	/** It loads; there was nothing to measure against. */
	| { readonly kind: "loaded"; readonly version: string }
	/** The file is at fault: llama.cpp would not load or run it, or died of it. */
	| { readonly kind: "refused"; readonly reason: string }
	/** The engine is not on this machine. */
	| { readonly kind: "missing"; readonly reason: string };

export const LLAMA_CPP_REMEDY =
	"Run `npm run setup`: it installs the package node-llama-cpp with llama.cpp for the processor (Linux, macOS and Windows).";

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

/** llama.cpp's own word on a GGUF file, in a child process: it may abort of a file that it does not like. */
export async function judgeWithLlamaCpp(request: {
	/** The file, or the first of its parts; `null`: only the engine is opened. */
	readonly modelPath: string | null;
	/** `null`: the file is only loaded. */
	readonly verificationPath: string | null;
	readonly limits: ChildLimits;
	readonly signal?: AbortSignal;
}): Promise<LlamaCppVerdict> {
	const { modelPath, verificationPath, limits, signal } = request;
	const packageVersion = llamaCppPackageVersion();
	if (packageVersion === null) return { kind: "missing", reason: "the package node-llama-cpp is not installed" };
	const answer = await runLimitedChild({
		engine: "llama.cpp",
		script: CHILD,
		arguments: [modelPath ?? "", verificationPath ?? "", String(limits.threads)],
		// node-llama-cpp tries its binary in a process of its own before it loads it.
		mayStartProcesses: true,
		limits,
		...(signal === undefined ? {} : { signal }),
	});
	if (!answer.ok) return { kind: "refused", reason: answer.reason };
	const parsed = LlamaCppAnswer.safeParse(parseJson(answer.line));
	if (!parsed.success) return { kind: "refused", reason: "llama.cpp's answer cannot be read" };
	const found = parsed.data;
	if ("error" in found) return { kind: "refused", reason: found.error.slice(0, 1000) };
	if ("missing" in found) return { kind: "missing", reason: found.missing.slice(0, 400) };
	const version = `${found.version} (node-llama-cpp ${packageVersion})`;
	if ("loaded" in found) return { kind: "loaded", version };
	return { kind: "measured", version, measurement: found };
}
