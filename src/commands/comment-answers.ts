import type { CommentHandler, Replier } from "../jobs/ports.ts";
import type { AnswerOptions } from "./answer-options.ts";
import type { Place } from "./forum.ts";
import { handleComment } from "./handle-comment.ts";
import { placeOf } from "./host.ts";
import { createKeyedLock } from "./keyed-lock.ts";
import { updateAnswer } from "./update-answer.ts";

/**
 * Answers what people write to the bot, and brings the answers up to date as jobs go on; in one thread one after the
 * other, since both edit the same comments.
 */
export function createCommentAnswers(options: AnswerOptions): {
	readonly handleComment: CommentHandler;
	readonly reply: Replier;
} {
	const alone = options.alone ?? createKeyedLock();
	const lockName = (place: Place): string =>
		`${options.host === "hub" ? "" : `${options.host} `}${place.repo}#${place.thread}`;
	return {
		handleComment: (hint) =>
			alone(lockName({ repo: hint.repo, thread: hint.discussion }), () => handleComment(options, hint)),
		reply: (state) => {
			const { replyTo, sourceRepo } = state.request;
			if (replyTo === null || replyTo.commentId === null) return Promise.resolve({ replyCommentId: null });
			const { commentId } = replyTo;
			const place = placeOf(replyTo, sourceRepo);
			return alone(lockName(place), () => updateAnswer(options, place, { ...replyTo, commentId }, state));
		},
	};
}
