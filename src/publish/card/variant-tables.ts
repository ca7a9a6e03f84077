import type { Manifest } from "../../protocol/manifest.ts";
import { markdownCode, markdownText } from "../escape.ts";
import { formatBytes, formatEstimate, formatNumber, formatPercent, QUANTIZER_NAMES } from "../figures.ts";
import { mainFile } from "../fitting.ts";
import { nearnessWords } from "../nearness.ts";
import { published } from "./published-measurement.ts";

function isOlder(manifest: Manifest, newestSha: string | null): boolean {
	return newestSha !== null && manifest.source.revision !== newestSha;
}

/** Said at the top, where somebody looks who is about to download. */
export function olderNote(
	manifests: readonly Manifest[],
	newestSha: string | null,
	sourceUrl: string,
): readonly string[] {
	const older = manifests.filter((manifest) => isOlder(manifest, newestSha));
	if (newestSha === null || older.length === 0) return [];
	const which =
		older.length === manifests.length
			? "These files are"
			: `${older.map(({ recipe }) => markdownCode(recipe)).join(", ")} ${older.length === 1 ? "is" : "are"}`;
	return [
		`> ${which} **of an older commit**: the model has changed since, to [\`${newestSha.slice(0, 8)}\`](${sourceUrl}/tree/${newestSha}).`,
	];
}

export function summaryTable(manifests: readonly Manifest[], newestSha: string | null): string {
	const rows = manifests.map((manifest) => {
		const best = published(manifest);
		const older = isOlder(manifest, newestSha) ? ", of an older commit" : "";
		const { klNats, topOneAgreement } = manifest.engine ?? best.report;
		const file = mainFile(manifest);
		const link = file === null ? "the folder" : `[${markdownText(file, 200)}](${encodeURI(file)})`;
		return `| ${markdownCode(manifest.recipe)}${older} | ${link} | ${formatBytes(best.bytes)} | ${formatEstimate(klNats)} | ${formatPercent(topOneAgreement)} | ${formatNumber(best.report.perplexity.ratio)} | ${QUANTIZER_NAMES[manifest.quantizer]} | ${nearnessWords(klNats)} |`;
	});
	return [
		"| variant | file | size | KL to the original, nats a token | same top token | perplexity ratio | rounding | in words |",
		"|---|---|---:|---:|---:|---:|---|---|",
		...rows,
	].join("\n");
}

export function elsewhereTable(
	hubUrl: string,
	elsewhere: readonly { readonly repo: string; readonly manifest: Manifest }[],
): string {
	const rows = elsewhere
		.toSorted((one, other) => (one.manifest.recipe < other.manifest.recipe ? -1 : 1))
		.map(({ repo, manifest }) => {
			const best = published(manifest);
			return `| ${markdownCode(manifest.recipe)} | ${formatBytes(best.bytes)} | ${formatEstimate((manifest.engine ?? best.report).klNats)} | [${markdownText(repo)}](${hubUrl}/${repo}) |`;
		});
	return ["| variant | size | KL, nats a token | repo |", "|---|---:|---:|---|", ...rows].join("\n");
}
