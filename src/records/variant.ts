import type { Refusal } from "../errors.ts";
import type { Manifest } from "../protocol/manifest.ts";

export type VariantState = "wanted" | "staged" | "verified" | "published" | "failed";

export type VariantRecord = {
	readonly id: string;
	readonly sourceRepo: string;
	readonly sourceSha: string;
	readonly recipe: string;
	readonly recipeHash: string;
	readonly jobId: string;
	readonly state: VariantState;
	readonly targetRepo: string;
	/** `null` until the runner's result was ingested. */
	readonly manifest: Manifest | null;
	/** The commit of the target repo that published it. */
	readonly targetSha: string | null;
	readonly refusal: Refusal | null;
	/** The variant of an earlier commit with the same weights whose files it takes over; absent: it is made by a run. */
	readonly reusedFrom?: string | null;
	/** Of a published one: whether its repo's head still holds it; absent: not looked up. */
	readonly isCurrent?: boolean;
	/** Whether the source has a newer commit; absent: not looked up. */
	readonly isOlder?: boolean;
	readonly createdAt: Date;
	readonly publishedAt: Date | null;
};

/** Whether its job has still to make it: it is neither public nor given up. */
export function isOpen({ state }: Pick<VariantRecord, "state">): boolean {
	return state !== "published" && state !== "failed";
}

/** A variant with its files on this machine. */
export type VariantFiles = {
	readonly variant: VariantRecord;
	readonly manifest: Manifest;
	/** The folder with the manifest's files and `manifest.json`. */
	readonly directory: string;
};
