import { readAnswer, type Section } from "./answer-text.ts";
import type { Thread } from "./forum.ts";
import type { ReplyTrailer } from "./reply-trailer.ts";

export type Answer = { readonly id: string; readonly sections: readonly Section[]; readonly trailer: ReplyTrailer };

/** The bot's own answers in a thread. */
export function answersOf(thread: Thread, botId: string): readonly Answer[] {
	return thread.comments.flatMap((comment) => {
		if (comment.author?.id !== botId) return [];
		const answer = readAnswer(comment.text);
		return answer === null ? [] : [{ id: comment.id, ...answer }];
	});
}
