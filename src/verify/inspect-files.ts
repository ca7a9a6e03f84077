import { z } from "zod";
import type { Refusal } from "../errors.ts";
import { languageConfigOf } from "../fit/language-config.ts";
import { shapeOfConfig } from "../fit/model-shape.ts";
import type { ModelShape } from "../protocol/model-shape.ts";
import { ADAPTER_FILES, isOfKind, isPickle } from "../protocol/source-files.ts";
import { SUPPORTED_ARCHITECTURES } from "./architectures.ts";
import { checkPaths, isCompanion } from "./check-paths.ts";
import { refuseOwnOutput } from "./own-output.ts";
import { readWeightsHeader } from "./read-weights-header.ts";
import { quoted } from "./refusals.ts";
import { ASK_OWNER, Refused, refuse } from "./refused.ts";
import { findDuplicateKey, type TensorInfo } from "./safetensors-header.ts";
import { absurdSize, SourceConfig, sizeOf } from "./source-config.ts";
import { parseObject, readWhole } from "./source-json.ts";
import type { SourceFile, SourceReader } from "./source-reader.ts";
import { decodedTensors, type StoredForm, storedFormOf } from "./stored-form.ts";

/** `count` linears of the model's blocks are `[rows, columns]`. */
export type LinearShape = { readonly rows: number; readonly columns: number; readonly count: number };

export type SourceLimits = {
	/** Largest sum of weight files that is taken on. */
	readonly maximumWeightBytes: number;
};

/** A linear that an adapter changes, by the name it has in the base: `[rows, columns]`. */
export type ChangedLinear = { readonly name: string; readonly rows: number; readonly columns: number };

/** What a model is looked at for. */
export type ModelTerms = SourceLimits & {
	/** It is the base of an adapter that changes these. */
	readonly changed?: readonly ChangedLinear[];
};

type InspectedFiles = {
	readonly architecture: string;
	readonly modelType: string | null;
	readonly parameters: number;
	readonly linears: readonly LinearShape[];
	readonly vocabulary: number;
	readonly shape: ModelShape | null;
	readonly weightBytes: number;
	/** The files a runner needs, and nothing else: weights, configs, tokenizer. No code. */
	readonly files: readonly SourceFile[];
};

export type FilesInspection =
	| { readonly ok: true; readonly inspected: InspectedFiles }
	| { readonly ok: false; readonly refusal: Refusal };

const INDEX_NAME = "model.safetensors.index.json";
/** Files that are a tokenizer by themselves, as transformers loads them. */
const TOKENIZERS = [["tokenizer.json"], ["tokenizer.model"], ["vocab.json", "merges.txt"]] as const;
const SINGLE_NAME = "model.safetensors";
const MAXIMUM_JSON_BYTES = 2 * 2 ** 20;
const MAXIMUM_INDEX_BYTES = 64 * 2 ** 20;
const MAXIMUM_SHARDS = 2_000;
/** Of all files together: the largest mixtures of experts have about 100,000. */
const MAXIMUM_TENSORS_OF_ALL = 250_000;
/** Of all files beside the weights together; the largest tokenizers take a tenth of it. */
const MAXIMUM_COMPANION_BYTES = 512 * 2 ** 20;

/** Whether the files of a source can be quantized, by their names, the JSON beside the weights and the weights' headers. */
export async function inspectFiles(reader: SourceReader, terms: ModelTerms): Promise<FilesInspection> {
	try {
		return { ok: true, inspected: await inspect(reader, terms) };
	} catch (error) {
		if (error instanceof Refused) return { ok: false, refusal: error.refusal };
		throw error;
	}
}

