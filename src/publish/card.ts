import { stringify } from "yaml";
import { byteSizeText } from "../protocol/byte-size.ts";
import type { LayerEvidence, Manifest, Measured } from "../protocol/manifest.ts";
import { type Container, parseRecipe, type RecipeName } from "../protocol/recipe.ts";
import { markdownCode, markdownText } from "./escape.ts";
import {
	comparison,
	formatBytes,
	formatEstimate,
	formatNumber,
	formatPercent,
	inOrder,
	QUANTIZER_NAMES,
} from "./figures.ts";
import { loadSnippets } from "./load-snippets.ts";
import { manifestPath } from "./published-manifests.ts";
import type { SourceCard } from "./source-card.ts";

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

const CONTAINER_NAMES: Readonly<Record<Container, string>> = {
	gguf: "GGUF",
	onnx: "ONNX",
	"compressed-tensors": "compressed-tensors",
	gptq: "GPTQ",
};
const LIBRARIES: Readonly<Record<Container, string | null>> = {
	gguf: null,
	onnx: "transformers.js",
	"compressed-tensors": "transformers",
	gptq: "transformers",
};
const MAXIMUM_LAYER_ROWS = 400;
/** Matrices besides the linears that are called by their names. */
const MAXIMUM_NAMED = 4;

/** The whole README.md of a published repo. */
export function renderCard(request: CardRequest): string {
	const manifests = request.manifests.toSorted((one, other) => published(one).bytes - published(other).bytes);
	return `---\n${frontMatter(request)}---\n\n${body({ ...request, manifests })}\n`;
}

/** YAML of the model card. Values from outside were checked by `readSourceCard`; the writer quotes what needs it. */
function frontMatter(request: Pick<CardRequest, "source" | "manifests">): string {
	const { source, manifests } = request;
	const recipe = recipeNameOf(manifests[0]);
	const library = LIBRARIES[recipe.container];
	const bits = [...new Set(manifests.map(wholeBitsOf))].sort((one, other) => one - other);
	return stringify({
		base_model: source.repo,
		base_model_relation: "quantized",
		...(library === null ? {} : { library_name: library }),
		pipeline_tag: source.pipelineTag ?? "text-generation",
		...(source.license === null ? {} : { license: source.license }),
		...(source.licenseName === null ? {} : { license_name: source.licenseName }),
		...(source.licenseLink === null ? {} : { license_link: source.licenseLink }),
		...(source.languages.length === 0 ? {} : { language: source.languages }),
		tags: [recipe.container, "quantized", "yaqa", ...bits.map((count) => `${count}-bit`)],
		quantized_by: "yaqa-bot",
	});
}

function body(request: CardRequest): string {
	const { repo, hubUrl, source, manifests, elsewhere, plotPath, newestSha } = request;
	const container = recipeNameOf(manifests[0]).container;
	const name = markdownText(source.repo.split("/")[1] ?? source.repo);
	const link = `[${markdownText(source.repo)}](${hubUrl}/${source.repo})`;
	const sections = [
		`# ${name} · ${CONTAINER_NAMES[container]} · YAQA`,
		`${CONTAINER_NAMES[container]} files of ${link}, rounded by yaqa-bot so that the model's *output distribution* stays as close to the original's as the format allows. Every figure here was measured on these very files; they were staged on the Hub, downloaded back and verified before anybody could see them.`,
		...olderNote(manifests, newestSha, `${hubUrl}/${source.repo}`),
		summaryTable(manifests, newestSha),
		`![File size against KL to the original, for each quantizer](${plotPath})`,
		...manifests.map((manifest) => fidelity(manifest)),
		"## How to load it",
		...howToLoad(repo, container, manifests),
		...(elsewhere.length === 0 ? [] : ["## Other formats of the same model", elsewhereTable(hubUrl, elsewhere)]),
		"## How it was made",
		manifests.some(isTuned) ? `${METHOD} ${TUNING}` : METHOD,
		...manifests.map((manifest) => provenance(manifest, hubUrl)),
		terms(source),
	];
	return sections.join("\n\n");
}

const METHOD =
	"YAQA (arXiv 2505.22988) rounds every linear layer under a Kronecker-factored sketch of the curvature of the end-to-end KL divergence, instead of under that layer's own output error as GPTQ does. Beside it, plain rounding and one-sided GPTQ are computed for the *same container and the same bytes*; all are measured on a held-out selection split, and the best is published, whichever it is. The figures above come from a second, separate report split.";

const TUNING =
	"*Scales tuned* means: with the integer codes fixed, the scales that the container stores anyway were tuned on the calibration text against the original's own predictions.";

function isTuned(manifest: Manifest): boolean {
	return manifest.evaluation.measured.some((measured) => measured.quantizer === "two-sided-tuned");
}

