import { createHash } from "node:crypto";
import { commentOnDiscussion } from "../hub/comment-on-discussion.ts";
import { type CommentEvent, commentsOf, type Discussion, type DiscussionAuthor } from "../hub/discussion.ts";
import { editComment } from "../hub/edit-comment.ts";
import { getDiscussion } from "../hub/get-discussion.ts";
import type { HubAccess } from "../hub/hub-access.ts";
import { hubStatus } from "../hub/hub-request-error.ts";
import type { CommentHandler, RecordRequest, Replier, RequestOutcome } from "../jobs/ports.ts";
import type { JobRecord, RequestRecord, VariantRecord } from "../jobs/records.ts";
import type { Log } from "../log.ts";
import { parseRecipe, type Recipe } from "../protocol/recipe.ts";
import { createKeyedLock } from "./keyed-lock.ts";
import { type ParsedCommand, parseComment } from "./parse-comment.ts";
import {
	type ReplyContext,
	renderHelp,
	renderInvalid,
	renderNotPermitted,
	renderRequest,
	renderStatus,
} from "./render-reply.ts";
import { readTrailer, writeTrailer } from "./reply-trailer.ts";

export type AnswerOptions = {
	/** With the publisher's token: answers are written in the bot's name. */
	readonly hub: HubAccess;
	readonly context: ReplyContext;
	/** The bot's account, by id: names can change hands. */
	readonly botUserId: () => Promise<string>;
	/** What a push to the repo gives, for "quantize" without a recipe. */
	readonly defaultRecipes: (repo: string) => readonly string[];
	readonly allow: readonly string[];
	readonly anyone: boolean;
	readonly recordRequest: RecordRequest;
	readonly rememberReply: (request: RequestRecord, replyCommentId: string) => Promise<void>;
	readonly statusOf: (
		repo: string,
	) => Promise<{ readonly jobs: readonly JobRecord[]; readonly variants: readonly VariantRecord[] }>;
	readonly log: Log;
};

const ANSWER_BEGIN = "<!-- yaqa-bot request -->";
const ANSWER_END = "<!-- /yaqa-bot request -->";

type Answer = { readonly id: string; readonly text: string; readonly request: string | null };

/** The bot's own answer to a comment, found by its trailer. */
function findAnswer(discussion: Discussion, botUserId: string, commentId: string): Answer | null {
	for (const comment of commentsOf(discussion)) {
		if (comment.author?._id !== botUserId) continue;
		const text = comment.data.latest.raw ?? "";
		const trailer = readTrailer(text);
		if (trailer?.comment === commentId) return { id: comment.id, text, request: trailer.request };
	}
	return null;
}

function mayAsk(author: DiscussionAuthor, options: AnswerOptions): boolean {
	return (
		author.isOwner === true ||
		author.isOrgMember === true ||
		options.anyone ||
		options.allow.some((name) => name.toLowerCase() === author.name.toLowerCase())
	);
}

/** All that a comment asks for, as one request. `null`: it asks for no variant. */
function wantedRecipes(
	commands: readonly ParsedCommand[],
	defaults: readonly string[],
): { readonly recipes: readonly Recipe[] } | null {
	const quantize = commands.filter((command) => command.kind === "quantize");
	if (quantize.length === 0) return null;
	// "quantize" alone stays empty: the watch rule at the time of the run decides.
	if (quantize.every((command) => command.recipes.length === 0)) return { recipes: [] };
	const texts = quantize.flatMap((command) => (command.recipes.length === 0 ? defaults : command.recipes));
	const recipes = new Map<string, Recipe>();
	for (const text of texts) {
		const parsed = parseRecipe(text);
		if (parsed.ok) recipes.set(parsed.recipe.canonical, parsed.recipe);
	}
	return { recipes: [...recipes.values()] };
}

