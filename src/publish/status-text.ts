import type { Refusal } from "../errors.ts";
import { MAXIMUM_COMMENT_CHARACTERS } from "../hub/discussion.ts";
import type { Manifest } from "../protocol/manifest.ts";
import { isOfOneCommit } from "../protocol/one-commit.ts";
import { isFinished, type JobState } from "../records/job.ts";
import type { VariantState } from "../records/variant.ts";
import { published } from "./card/published-measurement.ts";
import { markdownCode, markdownText } from "./escape.ts";
import { formatBytes, formatEstimate, QUANTIZER_NAMES } from "./figures.ts";
import { newestCommitOf } from "./newest-commit.ts";
import { VARIANT_STATE_WORDS } from "./variant-state-words.ts";

export const STATUS_TITLE = "Quantization status";

/** What the status discussion shows of a source; the records of `jobs/` have these fields. */
export type SourceStatusView = {
	readonly sourceRepo: string;
	/** Newest first. */
	readonly jobs: readonly {
		readonly id: string;
		readonly sourceSha: string;
		readonly state: JobState;
		readonly statusText: string;
		readonly refusal: Refusal | null;
	}[];
	readonly variants: readonly {
		readonly recipe: string;
		readonly sourceSha: string;
		readonly jobId: string;
		readonly state: VariantState;
		readonly targetRepo: string;
		readonly manifest: Manifest | null;
		readonly refusal: Refusal | null;
	}[];
	readonly refused: { readonly sha: string | null; readonly refusal: Refusal } | null;
};

const MAXIMUM_ROWS = 60;
/** Room for the trailer and the closing lines. */
const MAXIMUM_BODY_CHARACTERS = MAXIMUM_COMMENT_CHARACTERS - 8_000;

/** The opening comment of the status discussion: Markdown, with a machine-readable trailer. Equal states give equal texts. */
export function renderStatus(
	status: SourceStatusView,
	links: { readonly hubUrl: string; readonly publicUrl: string | null; readonly botName: string },
): string {
	const { hubUrl, publicUrl, botName } = links;
	const parts: string[] = [
		"This is the bot's notebook for this repo. It edits this comment instead of writing new ones; nothing here needs an answer.",
		...(publicUrl === null || status.variants.every((variant) => variant.state !== "published")
			? []
			: [`Which file fits your memory, and how to run it: [the model's page](${publicUrl}/m/${status.sourceRepo}).`]),
	];
	if (status.refused !== null) {
		const at = status.refused.sha === null ? "" : ` (commit \`${status.refused.sha.slice(0, 8)}\`)`;
		parts.push(
			`**Not quantized${at}:** ${markdownText(status.refused.refusal.message, 1000)}\n\n**What helps:** ${markdownText(status.refused.refusal.remedy, 1000)}`,
		);
	}
	const current = currentVariants(status.variants);
	if (current.length > 0) {
		parts.push(
			[
				"| variant | state | commit | size | KL to the original, nats a token | repo |",
				"|---|---|---|---:|---:|---|",
				...current
					.slice(0, MAXIMUM_ROWS)
					.map((variant) => row(variant, hubUrl, newestCommitOf(status.jobs, status.variants))),
			].join("\n"),
		);
		if (current.length > MAXIMUM_ROWS) parts.push(`The first ${MAXIMUM_ROWS} of ${current.length} variants.`);
	}
	for (const variant of current) {
		if (variant.refusal === null) continue;
		parts.push(
			`${markdownCode(variant.recipe)} failed: ${markdownText(variant.refusal.message, 500)} ${markdownText(variant.refusal.remedy, 500)}`,
		);
	}
	const jobs = status.jobs.filter((job) => !isFinished(job.state));
	for (const job of jobs.slice(0, 5)) {
		parts.push(
			`Job ${jobLink(job.id, publicUrl)} on \`${job.sourceSha.slice(0, 8)}\`: ${sentence(job.statusText, job.state)}`,
		);
	}
	const latest = status.jobs[0];
	if (latest?.state === "failed" && latest.refusal !== null) {
		parts.push(
			`**The last job failed** (${jobLink(latest.id, publicUrl)}): ${markdownText(latest.refusal.message, 1000)}\n\n**What helps:** ${markdownText(latest.refusal.remedy, 1000)}`,
		);
	}
	parts.push(
		`KL is measured on held-out text with the files as published; every repo's card has the error bars and the comparison with plain rounding and GPTQ at the same size. To ask for a variant, comment \`@${botName} quantize 8bit gguf\` in a discussion of this repo; \`@${botName} help\` says more.`,
		"Whoever may close this discussion can tell the bot to leave new commits alone: closed, it stays silent; opened again, it goes on.",
	);
	const body = parts.join("\n\n");
	const fitted =
		body.length <= MAXIMUM_BODY_CHARACTERS
			? body
			: `${body.slice(0, body.lastIndexOf("\n", MAXIMUM_BODY_CHARACTERS))}\n\n(cut: the page is full)`;
	return `${fitted}\n\n${trailer(status, current)}`;
}

