import { modelInfo } from "@huggingface/hub";
import { z } from "zod";
import type { Refusal } from "../errors.ts";
import type { HubAccess } from "../hub/hub-access.ts";
import { hubStatus } from "../hub/hub-request-error.ts";
import type { RepoFile } from "../hub/list-repo-files.ts";
import { repoName } from "../protocol/job-spec.ts";
import type { HubWord, Inspection } from "../records/source.ts";
import { findOwnerCommit } from "./find-owner-commit.ts";
import { hubSourceReader } from "./hub-source-reader.ts";
import { quoted, refusal } from "./refusals.ts";
import { SourceAccessError, type SourceReader } from "./source-reader.ts";

const Card = z.looseObject({ license: z.union([z.string(), z.array(z.string())]).nullish() });
const Info = z.object({
	name: repoName.nullish().catch(null),
	private: z.boolean(),
	gated: z.union([z.literal(false), z.string()]),
	disabled: z.boolean().nullish(),
	tags: z.array(z.string()).nullish(),
	cardData: Card.nullish().catch(null),
	/** As `@huggingface/hub` calls the pipeline tag. */
	task: z.string().nullish().catch(null),
	config: z
		.looseObject({ architectures: z.array(z.string()).max(16).nullish().catch(null) })
		.nullish()
		.catch(null),
});

/** `cc-by-nd-4.0`, `cc-by-nc-nd-4.0`: may be shared, but not changed; a quantized model is a changed one. */
export function forbidsDerivatives(license: string): boolean {
	return license
		.toLowerCase()
		.split(/[^a-z0-9]+/)
		.includes("nd");
}

/** What the Hub says of a repo at a commit; `null`: it is gone. */
async function infoOf(access: HubAccess, repo: string, sha: string): Promise<z.infer<typeof Info> | null> {
	try {
		return Info.parse(
			await modelInfo({
				...access,
				name: repo,
				revision: sha,
				additionalFields: ["cardData", "tags", "disabled", "config"],
			}),
		);
	} catch (error) {
		const status = hubStatus(error);
		if (status === 401 || status === 403 || status === 404) return null;
		throw error;
	}
}

/** Why there is no commit to look at. */
function noCommit(
	kind: Exclude<Awaited<ReturnType<typeof findOwnerCommit>>["kind"], "found">,
	repo: string,
	revision: string,
): Refusal {
	switch (kind) {
		case "no-repo":
			return refusal(
				"repo-not-found",
				`There is no model repo ${quoted(repo)} that the bot can see.`,
				"Check the name; for a private repo, its owner gives the bot's account read access.",
			);
		case "no-commits":
			return refusal("empty-repo", "The repo holds no model yet.", "Push a model; the bot looks again at every push.");
		case "not-the-owners":
			return refusal(
				"not-permitted",
				`${quoted(revision)} is no branch or tag of ${quoted(repo)}, and no commit that one of them holds. Pull requests are not quantized: everybody can open one.`,
				"Name a branch, a tag or a commit in the history of one. A pull request can be quantized once it is merged.",
			);
		case "too-many-commits":
			return refusal(
				"not-permitted",
				`${quoted(repo)} has too many commits to look ${quoted(revision)} up among them.`,
				"Name a branch or a tag; the repo's owner can put a tag on the commit.",
			);
	}
}

/** A commit of a Hub repo, and what the Hub says of it; none of its files was read. */
export type HubSource = {
	readonly repo: string;
	readonly sha: string;
	readonly currentName: string;
	/** The commit of the main branch. */
	readonly headSha: string;
	readonly license: string | null;
	readonly gated: boolean;
	readonly private: boolean;
	readonly told: HubWord;
	readonly reader: SourceReader & { readonly files: readonly RepoFile[] };
};

type Refused = Extract<Inspection, { readonly ok: false }>;

/** The answer that a source is refused, with what was seen of it. */
export function refusedSource(source: Omit<HubSource, "reader">, reason: Refusal): Refused {
	return { ok: false, sha: source.sha, refusal: reason, private: source.private, told: source.told };
}

/** Finds a commit that the repo's owner put there, and lists its files. Throws only for faults that another try may pass. */
export async function findHubSource(
	params: HubAccess & { readonly repo: string; readonly revision: string },
): Promise<{ readonly ok: true; readonly source: HubSource } | Refused> {
	const { repo, revision, ...access } = params;
	const commit = await findOwnerCommit({ ...access, repo, revision });
	if (commit.kind !== "found") return { ok: false, sha: null, refusal: noCommit(commit.kind, repo, revision) };
	const { sha, head } = commit;
	const info = await infoOf(access, repo, sha);
	if (info === null) return { ok: false, sha: null, refusal: noCommit("no-repo", repo, revision) };
	const licenses = [info.cardData?.license ?? []].flat();
	const seen = {
		repo,
		sha,
		currentName: info.name ?? repo,
		headSha: head,
		license: licenses[0] ?? null,
		gated: info.gated !== false,
		private: info.private,
		told: {
			tags: info.tags ?? [],
			pipelineTag: info.task ?? null,
			architectures: info.config?.architectures ?? [],
		},
	};
	if (info.disabled === true) {
		return refusedSource(
			seen,
			refusal("repo-not-found", "The Hub has disabled access to this repo.", "Its owner can ask the Hub's staff why."),
		);
	}
	const forbidding = licenses.find(forbidsDerivatives);
	if (forbidding !== undefined) {
		return refusedSource(
			seen,
			refusal(
				"licence-forbids",
				`The licence ${quoted(forbidding)} allows no derived works, and a quantized model is one.`,
				"The owner can put the model under another licence, or quantize it with `yaqa-bot quantize` for themselves.",
			),
		);
	}
	const reader = await whereAllowed(repo, async () => await hubSourceReader({ ...access, repo, sha }));
	return reader.ok ? { ok: true, source: { ...seen, reader: reader.value } } : refusedSource(seen, reader.refusal);
}

/** Reads files of a repo; those that are gated are a refusal. */
export async function whereAllowed<Value>(
	repo: string,
	read: () => Promise<Value>,
): Promise<{ readonly ok: true; readonly value: Value } | { readonly ok: false; readonly refusal: Refusal }> {
	try {
		return { ok: true, value: await read() };
	} catch (error) {
		const status = hubStatus(error);
		if (!(error instanceof SourceAccessError) && status !== 401 && status !== 403) throw error;
		return {
			ok: false,
			refusal: refusal(
				"gated-without-access",
				`The files of ${quoted(repo)} are gated and the bot's account has no access to them.`,
				"The owner grants the bot's account access on the repo's access-request page, then asks again.",
			),
		};
	}
}
