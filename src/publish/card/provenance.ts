import type { LayerEvidence, Manifest } from "../../protocol/manifest.ts";
import { escapeHtml, markdownCode, markdownText } from "../escape.ts";
import { formatNumber } from "../figures.ts";
import { publicationTag } from "../publication-tag.ts";
import { manifestPath } from "../published-manifests.ts";

const MAXIMUM_LAYER_ROWS = 400;
const STORED_BASE = (form: string) =>
	`the base is released in ${form}; the adapter was merged onto its own weights, decoded`;
const STORED: Readonly<Record<NonNullable<Manifest["source"]["stored"]>, string>> = {
	float8: "**the original is released in float8**, and counts as that: figures are against its own weights, decoded",
	mxfp4: "**the original is released in mxfp4**, and counts as that: figures are against its own weights, decoded",
};

export function provenance(manifest: Manifest, hubUrl: string): string {
	const { source, calibration, sketch, device } = manifest;
	const versions = Object.entries(manifest.versions)
		.map(([name, version]) => `${markdownText(name, 60)} ${markdownText(version, 60)}`)
		.join(", ");
	const seeds = Object.entries(manifest.seeds)
		.map(([name, seed]) => `${markdownText(name, 60)} ${seed}`)
		.join(", ");
	const total = Object.values(manifest.seconds).reduce((sum, seconds) => sum + seconds, 0);
	return [
		"<details>",
		`<summary>Provenance of ${escapeHtml(manifest.recipe)}</summary>`,
		"",
		`- source: [${markdownText(source.repo)}](${hubUrl}/${source.repo}/tree/${source.revision}) at \`${source.revision}\``,
		...(source.base == null
			? []
			: [
					`- merged by PEFT onto [${markdownText(source.base.repo)}](${hubUrl}/${source.base.repo}/tree/${source.base.revision}) at \`${source.base.revision}\``,
				]),
		...(source.stored == null ? [] : [`- ${source.base == null ? STORED[source.stored] : STORED_BASE(source.stored)}`]),
		...(source.measuredRevision === undefined
			? []
			: [
					`- the weights are those of commit [\`${source.measuredRevision.slice(0, 8)}\`](${hubUrl}/${source.repo}/tree/${source.measuredRevision}), unchanged since: they were quantized and measured there, with the tokenizer it had`,
				]),
		`- recipe: ${markdownCode(manifest.recipe)}; full record with the hash of every file: [${manifestPath(manifest.recipe)}](${manifestPath(manifest.recipe)})`,
		`- the same bytes for ever: the tag \`${publicationTag(source.revision, 1)}\` is what was published first of this commit, \`-2\` and so on what came later; give one as \`--revision\``,
		...groupLine(manifest),
		`- calibration: ${markdownText(calibration.kind)}, ${calibration.sequences} sequences of ${calibration.length} tokens, sha256 \`${calibration.sha256}\``,
		...(sketch.warning == null ? [] : [`- **the sketch rests on few tokens:** ${markdownText(sketch.warning, 600)}`]),
		`- sketch ${sketch.kind.toUpperCase()}, ${sketch.iterations} ${sketch.iterations === 1 ? "iteration" : "iterations"}${sketch.reused ? ", reused from an earlier job" : ""}, key ${markdownCode(sketch.key)}`,
		`- evaluation: ${markdownText(manifest.evaluation.convention, 500)}`,
		`- seeds: ${seeds === "" ? "none" : seeds}`,
		`- made by yaqa-runner ${markdownText(manifest.generator.version, 60)} with ${versions}, on ${markdownText(device.name)} (${device.kind}), in ${Math.round(total)} s`,
		"",
		...layerTable(manifest.layers),
		"</details>",
	].join("\n");
}

function groupLine({ fittedGroup, layers }: Manifest): string[] {
	if (fittedGroup === undefined || fittedGroup === null) return [];
	const { asked, used, askedLinears } = fittedGroup;
	return [
		`- **weights share a scale in groups of ${used}, not ${asked}:** ${asked} divides the widths of ${askedLinears} linears only; in groups of ${used} all ${layers.length} of this table are quantized`,
	];
}

function layerTable(layers: readonly LayerEvidence[]): string[] {
	if (layers.length === 0) return [];
	const shown = layers.slice(0, MAXIMUM_LAYER_ROWS);
	const share = (value: number, reference: number): string => (reference > 0 ? formatNumber(value / reference) : "–");
	return [
		"Proxy error tr(H_O E H_I Eᵀ) of each layer as a share of plain rounding's, and effective ranks of the two factors:",
		"",
		"| layer | shape | type | two-sided | one-sided | rank out | rank in |",
		"|---|---|---|---:|---:|---:|---:|",
		...shown.map(
			(layer) =>
				`| ${markdownCode(layer.name)} | ${layer.shape.join(" × ")} | ${markdownText(layer.type, 40)} | ${share(layer.proxyError.twoSided, layer.proxyError.rtn)} | ${share(layer.proxyError.oneSided, layer.proxyError.rtn)} | ${formatNumber(layer.effectiveRankOutput)} | ${formatNumber(layer.effectiveRankInput)} |`,
		),
		"",
		...(layers.length > shown.length
			? [`The first ${shown.length} of ${layers.length} layers; the manifest has all.`, ""]
			: []),
	];
}
