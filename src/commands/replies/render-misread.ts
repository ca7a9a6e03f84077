import { markdownCode } from "../../publish/escape.ts";
import type { ParsedCommand } from "../parse/parsed-command.ts";
import { sentence } from "./render-refusal.ts";
import { nextStep, type ReplyContext } from "./reply-context.ts";

/** How every answer to something that was not understood begins. */
export const MISREAD = "**I did not understand**";
const SUGGESTED = "Did you mean ";

/** `misread`: the answers to the lines that were not understood; an example helps where nothing nearer was found. */
export function renderHelpHint(context: ReplyContext, misread: readonly string[]): string {
	const page = context.siteUrl === null ? "" : ` All of it is on the [help page](${context.siteUrl}/help).`;
	const isNear = misread.every((text) => text.includes(SUGGESTED));
	const most = isNear ? "" : `${nextStep(context, "quantize 8bit gguf", "Most people write something like")} `;
	return `${most}${nextStep(context, "help", "What else I understand")}${page}`;
}

export function renderInvalid(context: ReplyContext, command: ParsedCommand & { readonly kind: "invalid" }): string {
	const meant = command.suggestion === null ? "" : ` ${SUGGESTED}\`@${context.botName} ${command.suggestion}\`?`;
	return `${MISREAD} ${markdownCode(command.line.replaceAll("\uFFFC", "…"))}: ${sentence(command.message)}${meant}`;
}
