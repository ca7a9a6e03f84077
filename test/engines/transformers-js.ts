import { readFileSync } from "node:fs";
import { basename, dirname } from "node:path";
import { AutoModelForCausalLM, AutoTokenizer, env, Tensor } from "@huggingface/transformers";
import { openVerification } from "../../src/verify/verification-file.ts";

/**
 * Opens a finished ONNX folder as browsers do: `node transformers-js.ts FOLDER DTYPE VERIFICATION`. The last line is
 * JSON, as `open_folder.py` prints it.
 */

const NEW_TOKENS = 8;
const [folder = "", dtype = "q4", verificationPath = ""] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = dirname(folder);
const { version } = JSON.parse(
	readFileSync(new URL("../package.json", import.meta.resolve("@huggingface/transformers")), "utf8"),
) as { version: string };
const verification = await openVerification(verificationPath);
const model = await AutoModelForCausalLM.from_pretrained(basename(folder), { dtype: dtype as "q4" });
const tokenizer = await AutoTokenizer.from_pretrained(basename(folder));

function inputs(ids: readonly number[]): Record<string, Tensor> {
	const shape = [1, ids.length];
	return {
		input_ids: new Tensor("int64", ids.map(BigInt), shape),
		attention_mask: new Tensor("int64", new Array<bigint>(ids.length).fill(1n), shape),
	};
}

let klNats = 0;
for (const { ids, positions, logProbabilities } of verification.sequences) {
	const { logits } = (await model(inputs(ids))) as { logits: Tensor };
	const width = logits.dims[2] ?? 0;
	const values = logits.data as Float32Array;
	for (const [point, place] of positions.entries()) {
		const expected = await logProbabilities(point);
		const row = Float64Array.from(values.subarray(place * width, (place + 1) * width));
		const largest = row.reduce((most, value) => Math.max(most, value), Number.NEGATIVE_INFINITY);
		const logTotal = largest + Math.log(row.reduce((sum, value) => sum + Math.exp(value - largest), 0));
		let kl = 0;
		for (const [token, logit] of row.entries()) {
			const log = expected[token] ?? Number.NaN;
			if (Math.exp(log) > 0) kl += Math.exp(log) * (log - (logit - logTotal));
		}
		klNats += kl / positions.length / verification.sequences.length;
	}
}
const tokensEqual = (verification.tokenizer?.texts ?? []).every(({ text, ids }) => {
	const found = tokenizer.encode(text, { add_special_tokens: false });
	return found.length === ids.length && found.every((id, index) => id === ids[index]);
});
const prompt = verification.greedy?.prompt ?? [0];
const generated = (await model.generate({
	...inputs(prompt),
	max_new_tokens: NEW_TOKENS,
	min_new_tokens: NEW_TOKENS,
	do_sample: false,
})) as Tensor;
console.log(
	JSON.stringify({
		version,
		engineKl: klNats,
		tokensEqual,
		generated: generated.dims[1] === prompt.length + NEW_TOKENS,
	}),
);
await verification.close();