function isOlder(manifest: Manifest, newestSha: string | null): boolean {
	return newestSha !== null && manifest.source.revision !== newestSha;
}

/** Said at the top, where somebody looks who is about to download. */
function olderNote(manifests: readonly Manifest[], newestSha: string | null, sourceUrl: string): readonly string[] {
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

function summaryTable(manifests: readonly Manifest[], newestSha: string | null): string {
	const rows = manifests.map((manifest) => {
		const best = published(manifest);
		const older = isOlder(manifest, newestSha) ? ", of an older commit" : "";
		return `| ${markdownCode(manifest.recipe)}${older} | ${formatBytes(best.bytes)} | ${formatEstimate(best.report.klNats)} | ${formatPercent(best.report.topOneAgreement)} | ${formatNumber(best.report.perplexity.ratio)} | ${QUANTIZER_NAMES[manifest.quantizer]} |`;
	});
	return [
		"| variant | size | KL to the original, nats a token | same top token | perplexity ratio | rounding |",
		"|---|---:|---:|---:|---:|---|",
		...rows,
	].join("\n");
}

function fidelity(manifest: Manifest): string {
	const rows = inOrder(manifest.evaluation.measured).map((measured) => {
		const own = measured.quantizer === manifest.quantizer;
		const strong = (text: string): string => (own ? `**${text}**` : text);
		const { klNats, topOneAgreement, perplexity } = measured.report;
		return `| ${strong(QUANTIZER_NAMES[measured.quantizer])}${own ? " (these files)" : ""} | ${strong(formatEstimate(klNats))} | ${formatNumber(klNats.median)} | ${formatNumber(klNats.p99)} | ${formatPercent(topOneAgreement)} | ${formatNumber(perplexity.ratio)} |`;
	});
	const { report } = published(manifest);
	return [
		`## Fidelity of ${markdownCode(manifest.recipe)}`,
		"",
		`KL(original ‖ quantized) in nats a token over ${report.tokens} tokens of ${report.sequences} sequences, ± one standard error with sequences as clusters. Every row has the same ${published(manifest).bytes} bytes.`,
		"",
		"| rounding | KL, mean | KL, median | KL, 99th percentile | same top token | perplexity ratio |",
		"|---|---:|---:|---:|---:|---:|",
		...rows,
		"",
		gateSentence(manifest),
		"",
		...mixSentence(manifest),
		...besidesSentence(manifest),
		domainTable(manifest),
	].join("\n");
}

/** Which quantizer won on the selection split, and by how much: also when it was not the two-sided one. */
export function gateSentence(manifest: Manifest): string {
	const { selection, winner } = manifest.gate;
	const own = selection.find((entry) => entry.quantizer === winner);
	const others = selection.filter((entry) => entry.quantizer !== winner);
	if (own === undefined) return `**Gate:** ${QUANTIZER_NAMES[winner]} was published.`;
	const against = others
		.map(
			(entry) =>
				`${comparison(own.klNats.mean, entry.klNats.mean)} than ${QUANTIZER_NAMES[entry.quantizer]} (${formatEstimate(entry.klNats)})`,
		)
		.map((text) => text.replace("the same within half a percent than", "the same within half a percent as"))
		.join(", ");
	const honest =
		winner === "two-sided" || winner === "two-sided-tuned"
			? ""
			: " The two-sided result did not win here, so it is not what you download.";
	return `**Gate:** on the selection split ${QUANTIZER_NAMES[winner]} measured ${formatEstimate(own.klNats)} nats a token${against === "" ? "" : `: ${against}`}. It is what is published.${honest}`;
}

/** Bits as the names of types count them: a mix under a budget of bytes tells its own only in the manifest. */
function wholeBitsOf(manifest: Manifest): number {
	return recipeNameOf(manifest).bits || Math.floor(publishedBitsPerWeight(manifest.mixed));
}

function publishedBitsPerWeight(mixed: Manifest["mixed"]): number {
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

/** What the matrices that are not rounded two-sided are stored as: embedding and output layer above all. */
export function besidesSentence(manifest: Manifest): string[] {
	const groups = new Map<string, string[]>();
	for (const { name, type, reason } of manifest.untouched) {
		const place = `${markdownText(type, 40)} (${markdownText(reason, 80)})`;
		groups.set(place, [...(groups.get(place) ?? []), name]);
	}
	if (groups.size === 0) return [];
	const told = [...groups].slice(0, MAXIMUM_NAMED).map(([place, names]) => {
		const more = names.length - MAXIMUM_NAMED;
		const named = names
			.slice(0, MAXIMUM_NAMED)
			.map((name) => markdownCode(name))
			.join(", ");
		return `${named}${more > 0 ? ` and ${more} more` : ""} as ${place}`;
	});
	return [`**Besides the linears:** ${told.join("; ")}.`, ""];
}

function domainTable(manifest: Manifest): string {
	const rows = inOrder(manifest.evaluation.measured);
	const domains = [...new Set(rows.flatMap((row) => Object.keys(row.byDomain)))].sort();
	if (domains.length === 0) return "";
	return [
		`| text | ${rows.map((row) => QUANTIZER_NAMES[row.quantizer]).join(" | ")} |`,
		`|---|${rows.map(() => "---:").join("|")}|`,
		...domains.map((domain) => {
			const cells = rows.map((row) => {
				const metrics = row.byDomain[domain];
				return metrics === undefined ? "–" : formatEstimate(metrics.klNats);
			});
			return `| ${markdownText(domain, 40)} | ${cells.join(" | ")} |`;
		}),
	].join("\n");
}

function howToLoad(repo: string, container: Container, manifests: readonly Manifest[]): string[] {
	const manifest = manifests[0];
	if (manifest === undefined) return [];
	const note =
		manifests.length > 1 ? [`With ${markdownCode(manifest.recipe)}; the other variants load the same way.`] : [];
	return [
		...note,
		...loadSnippets({ repo, container, manifest }).map(
			(snippet) => `**${snippet.runtime}**\n\n\`\`\`${snippet.language}\n${snippet.code}\n\`\`\``,
		),
	];
}

function elsewhereTable(
	hubUrl: string,
	elsewhere: readonly { readonly repo: string; readonly manifest: Manifest }[],
): string {
	const rows = elsewhere
		.toSorted((one, other) => (one.manifest.recipe < other.manifest.recipe ? -1 : 1))
		.map(({ repo, manifest }) => {
			const best = published(manifest);
			return `| ${markdownCode(manifest.recipe)} | ${formatBytes(best.bytes)} | ${formatEstimate(best.report.klNats)} | [${markdownText(repo)}](${hubUrl}/${repo}) |`;
		});
	return ["| variant | size | KL, nats a token | repo |", "|---|---:|---:|---|", ...rows].join("\n");
}

function provenance(manifest: Manifest, hubUrl: string): string {
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
		`<summary>Provenance of ${htmlText(manifest.recipe)}</summary>`,
		"",
		`- source: [${markdownText(source.repo)}](${hubUrl}/${source.repo}/tree/${source.revision}) at \`${source.revision}\``,
		...(source.measuredRevision === undefined
			? []
			: [
					`- the weights are those of commit [\`${source.measuredRevision.slice(0, 8)}\`](${hubUrl}/${source.repo}/tree/${source.measuredRevision}), unchanged since: they were quantized and measured there, with the tokenizer it had`,
				]),
		`- recipe: ${markdownCode(manifest.recipe)}; full record with the hash of every file: [${manifestPath(manifest.recipe)}](${manifestPath(manifest.recipe)})`,
		`- calibration: ${markdownText(calibration.kind)}, ${calibration.sequences} sequences of ${calibration.length} tokens, sha256 \`${calibration.sha256}\``,
		`- sketch ${sketch.kind.toUpperCase()}, ${sketch.iterations} ${sketch.iterations === 1 ? "iteration" : "iterations"}${sketch.reused ? ", reused from an earlier job" : ""}, key ${markdownCode(sketch.key)}`,
		`- evaluation: ${markdownText(manifest.evaluation.convention, 500)}`,
		`- seeds: ${seeds === "" ? "none" : seeds}`,
		`- made by yaqa-runner ${markdownText(manifest.generator.version, 60)} with ${versions}, on ${markdownText(device.name)} (${device.kind}), in ${Math.round(total)} s`,
		"",
		...layerTable(manifest.layers),
		"</details>",
	].join("\n");
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

function terms(source: SourceCard): string {
	const license = source.license === null ? "The source names no licence" : `Licence: ${markdownText(source.license)}`;
	return `## Terms\n\n${license}; these files are a derived work under the source's own terms. Copies of its licence files are beside them where it has any.`;
}

function htmlText(text: string): string {
	return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/** The measurement of the published quantizer. */
export function published(manifest: Manifest): Measured {
	const found = manifest.evaluation.measured.find((measured) => measured.quantizer === manifest.quantizer);
	if (found === undefined)
		throw new Error("The manifest was not verified before publishing. This is a bug in yaqa-bot.");
	return found;
}

function recipeNameOf(manifest: Manifest | undefined): RecipeName {
	const parsed = parseRecipe(manifest?.recipe ?? "");
	if (!parsed.ok)
		throw new Error(`A published recipe does not parse: ${parsed.refusal.message} This is a bug in yaqa-bot.`);
	return parsed.recipe.name;
}
