// Generate greedily from a local ONNX folder: node transformers_js_generate.mjs FOLDER PROMPTS NEW_TOKENS
import { basename, dirname } from "node:path";
import { AutoModelForCausalLM, env, Tensor } from "@huggingface/transformers";

const [folder, promptsText, newTokens] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = dirname(folder);
const model = await AutoModelForCausalLM.from_pretrained(basename(folder));
const answers = [];
for (const prompt of JSON.parse(promptsText)) {
	const shape = [1, prompt.length];
	const output = await model.generate({
		input_ids: new Tensor("int64", prompt.map(BigInt), shape),
		attention_mask: new Tensor("int64", prompt.map(() => 1n), shape),
		max_new_tokens: Number(newTokens),
		do_sample: false,
	});
	answers.push(output.tolist().map((row) => row.map(Number)));
}
console.log(JSON.stringify(answers));
await model.dispose();
