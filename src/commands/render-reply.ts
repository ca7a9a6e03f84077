import { assertNever, type Refusal } from "../errors.ts";
import { formatChange, formatCount, shortSha } from "../jobs/figures.ts";
import type { RequestPreview } from "../jobs/preview.ts";
import type { JobRecord, RequestRecord, VariantRecord } from "../jobs/records.ts";
import { isFinished, transition } from "../jobs/transitions.ts";
import { summarizeVariant } from "../jobs/variant-summary.ts";
import { MIXED_EXAMPLES, RECIPE_NAMES } from "../protocol/recipe.ts";
import { markdownCode, markdownText } from "../publish/escape.ts";
import { formatBytes, formatEstimate, QUANTIZER_NAMES } from "../publish/figures.ts";
import { COMMANDS } from "./command-table.ts";
import type { ParsedCommand } from "./parse-comment.ts";

export type ReplyContext = {
	readonly hubUrl: string;
	/** Where people reach the bot's pages; without it replies carry no link to them. */
	readonly siteUrl: string | null;
	readonly botName: string;
	/** What a conversation is called there: "discussion", "issue". */
	readonly thread: string;
	/** Who may ask there, in words: all of them, and one of them. */
	readonly trusted: string;
	readonly somebodyTrusted: string;
	/** What a command is about, in words. */
	readonly subject: string;
	/** The model, where a command has to name it: it is not the one that the thread is about. */
	readonly named: string | null;
};

export const HUB_WORDS = {
	thread: "discussion",
	trusted: "the owner of this repo and members of its organisation",
	somebodyTrusted: "the owner of this repo or a member of its organisation",
	subject: "this repo",
	named: null,
} as const satisfies Partial<ReplyContext>;

export const GITHUB_WORDS = {
	thread: "issue",
	trusted: "people who may write to this repo",
	somebodyTrusted: "somebody who may write to this repo",
	subject: "the model",
	named: null,
} as const satisfies Partial<ReplyContext>;

/** The context for commands about one model. On the Hub that is the repo that people write in. */
export function contextFor(
	context: ReplyContext,
	subject: { readonly repo: string; readonly usual: boolean },
): ReplyContext {
	if (context.subject === HUB_WORDS.subject) return context;
	return { ...context, subject: markdownCode(subject.repo), named: subject.usual ? null : subject.repo };
}

/** ` of the model`, where that does not go without saying. */
function ofModel(context: ReplyContext): string {
	return context.subject === HUB_WORDS.subject ? "" : ` of ${context.subject}`;
}

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

/**
 * One row a variant: what it is, where it is, and the figures of its manifest. `ended`: nobody works on them any more;
 * `newestSha`: variants of other commits are marked.
 */
function variantRows(
	context: ReplyContext,
	variants: readonly VariantRecord[],
	ended = false,
	newestSha: string | null = null,
): string {
	const rows = variants.map((variant) => {
		const summary = summarizeVariant(variant, context.hubUrl);
		const kl = summary.klNats === null ? "–" : formatEstimate(summary.klNats);
		const change =
			summary.klNats === null ? null : formatChange(summary.klNats.mean, summary.baselines.gptq?.mean ?? null);
		const unmade = ended && variant.state !== "failed";
		const where =
			variant.state === "published"
				? `[${summary.repo}](${summary.url})${newestSha === null || newestSha === variant.sourceSha ? "" : ", of an older commit"}`
				: unmade
					? "not made"
					: stateOfVariant(variant);
		return `| ${markdownCode(variant.recipe)} | ${where} | ${summary.bytes === null ? "–" : formatBytes(summary.bytes)} | ${kl} | ${change ?? "–"} |`;
	});
	return [
		"| Variant | Where | Size | KL, nats a token | Against GPTQ, same size |",
		"|---|---|---:|---:|---:|",
		...rows,
	].join("\n");
}

function refusalText(refusal: Refusal): string {
	return `${markdownText(refusal.message, MAXIMUM_SENTENCE)}\n\n**What to do:** ${markdownText(refusal.remedy, MAXIMUM_SENTENCE)}`;
}

/** Commands that are about no model. */
const GENERAL: ReadonlySet<string> = new Set(["help", "ping", "approve"]);

function nextStep(context: ReplyContext, text: string, meaning: string): string {
	const model = context.named === null || GENERAL.has(text) ? "" : ` ${context.named}`;
	return `${meaning}: \`@${context.botName} ${text}${model}\`.`;
}