async function inspect(reader: SourceReader, terms: ModelTerms): Promise<InspectedFiles> {
	checkPaths(reader.files);
	const byPath = new Map(reader.files.map((file) => [file.path, file]));
	await refuseOwnOutput(reader, byPath);
	refuseWithoutWeights(reader.files);
	const config = await readConfig(reader, byPath);
	const { architecture, form } = checkConfig(config);
	refuseWithoutProcessor(config, await readTokenizerConfig(reader, byPath), reader.files);

	const { shards, declared } = await weightFiles(reader, byPath);
	const storedBytes = shards.reduce((sum, shard) => sum + shard.size, 0);
	refuseTooLarge(storedBytes, terms);
	const { tensors, bytes } = checkForm(form, await readTensors(reader, shards, declared));
	const weightBytes = form === null ? storedBytes : bytes;
	refuseTooLarge(weightBytes, terms);
	const vocabulary = checkTensors(tensors, config);
	refuseOtherShapes(tensors, architecture, terms.changed ?? []);
	const companions = reader.files.filter((file) => isCompanion(file.path));
	const companionBytes = companions.reduce((sum, file) => sum + file.size, 0);
	if (companionBytes > MAXIMUM_COMPANION_BYTES) {
		refuse(
			"too-large",
			`Tokenizer, configuration and other files beside the weights take ${gigabytes(companionBytes)} together; this bot takes up to ${gigabytes(MAXIMUM_COMPANION_BYTES)}.`,
			ASK_OWNER,
		);
	}
	const names = new Set(companions.map((file) => file.path));
	if (!TOKENIZERS.some((files) => files.every((name) => names.has(name)))) {
		refuse(
			"broken-config",
			"The repo has no tokenizer (tokenizer.json, tokenizer.model, or vocab.json with merges.txt).",
			ASK_OWNER,
		);
	}
	const index = byPath.get(INDEX_NAME);
	return {
		architecture,
		modelType: config.model_type ?? null,
		parameters: [...tensors.values()].reduce((sum, tensor) => sum + elements(tensor), 0),
		linears: linearShapes(tensors, architecture),
		vocabulary,
		shape: shapeOfConfig(config),
		weightBytes,
		files: [...companions, ...(declared !== null && index !== undefined ? [index] : []), ...shards],
	};
}

function refuseTooLarge(weightBytes: number, limits: SourceLimits): void {
	if (weightBytes <= limits.maximumWeightBytes) return;
	refuse(
		"too-large",
		`The weights take ${gigabytes(weightBytes)}; this bot takes models up to ${gigabytes(limits.maximumWeightBytes)}.`,
		"The operator of the bot can raise watch.maxParameters if the machine has the room.",
	);
}

/** The weights that tensors stand for, and what they take in 16 bits. */
function checkForm(form: StoredForm | null, tensors: ReadonlyMap<string, TensorInfo>) {
	const found = decodedTensors(form, tensors);
	if (found.ok) return found;
	refuse(
		"already-quantized",
		found.message,
		"Push the weights in 16 or 32 bits, or as their publisher released them, with the quantization_config that says how.",
	);
}

function refuseWithoutWeights(files: readonly SourceFile[]): void {
	if (files.some((file) => file.path.endsWith(".safetensors"))) return;
	const content = files.filter((file) => !/^(\.gitattributes|README\.md)$/i.test(file.path));
	if (content.length === 0) {
		refuse("empty-repo", "The repo holds no model yet.", "Push a model; the bot looks again at every push.");
	}
	if (files.some((file) => isPickle(file.path))) {
		refuse(
			"pickle-only",
			"The weights come only as pickle files. Opening those runs code from the repo, so the bot never does.",
			"The owner can push safetensors: `model.save_pretrained(folder)` of transformers writes them.",
		);
	}
	if (files.some((file) => /\.(gguf|onnx)$/i.test(file.path))) {
		refuse(
			"already-quantized",
			"The repo holds converted files (GGUF or ONNX) but no original safetensors weights.",
			"Ask in a discussion of the original model.",
		);
	}
	refuse("empty-repo", "The repo holds no safetensors weights.", "Push weights as safetensors; the bot looks again.");
}

const Adapter = z.looseObject({ base_model_name_or_path: z.string().min(1) });

async function refuseAdapter(reader: SourceReader, file: SourceFile): Promise<never> {
	const config = file.size > MAXIMUM_JSON_BYTES ? null : parseObject(await readWhole(reader, file));
	const base = Adapter.safeParse(config);
	refuse(
		"unknown-architecture",
		`The repo holds an adapter${base.success ? ` of ${quoted(base.data.base_model_name_or_path)}` : ""}, not a whole model.`,
		"Merge the adapter into its base model (`yaqa-runner merge BASE ADAPTER --output MODEL`, or `merge_and_unload` of PEFT); of a repo on the Hub the bot does so itself.",
	);
}

