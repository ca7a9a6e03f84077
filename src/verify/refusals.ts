import type { Refusal, RefusalCode } from "../errors.ts";

export function refusal(code: RefusalCode, message: string, remedy: string): Refusal {
	return { code, message, remedy };
}

/** Text from a stranger's repo, fit to stand in a sentence of ours: one line, bounded, nothing that renders or mentions. */
export function quoted(text: string): string {
	const clean = text.replaceAll(/[^\p{L}\p{N}\p{P}\p{S} ]/gu, "�").replaceAll(/[`@<>[\]|\\]/g, "�");
	return `"${clean.length > 120 ? `${clean.slice(0, 120)}…` : clean}"`;
}