function shortNumber(job: JobRecord): string {
	return job.id.slice(0, 8);
}

type RequestState = {
	readonly request: RequestRecord;
	readonly job: JobRecord | null;
	readonly variants: readonly VariantRecord[];
};

/** The part of an answer that follows a request: planned, under way, published, failed. */
export function renderRequest(context: ReplyContext, state: RequestState): string {
	const { request, job } = state;
	// The job may make more than this person asked for.
	const variants =
		request.recipes.length === 0
			? state.variants
			: state.variants.filter((variant) => request.recipes.includes(variant.recipe));
	if (request.refusal !== null) return `**I cannot do that.** ${refusalText(request.refusal)}`;
	const ended = job !== null && isFinished(job.state);
	const table = variants.length === 0 ? "" : `\n\n${variantRows(context, variants, ended)}`;
	// Before anything is measured a table would hold dashes.
	const isMeasured = variants.some((variant) => variant.manifest !== null);
	const names = variants.map((variant) => markdownCode(variant.recipe)).join(", ");
	const more = nextStep(context, "explain", "How these came about, and what they were compared with");
	if (job === null) return `**All of this is published already.**${table}\n\n${more}`;
	const commit = `${markdownCode(shortSha(job.sourceSha))}${ofModel(context)}`;
	const retry = nextStep(context, `retry ${shortNumber(job)}`, "To try again");
	const remark = job.remark == null ? "" : ` ${markdownText(job.remark, MAXIMUM_SENTENCE)}`;
	switch (job.state) {
		case "planned":
		case "waiting":
		case "dispatching":
		case "running":
		case "ingesting":
		case "verifying":
		case "publishing":
		case "announcing": {
			const verb = job.state === "planned" ? "Planned" : job.state === "waiting" ? "Waiting" : "Under way";
			const cancel = nextStep(context, `cancel ${shortNumber(job)}`, "To end it");
			const doing = job.statusText === "Planned." ? "" : `: ${markdownText(job.statusText, MAXIMUM_SENTENCE)}`;
			const what = isMeasured || names === "" ? `**${verb}**` : `**${verb}:** ${names}`;
			const begun = `${what} for commit ${commit}${doing}`;
			return `${/[.!?…]$/.test(begun) ? begun : `${begun}.`}${remark} ${jobLink(context, job, "Follow the job")}. This comment is brought up to date as it goes on.${isMeasured ? table : ""}\n\n${cancel}`;
		}
		case "done":
			return `**Done** for commit ${commit}. Every figure was measured on the published files; each repo's card says how to load them.${remark} ${jobLink(context, job, "How it was made")}.${table}\n\n${more}`;
		case "failed":
			return `**This failed**${names === "" ? "" : ` (${names})`} for commit ${commit}.${remark} ${job.refusal === null ? "" : refusalText(job.refusal)}\n\n${jobLink(context, job, "The job")}.${isMeasured ? table : ""}\n\n${retry}`;
		case "cancelled":
			return `**Cancelled${names === "" ? "**" : `:** ${names}`} for commit ${commit}. ${jobLink(context, job, "The job")}.${isMeasured ? table : ""}\n\n${retry}`;
		case "superseded":
			return `**Superseded**: a newer commit came before this one was finished. ${jobLink(context, job, "The job")}.${isMeasured ? table : ""}\n\n${retry}`;
		default:
			return assertNever(job.state);
	}
}

export function renderHelp(context: ReplyContext): string {
	const rows = COMMANDS.flatMap((command) =>
		command.examples.map((example) => `| \`@${context.botName} ${example.text}\` | ${example.meaning} |`),
	);
	const recipes = [...RECIPE_NAMES.map((recipe) => recipe.name), ...MIXED_EXAMPLES].map((name) => markdownCode(name));
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
	if (shown.length === 0) parts.push(`**Nothing was made of ${context.subject} yet.**`);
	else
		parts.push(
			`**Variants of ${context.subject}**`,
			variantRows(context, shown, false, source.jobs[0]?.sourceSha ?? null),
		);
	const newest = source.jobs[0];
	if (newest !== undefined) {
		const why = newest.refusal === null ? newest.statusText : newest.refusal.message;
		const told = isSaid(newest.state, why) ? "" : ` ${markdownText(why, MAXIMUM_SENTENCE)}`;
		parts.push(`Newest job: ${newest.state}.${told} ${jobLink(context, newest, "The job")}.`);
	}
	const site =
		context.siteUrl === null || shown.length === 0 ? "" : `[All of it](${context.siteUrl}/m/${source.repo}). `;
	const another = shown.length === 0 ? "To ask for a variant" : "To ask for another";
	parts.push(`${site}${nextStep(context, "quantize 8bit gguf", another)}`);
	return parts.join("\n\n");
}

