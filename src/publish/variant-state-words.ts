import type { VariantState } from "../records/variant.ts";

/** What people read of a variant's state: in a sentence or a row, and as a label. */
export const VARIANT_STATE_WORDS: Readonly<Record<VariantState, { readonly phrase: string; readonly label: string }>> =
	{
		wanted: { phrase: "being made", label: "Being made" },
		staged: { phrase: "staged, not verified yet", label: "Staged" },
		verified: { phrase: "verified, not published yet", label: "Verified" },
		published: { phrase: "published", label: "Published" },
		failed: { phrase: "failed", label: "Failed" },
	};
