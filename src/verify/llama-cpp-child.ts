import {
	EngineMissing,
	type LlamaModel,
	type LlamaSequence,
	loadedKernels,
	loadKernels,
	openLlamaCpp,
} from "./llama-cpp-engine.ts";
import { OPENING_TEXT, openVerification, type ReferenceSequence, type VerificationFile } from "./verification-file.ts";

/**
 * The child process of `llama-cpp-judge.ts`: `node llama-cpp-child.ts GGUF VERIFICATION THREADS ADDON KERNELS`; an empty
 * VERIFICATION only loads the file, an empty GGUF only the engine. KERNELS: the folder whose libraries it chooses from
 * instead of its own, loaded by ADDON. Prints a JSON line as soon as the engine is open, the library that it chose, and
 * one at the end; `Opened` and `LlamaCppAnswer` there describe them.
 */

/** Positions that are asked for at once: their logits are held as maps, some 40 bytes a token of the vocabulary. */
const LOGITS_AT_ONCE_BYTES = 256 * 2 ** 20;
const BYTES_OF_ENTRY = 48;
const BATCH_TOKENS = 512;
/** The plain distribution: nothing cut off, nothing sharpened. */
const PLAIN = { temperature: 1, topK: 0, topP: 1, minP: 0 } as const;

type Compared = { readonly klNats: number; readonly agreeing: number; readonly positions: number };

async function judge(
	modelPath: string,
	verificationPath: string,
	threads: number,
	kernels: { readonly addon: string; readonly folder: string } | null,
): Promise<unknown> {
	const complaints: string[] = [];
	if (kernels !== null) loadKernels(kernels.addon, kernels.folder);
	const llama = await openLlamaCpp(threads, (message) => {
		complaints.push(message.trim());
		process.stderr.write(`${message.trim()}\n`);
	});
	const library = loadedKernels();
	process.stdout.write(`${JSON.stringify({ library })}\n`);
	const engine = { version: llama.llamaCppRelease.release, library };
	if (modelPath === "") return { ...engine, loaded: true };
	let model: LlamaModel;
	try {
		model = await llama.loadModel({
			modelPath,
			gpuLayers: 0,
			useMmap: true,
			checkTensors: true,
			ignoreMemorySafetyChecks: true,
		});
	} catch (error) {
		const why = complaints.at(-1) ?? (error instanceof Error ? error.message : String(error));
		return { ...engine, error: `the file does not load: ${why}` };
	}
	if (verificationPath === "") return { ...engine, loaded: true };
	const verification = await openVerification(verificationPath);
	const longest = Math.max(
		verification.window?.ids.length ?? 0,
		...verification.sequences.map(({ ids }) => ids.length),
		(verification.greedy?.prompt.length ?? 0) + (verification.greedy?.tokens.length ?? 0),
	);
	const context = await model.createContext({
		contextSize: longest + 8,
		batchSize: Math.min(BATCH_TOKENS, longest + 8),
		sequences: 1,
		threads,
		flashAttention: false,
		ignoreMemorySafetyChecks: true,
		failedCreationRemedy: false,
	});
	const sequence = context.getSequence();
	const measured: Compared[] = [];
	for (const reference of verification.sequences) {
		measured.push(await compare(sequence, reference, verification.vocabulary));
	}
	const window =
		verification.window === null ? null : await compare(sequence, verification.window, verification.vocabulary);
	return {
		...engine,
		sequences: measured,
		window,
		tokenizer: compareTokenizer(model, verification),
		greedy: await generate(sequence, verification),
	};
}

async function compare(sequence: LlamaSequence, reference: ReferenceSequence, vocabulary: number): Promise<Compared> {
	await sequence.clearHistory();
	const { ids, positions } = reference;
	const atOnce = Math.max(1, Math.floor(LOGITS_AT_ONCE_BYTES / (BYTES_OF_ENTRY * vocabulary)));
	const logits = new Float64Array(vocabulary);
	let klNats = 0;
	let agreeing = 0;
	let fed = 0;
	for (let first = 0; first < positions.length; first += atOnce) {
		const wanted = new Map(positions.slice(first, first + atOnce).map((place, index) => [place, first + index]));
		const stop = Math.max(...wanted.keys()) + 1;
		const input = ids
			.slice(fed, stop)
			.map((id, index) =>
				wanted.has(fed + index) ? ([id, { generateNext: { logits: true, options: PLAIN } }] as const) : id,
			);
		const results = await sequence.controlledEvaluate(input);
		for (const [place, point] of wanted) {
			const found = results[place - fed]?.next.logits;
			if (found === undefined) throw new Error("llama.cpp gave no logits");
			if (found.size !== vocabulary) {
				throw new Error(`the file predicts ${found.size} tokens, the original ${vocabulary}`);
			}
			for (const [token, logit] of found) logits[token] = logit;
			const expected = await reference.logProbabilities(point);
			const divergence = divergenceOf(expected, logits);
			if (!Number.isFinite(divergence)) throw new Error("the file's logits are not finite numbers");
			klNats += divergence;
			if (indexOfLargest(expected) === indexOfLargest(logits)) agreeing++;
		}
		fed = stop;
	}
	return { klNats: klNats / positions.length, agreeing, positions: positions.length };
}

