import { createDiscussion } from "../hub/create-discussion.ts";
import { commentsOf, type Discussion } from "../hub/discussion.ts";
import { editComment } from "../hub/edit-comment.ts";
import { getDiscussion } from "../hub/get-discussion.ts";
import type { HubWriteAccess } from "../hub/hub-access.ts";
import { hubStatus } from "../hub/hub-request-error.ts";
import { listDiscussions } from "../hub/list-discussions.ts";
import type { Account } from "../hub/own-account.ts";
import { renderStatus, type SourceStatusView, STATUS_TITLE } from "./status-text.ts";

/**
 * Opens the one status discussion of a source repo, or edits its opening comment when that says something else by now.
 * The bot's discussion is known by its number and its author's id, never by the title alone, which anybody can use.
 * `null`: discussions are closed there, or the bot may not write in them.
 */
export async function announce(request: {
	readonly hub: HubWriteAccess;
	/** The bot's own. */
	readonly account: () => Promise<Account>;
	/** Where the job pages are; `null` when they have no public address. */
	readonly publicUrl: string | null;
	/** The name people address the bot by; `null`: its account's. */
	readonly mention: string | null;
	readonly status: SourceStatusView & { readonly discussion: number | null };
}): Promise<{ readonly discussion: number | null }> {
	const { hub, publicUrl, mention, status } = request;
	const repo = status.sourceRepo;
	const bot = await request.account();
	const text = renderStatus(status, { hubUrl: hub.hubUrl, publicUrl, botName: mention ?? bot.name });
	try {
		const own = await findOwn(hub, repo, status.discussion, bot);
		if (own === null) {
			const opened = await createDiscussion({ ...hub, repo, title: STATUS_TITLE, description: text });
			return { discussion: opened.num };
		}
		const opening = commentsOf(own)[0];
		if (opening !== undefined && opening.author?._id === bot.id && opening.data.latest.raw !== text) {
			await editComment({ ...hub, repo, num: own.num, commentId: opening.id, content: text });
		}
		return { discussion: own.num };
	} catch (error) {
		const code = hubStatus(error);
		// Turned off, gone, or locked to the bot: the job's outcome stands, only this place for it is missing.
		if (code === 401 || code === 403 || code === 404 || code === 410) return { discussion: null };
		throw error;
	}
}

async function findOwn(
	hub: HubWriteAccess,
	repo: string,
	stored: number | null,
	bot: Account,
): Promise<Discussion | null> {
	if (stored !== null) {
		const known = await read(hub, repo, stored);
		if (known !== null && isOwn(known, bot.id)) return known;
	}
	for await (const entry of listDiscussions({ ...hub, repo, author: bot.name })) {
		if (entry.title !== STATUS_TITLE || entry.isPullRequest) continue;
		// The list may leave ids out; the discussion itself has them.
		const found = await read(hub, repo, entry.num);
		if (found !== null && isOwn(found, bot.id)) return found;
	}
	return null;
}

async function read(hub: HubWriteAccess, repo: string, num: number): Promise<Discussion | null> {
	try {
		return await getDiscussion({ ...hub, repo, num });
	} catch (error) {
		if (hubStatus(error) === 404) return null;
		throw error;
	}
}

function isOwn(discussion: Discussion, botId: string): boolean {
	const opening = commentsOf(discussion)[0];
	return opening?.author?._id === botId;
}