async function readConfig(reader: SourceReader, byPath: ReadonlyMap<string, SourceFile>): Promise<SourceConfig> {
	const file = byPath.get("config.json");
	if (file === undefined) {
		const adapter = byPath.get(ADAPTER_FILES.configuration);
		if (adapter !== undefined) await refuseAdapter(reader, adapter);
		refuse("broken-config", "The repo has no config.json.", ASK_OWNER);
	}
	if (file.size > MAXIMUM_JSON_BYTES) refuse("broken-config", "config.json is larger than 2 MiB.", ASK_OWNER);
	const json = parseObject(await readWhole(reader, file));
	const parsed = SourceConfig.safeParse(json);
	if (!parsed.success) refuse("broken-config", "config.json is not a readable JSON object.", ASK_OWNER);
	return parsed.data;
}

/** The families that most people push, for a refusal. */
const EXAMPLES = [
	"LlamaForCausalLM",
	"Qwen3ForCausalLM",
	"Gemma3ForConditionalGeneration",
	"MixtralForCausalLM",
] as const;

function checkConfig(config: SourceConfig): { readonly architecture: string; readonly form: StoredForm | null } {
	if (config.auto_map !== undefined && config.auto_map !== null) refuseCode("config.json");
	const stored = storedFormOf(config);
	if ("quantizedBy" in stored) {
		const by = stored.quantizedBy === null ? "" : `: ${quoted(stored.quantizedBy)}`;
		refuse(
			"already-quantized",
			`config.json says that these weights are quantized already (quantization_config${by}).`,
			"Ask in a discussion of the original model, or push weights in 16 or 32 bits. Of quantized ones, original releases in float8 (fp8) and mxfp4 are taken.",
		);
	}
	const architecture = config.architectures?.[0];
	const known = SUPPORTED_ARCHITECTURES.find((candidate) => candidate === architecture);
	if (known === undefined) {
		refuse(
			"unknown-architecture",
			architecture === undefined
				? "config.json names no architecture."
				: `The architecture ${quoted(architecture)} is not one this version can quantize.`,
			`${SUPPORTED_ARCHITECTURES.length} architectures are taken, such as ${EXAMPLES.join(", ")}. docs/recipes.md of yaqa-bot lists them.`,
		);
	}
	const absurd = absurdSize(config);
	if (absurd !== null) refuse("absurd-config", `config.json cannot be right: ${absurd}.`, ASK_OWNER);
	return { architecture: known, form: stored.form };
}

/** A repo that never had one answers to text, as its original does; one whose tokenizer names it has lost it. */
function refuseWithoutProcessor(
	config: SourceConfig,
	tokenizerConfig: Readonly<Record<string, unknown>> | null,
	files: readonly SourceFile[],
): void {
	const tower = ["vision_config", "audio_config"].find((name) => typeof config[name] === "object" && config[name]);
	if (tower === undefined || typeof tokenizerConfig?.["processor_class"] !== "string") return;
	if (files.some(({ path }) => isOfKind(path, "processor"))) return;
	refuse(
		"broken-config",
		`config.json has a ${tower}, tokenizer_config.json names a processor, and the repo has none (preprocessor_config.json or processor_config.json).`,
		"Push the processor's files as well: `processor.save_pretrained(folder)` of transformers writes them.",
	);
}

function refuseCode(file: string): never {
	refuse(
		"remote-code",
		`${file} asks for code from the repo to be run (auto_map). The bot never runs code from a model repo.`,
		"Push the model in an architecture that transformers has built in, without auto_map.",
	);
}

/** tokenizer_config.json, which asks for no code; `null`: there is none. */
async function readTokenizerConfig(
	reader: SourceReader,
	byPath: ReadonlyMap<string, SourceFile>,
): Promise<Readonly<Record<string, unknown>> | null> {
	const file = byPath.get("tokenizer_config.json");
	if (file === undefined) return null;
	if (file.size > MAXIMUM_INDEX_BYTES)
		refuse("broken-config", "tokenizer_config.json is larger than 64 MiB.", ASK_OWNER);
	const json = parseObject(await readWhole(reader, file));
	if (json === null) refuse("broken-config", "tokenizer_config.json is not a readable JSON object.", ASK_OWNER);
	if (json["auto_map"] !== undefined && json["auto_map"] !== null) refuseCode("tokenizer_config.json");
	return json;
}

