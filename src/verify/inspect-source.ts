import type { HubAccess } from "../hub/hub-access.ts";
import type { ModelShape } from "../protocol/model-shape.ts";
import type { Inspection, SourceBase, SourceContent } from "../records/source.ts";
import { findHubSource, type HubSource, refusedSource, whereAllowed } from "./hub-source.ts";
import { type InspectedAdapter, inspectAdapter, isAdapter } from "./inspect-adapter.ts";
import { inspectApart } from "./inspect-apart.ts";
import type { ChangedLinear, LinearShape, SourceLimits } from "./inspect-files.ts";
import { quoted, refusal } from "./refusals.ts";
import { Refused } from "./refused.ts";
import { adaptedContent, sourceContent } from "./source-content.ts";
import type { SourceFile } from "./source-reader.ts";

/** What is known of a source without downloading its weights. */
type InspectedSource = {
	readonly repo: string;
	readonly sha: string;
	readonly currentName: string;
	/** The commit of the main branch. */
	readonly headSha: string;
	readonly architecture: string;
	readonly modelType: string | null;
	readonly parameters: number;
	readonly weightBytes: number;
	readonly linears: readonly LinearShape[];
	readonly vocabulary: number;
	readonly shape: ModelShape | null;
	readonly license: string | null;
	readonly gated: boolean;
	readonly private: boolean;
	readonly tags: readonly string[];
	/** What a runner needs of the repo. */
	readonly files: readonly SourceFile[];
	readonly content: SourceContent | null;
	/** Of an adapter: its base, and what a runner needs of that. */
	readonly base: (SourceBase & { readonly files: readonly SourceFile[] }) | null;
};

type Terms = { readonly limits: SourceLimits; readonly changed?: readonly ChangedLinear[] };

/**
 * Reads a Hub repo by ranges and decides whether it can be quantized; of an adapter, whether it can be merged onto its
 * base and the result quantized. `baseSha`: the base's commit, where it was settled before. Throws only for faults that
 * another try may pass.
 */
export async function inspectSource(
	params: HubAccess & {
		readonly repo: string;
		readonly revision: string;
		readonly baseSha?: string | null;
		readonly limits: SourceLimits;
	},
): Promise<Inspection<InspectedSource>> {
	const { repo, revision, baseSha = null, limits, ...access } = params;
	const found = await findHubSource({ ...access, repo, revision });
	if (!found.ok) return found;
	const { source } = found;
	return isAdapter(source.reader.files)
		? await inspectAdapted(access, source, { baseSha, limits })
		: await inspectModel(source, { limits });
}

async function inspectModel(source: HubSource, { limits, changed = [] }: Terms): Promise<Inspection<InspectedSource>> {
	const { reader, told, ...seen } = source;
	const looked = await whereAllowed(source.repo, async () => await inspectApart(reader, { ...limits, changed }));
	if (!looked.ok) return refusedSource(source, looked.refusal);
	if (!looked.value.ok) return refusedSource(source, looked.value.refusal);
	const { files, ...inspected } = looked.value.inspected;
	const content = sourceContent(reader.files, new Set(files.map((file) => file.path)));
	return { ok: true, told, facts: { ...seen, tags: told.tags, ...inspected, files, content, base: null } };
}

/** An adapter and its base as one source: named after the adapter, of the base's sizes, as visible as the less visible one. */
async function inspectAdapted(
	access: HubAccess,
	source: HubSource,
	terms: { readonly baseSha: string | null; readonly limits: SourceLimits },
): Promise<Inspection<InspectedSource>> {
	const looked = await whereAllowed(source.repo, async () => {
		try {
			return { ok: true, adapter: await inspectAdapter(source.reader, terms.limits) } as const;
		} catch (error) {
			if (error instanceof Refused) return { ok: false, refusal: error.refusal } as const;
			throw error;
		}
	});
	if (!looked.ok) return refusedSource(source, looked.refusal);
	if (!looked.value.ok) return refusedSource(source, looked.value.refusal);
	const { adapter } = looked.value;
	const base = await inspectBase(access, source, adapter, terms);
	if (!base.ok) return refusedSource({ ...source, private: source.private || base.private === true }, base.refusal);
	const { facts } = base;
	const { reader, told, ...seen } = source;
	return {
		ok: true,
		told: {
			tags: told.tags,
			pipelineTag: told.pipelineTag ?? base.told.pipelineTag,
			architectures: told.architectures.length > 0 ? told.architectures : base.told.architectures,
		},
		facts: {
			...facts,
			...seen,
			license: source.license ?? facts.license,
			gated: source.gated || facts.gated,
			private: source.private || facts.private,
			tags: told.tags,
			files: adapter.files,
			content: adaptedContent(reader.files, new Set(adapter.files.map((file) => file.path)), facts),
			base: { repo: facts.repo, sha: facts.sha, files: facts.files },
		},
	};
}

/**
 * The base of an adapter. A private one only for a private adapter of the same owner: who may read the adapter would
 * read of the base too, and a word of ours beside a public adapter would say that it is there.
 */
async function inspectBase(
	access: HubAccess,
	source: HubSource,
	{ baseRepo: repo, baseRevision, changed }: InspectedAdapter,
	{ baseSha, limits }: { readonly baseSha: string | null; readonly limits: SourceLimits },
): Promise<Inspection<InspectedSource>> {
	const found = await findHubSource({ ...access, repo, revision: baseSha ?? baseRevision });
	const mayBePrivate = source.private && source.repo.split("/")[0] === repo.split("/")[0];
	const isHidden = found.ok ? found.source.private : found.private === true;
	const isMissing = !found.ok && found.sha === null && found.refusal.code === "repo-not-found";
	if (isMissing || (isHidden && !mayBePrivate)) {
		return {
			ok: false,
			sha: null,
			refusal: refusal(
				"repo-not-found",
				`The adapter's base ${quoted(repo)} is no model repo that the bot can see and may take for this adapter.`,
				"Check base_model_name_or_path in adapter_config.json. A private base is taken for private adapters of the same owner, who gives the bot's account read access to both.",
			),
		};
	}
	if (!found.ok) return { ...found, refusal: ofBase(repo, found.refusal) };
	if (isAdapter(found.source.reader.files)) {
		return refusedSource(
			found.source,
			refusal(
				"unsupported-model",
				`The adapter's base ${quoted(repo)} is an adapter itself.`,
				"The owner can merge the one onto the other by PEFT (`merge_and_unload`) and push the result.",
			),
		);
	}
	const looked = await inspectModel(found.source, { limits, changed });
	return looked.ok ? looked : { ...looked, refusal: ofBase(repo, looked.refusal) };
}

function ofBase<Reason extends { readonly message: string }>(repo: string, reason: Reason): Reason {
	return { ...reason, message: `The adapter's base ${quoted(repo)} cannot be taken. ${reason.message}` };
}
