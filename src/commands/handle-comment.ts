import type { AnswerOptions } from "./answer-options.ts";
import { type Answer, answersOf } from "./answers-of.ts";
import { commandsOf } from "./commands-of.ts";
import type { CommentHandler } from "./comment-handler.ts";
import type { Author, Comment, Place, Thread } from "./forum.ts";
import { requesterName } from "./host.ts";
import { readTrailer } from "./reply-trailer.ts";
import { hasRights, isRobot } from "./rights.ts";
import { runCommands } from "./run/run-commands.ts";
import { usualSubject } from "./usual-subject.ts";

/** Strangers are answered this often in a thread; after that the bot is silent, whatever they write. */
const MAXIMUM_ANSWERS_TO_STRANGERS = 10;

async function isTrusted(place: Place, author: Author, options: AnswerOptions): Promise<boolean> {
	if (hasRights(author.name, author.trusted === true, options)) return true;
	return author.trusted === null && (await options.forum.isTrusted(place, author));
}

/** Most comments never name the bot; for them nothing is looked up. */
function isNamed(text: string, botName: string): boolean {
	return text.toLowerCase().includes(botName.toLowerCase());
}

type Found =
	| { readonly ok: true; readonly comment: Comment; readonly author: Author }
	| { readonly ok: false; readonly reason: string };

/** The comment that a hint is about, if a person wrote it. */
function findComment(thread: Thread, commentId: string | null, botId: string, options: AnswerOptions): Found {
	const no = (reason: string): Found => ({ ok: false, reason });
	const wanted = commentId?.toLowerCase() ?? null;
	const comment =
		wanted === null ? thread.comments[0] : thread.comments.find((candidate) => candidate.id.toLowerCase() === wanted);
	if (comment === undefined) return no("the comment is hidden or gone");
	const { author } = comment;
	if (author === null) return no("the comment's author is gone");
	if (author.id === botId) return no("the bot's own comment");
	if (isRobot(author, options)) return no("another bot's comment");
	if (readTrailer(comment.text) !== null) return no("a copy of an answer");
	return { ok: true, comment, author };
}

/** Whether a stranger has had as many answers in this thread as one person gets. */
function hasEnoughAnswers(thread: Thread, answers: readonly Answer[], author: Author): boolean {
	const own = new Set(thread.comments.filter((one) => one.author?.id === author.id).map((one) => one.id));
	return answers.filter((answer) => own.has(answer.trailer.comment)).length >= MAXIMUM_ANSWERS_TO_STRANGERS;
}

/**
 * Answers a comment. The thread is read again (the webhook's text is a hint), the author's rights are those that the
 * host tells at this moment, what is new in the comment is run, and one answer is written: found by its trailer, so
 * that running again edits it.
 */
export async function handleComment(
	options: AnswerOptions,
	hint: Parameters<CommentHandler>[0],
): ReturnType<CommentHandler> {
	const { forum, context, log } = options;
	const ignored = (detail: string) => ({ outcome: "ignored" as const, detail });
	const place: Place = { repo: hint.repo, thread: hint.discussion };
	const botId = await forum.botId();
	if (hint.authorId === botId) return ignored("the bot's own comment");
	const thread = await forum.read(place);
	if (thread === null) return ignored("the discussion cannot be read");
	const found = findComment(thread, hint.commentId, botId, options);
	if (!found.ok) return ignored(found.reason);
	const { comment, author } = found;
	const usual = isNamed(comment.text, context.botName) ? await usualSubject(options, place, thread) : null;
	const commands = commandsOf(options, comment, usual);
	if (commands.length === 0) return ignored("not addressed to the bot");
	const answers = answersOf(thread, botId);
	const before = answers.find((answer) => answer.trailer.comment === comment.id) ?? null;
	const ran = new Set(before?.trailer.ran);
	const fresh = commands.filter((command) => !ran.has(command.key));
	if (fresh.length === 0) return ignored("answered already");
	// Nothing is done that nobody could be told of.
	if (thread.locked) return ignored("the discussion is locked");
	const trusted = await isTrusted(place, author, options);
	if (!trusted && before === null && hasEnoughAnswers(thread, answers, author)) {
		return ignored("enough answers to one person here");
	}
	const mark = `${options.host}:${place.repo}:${place.thread}:${comment.id}`;
	if (!trusted && !(await options.claimStrangerAnswer(mark, requesterName(options.host, author.name)))) {
		return ignored("enough answers to people without rights in 24 hours");
	}
	await forum.acknowledge(place, comment.id, "seen");
	const { report, written, sign } = await runCommands(options, fresh, before, {
		place,
		thread,
		usual,
		comment,
		author,
		botId,
		trusted,
		approved: false,
		replyCommentId: before?.id ?? null,
	});
	if (sign !== null) await forum.acknowledge(place, comment.id, sign);
	log.info("A comment was answered", { ...place, delivery: hint.deliveryId, report });
	return { outcome: "accepted", detail: written ? report : `${report}; the answer could not be written` };
}
