import { z } from "zod";
import { parseJson } from "../parse-json.ts";
import { openSafetensors, type SafetensorsFile } from "./read-safetensors.ts";
import type { TensorInfo } from "./safetensors-header.ts";

/** A sequence and what the original predicts after some of its tokens. */
export type ReferenceSequence = {
	readonly ids: readonly number[];
	/** Places in `ids`, ascending. */
	readonly positions: readonly number[];
	/** Natural logarithms, one for every token of the vocabulary, after `positions[point]`. */
	readonly logProbabilities: (point: number) => Promise<Float32Array>;
};

const TokenizerRecord = z.object({
	texts: z
		.array(z.object({ kind: z.string().max(40), text: z.string().max(20_000), ids: z.array(z.int().min(0)) }))
		.max(1000),
	opening: z.array(z.int().min(0)).max(1000),
	end: z.int().min(0).nullable(),
});
export type TokenizerRecord = z.infer<typeof TokenizerRecord>;

export const OPENING_TEXT = "Hello world";
const MAXIMUM_TOKENIZER_BYTES = 16 * 2 ** 20;

/** `verification.safetensors`, as `evaluate/verification.py` of the runner writes it. */
export type VerificationFile = {
	readonly vocabulary: number;
	readonly sequences: readonly ReferenceSequence[];
	/** Longer than the model's sliding window; `null`: the others are, or there is none. */
	readonly window: ReferenceSequence | null;
	readonly greedy: { readonly prompt: readonly number[]; readonly tokens: readonly number[] } | null;
	readonly tokenizer: TokenizerRecord | null;
	close(): Promise<void>;
};

/** Throws an error that says what of the file does not fit. */
export async function openVerification(path: string): Promise<VerificationFile> {
	const file = await openSafetensors(path);
	try {
		return await parse(file);
	} catch (error) {
		await file.close();
		throw error;
	}
}

async function parse(file: SafetensorsFile): Promise<VerificationFile> {
	const { tensors } = file.header;
	const ids = shaped(tensors.get("input_ids"), "input_ids", "I64", 2);
	const positions = shaped(tensors.get("positions"), "positions", "I64", 2);
	const reference = shaped(tensors.get("log_probabilities"), "log_probabilities", "F32", 3);
	const [count = 0, length = 0] = ids.shape;
	const [, points = 0, vocabulary = 0] = reference.shape;
	if (positions.shape[0] !== count || positions.shape[1] !== points || reference.shape[0] !== count) {
		throw new Error("the verification tensors disagree in their shapes");
	}
	const sequences: ReferenceSequence[] = [];
	for (let sequence = 0; sequence < count; sequence++) {
		const at = await integers(file, positions, sequence * points, points);
		if (!at.every((place, index) => place < length && place >= (index === 0 ? 0 : (at[index - 1] ?? 0)))) {
			throw new Error("a verification position lies outside its sequence");
		}
		sequences.push({
			ids: await integers(file, ids, sequence * length, length),
			positions: at,
			logProbabilities: (point) => floats(file, reference, (sequence * points + point) * vocabulary, vocabulary),
		});
	}
	return {
		vocabulary,
		sequences,
		window: await windowSequence(file, vocabulary),
		greedy: await greedy(file),
		tokenizer: await tokenizer(file),
		close: () => file.close(),
	};
}

async function windowSequence(file: SafetensorsFile, vocabulary: number): Promise<ReferenceSequence | null> {
	const { tensors } = file.header;
	if (!tensors.has("window_input_ids")) return null;
	const ids = shaped(tensors.get("window_input_ids"), "window_input_ids", "I64", 2);
	const reference = shaped(tensors.get("window_log_probabilities"), "window_log_probabilities", "F32", 3);
	const [rows = 0, length = 0] = ids.shape;
	const [referenceRows = 0, points = 0, width = 0] = reference.shape;
	if (rows !== 1 || referenceRows !== 1 || width !== vocabulary || points > length) {
		throw new Error("the tensors of the window disagree in their shapes");
	}
	return {
		ids: await integers(file, ids, 0, length),
		positions: Array.from({ length: points }, (_, point) => length - points + point),
		logProbabilities: (point) => floats(file, reference, point * vocabulary, vocabulary),
	};
}

async function greedy(file: SafetensorsFile): Promise<VerificationFile["greedy"]> {
	const { tensors } = file.header;
	if (!tensors.has("greedy_prompt")) return null;
	const prompt = shaped(tensors.get("greedy_prompt"), "greedy_prompt", "I64", 1);
	const tokens = shaped(tensors.get("greedy_tokens"), "greedy_tokens", "I64", 1);
	return {
		prompt: await integers(file, prompt, 0, prompt.shape[0] ?? 0),
		tokens: await integers(file, tokens, 0, tokens.shape[0] ?? 0),
	};
}

async function tokenizer(file: SafetensorsFile): Promise<TokenizerRecord | null> {
	const found = file.header.tensors.get("tokenizer");
	if (found === undefined) return null;
	const tensor = shaped(found, "tokenizer", "U8", 1);
	if (tensor.end - tensor.start > MAXIMUM_TOKENIZER_BYTES) throw new Error("the record of the tokenizer is too large");
	return TokenizerRecord.parse(parseJson(await file.read(tensor)));
}

function shaped(tensor: TensorInfo | undefined, name: string, dtype: string, dimensions: number): TensorInfo {
	if (
		tensor === undefined ||
		tensor.dtype !== dtype ||
		tensor.shape.length !== dimensions ||
		tensor.shape.includes(0)
	) {
		throw new Error(`the verification file lacks ${name}, a ${dtype} tensor of ${dimensions} dimensions`);
	}
	return tensor;
}

async function integers(file: SafetensorsFile, tensor: TensorInfo, first: number, count: number): Promise<number[]> {
	// Copied, because a typed array must start at a multiple of its element's size.
	const bytes = (await file.read(tensor, first * 8, (first + count) * 8)).slice();
	const values = Array.from(new BigInt64Array(bytes.buffer), Number);
	if (!values.every((value) => value >= 0 && value < 2 ** 31)) throw new Error(`${tensor.name} holds no token ids`);
	return values;
}

async function floats(file: SafetensorsFile, tensor: TensorInfo, first: number, count: number): Promise<Float32Array> {
	return new Float32Array((await file.read(tensor, first * 4, (first + count) * 4)).slice().buffer);
}
