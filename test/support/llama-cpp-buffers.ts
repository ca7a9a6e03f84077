/**
 * A child process: `node llama-cpp-buffers.ts GGUF CACHE CONTEXT…`. Prints one JSON line, for each context the bytes of
 * all buffers that llama.cpp says it made for it. The engine can end its process: it has one of its own.
 */

import { setTimeout as delay } from "node:timers/promises";

const name: string = "node-llama-cpp";
const { getLlama } = await import(name);
const [path, cache, ...contexts] = process.argv.slice(2);
let buffers = 0;
/** Kinds of buffers that were told of since the last look. */
let told = new Set<string>();

/** The engine's messages come after its answers: waits for the one that it writes last. */
async function untilTold(kind: "model" | "compute"): Promise<void> {
	for (let tries = 0; tries < 1_000 && !told.has(kind); tries++) await delay(10);
	if (!told.has(kind)) throw new Error(`llama.cpp told of no ${kind} buffer`);
	told = new Set();
}

const llama = await getLlama({
	gpu: false,
	build: "never",
	skipDownload: true,
	progressLogs: false,
	maxThreads: 1,
	logLevel: "info",
	logger: (_level: string, message: string) => {
		for (const [, where, kind = "", mebibytes] of message.matchAll(/(\w+) +(\w+) buffer size =\s*([\d.]+) MiB/g)) {
			// On a CPU with AMX the weights are laid out anew there, and the mapped file is let go of: they count once.
			if (where === "AMX") continue;
			buffers += Number(mebibytes) * 2 ** 20;
			told.add(kind);
		}
	},
});
const model = await llama.loadModel({ modelPath: path, gpuLayers: 0, useMmap: true, ignoreMemorySafetyChecks: true });
await untilTold("model");
const ofWeights = buffers;
const found: number[] = [];
for (const contextSize of contexts.map(Number)) {
	buffers = ofWeights;
	const context = await model.createContext({
		contextSize,
		batchSize: 512,
		sequences: 1,
		threads: 1,
		flashAttention: true,
		ignoreMemorySafetyChecks: true,
		failedCreationRemedy: false,
		...(cache === "f16"
			? {}
			: { experimentalKvCacheKeyType: cache?.toUpperCase(), experimentalKvCacheValueType: cache?.toUpperCase() }),
	});
	await untilTold("compute");
	found.push(buffers);
	await context.dispose();
}
process.stdout.write(`${JSON.stringify(found)}\n`, () => process.exit(0));
