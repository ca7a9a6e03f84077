import type { Refusal } from "../errors.ts";
import type { ModelShape } from "../protocol/model-shape.ts";

/** What a commit's files say, in two parts: commits with equal keys have equal files of that kind. */
export type SourceContent = {
	/** Weights, their index and `config.json`. */
	readonly weights: string;
	/** Tokenizer, chat template and generation settings. */
	readonly companions: string;
};

/** The model that an adapter is merged onto: a Hub repo at the commit that it had when it was first looked at for it. */
export type SourceBase = { readonly repo: string; readonly sha: string };

/** What is known of a source without downloading its weights; of an adapter, what is known of it and its base together. */
export type SourceFacts = {
	readonly repo: string;
	readonly sha: string;
	/** What the Hub calls the repo, another than was asked for when it was renamed; absent: as asked for. */
	readonly currentName?: string;
	/** The commit that the main branch points at; absent: this one. */
	readonly headSha?: string;
	readonly architecture: string;
	/** What transformers calls the kind; absent: not looked at. */
	readonly modelType?: string | null;
	readonly parameters: number;
	readonly weightBytes: number;
	/** Linears of the blocks by shape, for planning. */
	readonly linears?: readonly { readonly rows: number; readonly columns: number; readonly count: number }[];
	readonly vocabulary?: number;
	/** What its memory is computed from; `null`: its configuration says it in no way that is known. */
	readonly shape?: ModelShape | null;
	readonly license: string | null;
	readonly gated: boolean;
	readonly private: boolean;
	readonly tags: readonly string[];
	readonly content?: SourceContent | null;
	/** Of an adapter; absent or `null`: the source is a whole model. */
	readonly base?: SourceBase | null;
};

/** What the Hub tells of a model at a commit, whatever its files hold. */
export type HubWord = {
	readonly tags: readonly string[];
	/** The task it is listed under. */
	readonly pipelineTag: string | null;
	/** Those of its `config.json`. */
	readonly architectures: readonly string[];
};

export type Inspection<Facts extends SourceFacts = SourceFacts> =
	| { readonly ok: true; readonly facts: Facts; readonly told: HubWord }
	/** `sha`: the commit that was looked at, `null` when there is none (not found, empty). */
	| {
			readonly ok: false;
			readonly refusal: Refusal;
			readonly sha: string | null;
			/** Absent: nothing was seen of the repo. */
			readonly private?: boolean;
			readonly told?: HubWord;
	  };

/** What the owner of a source says about it, in the repo itself. */
export type OwnerSettings = {
	/** The text of `.yaqa-bot.yaml` at the commit; `null`: there is none. */
	readonly settings: string | null;
	/** Whether the bot's status discussion was closed: "no, thank you". */
	readonly closed: boolean;
};

/** What the main branch of a watched repo points at. */
export type WatchedHead = { readonly repo: string; readonly sha: string };
