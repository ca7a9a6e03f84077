import { createHash } from "node:crypto";
import type { Clock } from "../clock.ts";
import type { Database } from "../db/database.ts";
import { type FormerVariant, insertFormerVariants } from "../db/rebuild.ts";
import { setKnownHead } from "../db/sweeps.ts";
import { setSourceVisibility } from "../db/visibility.ts";
import type { Manifest } from "../protocol/manifest.ts";
import { parseRecipe } from "../protocol/recipe.ts";
import type { Inspection } from "../records/source.ts";

/** A variant as the head of a published repo tells of it. */
export type PublishedOnHub = { readonly repo: string; readonly sha: string; readonly manifest: Manifest };

export type RebuildReport = {
	readonly repos: number;
	readonly variants: number;
	/** Sources that can no longer be looked at: their variants are known, but nothing is taken over from them. */
	readonly lost: readonly string[];
	/** Manifests that this version cannot place. */
	readonly left: readonly string[];
};

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** An id for what had none, or whose own is taken: the same at every rebuild. */
function idOf(text: string): string {
	const hex = createHash("sha256").update(text).digest("hex");
	return [hex.slice(0, 8), hex.slice(8, 12), `8${hex.slice(13, 16)}`, `a${hex.slice(17, 20)}`, hex.slice(20, 32)].join(
		"-",
	);
}

/** Gives each id to the first who has it, and another to whoever comes later with the same one for something else. */
function idGiver(): (own: string, owner: string) => string {
	const owners = new Map<string, string>();
	return (own, owner) => {
		const isFree = UUID.test(own) && (owners.get(own) ?? owner) === owner;
		const id = isFree ? own : idOf(owner);
		owners.set(id, owner);
		return id;
	};
}

/**
 * Fills an unused database with what the Hub says of what was published: every variant that stands in a repo's head, the
 * job that made it, what its source is like and which commit is its newest. Requests, deliveries and the history of jobs
 * are not there, and are not needed to go on: a push of what is published finds it published.
 */
export async function rebuild(options: {
	readonly database: Database;
	readonly clock: Clock;
	readonly published: AsyncIterable<PublishedOnHub>;
	readonly inspectSource: (source: {
		readonly repo: string;
		readonly revision: string;
		readonly baseSha: string | null;
	}) => Promise<Inspection>;
	readonly onSource?: (repo: string) => void;
}): Promise<RebuildReport> {
	const { database, clock, inspectSource } = options;
	const all: PublishedOnHub[] = [];
	for await (const one of options.published) all.push(one);
	const repos = new Set<string>();
	const lost: string[] = [];
	const left: string[] = [];
	let count = 0;
	const jobId = idGiver();
	const variantId = idGiver();
	for (const [key, found] of Map.groupBy(all, ({ manifest: { source } }) => `${source.repo}@${source.revision}`)) {
		const [repo = "", sha = ""] = key.split("@");
		options.onSource?.(key);
		const inspection = await inspectSource({
			repo,
			revision: sha,
			baseSha: found[0]?.manifest.source.base?.revision ?? null,
		});
		if (!inspection.ok) lost.push(key);
		const variants = found.flatMap((one): FormerVariant[] => {
			const { manifest } = one;
			const recipe = parseRecipe(manifest.recipe);
			if (!recipe.ok) {
				left.push(`${one.repo} ${manifest.recipe}`);
				return [];
			}
			return [
				{
					id: variantId(manifest.variant, `${key} ${recipe.recipe.canonical}`),
					jobId: jobId(manifest.job, key),
					recipe: recipe.recipe,
					manifest,
					targetRepo: one.repo,
					targetSha: one.sha,
					at: new Date(manifest.createdAt),
				},
			];
		});
		// The same recipe of the same commit twice can only be a repo that was copied: the first counts.
		const unique = [...new Map(variants.toReversed().map((one) => [one.recipe.canonical, one])).values()].toReversed();
		const facts = inspection.ok ? inspection.facts : null;
		const now = clock.now();
		await database.transaction(async (tx) => {
			await insertFormerVariants(tx, { repo, sha, facts }, unique);
			// Nobody may see of a source on public pages what was not seen to be public.
			const isPrivate = inspection.ok ? inspection.facts.private : true;
			await setSourceVisibility(tx, { repo, private: isPrivate, gated: "unknown", now });
			if (facts !== null && (facts.headSha ?? sha) === sha) await setKnownHead(tx, repo, sha, now);
		});
		for (const one of unique) repos.add(one.targetRepo);
		count += unique.length;
	}
	return { repos: repos.size, variants: count, lost, left };
}
