import type { Refusal } from "../../errors.ts";
import { markdownText } from "../../publish/escape.ts";

const MAXIMUM_SENTENCE_CHARACTERS = 2_000;

/** A sentence of another program's or another person's: bounded, and as text. */
export function sentence(text: string): string {
	return markdownText(text, MAXIMUM_SENTENCE_CHARACTERS);
}

/** What was refused and what helps. */
export function refusalText(refusal: Pick<Refusal, "message" | "remedy">): string {
	return `${sentence(refusal.message)}\n\n**What to do:** ${sentence(refusal.remedy)}`;
}

export function renderRefusal(refusal: Pick<Refusal, "message" | "remedy">): string {
	return `**I cannot do that.** ${refusalText(refusal)}`;
}
