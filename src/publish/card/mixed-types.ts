import { byteSizeText } from "../../protocol/byte-size.ts";
import type { Manifest } from "../../protocol/manifest.ts";
import { markdownText } from "../escape.ts";
import { formatEstimate, formatNumber } from "../figures.ts";

export function publishedBitsPerWeight(mixed: Manifest["mixed"]): number {
	if (mixed === undefined || mixed === null) return 0;
	return mixed.published === "mixed" ? mixed.bitsPerWeight : mixed.uniform.bitsPerWeight;
}

/** What a mix was chosen by, and how it measured against one type for all linears; nothing where types are not mixed. */
export function mixSentence(manifest: Manifest): string[] {
	const { mixed } = manifest;
	if (mixed === undefined || mixed === null) return [];
	const counts = new Map<string, number>();
	for (const layer of manifest.layers) counts.set(layer.type, (counts.get(layer.type) ?? 0) + 1);
	const types = [...counts].toSorted().map(([type, count]) => `${count} × ${markdownText(type.toUpperCase(), 40)}`);
	const budget =
		mixed.targetBytes === undefined || mixed.targetBytes === null
			? `${formatNumber(mixed.targetBitsPerWeight ?? Number.NaN)} bits a weight, embedding and output layer not counted`
			: `${byteSizeText(mixed.targetBytes)} for the files together, with embedding, output layer, tokenizer and headers`;
	const uniform = `${markdownText(mixed.uniform.type.toUpperCase(), 40)} for all (${formatNumber(mixed.uniform.bitsPerWeight)} bits a weight)`;
	const outcome =
		mixed.published === "mixed"
			? `the mix measured ${formatEstimate(mixed.klNats)} nats a token on the selection split, the best single type that fits, ${uniform}, ${formatEstimate(mixed.uniform.klNats)}`
			: `no mix measured better than the best single type that fits, ${uniform}, with ${formatEstimate(mixed.uniform.klNats)} nats a token on the selection split: that is what these files hold`;
	return [
		`**Types:** each linear has its own, for the least predicted KL within ${budget}: ${types.join(", ")}, ${formatNumber(publishedBitsPerWeight(mixed))} bits a weight; ${outcome}.`,
		"",
	];
}
