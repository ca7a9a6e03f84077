import type { Manifest } from "../../protocol/manifest.ts";
import { markdownCode, markdownText } from "../escape.ts";

/** Matrices besides the linears that are called by their names. */
const MAXIMUM_NAMED = 4;

/** What the matrices that are not rounded two-sided are stored as: embedding and output layer above all. */
export function unquantizedSentence(manifest: Manifest): string[] {
	const groups = new Map<string, string[]>();
	for (const { name, type, reason } of manifest.unquantized) {
		const place = `${markdownText(type, 40)} (${markdownText(reason, 80)})`;
		groups.set(place, [...(groups.get(place) ?? []), name]);
	}
	if (groups.size === 0) return [];
	const stored = [...groups].slice(0, MAXIMUM_NAMED).map(([place, names]) => {
		const more = names.length - MAXIMUM_NAMED;
		const named = names
			.slice(0, MAXIMUM_NAMED)
			.map((name) => markdownCode(name))
			.join(", ");
		return `${named}${more > 0 ? ` and ${more} more` : ""} as ${place}`;
	});
	return [`**Besides the linears:** ${stored.join("; ")}.`, ""];
}
