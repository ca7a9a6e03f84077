import type { Manifest } from "../../protocol/manifest.ts";
import { markdownCode, markdownText } from "../escape.ts";
import { comparison, formatEstimate, formatNumber, formatPercent, inOrder, QUANTIZER_NAMES } from "../figures.ts";
import { mixSentence } from "./mixed-types.ts";
import { published } from "./published-measurement.ts";
import { unquantizedSentence } from "./unquantized.ts";

export function fidelity(manifest: Manifest): string {
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
		...engineRow(manifest),
		"",
		gateSentence(manifest),
		"",
		...mixSentence(manifest),
		...unquantizedSentence(manifest),
		domainTable(manifest),
	].join("\n");
}

/** The rows above are of decoded weights, so that all roundings are measured alike; this one is the engine's own. */
function engineRow({ engine }: Manifest): readonly string[] {
	if (engine == null) return [];
	const name = `${markdownText(engine.name, 60)} ${markdownText(engine.version, 100)}`;
	return [
		`| these files in ${name}, at ${engine.positions} positions of the verification | ${formatEstimate(engine.klNats)} | – | – | ${formatPercent(engine.topOneAgreement)} | – |`,
	];
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
		winner !== "one-sided" && winner !== "rtn"
			? ""
			: " The two-sided result did not win here, so it is not what you download.";
	return `**Gate:** on the selection split ${QUANTIZER_NAMES[winner]} measured ${formatEstimate(own.klNats)} nats a token${against === "" ? "" : `: ${against}`}. It is what is published.${honest}`;
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
