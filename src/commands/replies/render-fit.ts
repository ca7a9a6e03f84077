import { loadSnippets } from "../../publish/card/load-snippets.ts";
import { markdownCode } from "../../publish/escape.ts";
import { formatBytes, formatEstimate } from "../../publish/figures.ts";
import { type Choosable, type Fit, fitReason, formatContext, mainFile } from "../../publish/fitting.ts";
import { nextStep, ofModel, type ReplyContext } from "./reply-context.ts";

const MAXIMUM_ROWS = 12;

/** The file to take, how to run it, and what the others take. */
export function renderFit(context: ReplyContext, repo: string, fit: Fit): string {
	const { recommended, rows } = fit.choice;
	const engine = fit.container === null ? "" : ` as ${fit.container}`;
	if (rows.length === 0) {
		const none = `**Nothing${ofModel(context)} is published${engine} yet.**`;
		return `${none}\n\n${nextStep(context, "quantize 8bit gguf", "To ask for a variant")}`;
	}
	const asked = `${fit.question?.machine ?? ""}, context ${formatContext(fit.context)}`;
	const parts = [
		recommended === null
			? `**Nothing fits ${asked}.** ${fitReason(fit)}`
			: recommendation(recommended.candidate, fit, asked, context.hubUrl),
		fitRows(fit),
	];
	if (rows.length > MAXIMUM_ROWS) parts.push(`And ${rows.length - MAXIMUM_ROWS} more.`);
	const estimated = rows.some((row) => row.candidate.container !== "gguf");
	parts.push(
		`Memory is what llama.cpp plans for itself, within 10 %.${estimated ? " For other engines it is an estimate that was not measured." : ""}${context.siteUrl === null ? "" : ` [Other memory, other contexts](${context.siteUrl}/m/${repo}#fits).`}`,
	);
	return parts.join("\n\n");
}

function recommendation(candidate: Choosable, fit: Fit, asked: string, hubUrl: string): string {
	const { summary, manifest, container } = candidate;
	const file = mainFile(manifest);
	const [snippet] = loadSnippets({ repo: summary.repo, container, manifest, hubUrl });
	const where = `[${summary.repo}](${summary.url})`;
	return [
		`**For ${asked}: ${markdownCode(candidate.recipe)}**, ${file === null ? where : `${markdownCode(file)} in ${where}`}. ${fitReason(fit)}`,
		...(snippet === undefined ? [] : [`${snippet.runtime}:\n\n\`\`\`${snippet.language}\n${snippet.code}\n\`\`\``]),
	].join("\n\n");
}

function fitRows(fit: Fit): string {
	const rows = fit.choice.rows.slice(0, MAXIMUM_ROWS).map(({ candidate, memory, fits, longestContext }) => {
		const kl = candidate.klNats === null ? "–" : formatEstimate(candidate.klNats);
		const longest = longestContext === null ? "–" : formatContext(longestContext);
		const total = `${formatBytes(memory.total)}${candidate.shape === null ? " without the cache" : ""}`;
		return `| ${markdownCode(candidate.recipe)} | ${fits === true ? "yes" : "no"} | ${total} | ${longest} | ${kl} |`;
	});
	return ["| Variant | Fits | Memory | Longest context | KL, nats a token |", "|---|---|---:|---:|---:|", ...rows].join(
		"\n",
	);
}
