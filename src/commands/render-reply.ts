import { assertNever, type Refusal } from "../errors.ts";
import { formatChange, shortSha } from "../jobs/figures.ts";
import type { JobRecord, RequestRecord, VariantRecord } from "../jobs/records.ts";
import { summarizeVariant } from "../jobs/variant-summary.ts";
import { RECIPE_NAMES } from "../protocol/recipe.ts";
import { markdownCode, markdownText } from "../publish/escape.ts";
import { formatBytes, formatEstimate } from "../publish/figures.ts";
import { COMMANDS } from "./command-table.ts";
import type { ParsedCommand } from "./parse-comment.ts";

export type ReplyContext = {
	readonly hubUrl: string;
	/** Where people reach the bot's pages; without it replies carry no link to them. */
	readonly siteUrl: string | null;
	readonly botName: string;
};

const MAXIMUM_SENTENCE = 2_000;

function jobLink(context: ReplyContext, job: JobRecord, text: string): string {
	return context.siteUrl === null
		? `${text} (job ${job.id.slice(0, 8)})`
		: `[${text}](${context.siteUrl}/jobs/${job.id})`;
}

function stateOfVariant(variant: VariantRecord): string {
	switch (variant.state) {
		case "wanted":
			return "being made";
		case "staged":
			return "staged, not verified yet";
		case "verified":
			return "verified, not published yet";
		case "published":
			return "published";
		case "failed":
			return "failed";
		default:
			return assertNever(variant.state);
	}
}

/** One row a variant: what it is, where it is, and the figures of its manifest. */
export function variantRows(context: ReplyContext, variants: readonly VariantRecord[]): string {
	const rows = variants.map((variant) => {
		const summary = summarizeVariant(variant, context.hubUrl);
		const kl = summary.klNats === null ? "–" : formatEstimate(summary.klNats);
		const change =
			summary.klNats === null ? null : formatChange(summary.klNats.mean, summary.baselines.gptq?.mean ?? null);
		const where = variant.state === "published" ? `[${summary.repo}](${summary.url})` : stateOfVariant(variant);
		return `| ${markdownCode(variant.recipe)} | ${where} | ${summary.bytes === null ? "–" : formatBytes(summary.bytes)} | ${kl} | ${change ?? "–"} |`;
	});
	return ["| Variant | Where | Size | KL, nats a token | Against GPTQ |", "|---|---|---:|---:|---:|", ...rows].join(
		"\n",
	);
}

function refusalText(refusal: Refusal): string {
	return `${markdownText(refusal.message, MAXIMUM_SENTENCE)}\n\n**What to do:** ${markdownText(refusal.remedy, MAXIMUM_SENTENCE)}`;
}

/** The part of an answer that follows a request: planned, under way, published, failed. */
export function renderRequest(
	context: ReplyContext,
	state: {
		readonly request: RequestRecord;
		readonly job: JobRecord | null;
		readonly variants: readonly VariantRecord[];
	},
): string {
	const { request, job } = state;
	// The job may make more than this person asked for.
	const variants =
		request.recipes.length === 0
			? state.variants
			: state.variants.filter((variant) => request.recipes.includes(variant.recipe));
	if (request.refusal !== null) return `**I cannot do that.** ${refusalText(request.refusal)}`;
	const table = variants.length === 0 ? "" : `\n\n${variantRows(context, variants)}`;
	if (job === null) return `**All of this is published already.**${table}`;
	const commit = markdownCode(shortSha(job.sourceSha));
	switch (job.state) {
		case "planned":
		case "waiting":
		case "dispatching":
		case "running":
		case "ingesting":
		case "verifying":
		case "publishing":
		case "announcing": {
			const verb = job.state === "planned" ? "Planned" : "Under way";
			return `**${verb}** for commit ${commit}: ${markdownText(job.statusText, MAXIMUM_SENTENCE)} ${jobLink(context, job, "Follow the job")}. This comment is brought up to date when it has ended.${table}`;
		}
		case "done":
			return `**Done** for commit ${commit}. Every figure was measured on the published files. ${jobLink(context, job, "How it was made")}.${table}`;
		case "failed":
			return `**This failed** for commit ${commit}. ${job.refusal === null ? "" : refusalText(job.refusal)}\n\n${jobLink(context, job, "The job")}.${table}`;
		case "cancelled":
			return `**Cancelled** for commit ${commit}. ${jobLink(context, job, "The job")}.${table}`;
		case "superseded":
			return `**Superseded**: a newer commit came before this one was finished. ${jobLink(context, job, "The job")}.${table}`;
		default:
			return assertNever(job.state);
	}
}

export function renderHelp(context: ReplyContext): string {
	const rows = COMMANDS.flatMap((command) =>
		command.examples.map((example) => `| \`@${context.botName} ${example.text}\` | ${example.meaning} |`),
	);
	const recipes = RECIPE_NAMES.map((recipe) => markdownCode(recipe.name));
	const more = context.siteUrl === null ? "" : ` [More on the help page](${context.siteUrl}/help).`;
	return [
		"**What I understand**, on a line of its own:",
		["| You write | You get |", "|---|---|", ...rows].join("\n"),
		`Recipes: ${recipes.join(", ")}.${more}`,
	].join("\n\n");
}

export function renderStatus(
	context: ReplyContext,
	source: {
		readonly repo: string;
		readonly jobs: readonly JobRecord[];
		readonly variants: readonly VariantRecord[];
	},
): string {
	const parts: string[] = [];
	const shown = source.variants.slice(0, 30);
	if (shown.length === 0) parts.push("**Nothing was made of this repo yet.**");
	else parts.push("**Variants of this repo**", variantRows(context, shown));
	const newest = source.jobs[0];
	if (newest !== undefined) {
		const why = newest.refusal === null ? newest.statusText : newest.refusal.message;
		parts.push(
			`Newest job: ${newest.state}. ${markdownText(why, MAXIMUM_SENTENCE)} ${jobLink(context, newest, "The job")}.`,
		);
	}
	if (context.siteUrl !== null) parts.push(`[All of it](${context.siteUrl}/m/${source.repo}).`);
	return parts.join("\n\n");
}

export function renderInvalid(context: ReplyContext, command: ParsedCommand & { readonly kind: "invalid" }): string {
	const meant = command.suggestion === null ? "" : ` Did you mean \`@${context.botName} ${command.suggestion}\`?`;
	return `**I did not understand** ${markdownCode(command.line.replaceAll("\uFFFC", "…"))}: ${markdownText(command.message, MAXIMUM_SENTENCE)}${meant}`;
}

export function renderNotPermitted(context: ReplyContext, author: string): string {
	const site = context.siteUrl === null ? "" : ` What is published already is [in the catalogue](${context.siteUrl}/).`;
	return `**Each variant costs a run, so I take requests from the owner of this repo and members of its organisation.** ${markdownCode(author)} is neither as far as the Hub says. One of them may write the same line here, or the operator of this bot may add you to the list.${site}`;
}