/** The weight files, and, where there is an index, which tensor it says is in which. */
async function weightFiles(
	reader: SourceReader,
	byPath: ReadonlyMap<string, SourceFile>,
): Promise<{ shards: SourceFile[]; declared: ReadonlyMap<string, string> | null }> {
	const index = byPath.get(INDEX_NAME);
	const single = byPath.get(SINGLE_NAME);
	if (single !== undefined) return { shards: [single], declared: null };
	if (index === undefined) {
		// Pushed with its base's config.json.
		const adapter = byPath.get(ADAPTER_FILES.configuration);
		if (adapter !== undefined) await refuseAdapter(reader, adapter);
		refuse("broken-safetensors", `The repo has neither ${SINGLE_NAME} nor ${INDEX_NAME}.`, ASK_OWNER);
	}
	if (index.size > MAXIMUM_INDEX_BYTES) refuse("broken-safetensors", `${INDEX_NAME} is larger than 64 MiB.`, ASK_OWNER);
	const bytes = await readWhole(reader, index);
	const map = parseObject(bytes)?.["weight_map"];
	if (typeof map !== "object" || map === null || Array.isArray(map)) {
		refuse("broken-safetensors", `${INDEX_NAME} has no readable weight_map.`, ASK_OWNER);
	}
	const repeated = findDuplicateKey(new TextDecoder().decode(bytes));
	if (repeated !== null) refuse("broken-safetensors", `${INDEX_NAME} names ${quoted(repeated)} twice.`, ASK_OWNER);
	const declared = new Map<string, string>();
	const names = new Set<string>();
	for (const [tensor, name] of Object.entries(map)) {
		if (typeof name !== "string" || !/^[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors$/.test(name) || name.includes("..")) {
			refuse(
				"unsafe-path",
				`${INDEX_NAME} points to ${quoted(String(name))}, outside the repo's own files.`,
				ASK_OWNER,
			);
		}
		declared.set(tensor, name);
		names.add(name);
	}
	if (names.size === 0 || names.size > MAXIMUM_SHARDS) {
		refuse("broken-safetensors", `${INDEX_NAME} names ${names.size} files.`, ASK_OWNER);
	}
	const shards = [...names].sort().map((name) => {
		const file = byPath.get(name);
		if (file === undefined) {
			refuse("broken-safetensors", `${INDEX_NAME} names ${quoted(name)}, which is not in the repo.`, ASK_OWNER);
		}
		return file;
	});
	return { shards, declared };
}

function refuseTooMany(): never {
	refuse(
		"broken-safetensors",
		`The weight files hold more than ${MAXIMUM_TENSORS_OF_ALL} tensors together.`,
		"No model that is known has so many; the owner can push weights with the tensors of the model alone.",
	);
}

async function readTensors(
	reader: SourceReader,
	shards: readonly SourceFile[],
	declared: ReadonlyMap<string, string> | null,
): Promise<Map<string, TensorInfo>> {
	const tensors = new Map<string, TensorInfo>();
	if (declared !== null && declared.size > MAXIMUM_TENSORS_OF_ALL) refuseTooMany();
	for (const shard of shards) {
		const header = await readWeightsHeader(reader, shard);
		// Each file keeps to its own limit; so many of them would not.
		if (tensors.size + header.size > MAXIMUM_TENSORS_OF_ALL) refuseTooMany();
		for (const [name, tensor] of header) {
			if (declared !== null && declared.get(name) !== shard.path) {
				refuse(
					"broken-safetensors",
					`${shard.path} holds ${quoted(name)}, which ${INDEX_NAME} does not say is there.`,
					ASK_OWNER,
				);
			}
			tensors.set(name, tensor);
		}
	}
	for (const [name, file] of declared ?? []) {
		if (!tensors.has(name)) {
			refuse("broken-safetensors", `${INDEX_NAME} says that ${file} holds ${quoted(name)}; it does not.`, ASK_OWNER);
		}
	}
	return tensors;
}

/** Where decoders keep their token embedding, and their blocks; some checkpoints leave out the first part of names. */
const EMBEDDING = /(?:^|\.)(?:embed_tokens|wte|embed_in|word_embeddings)\.weight$/;
const LAYER = /^(?:[\w.]+\.)?(?:layers|h|blocks)\.(\d+)\./;
/** Towers of images and sounds have blocks of their own, and predictors of further tokens too. */
const BESIDE_THE_LANGUAGE_MODEL = /(?:^|[._])(?:vision|visual|audio|image|mtp)(?=[._])/;
/** Blocks after the last that predict further tokens, by the names that configs have for their number. */
const FURTHER_LAYERS = ["num_nextn_predict_layers", "mtp_num_hidden_layers"] as const;

function layerOf(name: string): string | null {
	return BESIDE_THE_LANGUAGE_MODEL.test(name) ? null : (LAYER.exec(name)?.[1] ?? null);
}

/**
 * The config against the weights: a model that a loader would build at another size than the files have is refused.
 * Gives the size of the vocabulary.
 */
function checkTensors(tensors: ReadonlyMap<string, TensorInfo>, config: SourceConfig): number {
	const embedding = [...tensors.values()].find(
		({ name }) => EMBEDDING.test(name) && layerOf(name) === null && !BESIDE_THE_LANGUAGE_MODEL.test(name),
	);
	if (embedding === undefined) {
		refuse("broken-config", "The weights hold no token embedding under a name that is known here.", ASK_OWNER);
	}
	const [rows = 0, columns = 0] = embedding.shape;
	const vocabulary = sizeOf(config, "vocab_size") ?? rows;
	// OPT's smallest models have an embedding narrower than the blocks.
	const projected = config["word_embed_proj_dim"];
	const hidden = typeof projected === "number" ? projected : (sizeOf(config, "hidden_size") ?? columns);
	if (embedding.shape.length !== 2 || rows !== vocabulary || columns !== hidden) {
		refuse(
			"broken-config",
			`config.json says ${vocabulary} × ${hidden} for the embedding; the weights have ${embedding.shape.join(" × ")}.`,
			ASK_OWNER,
		);
	}
	checkLayers(tensors, config);
	return vocabulary;
}

function checkLayers(tensors: ReadonlyMap<string, TensorInfo>, config: SourceConfig): void {
	const layers = new Set([...tensors.keys()].map(layerOf).filter((layer) => layer !== null));
	const wanted = sizeOf(config, "num_hidden_layers") ?? layers.size;
	const language = languageConfigOf(config);
	const further = FURTHER_LAYERS.map((name) => language[name]).find((count) => typeof count === "number");
	if (layers.size < Math.max(1, wanted) || layers.size > wanted + (typeof further === "number" ? further : 0)) {
		refuse("broken-config", `config.json says ${wanted} layers; the weights have ${layers.size}.`, ASK_OWNER);
	}
}

/**
 * An adapter of another base, as far as names say it: where transformers calls a linear otherwise than the file does, the
 * run finds out.
 */
function refuseOtherShapes(
	tensors: ReadonlyMap<string, TensorInfo>,
	architecture: string,
	changed: readonly ChangedLinear[],
): void {
	for (const { name, rows, columns } of changed) {
		const shape = tensors.get(`${name}.weight`)?.shape;
		const [ownRows, ownColumns] = storesInputsFirst(architecture) ? (shape ?? []).toReversed() : (shape ?? []);
		if (shape?.length !== 2 || (ownRows === rows && ownColumns === columns)) continue;
		refuse(
			"source-refused",
			`The adapter changes ${quoted(name)} as a linear of ${rows} × ${columns}; the base's is ${ownRows} × ${ownColumns}.`,
			"The owner names the base that the adapter was trained on in adapter_config.json, and its commit as `revision`.",
		);
	}
}

/** GPT-2 stores its weights with inputs first. */
function storesInputsFirst(architecture: string): boolean {
	return architecture === "GPT2LMHeadModel";
}

/** Weights of two dimensions inside the blocks, counted by shape; experts of one tensor each for itself. */
function linearShapes(tensors: ReadonlyMap<string, TensorInfo>, architecture: string): readonly LinearShape[] {
	const shapes = new Map<string, LinearShape>();
	for (const { name, shape } of tensors.values()) {
		if (layerOf(name) === null) continue;
		const [experts, ...matrix] = shape.length === 3 && name.includes("experts") ? shape : [1, ...shape];
		const [rows, columns] = storesInputsFirst(architecture) ? matrix.toReversed() : matrix;
		if (matrix.length !== 2 || experts === undefined || rows === undefined || columns === undefined) continue;
		const key = `${rows} ${columns}`;
		shapes.set(key, { rows, columns, count: (shapes.get(key)?.count ?? 0) + experts });
	}
	return [...shapes.values()];
}

function elements(tensor: TensorInfo): number {
	return tensor.shape.reduce((product, count) => product * count, 1);
}

function gigabytes(bytes: number): string {
	return bytes >= 1e8 ? `${(bytes / 1e9).toFixed(1)} GB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
