import { markdownCode } from "../../publish/escape.ts";
import { nextStep, ofModel, type ReplyContext } from "./reply-context.ts";

export function renderNotPermitted(context: ReplyContext, author: string): string {
	const site = context.siteUrl === null ? "" : ` What is published already is [in the catalogue](${context.siteUrl}/).`;
	return `**Each variant costs a run, so I take requests from ${context.trusted}.** ${markdownCode(author)} is not among them as far as I can see. One of them may write the same line here, or the operator of this bot may add you to the list.${site}`;
}

export function renderMayNot(context: ReplyContext, command: "cancel" | "retry" | "approve", author: string): string {
	return `**${markdownCode(command)} is for ${context.trusted}, and for people on the operator's list.** ${markdownCode(author)} is not among them as far as I can see. ${nextStep(context, "status", "How things stand")}`;
}

/** `asked.revision`: as the person wrote it, `null` for the newest commit. Whoever approves has to see what of. */
export function renderWaiting(
	context: ReplyContext,
	author: string,
	asked: { readonly recipes: readonly string[]; readonly revision: string | null },
): string {
	const what =
		asked.recipes.length === 0 ? "the usual variants" : asked.recipes.map((recipe) => markdownCode(recipe)).join(", ");
	const of = asked.revision === null ? "the newest commit" : `revision ${markdownCode(asked.revision)}`;
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
