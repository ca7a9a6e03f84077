import { markdownCode } from "../../publish/escape.ts";
import type { JobRecord } from "../../records/job.ts";

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
export function ofModel(context: ReplyContext): string {
	return context.subject === HUB_WORDS.subject ? "" : ` of ${context.subject}`;
}

export function jobLink(context: ReplyContext, job: JobRecord, text: string): string {
	return context.siteUrl === null
		? `${text} (job ${job.id.slice(0, 8)})`
		: `[${text}](${context.siteUrl}/jobs/${job.id})`;
}

/** Commands that are about no model. */
const GENERAL: ReadonlySet<string> = new Set(["help", "ping", "approve"]);

export function nextStep(context: ReplyContext, text: string, meaning: string): string {
	const model = context.named === null || GENERAL.has(text) ? "" : ` ${context.named}`;
	return `${meaning}: \`@${context.botName} ${text}${model}\`.`;
}

export function shortNumber(job: JobRecord): string {
	return job.id.slice(0, 8);
}
