import { z } from "zod";
import { repoName } from "../protocol/job-spec.ts";
import { ADAPTER_FILES, isPickle } from "../protocol/source-files.ts";
import { checkPaths, isCompanion } from "./check-paths.ts";
import type { ChangedLinear, SourceLimits } from "./inspect-files.ts";
import { refuseOwnOutput } from "./own-output.ts";
import { readWeightsHeader } from "./read-weights-header.ts";
import { quoted } from "./refusals.ts";
import { ASK_OWNER, refuse } from "./refused.ts";
import type { TensorInfo } from "./safetensors-header.ts";
import { parseObject, readWhole } from "./source-json.ts";
import type { SourceFile, SourceReader } from "./source-reader.ts";

/** The parts of `adapter_config.json` that the bot looks at; whether settings and weights fit is the runner's business. */
const AdapterConfig = z.looseObject({
	peft_type: z.string().max(100).nullish(),
	base_model_name_or_path: z.string().min(1).max(1000).nullish(),
	revision: z.string().max(200).nullish(),
	auto_mapping: z.looseObject({ parent_library: z.string().max(1000).nullish() }).nullish(),
	megatron_config: z.unknown().optional(),
});
type AdapterConfig = z.infer<typeof AdapterConfig>;

export type InspectedAdapter = {
	/** Of its base: a Hub repo, and the branch, tag or commit of it that the adapter names. */
	readonly baseRepo: string;
	readonly baseRevision: string;
	readonly changed: readonly ChangedLinear[];
	/** The files a runner needs. */
	readonly files: readonly SourceFile[];
};

const MAXIMUM_CONFIG_BYTES = 2 * 2 ** 20;
/** The names of factors of every expert of the largest mixtures take about 6 MB. */
const MAXIMUM_HEADER_BYTES = 16 * 2 ** 20;
const MAXIMUM_COMPANION_BYTES = 512 * 2 ** 20;
const WHOLE_MODELS = ["model.safetensors", "model.safetensors.index.json"];
/** peft calls the model that it wraps so. */
const WRAPPED = "base_model.model.";
const FIRST_FACTOR = ".lora_A.weight";
const SECOND_FACTOR = ".lora_B.weight";
const MERGE_YOURSELF = "The owner can merge it by PEFT (`merge_and_unload`) and push the result.";

/** Whether a repo holds an adapter and no whole model. */
export function isAdapter(files: readonly SourceFile[]): boolean {
	const names = new Set(files.map(({ path }) => path));
	return names.has(ADAPTER_FILES.configuration) && !WHOLE_MODELS.some((name) => names.has(name));
}

/** An adapter, by its settings and the header of its weights. Throws `Refused` where it is none that can be merged. */
export async function inspectAdapter(reader: SourceReader, limits: SourceLimits): Promise<InspectedAdapter> {
	checkPaths(reader.files);
	const byPath = new Map(reader.files.map((file) => [file.path, file]));
	await refuseOwnOutput(reader, byPath);
	const { configuration, weights } = adapterFiles(byPath);
	const config = await readConfig(reader, configuration);
	checkKind(config);
	const { baseRepo, baseRevision } = baseOf(config);
	if (weights.size > limits.maximumWeightBytes) {
		refuse("too-large", `${weights.path} has ${weights.size} bytes, more than a whole model may have here.`, ASK_OWNER);
	}
	const changed = changedLinears(await readWeightsHeader(bounded(reader), weights));
	const companions = reader.files.filter(({ path }) => isCompanion(path) && path !== "config.json");
	if (companions.reduce((sum, { size }) => sum + size, 0) > MAXIMUM_COMPANION_BYTES) {
		refuse("too-large", "Tokenizer and other files beside the adapter's weights take more than 512 MiB.", ASK_OWNER);
	}
	const files = [...companions, configuration, weights];
	return { baseRepo, baseRevision, changed, files };
}

