import type { Replier } from "../jobs/ports.ts";
import type { ReplyTo } from "../records/request.ts";
import type { ReplyOptions } from "./answer-options.ts";
import { type Section, writeAnswer } from "./answer-text.ts";
import { answersOf } from "./answers-of.ts";
import type { Place } from "./forum.ts";
import { renderRequest } from "./replies/render-request.ts";
import { contextFor } from "./replies/reply-context.ts";
import type { ReplyTrailer } from "./reply-trailer.ts";
import { stateWord } from "./request-state.ts";
import { usualSubject } from "./usual-subject.ts";
import { writeToThread } from "./write-to-thread.ts";

/** Brings the answer to one comment up to date with the job that follows from it. */
export async function updateAnswer(
	options: ReplyOptions,
	place: Place,
	replyTo: ReplyTo & { readonly commentId: string },
	state: Parameters<Replier>[0],
): ReturnType<Replier> {
	const { forum, context } = options;
	const { request, job } = state;
	const { commentId } = replyTo;
	const thread = await forum.read(place);
	if (thread === null) return { replyCommentId: replyTo.replyCommentId };
	const answer = answersOf(thread, await forum.botId()).find((one) => one.trailer.comment === commentId) ?? null;
	const usual = (await usualSubject(options, place, thread)) === request.sourceRepo;
	const own = answer?.sections.find((section) => section.request === request.id);
	const section: Section = {
		// An answer that was lost is written anew; the request's own number stands for the command's key.
		key: own?.key ?? request.id.replaceAll("-", "").slice(0, 12),
		request: request.id,
		lasting: true,
		text: renderRequest(contextFor(context, { repo: request.sourceRepo, usual }), state),
	};
	const others = answer?.sections ?? [];
	const sections = own === undefined ? [...others, section] : others.map((one) => (one === own ? section : one));
	const trailer: ReplyTrailer = {
		v: 1,
		comment: commentId,
		request: answer?.trailer.request ?? request.id,
		state: answer === null || answer.trailer.request === request.id ? stateWord(state) : answer.trailer.state,
		ran: answer?.trailer.ran ?? [],
		waiting: answer?.trailer.waiting ?? [],
	};
	const before = thread.comments.find((comment) => comment.id === answer?.id)?.text ?? null;
	const id = await writeToThread(options, place, answer, writeAnswer({ sections, trailer }), before);
	if (id !== null && job?.state === "done") await forum.acknowledge(place, commentId, "done");
	if (id !== null && job?.state === "failed") await forum.acknowledge(place, commentId, "refused");
	return { replyCommentId: id ?? replyTo.replyCommentId };
}
