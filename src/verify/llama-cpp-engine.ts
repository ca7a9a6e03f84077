import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { kernelsOf } from "./llama-cpp-kernels.ts";

/**
 * llama.cpp by the package node-llama-cpp, as far as a verification needs it. The package is loaded when it is asked
 * for: an installation can lack its binary, and then `doctor` says so.
 */

/** Of a child of this process or the machine: the engine is not to be had here. */
export class EngineMissing extends Error {
	override readonly name = "EngineMissing";
}

type EvaluationInput =
	| number
	| readonly [
			token: number,
			options: {
				readonly generateNext: {
					readonly logits?: true;
					readonly token?: true;
					readonly options: Readonly<Record<string, number>>;
				};
			},
	  ];

export type LlamaSequence = {
	controlledEvaluate(input: readonly EvaluationInput[]): Promise<readonly ({ readonly next: NextToken } | undefined)[]>;
	clearHistory(): Promise<void>;
};
type NextToken = { readonly logits?: ReadonlyMap<number, number>; readonly token?: number | null };

export type LlamaModel = {
	readonly tokens: {
		readonly bos: number | null;
		readonly eos: number | null;
		readonly shouldPrependBosToken: boolean;
		readonly shouldAppendEosToken: boolean;
	};
	tokenize(text: string, specialTokens: boolean): readonly number[];
	isEogToken(token: number): boolean;
	createContext(options: {
		readonly contextSize: number;
		readonly batchSize: number;
		readonly sequences: number;
		readonly threads: number;
		readonly flashAttention: boolean;
		readonly ignoreMemorySafetyChecks: boolean;
		readonly failedCreationRemedy: false;
	}): Promise<{ getSequence(): LlamaSequence; dispose(): Promise<void> }>;
};

type Llama = {
	readonly llamaCppRelease: { readonly release: string };
	loadModel(options: {
		readonly modelPath: string;
		readonly gpuLayers: number;
		readonly useMmap: boolean;
		readonly checkTensors: boolean;
		readonly ignoreMemorySafetyChecks: boolean;
	}): Promise<LlamaModel>;
};

type Package = {
	getLlama(options: {
		readonly gpu: false;
		readonly build: "never";
		readonly skipDownload: true;
		readonly progressLogs: false;
		readonly maxThreads: number;
		readonly logLevel: "error";
		readonly logger: (level: string, message: string) => void;
	}): Promise<Llama>;
};

/** The engine on the processor, with nothing built and nothing fetched. */
export async function openLlamaCpp(threads: number, complain: (message: string) => void): Promise<Llama> {
	// Not a literal: the types of the whole package would be checked with ours.
	const name: string = "node-llama-cpp";
	let found: Package;
	try {
		found = (await import(name)) as Package;
	} catch (error) {
		throw new EngineMissing(`the package ${name} is not installed`, { cause: error });
	}
	try {
		return await found.getLlama({
			gpu: false,
			build: "never",
			skipDownload: true,
			progressLogs: false,
			maxThreads: threads,
			logLevel: "error",
			logger: (_level, message) => complain(message),
		});
	} catch (error) {
		throw new EngineMissing(`${name} has no binary for ${process.platform}-${process.arch}`, { cause: error });
	}
}

/**
 * Has llama.cpp choose its kernels among the libraries of a folder, before it is opened: it looks for none where some
 * are loaded already.
 */
export function loadKernels(addonPath: string, folder: string): void {
	const addon = createRequire(import.meta.url)(addonPath) as { loadBackends(folder: string): void };
	addon.loadBackends(folder);
}

/** The library of kernels that this process computes with; `null` where the system does not tell. */
export function loadedKernels(): string | null {
	let maps: string;
	try {
		maps = readFileSync("/proc/self/maps", "utf8");
	} catch {
		return null;
	}
	const paths = maps.split("\n").map((line) => line.slice(line.indexOf("/")));
	return paths.find((path) => kernelsOf(path) !== null) ?? null;
}