/** KL(reference ‖ softmax of logits) in nats, summed in float64. */
function divergenceOf(logReference: Float32Array, logits: Float64Array): number {
	let largest = Number.NEGATIVE_INFINITY;
	for (const logit of logits) largest = Math.max(largest, logit);
	let total = 0;
	for (const logit of logits) total += Math.exp(logit - largest);
	const logTotal = largest + Math.log(total);
	let kl = 0;
	for (let token = 0; token < logits.length; token++) {
		const expected = logReference[token] ?? Number.NaN;
		const probability = Math.exp(expected);
		// 0 · log 0 is 0: a reference that was rounded to -infinity adds nothing.
		if (probability > 0) kl += probability * (expected - ((logits[token] ?? Number.NaN) - logTotal));
	}
	return kl;
}

function indexOfLargest(values: Float32Array | Float64Array): number {
	let best = 0;
	for (let index = 1; index < values.length; index++) if ((values[index] ?? 0) > (values[best] ?? 0)) best = index;
	return best;
}

function compareTokenizer(model: LlamaModel, verification: VerificationFile): unknown {
	const record = verification.tokenizer;
	if (record === null) return null;
	const different: { kind: string; text: string; expected: number[]; found: number[] }[] = [];
	for (const { kind, text, ids } of record.texts) {
		const found = [...model.tokenize(text, true)];
		if (!equal(found, ids))
			different.push({ kind, text: text.slice(0, 200), expected: ids.slice(0, 64), found: found.slice(0, 64) });
	}
	const { bos, eos, shouldPrependBosToken, shouldAppendEosToken } = model.tokens;
	const opening = [
		...(shouldPrependBosToken && bos !== null ? [bos] : []),
		...model.tokenize(OPENING_TEXT, true),
		...(shouldAppendEosToken && eos !== null ? [eos] : []),
	];
	return {
		texts: record.texts.length,
		different,
		opening: equal(opening, record.opening) ? null : { expected: record.opening, found: opening },
		end: record.end === null || model.isEogToken(record.end) ? null : { expected: record.end, found: eos },
	};
}

function equal(one: readonly number[], other: readonly number[]): boolean {
	return one.length === other.length && one.every((token, index) => token === other[index]);
}

/** How many of the first tokens are the original's, when each time the most likely one is taken. */
async function generate(sequence: LlamaSequence, verification: VerificationFile): Promise<unknown> {
	const { greedy } = verification;
	if (greedy === null) return null;
	await sequence.clearHistory();
	let input: readonly number[] = greedy.prompt;
	for (const [index, expected] of greedy.tokens.entries()) {
		const last = input.at(-1);
		if (last === undefined) break;
		const results = await sequence.controlledEvaluate([
			...input.slice(0, -1),
			[last, { generateNext: { token: true, options: { temperature: 0 } } }],
		]);
		const token = results.at(-1)?.next.token;
		if (token !== expected) return { tokens: greedy.tokens.length, equal: index };
		input = [token];
	}
	return { tokens: greedy.tokens.length, equal: greedy.tokens.length };
}

const [modelPath = "", verificationPath = "", threads = "1", addon = "", folder = ""] = process.argv.slice(2);
let answer: unknown;
try {
	answer = await judge(modelPath, verificationPath, Number(threads), folder === "" ? null : { addon, folder });
} catch (error) {
	const message = error instanceof Error ? error.message : String(error);
	answer = error instanceof EngineMissing ? { missing: message } : { error: message };
}
// The engine keeps threads that would hold the process: it ends as soon as its answer is out.
process.stdout.write(`${JSON.stringify(answer)}\n`, () => process.exit(0));
