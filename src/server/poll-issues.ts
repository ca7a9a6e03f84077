import { createHash } from "node:crypto";
import type { Clock } from "../clock.ts";
import type { StoreDelivery } from "../deliveries/store-delivery.ts";
import type { GitHubAccess } from "../github/github-access.ts";
import { listRecentComments } from "../github/list-recent-comments.ts";

/**
 * Stores a delivery for every comment and opening message of a GitHub repo's issues that names the bot and was written
 * or changed since a time. Stored twice is stored once, by the comment's number and text. `until`: from when to look next.
 */
export async function pollIssues(options: {
	readonly github: GitHubAccess;
	/** As people mention it, without `@`. */
	readonly botName: string;
	readonly since: Date;
	readonly storeDelivery: StoreDelivery;
	readonly clock: Clock;
}): Promise<{ readonly stored: number; readonly until: Date }> {
	const { github, since, storeDelivery, clock } = options;
	const mention = `@${options.botName.toLowerCase()}`;
	const { comments, issues } = await listRecentComments(github, since);
	const repository = { full_name: github.repository };
	let until = since;
	let stored = 0;

	async function store(key: string, text: string, body: object): Promise<void> {
		if (!text.toLowerCase().includes(mention)) return;
		const version = createHash("sha256").update(text).digest("hex").slice(0, 32);
		const { duplicate } = await storeDelivery({
			source: "github",
			dedupeKey: `seen:${github.repository}:${key}:${version}`,
			receivedAt: clock.now(),
			body,
		});
		if (!duplicate) stored++;
	}

	for (const comment of comments) {
		until = laterOf(until, comment.updated_at);
		if (comment.user?.type === "Bot") continue;
		const number = Number(/\/issues\/(\d+)$/.exec(comment.issue_url ?? "")?.[1]);
		if (Number.isInteger(number)) {
			await store(`comment ${comment.id}`, comment.body ?? "", {
				event: "issue_comment",
				payload: { action: "created", repository, issue: { number }, comment: { id: comment.id } },
			});
		}
	}
	for (const issue of issues) {
		if (issue.user?.type === "Bot") continue;
		await store(`issue ${issue.number}`, issue.body ?? "", {
			event: "issues",
			payload: { action: "opened", repository, issue: { number: issue.number } },
		});
	}
	return { stored, until };
}

function laterOf(one: Date, text: string): Date {
	const other = new Date(text);
	return other > one ? other : one;
}