/** One row a recipe and repo: what is published, unless newer work on it is going on or nothing was ever published. */
function currentVariants(variants: SourceStatusView["variants"]): SourceStatusView["variants"][number][] {
	const rows = new Map<string, SourceStatusView["variants"][number]>();
	for (const variant of variants) {
		const key = `${variant.recipe} ${variant.state === "published" ? variant.targetRepo : variant.sourceSha}`;
		if (!rows.has(key)) rows.set(key, variant);
	}
	return [...rows.values()].toSorted((one, other) =>
		one.recipe === other.recipe ? 0 : one.recipe < other.recipe ? -1 : 1,
	);
}

/** `newest`: the commit that was looked at last; what stands for another one is marked. */
function row(variant: SourceStatusView["variants"][number], hubUrl: string, newest: string | null): string {
	const { recipe, state, sourceSha, targetRepo, manifest } = variant;
	const shown = state === "published" && manifest !== null ? published(manifest) : null;
	const other = isOfOneCommit(targetRepo) ? ", of that commit only" : ", of an older commit";
	const old = state === "published" && newest !== sourceSha && newest !== null ? other : "";
	const rounding = manifest === null || shown === null ? "" : `, ${QUANTIZER_NAMES[manifest.quantizer]}`;
	const size = shown === null ? "" : formatBytes(shown.bytes);
	const kl = shown === null ? "" : `${formatEstimate(shown.report.klNats)}${rounding}`;
	const repo = state === "published" ? `[${markdownText(targetRepo)}](${hubUrl}/${targetRepo})` : "";
	return `| ${markdownCode(recipe)} | ${VARIANT_STATE_WORDS[state].phrase}${old} | \`${sourceSha.slice(0, 8)}\` | ${size} | ${kl} | ${repo} |`;
}

function jobLink(id: string, publicUrl: string | null): string {
	const short = `\`${id.slice(0, 8)}\``;
	return publicUrl === null ? short : `[${short}](${publicUrl}/jobs/${id})`;
}

function sentence(statusText: string, state: string): string {
	return statusText === "" ? state : markdownText(statusText, 300);
}

/** For programs: an HTML comment cannot hold two dashes, so those are written as JSON escapes. */
function trailer(status: SourceStatusView, current: readonly SourceStatusView["variants"][number][]): string {
	const json = JSON.stringify({
		yaqaBot: 1,
		source: status.sourceRepo,
		variants: current.slice(0, MAXIMUM_ROWS).map(({ recipe, state, sourceSha, targetRepo }) => ({
			recipe,
			state,
			sourceSha: sourceSha.slice(0, 8),
			repo: state === "published" ? targetRepo : null,
		})),
		refused: status.refused?.refusal.code ?? null,
	});
	return `<!-- ${json.replaceAll("--", "\\u002d\\u002d").replaceAll(">", "\\u003e")} -->`;
}