/** Whether a sentence says no more than the state: "Done." of a job that is done. */
function isSaid(state: string, sentence: string): boolean {
	return sentence.replace(/\.$/, "").toLowerCase() === state;
}

/** How every answer to something that was not understood begins. */
export const MISREAD = "**I did not understand**";
const SUGGESTED = "Did you mean ";

/** `told`: what was said of the lines that were not understood; an example helps where nothing nearer was found. */
export function renderHelpHint(context: ReplyContext, told: readonly string[]): string {
	const page = context.siteUrl === null ? "" : ` All of it is on the [help page](${context.siteUrl}/help).`;
	const isNear = told.every((text) => text.includes(SUGGESTED));
	const most = isNear ? "" : `${nextStep(context, "quantize 8bit gguf", "Most people write something like")} `;
	return `${most}${nextStep(context, "help", "What else I understand")}${page}`;
}

export function renderInvalid(context: ReplyContext, command: ParsedCommand & { readonly kind: "invalid" }): string {
	const meant = command.suggestion === null ? "" : ` ${SUGGESTED}\`@${context.botName} ${command.suggestion}\`?`;
	return `${MISREAD} ${markdownCode(command.line.replaceAll("\uFFFC", "…"))}: ${markdownText(command.message, MAXIMUM_SENTENCE)}${meant}`;
}

export function renderRefusal(refusal: Pick<Refusal, "message" | "remedy">): string {
	return `**I cannot do that.** ${markdownText(refusal.message, MAXIMUM_SENTENCE)}\n\n**What to do:** ${markdownText(refusal.remedy, MAXIMUM_SENTENCE)}`;
}

export function renderNotPermitted(context: ReplyContext, author: string): string {
	const site = context.siteUrl === null ? "" : ` What is published already is [in the catalogue](${context.siteUrl}/).`;
	return `**Each variant costs a run, so I take requests from ${context.trusted}.** ${markdownCode(author)} is not among them as far as I can see. One of them may write the same line here, or the operator of this bot may add you to the list.${site}`;
}

export function renderMayNot(context: ReplyContext, command: "cancel" | "retry" | "approve", author: string): string {
	return `**${markdownCode(command)} is for ${context.trusted}, and for people on the operator's list.** ${markdownCode(author)} is not among them as far as I can see. ${nextStep(context, "status", "How things stand")}`;
}

/** `revision`: as the person wrote it, `null` for the newest commit. Whoever approves has to see what of. */
export function renderWaiting(
	context: ReplyContext,
	author: string,
	wish: { readonly recipes: readonly string[]; readonly revision: string | null },
): string {
	const what =
		wish.recipes.length === 0 ? "the usual variants" : wish.recipes.map((recipe) => markdownCode(recipe)).join(", ");
	const of = wish.revision === null ? "the newest commit" : `revision ${markdownCode(wish.revision)}`;
	return `**This waits for approval:** ${what} of ${of}${ofModel(context)}, asked for by ${markdownCode(author)}. It runs once ${context.somebodyTrusted} writes \`@${context.botName} approve\` in this ${context.thread}.`;
}

export function renderQuota(context: ReplyContext, limit: { readonly asked: number; readonly limit: number }): string {
	return `**That is enough for a day.** ${limit.asked} requests were taken in the last 24 hours, and the limit is ${limit.limit}. Ask again tomorrow, or have ${context.somebodyTrusted} write the same line here; the operator of this bot sets the limit. ${nextStep(context, "status", "What is there already")}`;
}

export function renderApproved(context: ReplyContext, count: number): string {
	if (count === 0)
		return `**Nothing in this ${context.thread} waits for approval.** ${nextStep(context, "status", "How things stand")}`;
	return `**Approved:** ${count} ${count === 1 ? "request" : "requests"}. The answers above go on from here.`;
}

export function renderPing(context: ReplyContext): string {
	return `I am here and read this ${context.thread}. ${nextStep(context, "help", "What I understand")}`;
}

