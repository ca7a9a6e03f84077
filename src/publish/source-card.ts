import { modelInfo } from "@huggingface/hub";
import { z } from "zod";
import type { HubAccess } from "../hub/hub-access.ts";
import { hubStatus } from "../hub/hub-request-error.ts";
import type { RepoGating } from "../hub/update-repo-settings.ts";
import { repoName } from "../protocol/job-spec.ts";
import type { Manifest } from "../protocol/manifest.ts";
import { isStricter } from "./stricter-gating.ts";

/** What a published repo takes over from its source; of an adapter, from its base too. */
export type SourceCard = {
	/** Its name now; another than was asked for when it was renamed since. */
	readonly repo: string;
	/** The commit that its main branch points at; `null`: the Hub does not say. */
	readonly headSha: string | null;
	readonly private: boolean;
	readonly gated: RepoGating;
	readonly license: string | null;
	readonly licenseName: string | null;
	readonly licenseLink: string | null;
	readonly languages: readonly string[];
	readonly pipelineTag: string | null;
	/** Of an adapter: the models that files of it were merged onto, with their terms. */
	readonly bases: readonly BaseTerms[];
};

type BaseTerms = Pick<SourceCard, "repo" | "license" | "licenseName" | "licenseLink">;

const tag = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$/);
const optional = <Schema extends z.ZodType>(schema: Schema) => schema.nullish().catch(null);
const Card = z.looseObject({
	license: optional(z.union([tag, z.array(tag).min(1)])),
	license_name: optional(z.string().max(200)),
	license_link: optional(z.string().max(500)),
	language: optional(z.union([tag, z.array(tag).max(300)])),
});
const Info = z.object({
	name: optional(repoName),
	sha: optional(z.string().regex(/^[0-9a-f]{40}$/)),
	private: z.boolean(),
	gated: z.union([z.literal(false), z.literal("auto"), z.literal("manual")]).catch("manual"),
	task: optional(tag),
	cardData: optional(Card),
});

/** The source's card and settings now; `null` when the repo is gone. What is malformed in the card is left out. */
export async function readSourceCard(params: HubAccess & { readonly repo: string }): Promise<SourceCard | null> {
	const { repo, ...access } = params;
	try {
		const info = Info.parse(await modelInfo({ ...access, name: repo, additionalFields: ["sha", "cardData"] }));
		const card = info.cardData;
		return {
			repo: info.name ?? repo,
			headSha: info.sha ?? null,
			private: info.private,
			gated: info.gated,
			license: [card?.license ?? []].flat()[0] ?? null,
			licenseName: card?.license_name ?? null,
			licenseLink: safeLink(card?.license_link ?? null),
			languages: [card?.language ?? []].flat(),
			pipelineTag: info.task ?? null,
			bases: [],
		};
	} catch (error) {
		const status = hubStatus(error);
		if (status === 401 || status === 403 || status === 404) return null;
		throw error;
	}
}

/**
 * As `readSourceCard`, of an adapter and its bases together: as visible as the least visible of them, under the terms of
 * all. `null` when one of them is gone.
 */
export async function readOriginalCard(
	params: HubAccess & { readonly repo: string; readonly bases: readonly string[] },
): Promise<SourceCard | null> {
	const { repo, bases, ...access } = params;
	let original = await readSourceCard({ ...access, repo });
	for (const name of bases) {
		const base = await readSourceCard({ ...access, repo: name });
		if (base === null || original === null) return null;
		const { license, licenseName, licenseLink } = base;
		original = {
			...original,
			private: original.private || base.private,
			gated: isStricter(base.gated, original.gated) ? base.gated : original.gated,
			languages: original.languages.length > 0 ? original.languages : base.languages,
			pipelineTag: original.pipelineTag ?? base.pipelineTag,
			bases: [...original.bases, { repo: base.repo, license, licenseName, licenseLink }],
		};
	}
	return original;
}

/** The bases that the files of these manifests were merged onto. */
export function basesOf(manifests: readonly (Manifest | null)[]): readonly string[] {
	return [...new Set(manifests.flatMap((manifest) => manifest?.source.base?.repo ?? []))];
}

/** A web address, or a plain file name, which then means the copy of that file in the published repo. */
function safeLink(link: string | null): string | null {
	if (link === null) return null;
	if (/^[A-Za-z0-9][A-Za-z0-9._-]{0,100}$/.test(link)) return link;
	try {
		const url = new URL(link);
		return url.protocol === "https:" ? url.href : null;
	} catch {
		return null;
	}
}