function requestStateOf(outcome: RequestOutcome): {
	readonly request: RequestRecord;
	readonly job: JobRecord | null;
	readonly variants: readonly VariantRecord[];
} {
	switch (outcome.kind) {
		case "planned":
			return { request: outcome.request, job: outcome.job, variants: outcome.variants };
		case "published":
			return { request: outcome.request, job: null, variants: outcome.variants };
		case "refused":
			return { request: { ...outcome.request, refusal: outcome.refusal }, job: null, variants: [] };
	}
}

function stateWord(state: { readonly request: RequestRecord; readonly job: JobRecord | null }): string {
	if (state.request.refusal !== null) return "refused";
	return state.job?.state ?? "published";
}

/**
 * Answers what people write to the bot.
 *
 * `handleComment` reads the discussion again (the webhook's text is a hint), judges the author's rights by the Hub's own
 * flags at this moment, records one request for all that the comment asks, and writes one answer. `reply` brings that
 * answer up to date when the job goes on. Both find the answer by its trailer, so that running again edits it.
 */
export function createCommentAnswers(options: AnswerOptions): {
	readonly handleComment: CommentHandler;
	readonly reply: Replier;
} {
	const { hub, context, log } = options;
	/** Within one process `reply` and `handleComment` must not both find no answer and post two. */
	const alone = createKeyedLock();

	async function readDiscussion(repo: string, num: number): Promise<Discussion | null> {
		try {
			return await getDiscussion({ ...hub, repo, num });
		} catch (error) {
			const status = hubStatus(error);
			if (status === 404 || status === 403 || status === 401 || status === 410) return null;
			throw error;
		}
	}

	/** Posts or edits; `null` when the discussion is locked or writing there is not allowed. */
	async function write(
		place: { readonly repo: string; readonly discussion: number },
		before: Answer | null,
		text: string,
	): Promise<string | null> {
		try {
			if (before === null) {
				const posted = await commentOnDiscussion({ ...hub, repo: place.repo, num: place.discussion, comment: text });
				return posted.id;
			}
			if (before.text !== text) {
				await editComment({ ...hub, repo: place.repo, num: place.discussion, commentId: before.id, content: text });
			}
			return before.id;
		} catch (error) {
			const status = hubStatus(error);
			if (status !== 403 && status !== 404 && status !== 410) throw error;
			log.warn("An answer could not be written", { repo: place.repo, discussion: place.discussion, status });
			return null;
		}
	}

	async function answer(
		place: { readonly repo: string; readonly discussion: number },
		discussion: Discussion,
		comment: CommentEvent,
		author: DiscussionAuthor,
		botUserId: string,
		deliveryId: string,
	): Promise<string> {
		const defaults = options.defaultRecipes(place.repo);
		const commands = parseComment(comment.data.latest.raw ?? "", {
			botName: context.botName,
			defaultRecipes: defaults,
		});
		if (commands.length === 0) return "";
		const before = findAnswer(discussion, botUserId, comment.id);
		const wanted = wantedRecipes(commands, defaults);
		const sections: string[] = [];
		const told: string[] = [];
		let state: ReturnType<typeof requestStateOf> | null = null;
		if (wanted !== null && !mayAsk(author, options)) {
			sections.push(renderNotPermitted(context, author.name));
			told.push("refused: no rights in the repo");
		} else if (wanted !== null) {
			const recipes = wanted.recipes.map((recipe) => recipe.canonical).sort();
			const hash = createHash("sha256").update(recipes.join(" ")).digest("hex").slice(0, 16);
			const outcome = await options.recordRequest({
				kind: "comment",
				sourceRepo: place.repo,
				recipes: wanted.recipes,
				requester: author.name,
				replyTo: { discussion: place.discussion, commentId: comment.id, replyCommentId: before?.id ?? null },
				// An edited comment that asks for something else is another request; the same wish again is not.
				dedupeKey: `comment:${place.repo}:${place.discussion}:${comment.id}:${hash}`,
			});
			state = requestStateOf(outcome);
			sections.push(`${ANSWER_BEGIN}\n${renderRequest(context, state)}\n${ANSWER_END}`);
			told.push(`quantize: ${stateWord(state)}`);
		}
		if (commands.some((command) => command.kind === "status")) {
			sections.push(renderStatus(context, { repo: place.repo, ...(await options.statusOf(place.repo)) }));
			told.push("status");
		}
		const invalid = commands.filter((command) => command.kind === "invalid");
		for (const command of invalid.slice(0, 5)) sections.push(renderInvalid(context, command));
		if (invalid.length > 0) told.push("not understood");
		if (invalid.length > 0 || commands.some((command) => command.kind === "help")) {
			sections.push(renderHelp(context));
			told.push("help");
		}
		const trailer = writeTrailer({
			v: 1,
			comment: comment.id,
			request: state?.request.id ?? null,
			state: state === null ? "answered" : stateWord(state),
		});
		const id = await write(place, before, `${sections.join("\n\n")}\n\n${trailer}`);
		if (id !== null && state !== null && state.request.replyTo?.replyCommentId !== id) {
			await options.rememberReply(state.request, id);
		}
		log.info("A comment was answered", { repo: place.repo, discussion: place.discussion, delivery: deliveryId, told });
		return id === null ? `${told.join(", ")}; the answer could not be written` : told.join(", ");
	}

	return {
		handleComment: (hint) =>
			alone(`${hint.repo}#${hint.discussion}`, async () => {
				const botUserId = await options.botUserId();
				const discussion = await readDiscussion(hint.repo, hint.discussion);
				if (discussion === null) return { outcome: "ignored", detail: "the discussion cannot be read" };
				const comments = commentsOf(discussion);
				const wanted = hint.commentId?.toLowerCase() ?? null;
				const comment =
					wanted === null ? comments[0] : comments.find((candidate) => candidate.id.toLowerCase() === wanted);
				if (comment === undefined) return { outcome: "ignored", detail: "the comment is hidden or gone" };
				const author = comment.author;
				if (author === undefined) return { outcome: "ignored", detail: "the comment's author is gone" };
				if (author._id === botUserId) return { outcome: "ignored", detail: "the bot's own comment" };
				const told = await answer(hint, discussion, comment, author, botUserId, hint.deliveryId);
				return told === ""
					? { outcome: "ignored", detail: "not addressed to the bot" }
					: { outcome: "accepted", detail: told };
			}),

		reply: ({ request, job, variants }) => {
			const replyTo = request.replyTo;
			if (replyTo === null || replyTo.commentId === null) return Promise.resolve({ replyCommentId: null });
			const commentId = replyTo.commentId;
			const place = { repo: request.sourceRepo, discussion: replyTo.discussion };
			return alone(`${place.repo}#${place.discussion}`, async () => {
				const discussion = await readDiscussion(place.repo, place.discussion);
				if (discussion === null) return { replyCommentId: replyTo.replyCommentId };
				const before = findAnswer(discussion, await options.botUserId(), commentId);
				// The comment was edited since and led to another request: that one's answer stands.
				if (before !== null && before.request !== null && before.request !== request.id) {
					return { replyCommentId: before.id };
				}
				const state = { request, job, variants };
				const section = `${ANSWER_BEGIN}\n${renderRequest(context, state)}\n${ANSWER_END}`;
				const trailer = writeTrailer({ v: 1, comment: commentId, request: request.id, state: stateWord(state) });
				const id = await write(place, before, `${withSection(before?.text ?? null, section)}\n\n${trailer}`);
				return { replyCommentId: id ?? replyTo.replyCommentId };
			});
		},
	};
}

/** The earlier answer with its request's part replaced; help and status that stood beside it are kept. */
function withSection(before: string | null, section: string): string {
	if (before === null) return section;
	const begin = before.indexOf(ANSWER_BEGIN);
	const end = before.indexOf(ANSWER_END);
	if (begin < 0 || end < begin) return section;
	const rest = before
		.slice(end + ANSWER_END.length)
		.replace(/<!-- yaqa-bot: [^\n]*-->\s*$/, "")
		.trimEnd();
	return `${before.slice(0, begin)}${section}${rest}`;
}