/** `asked`: the command that would carry it out. */
export function renderPlan(context: ReplyContext, plan: RequestPreview & { readonly ok: true }, asked: string): string {
	const rows = plan.variants.map((variant) => {
		const state = variant.existing === null ? "new" : stateOfVariant(variant.existing);
		const size = `${variant.isLimit ? "at most" : "about"} ${formatBytes(variant.bytes)}`;
		return `| ${markdownCode(variant.recipe)} | ${markdownCode(variant.targetRepo)} | ${size} | ${state} |`;
	});
	return [
		`**Plan** for commit ${markdownCode(shortSha(plan.sha))}${ofModel(context)}: ${markdownText(plan.architecture)}, ${formatCount(plan.parameters)} parameters. Nothing was started.`,
		["| Variant | Would go to | Size | State |", "|---|---|---:|---|", ...rows].join("\n"),
		nextStep(context, asked, "To make it"),
	].join("\n\n");
}

const MAXIMUM_JOBS_SHOWN = 5;

export function renderWhichJob(context: ReplyContext, command: string, jobs: readonly JobRecord[]): string {
	const lines = jobs
		.slice(0, MAXIMUM_JOBS_SHOWN)
		.map(
			(job) =>
				`- \`@${context.botName} ${command} ${shortNumber(job)}\`: commit ${markdownCode(shortSha(job.sourceSha))}, ${job.state}`,
		);
	const more = jobs.length > MAXIMUM_JOBS_SHOWN ? [`- and ${jobs.length - MAXIMUM_JOBS_SHOWN} more`] : [];
	return ["**Which job?** Several are possible:", [...lines, ...more].join("\n")].join("\n\n");
}

export function renderNoJob(context: ReplyContext, what: string): string {
	return `**${what}** ${nextStep(context, "status", "How things stand")}`;
}

/** What came of `cancel` or `retry`, one line a job. */
export function renderChanges(
	context: ReplyContext,
	done: string,
	changes: readonly { readonly job: JobRecord; readonly problem: string | null }[],
): string {
	return changes
		.map(({ job, problem }) =>
			problem === null
				? `**${done}** ${jobLink(context, job, `job ${shortNumber(job)}`)}.`
				: `**Not possible** for ${jobLink(context, job, `job ${shortNumber(job)}`)}: ${markdownText(problem, MAXIMUM_SENTENCE)}`,
		)
		.join("\n\n");
}

/** A job in words: what it was for, how it ended, and for every variant what was chosen against what. */
export function renderExplanation(context: ReplyContext, job: JobRecord, variants: readonly VariantRecord[]): string {
	const parts = [
		`${jobLink(context, job, `Job ${shortNumber(job)}`)} for commit ${markdownCode(shortSha(job.sourceSha))} is **${job.state}**${isSaid(job.state, job.statusText) ? "." : `: ${markdownText(job.statusText, MAXIMUM_SENTENCE)}`}`,
	];
	if (job.refusal !== null) parts.push(refusalText(job.refusal));
	for (const variant of variants.slice(0, 12)) parts.push(explainVariant(context, variant, isFinished(job.state)));
	if (variants.length > 12) parts.push(`And ${variants.length - 12} more variants.`);
	if (transition(job.state, "retry") !== null)
		parts.push(nextStep(context, `retry ${shortNumber(job)}`, "To try again"));
	return parts.join("\n\n");
}

function explainVariant(context: ReplyContext, variant: VariantRecord, ended: boolean): string {
	const name = markdownCode(variant.recipe);
	if (variant.refusal !== null) return `${name} failed. ${refusalText(variant.refusal)}`;
	const summary = summarizeVariant(variant, context.hubUrl);
	if (summary.klNats === null || summary.quantizer === null) {
		return ended ? `${name} was not made.` : `${name} is ${stateOfVariant(variant)}.`;
	}
	const { gptq, rtn } = summary.baselines;
	const others = [
		...(gptq === null ? [] : [`GPTQ ${formatEstimate(gptq)}`]),
		...(rtn === null ? [] : [`round-to-nearest ${formatEstimate(rtn)}`]),
	];
	const against = others.length === 0 ? "" : ` At the same size: ${others.join(", ")}.`;
	return `${name} is ${stateOfVariant(variant)}: the gate chose ${markdownText(QUANTIZER_NAMES[summary.quantizer])} on held-out text, with a KL of ${formatEstimate(summary.klNats)} nats a token.${against}`;
}
