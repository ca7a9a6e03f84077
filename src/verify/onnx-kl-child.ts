import * as ort from "onnxruntime-node";
import { openSafetensors } from "./read-safetensors.ts";
import type { TensorInfo } from "./safetensors-header.ts";

/**
 * The child process of `onnx-kl.ts`: `node onnx-kl-child.ts GRAPH VERIFICATION THREADS`.
 * Prints one JSON line, `{klNats, sequences, positions, vocabulary}` or `{error}`.
 */

const FLOAT_TYPES: ReadonlySet<string> = new Set(["float32", "float16"]);

async function meanKl(graphPath: string, verificationPath: string, threads: number): Promise<unknown> {
	const verification = await openSafetensors(verificationPath);
	const { tensors } = verification.header;
	const ids = shaped(tensors.get("input_ids"), "I64", 2);
	const positions = shaped(tensors.get("positions"), "I64", 2);
	const reference = shaped(tensors.get("log_probabilities"), "F32", 3);
	const [sequences = 0, length = 0] = ids.shape;
	const [, points = 0, vocabulary = 0] = reference.shape;
	if (positions.shape[0] !== sequences || positions.shape[1] !== points || reference.shape[0] !== sequences) {
		throw new Error("the verification tensors disagree in their shapes");
	}
	const session = await ort.InferenceSession.create(graphPath, {
		intraOpNumThreads: threads,
		interOpNumThreads: 1,
		executionProviders: ["cpu"],
		logSeverityLevel: 3,
	});
	let sum = 0;
	for (let sequence = 0; sequence < sequences; sequence++) {
		const idBytes = await verification.read(ids, sequence * length * 8, (sequence + 1) * length * 8);
		const feeds = inputs(session, bigints(idBytes));
		const outputs = await session.run(feeds, ["logits"]);
		const logits = outputs["logits"];
		if (logits === undefined || logits.dims[1] !== length || logits.dims[2] !== vocabulary) {
			throw new Error(`the graph's logits have the shape ${logits?.dims.join(" × ")}`);
		}
		const values = floats(logits);
		const at = bigints(await verification.read(positions, sequence * points * 8, (sequence + 1) * points * 8));
		for (let point = 0; point < points; point++) {
			const row = Number(at[point]);
			if (!(row >= 0 && row < length)) throw new Error("a verification position lies outside its sequence");
			const start = (sequence * points + point) * vocabulary * 4;
			const expected = floatView(await verification.read(reference, start, start + vocabulary * 4));
			sum += divergence(expected, values, row * vocabulary);
		}
		for (const output of Object.values(outputs)) output.dispose();
	}
	await session.release();
	await verification.close();
	return { klNats: sum / (sequences * points), sequences, positions: sequences * points, vocabulary };
}

/** KL(reference ‖ softmax of logits) in nats, summed in float64. */
function divergence(logReference: Float32Array, logits: Float32Array, offset: number): number {
	const { length } = logReference;
	let largest = Number.NEGATIVE_INFINITY;
	for (let index = 0; index < length; index++) largest = Math.max(largest, logits[offset + index] ?? Number.NaN);
	let total = 0;
	for (let index = 0; index < length; index++) total += Math.exp((logits[offset + index] ?? Number.NaN) - largest);
	const logTotal = largest + Math.log(total);
	let kl = 0;
	for (let index = 0; index < length; index++) {
		const expected = logReference[index] ?? Number.NaN;
		const probability = Math.exp(expected);
		// 0 · log 0 is 0: a reference that was rounded to -infinity adds nothing.
		if (probability > 0) kl += probability * (expected - ((logits[offset + index] ?? Number.NaN) - logTotal));
	}
	return kl;
}

/** What a decoder exported with a key-value cache takes: the tokens, their mask and places, and an empty cache. */
function inputs(session: ort.InferenceSession, ids: BigInt64Array): Record<string, ort.Tensor> {
	const feeds: Record<string, ort.Tensor> = {};
	for (const metadata of session.inputMetadata) {
		const { name } = metadata;
		if (name === "input_ids") feeds[name] = new ort.Tensor("int64", ids, [1, ids.length]);
		else if (name === "attention_mask") {
			feeds[name] = new ort.Tensor("int64", new BigInt64Array(ids.length).fill(1n), [1, ids.length]);
		} else if (name === "position_ids") {
			feeds[name] = new ort.Tensor(
				"int64",
				BigInt64Array.from(ids, (_, index) => BigInt(index)),
				[1, ids.length],
			);
		} else if (name === "num_logits_to_keep") {
			feeds[name] = new ort.Tensor("int64", new BigInt64Array([BigInt(ids.length)]), []);
		} else if (
			/^past_key_values\.\d+\.(key|value)$/.test(name) &&
			metadata.isTensor &&
			FLOAT_TYPES.has(metadata.type)
		) {
			const [, heads, , width] = metadata.shape;
			if (typeof heads !== "number" || typeof width !== "number") throw new Error(`${name} has no fixed head shape`);
			const dims = [1, heads, 0, width];
			feeds[name] =
				metadata.type === "float16"
					? new ort.Tensor("float16", new Uint16Array(0), dims)
					: new ort.Tensor("float32", new Float32Array(0), dims);
		} else throw new Error(`the graph wants an input named ${JSON.stringify(name.slice(0, 80))}`);
	}
	return feeds;
}

function shaped(tensor: TensorInfo | undefined, dtype: string, dimensions: number): TensorInfo {
	if (
		tensor === undefined ||
		tensor.dtype !== dtype ||
		tensor.shape.length !== dimensions ||
		tensor.shape.includes(0)
	) {
		throw new Error(`the verification file lacks a ${dtype} tensor of ${dimensions} dimensions`);
	}
	return tensor;
}

/** Copies, because a typed array must start at a multiple of its element's size. */
function bigints(bytes: Uint8Array): BigInt64Array {
	return new BigInt64Array(bytes.slice().buffer);
}

function floatView(bytes: Uint8Array): Float32Array {
	return new Float32Array(bytes.slice().buffer);
}

function floats(tensor: ort.Tensor): Float32Array {
	if (tensor.data instanceof Float32Array) return tensor.data;
	if (tensor.type === "float16") return Float32Array.from(tensor.data as Iterable<number>);
	throw new Error(`the graph's logits are ${tensor.type}`);
}

const [graphPath = "", verificationPath = "", threads = "1"] = process.argv.slice(2);
try {
	console.log(JSON.stringify(await meanKl(graphPath, verificationPath, Number(threads))));
} catch (error) {
	console.log(JSON.stringify({ error: error instanceof Error ? error.message : String(error) }));
}
