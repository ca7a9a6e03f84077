// Runs a published ONNX file in the visitor's browser, apart from the page so that it stays alive. Nothing is sent
// anywhere: files come from the Hub, text stays here.
const PROGRAMS = new URL(location.href).searchParams;
/** What the page's own memory can hold beside the files; a longer text is cut from its front. */
const MOST_PROMPT_TOKENS = 512;
const MOST_NEW_TOKENS = 64;

const say = (kind, value) => postMessage({ kind, value });
let opened = null;

async function fetched(url) {
	const answer = await fetch(url);
	if (answer.status === 401 || answer.status === 403)
		throw new Error("The Hub shows these files to people that it knows, and this page tells it of nobody.");
	if (!answer.ok) throw new Error(`The Hub answered ${answer.status} for ${url}.`);
	return answer;
}

async function readJson(url) {
	return await (await fetched(url)).json();
}

/** The file's bytes, telling how many there are of all. */
async function readBytes(url, progress) {
	const reader = (await fetched(url)).body.getReader();
	const chunks = [];
	for (let part = await reader.read(); !part.done; part = await reader.read()) {
		chunks.push(part.value);
		progress(part.value.length);
	}
	return new Uint8Array(await new Blob(chunks).arrayBuffer());
}

async function open({ base, graph, files, bytes }) {
	const [ort, { Tokenizer }, { Template }] = await Promise.all([
		import(PROGRAMS.get("runtime")),
		import(PROGRAMS.get("tokenizers")),
		import(PROGRAMS.get("template")),
	]);
	// One thread: more need memory that is shared, which asks every other file of this page to be isolated.
	ort.env.wasm.numThreads = 1;
	let held = 0;
	const progress = (count) => {
		held += count;
		say("progress", Math.min(1, held / bytes));
	};
	const [tokenizer, settings, generation, config, ...contents] = await Promise.all([
		readJson(`${base}/tokenizer.json`),
		readJson(`${base}/tokenizer_config.json`),
		readJson(`${base}/generation_config.json`).catch(() => ({})),
		readJson(`${base}/config.json`),
		...files.map((path) => readBytes(`${base}/${path}`, progress)),
	]);
	say("state", "Opening the model…");
	const content = new Map(files.map((path, index) => [path, contents[index]]));
	const session = await ort.InferenceSession.create(content.get(graph), {
		externalData: files
			.filter((path) => path !== graph)
			.map((path) => ({ path: path.split("/").at(-1), data: content.get(path) })),
	});
	const ends = [generation.eos_token_id ?? config.eos_token_id ?? []].flat();
	return { ort, session, tokenizer: new Tokenizer(tokenizer, settings), settings, ends: new Set(ends), Template };
}

function nameOf(token) {
	return typeof token === "object" && token !== null ? token.content : (token ?? "");
}

/** Token ids of what was written; a chat model gets it as a message, by its own template. */
function promptIds({ tokenizer, settings, Template }, text) {
	const templates = settings.chat_template;
	const template = Array.isArray(templates) ? templates.find(({ name }) => name === "default")?.template : templates;
	if (typeof template !== "string") return tokenizer.encode(text).ids;
	const written = new Template(template).render({
		messages: [{ role: "user", content: text }],
		add_generation_prompt: true,
		bos_token: nameOf(settings.bos_token),
		eos_token: nameOf(settings.eos_token),
	});
	return tokenizer.encode(written, { add_special_tokens: false }).ids;
}

/** What the graph wants for `ids` after `past` tokens; `cache` is what it gave before. */
function feedsOf({ ort, session }, ids, past, cache) {
	const feeds = {};
	const int64 = (values) => new ort.Tensor("int64", BigInt64Array.from(values, BigInt), [1, values.length]);
	for (const { name, type, shape } of session.inputMetadata) {
		if (name === "input_ids") feeds[name] = int64(ids);
		else if (name === "attention_mask") feeds[name] = int64(new Array(past + ids.length).fill(1));
		else if (name === "position_ids") feeds[name] = int64(ids.map((_, at) => past + at));
		else if (cache !== null) feeds[name] = cache[name.replace("past_key_values", "present")];
		else
			feeds[name] = new ort.Tensor(type, type === "float16" ? new Uint16Array(0) : new Float32Array(0), [
				1,
				shape[1],
				0,
				shape[3],
			]);
	}
	return feeds;
}

function largest(logits) {
	const width = logits.dims[2];
	const row = logits.data.subarray((logits.dims[1] - 1) * width);
	let best = 0;
	for (let token = 1; token < width; token++) if (row[token] > row[best]) best = token;
	return best;
}

async function generate(text) {
	const { session, tokenizer, ends } = opened;
	const prompt = promptIds(opened, text).slice(-MOST_PROMPT_TOKENS);
	if (prompt.length === 0) throw new Error("There is no text to go on with.");
	const made = [];
	const begun = performance.now();
	let [ids, past, cache] = [prompt, 0, null];
	while (made.length < MOST_NEW_TOKENS) {
		const results = await session.run(feedsOf(opened, ids, past, cache));
		past += ids.length;
		cache = results;
		const token = largest(results.logits);
		if (ends.has(token)) break;
		made.push(token);
		ids = [token];
		say("text", tokenizer.decode(made, { skip_special_tokens: true }));
	}
	say("done", { tokens: made.length, seconds: (performance.now() - begun) / 1000 });
}

addEventListener("message", async ({ data }) => {
	try {
		opened ??= await open(data.model);
		say("state", "Writing…");
		await generate(data.text);
	} catch (error) {
		say("failed", String(error?.message ?? error));
	}
});
