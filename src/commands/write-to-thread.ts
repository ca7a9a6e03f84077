import type { AnswerOptions } from "./answer-options.ts";
import type { Answer } from "./answers-of.ts";
import type { Place } from "./forum.ts";

/**
 * Posts an answer, or edits the one that is there. `beforeText`: what stands there, where an equal text need not be
 * written. The comment's number; `null`: the host refuses it.
 */
export async function writeToThread(
	options: Pick<AnswerOptions, "forum" | "log">,
	place: Place,
	before: Answer | null,
	text: string,
	beforeText: string | null = null,
): Promise<string | null> {
	const { forum, log } = options;
	if (before !== null && beforeText === text) return before.id;
	const written = before === null ? await forum.post(place, text) : await forum.edit(place, before.id, text);
	if (written === null) log.warn("An answer could not be written", { ...place });
	return written?.id ?? null;
}
