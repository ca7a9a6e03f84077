import { open } from "node:fs/promises";
import { gguf } from "@huggingface/gguf";
import { parse as parseYaml } from "yaml";
import { z } from "zod";
import type { BlobStore } from "./blob-store.ts";
import type { FileEntry, FileTree } from "./git-objects.ts";
import type { Commit } from "./repo-store.ts";

/** What the Hub reads out of a repo's files to describe it. */
export type RepoFacts = {
	readonly card: Readonly<Record<string, unknown>> | null;
	/** The model card without its front matter. */
	readonly cardBody: string;
	readonly tags: readonly string[];
	readonly pipelineTag: string | null;
	readonly libraryName: string | null;
	readonly config: Readonly<Record<string, unknown>> | null;
	readonly safetensors: {
		readonly parameters: Readonly<Record<string, number>>;
		readonly total: number;
	} | null;
	readonly gguf: Readonly<Record<string, unknown>> | null;
	readonly baseModels: { readonly relation: string; readonly models: readonly string[] } | null;
	readonly usedStorage: number;
};

const LARGEST_TEXT = 1024 * 1024;
const LARGEST_HEADER = 32 * 1024 * 1024;
const MOST_TAGS = 200;

function splitFrontMatter(text: string): { yaml: string | null; body: string } {
	const match = /^\uFEFF?---[ \t]*\r?\n([\s\S]*?)(?:\r?\n)?---[ \t]*(?:\r?\n|$)/.exec(text);
	return match === null ? { yaml: null, body: text } : { yaml: match[1] ?? "", body: text.slice(match[0].length) };
}

/** The front matter as data, or why it cannot be one. */
export function parseCard(text: string): { data: Record<string, unknown> | null; error: string | null } {
	const { yaml } = splitFrontMatter(text);
	if (yaml === null) return { data: null, error: null };
	try {
		const value: unknown = parseYaml(yaml, { maxAliasCount: 20 });
		if (value === null) return { data: {}, error: null };
		const parsed = z.record(z.string(), z.unknown()).safeParse(value);
		return parsed.success
			? { data: parsed.data, error: null }
			: { data: null, error: "The metadata is not a YAML mapping." };
	} catch (error) {
		return { data: null, error: `Invalid YAML: ${error instanceof Error ? error.message : "cannot be parsed"}` };
	}
}

function strings(value: unknown): string[] {
	const list = Array.isArray(value) ? value : [value];
	return list.filter((item): item is string => typeof item === "string" && item.length > 0 && item.length <= 200);
}

function firstString(value: unknown): string | null {
	return strings(value)[0] ?? null;
}

const lfsOrRegularPath = (blobs: BlobStore, entry: FileEntry): string =>
	entry.lfs === undefined ? blobs.regularPath(entry.oid) : blobs.lfsPath(entry.lfs.oid);

async function readText(blobs: BlobStore, entry: FileEntry | undefined): Promise<string | null> {
	if (entry === undefined || entry.size > LARGEST_TEXT) return null;
	const handle = await open(lfsOrRegularPath(blobs, entry), "r");
	try {
		return await handle.readFile("utf8");
	} finally {
		await handle.close();
	}
}

const tensorHeader = z.record(
	z.string(),
	z.union([z.object({ dtype: z.string().max(16), shape: z.array(z.number().int().nonnegative()) }), z.unknown()]),
);

async function safetensorsCounts(blobs: BlobStore, entry: FileEntry): Promise<Map<string, number>> {
	const counts = new Map<string, number>();
	const handle = await open(lfsOrRegularPath(blobs, entry), "r");
	try {
		const prefix = Buffer.alloc(8);
		await handle.read(prefix, 0, 8, 0);
		const length = Number(prefix.readBigUInt64LE());
		if (length > LARGEST_HEADER || length + 8 > entry.size) return counts;
		const header = Buffer.alloc(length);
		await handle.read(header, 0, length, 8);
		for (const [name, tensor] of Object.entries(tensorHeader.parse(JSON.parse(header.toString("utf8"))))) {
			if (name === "__metadata__" || typeof tensor !== "object" || tensor === null) continue;
			if (!("dtype" in tensor) || !("shape" in tensor) || typeof tensor.dtype !== "string") continue;
			if (!Array.isArray(tensor.shape)) continue;
			const size = tensor.shape.reduce((product: number, side: unknown) => product * Number(side), 1);
			if (Number.isSafeInteger(size)) counts.set(tensor.dtype, (counts.get(tensor.dtype) ?? 0) + size);
		}
	} finally {
		await handle.close();
	}
	return counts;
}

async function safetensorsFacts(blobs: BlobStore, files: FileTree): Promise<RepoFacts["safetensors"]> {
	const parameters: Record<string, number> = {};
	let total = 0;
	for (const [path, entry] of files) {
		if (!path.endsWith(".safetensors") || path.includes("/") || path.startsWith("adapter_")) continue;
		try {
			for (const [dtype, count] of await safetensorsCounts(blobs, entry)) {
				parameters[dtype] = (parameters[dtype] ?? 0) + count;
				total += count;
			}
		} catch {
			// a broken header only costs the repo its parameter count
		}
	}
	return total === 0 ? null : { parameters, total };
}

