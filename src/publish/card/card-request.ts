import type { Manifest } from "../../protocol/manifest.ts";
import type { SourceCard } from "../source-card.ts";

/** What a card is made from. */
export type CardRequest = {
	readonly repo: string;
	readonly hubUrl: string;
	readonly source: SourceCard;
	/** Every variant in this repo. */
	readonly manifests: readonly Manifest[];
	/** Published variants of the same source in other repos. */
	readonly elsewhere: readonly { readonly repo: string; readonly manifest: Manifest }[];
	/** The size–KL plot, a path in the repo. */
	readonly plotPath: string;
	/** The newest commit of the source: variants of other ones are marked. `null`: not known. */
	readonly newestSha: string | null;
};
