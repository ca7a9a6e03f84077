import { createHash } from "node:crypto";
import type { Clock } from "../clock.ts";
import type { StoreDelivery } from "../deliveries/store-delivery.ts";
import { commentsOf, type Discussion } from "../hub/discussion.ts";
import { getDiscussion } from "../hub/get-discussion.ts";
import type { HubAccess } from "../hub/hub-access.ts";
import { hubStatus } from "../hub/hub-request-error.ts";
import { listNotifications } from "../hub/list-notifications.ts";
import { markNotificationsRead } from "../hub/mark-notifications-read.ts";

const MAXIMUM_PAGES = 5;

/**
 * Reads the bot's notifications and stores a delivery for every comment in them that names the bot: the way to hear of
 * commands where the Hub cannot call. What was read is marked so, and looked at once more afterwards, since a comment
 * may have come between reading and marking. Stored twice is stored once, by the comment's id and text.
 */
export async function pollMentions(options: {
	/** With the bot's own token. */
	readonly hub: HubAccess;
	/** As people mention it, without `@`. */
	readonly botName: string;
	readonly storeDelivery: StoreDelivery;
	readonly clock: Clock;
}): Promise<{ readonly discussions: number; readonly stored: number }> {
	const { hub, storeDelivery, clock } = options;
	const mention = `@${options.botName.toLowerCase()}`;
	let stored = 0;

	async function look(repo: string, num: number): Promise<void> {
		let discussion: Discussion;
		try {
			discussion = await getDiscussion({ ...hub, repo, num });
		} catch (error) {
			const status = hubStatus(error);
			if (status === 401 || status === 403 || status === 404 || status === 410) return;
			throw error;
		}
		for (const comment of commentsOf(discussion)) {
			const text = comment.data.latest.raw ?? "";
			if (!text.toLowerCase().includes(mention)) continue;
			const version = createHash("sha256").update(text).digest("hex").slice(0, 32);
			const { duplicate } = await storeDelivery({
				source: "hub",
				dedupeKey: `mention:${comment.id}:${version}`,
				receivedAt: clock.now(),
				body: {
					event: { action: "create", scope: "discussion.comment" },
					repo: { type: "model", name: repo },
					discussion: { num },
					comment: {
						id: comment.id,
						...(comment.author?._id === undefined ? {} : { author: { id: comment.author._id } }),
					},
				},
			});
			if (!duplicate) stored++;
		}
	}

	const found = new Map<string, { readonly repo: string; readonly num: number }>();
	for (let page = 0; page < MAXIMUM_PAGES; page++) {
		const notifications = await listNotifications({ ...hub, page, mention: "mentions" });
		if (notifications.length === 0) break;
		for (const { repo, discussion } of notifications) {
			if (repo?.type !== "model" || discussion === undefined) continue;
			found.set(discussion.id, { repo: repo.name, num: discussion.num });
		}
	}
	if (found.size === 0) return { discussions: 0, stored };
	for (const { repo, num } of found.values()) await look(repo, num);
	await markNotificationsRead({ ...hub, discussionIds: [...found.keys()] });
	for (const { repo, num } of found.values()) await look(repo, num);
	return { discussions: found.size, stored };
}