function adapterFiles(byPath: ReadonlyMap<string, SourceFile>) {
	const configuration = byPath.get(ADAPTER_FILES.configuration);
	const weights = byPath.get(ADAPTER_FILES.weights);
	if (configuration !== undefined && weights !== undefined) return { configuration, weights };
	const pickle = [...byPath.keys()].find((path) => path.startsWith("adapter_model.") && isPickle(path));
	if (pickle !== undefined) {
		refuse(
			"pickle-only",
			`The adapter's weights are only in ${quoted(pickle)}. Opening that runs code from the repo, so the bot never does.`,
			"The owner can push safetensors: `save_pretrained` of PEFT writes them.",
		);
	}
	refuse("empty-repo", `The repo holds the settings of an adapter, but no ${ADAPTER_FILES.weights}.`, ASK_OWNER);
}

async function readConfig(reader: SourceReader, file: SourceFile): Promise<AdapterConfig> {
	if (file.size > MAXIMUM_CONFIG_BYTES) refuse("broken-config", `${file.path} is larger than 2 MiB.`, ASK_OWNER);
	const parsed = AdapterConfig.safeParse(parseObject(await readWhole(reader, file)));
	if (parsed.success) return parsed.data;
	refuse("broken-config", `${file.path} is not readable as an adapter's settings.`, ASK_OWNER);
}

function checkKind({ peft_type: kind, auto_mapping: mapping, megatron_config: megatron }: AdapterConfig): void {
	if (kind !== "LORA") {
		const named = kind == null ? "no kind" : `the kind ${quoted(kind)}`;
		refuse("unknown-architecture", `The adapter is of ${named}; LoRA (LORA) is merged.`, MERGE_YOURSELF);
	}
	const library = mapping?.parent_library;
	if ((library != null && !library.startsWith("transformers.models.")) || megatron != null) {
		refuse(
			"remote-code",
			"adapter_config.json asks for classes that are not transformers' own (auto_mapping or megatron_config); their code is never run.",
			MERGE_YOURSELF,
		);
	}
}

function baseOf({ base_model_name_or_path: name, revision }: AdapterConfig) {
	if (name == null) {
		refuse(
			"broken-config",
			"The adapter names no base (base_model_name_or_path in adapter_config.json).",
			"The owner names the base there: a repo on the Hub, as namespace/name.",
		);
	}
	const repo = repoName.safeParse(name);
	if (!repo.success) {
		refuse(
			"broken-config",
			`The adapter's base is ${quoted(name)}, which is no repo on the Hub.`,
			"The owner names the base in adapter_config.json as namespace/name, not as a folder of their machine.",
		);
	}
	return { baseRepo: repo.data, baseRevision: revision == null || revision === "" ? "main" : revision };
}

function bounded(reader: SourceReader): SourceReader {
	return {
		files: reader.files,
		async read(path, start, end) {
			if (end - start <= MAXIMUM_HEADER_BYTES) return await reader.read(path, start, end);
			refuse("broken-safetensors", `The header of ${quoted(path)} takes more than 16 MiB.`, ASK_OWNER);
		},
	};
}

function changedLinears(tensors: ReadonlyMap<string, TensorInfo>): readonly ChangedLinear[] {
	const changed: ChangedLinear[] = [];
	for (const [name, first] of tensors) {
		if (!name.endsWith(FIRST_FACTOR)) continue;
		const path = name.slice(0, -FIRST_FACTOR.length);
		const second = tensors.get(`${path}${SECOND_FACTOR}`);
		const [columns, rows] = [first.shape[1], second?.shape[0]];
		if (columns === undefined || rows === undefined) {
			refuse("broken-safetensors", `The adapter has only one of the two factors of ${quoted(path)}.`, ASK_OWNER);
		}
		changed.push({ name: path.startsWith(WRAPPED) ? path.slice(WRAPPED.length) : path, rows, columns });
	}
	if (changed.length > 0) return changed;
	refuse("broken-safetensors", `${ADAPTER_FILES.weights} holds no factors of a LoRA.`, ASK_OWNER);
}
