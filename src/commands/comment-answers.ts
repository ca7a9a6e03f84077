import type { Replier } from "../jobs/ports.ts";
import type { AnswerOptions, ReplyOptions } from "./answer-options.ts";
import type { CommentHandler } from "./comment-handler.ts";
import type { Place } from "./forum.ts";
import { handleComment } from "./handle-comment.ts";
import { placeOf } from "./host.ts";
import { updateAnswer } from "./update-answer.ts";

/** What comes in one thread is worked on one after the other: new commands and a job's progress edit the same comments. */
function lockName({ host }: Pick<ReplyOptions, "host">, place: Place): string {
	return `${host === "hub" ? "" : `${host} `}${place.repo}#${place.thread}`;
}

/** Answers what people write to the bot. */
export function createCommentHandler(options: AnswerOptions): CommentHandler {
	return (hint) =>
		options.alone(lockName(options, { repo: hint.repo, thread: hint.discussion }), () => handleComment(options, hint));
}

/** Brings the answers up to date as jobs go on. */
export function createReplier(options: ReplyOptions): Replier {
	return (state) => {
		const { replyTo, sourceRepo } = state.request;
		if (replyTo === null || replyTo.commentId === null) return Promise.resolve({ replyCommentId: null });
		const { commentId } = replyTo;
		const place = placeOf(replyTo, sourceRepo);
		return options.alone(lockName(options, place), () =>
			updateAnswer(options, place, { ...replyTo, commentId }, state),
		);
	};
}