async function ggufFacts(blobs: BlobStore, files: FileTree): Promise<RepoFacts["gguf"]> {
	// Importance matrices lie beside models.
	const models = [...files.keys()].filter((path) => path.endsWith(".gguf") && !path.includes("imatrix"));
	const first = models.sort()[0];
	const entry = first === undefined ? undefined : files.get(first);
	if (entry === undefined) return null;
	try {
		const { metadata, tensorInfos } = await gguf(lfsOrRegularPath(blobs, entry), { allowLocalFile: true });
		const facts: Record<string, unknown> = {};
		let total = 0;
		for (const tensor of tensorInfos)
			total += Number(tensor.shape.reduce((product, side) => product * BigInt(side), 1n));
		facts["total"] = total;
		const keys = new Map<string, unknown>(Object.entries(metadata));
		const architecture = keys.get("general.architecture");
		if (typeof architecture === "string") {
			facts["architecture"] = architecture;
			const context = keys.get(`${architecture}.context_length`);
			if (typeof context === "number" || typeof context === "bigint") facts["context_length"] = Number(context);
		}
		const template = keys.get("tokenizer.chat_template");
		if (typeof template === "string") facts["chat_template"] = template.slice(0, 65_536);
		return facts;
	} catch {
		return null;
	}
}

function configFacts(text: string | null): {
	config: Readonly<Record<string, unknown>> | null;
	modelType: string | null;
	architectures: readonly string[];
	quantMethod: string | null;
} {
	const none = { config: null, modelType: null, architectures: [], quantMethod: null };
	if (text === null) return none;
	try {
		const all = z.record(z.string(), z.unknown()).parse(JSON.parse(text));
		const quantization = z.looseObject({ quant_method: z.string() }).safeParse(all["quantization_config"]);
		const config: Record<string, unknown> = {};
		for (const name of ["architectures", "model_type", "auto_map"]) if (name in all) config[name] = all[name];
		if (quantization.success) config["quantization_config"] = quantization.data;
		return {
			config,
			modelType: firstString(all["model_type"]),
			architectures: strings(all["architectures"]),
			quantMethod: quantization.success ? quantization.data.quant_method : null,
		};
	} catch {
		return none;
	}
}

async function readFacts(blobs: BlobStore, commit: Commit): Promise<RepoFacts> {
	const files = commit.files;
	const readme = (await readText(blobs, files.get("README.md"))) ?? "";
	const card = parseCard(readme).data;
	const { config, modelType, architectures, quantMethod } = configFacts(
		await readText(blobs, files.get("config.json")),
	);
	const has = (ending: string): boolean => [...files.keys()].some((path) => path.endsWith(ending));

	const libraryName = firstString(card?.["library_name"]) ?? (modelType === null ? null : "transformers");
	const pipelineTag =
		firstString(card?.["pipeline_tag"]) ??
		(architectures.some((name) => name.endsWith("ForCausalLM")) ? "text-generation" : null);
	const bases = strings(card?.["base_model"]);
	const relation =
		firstString(card?.["base_model_relation"]) ??
		(files.has("adapter_config.json")
			? "adapter"
			: bases.length > 1
				? "merge"
				: quantMethod !== null || has(".gguf")
					? "quantized"
					: "finetune");

	const tags = new Set<string>();
	if (libraryName !== null) tags.add(libraryName);
	for (const [ending, tag] of [
		[".onnx", "onnx"],
		[".safetensors", "safetensors"],
		[".gguf", "gguf"],
	] as const)
		if (has(ending)) tags.add(tag);
	if (modelType !== null) tags.add(modelType);
	if (pipelineTag !== null) tags.add(pipelineTag);
	for (const tag of strings(card?.["tags"])) tags.add(tag);
	for (const language of strings(card?.["language"])) tags.add(language);
	for (const dataset of strings(card?.["datasets"])) tags.add(`dataset:${dataset}`);
	for (const base of bases) {
		tags.add(`base_model:${base}`);
		tags.add(`base_model:${relation}:${base}`);
	}
	const license = firstString(card?.["license"]);
	if (license !== null) tags.add(`license:${license}`);
	if (quantMethod !== null) tags.add(quantMethod);
	tags.add("region:us");

	const lfs = new Map<string, number>();
	for (const entry of files.values()) if (entry.lfs !== undefined) lfs.set(entry.lfs.oid, entry.lfs.size);
	return {
		card,
		cardBody: splitFrontMatter(readme).body,
		tags: [...tags].slice(0, MOST_TAGS),
		pipelineTag,
		libraryName,
		config,
		safetensors: await safetensorsFacts(blobs, files),
		gguf: await ggufFacts(blobs, files),
		baseModels: bases.length === 0 ? null : { relation, models: bases },
		usedStorage: [...lfs.values()].reduce((sum, size) => sum + size, 0),
	};
}

/** Facts by commit, each read once: a commit never changes. */
export function createFactsReader(blobs: BlobStore): (commit: Commit) => Promise<RepoFacts> {
	const known = new Map<string, Promise<RepoFacts>>();
	return (commit) => {
		const before = known.get(commit.tree);
		if (before !== undefined) return before;
		const facts = readFacts(blobs, commit);
		known.set(commit.tree, facts);
		facts.catch(() => known.delete(commit.tree));
		if (known.size > 1000) {
			const oldest = known.keys().next();
			if (!oldest.done) known.delete(oldest.value);
		}
		return facts;
	};
}
