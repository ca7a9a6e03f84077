import { Router } from "express";
import { z } from "zod";
import type { Identity } from "../accounts.ts";
import type { Discussion } from "../discussion-store.ts";
import {
	type HubContext,
	mayRead,
	parsedBody,
	queryFlag,
	queryNumber,
	queryText,
	requireIdentity,
} from "../hub-context.ts";
import { HubError } from "../hub-error.ts";
import { avatarUrl } from "../people.ts";
import { fullName, type Repo } from "../repo-store.ts";
import { jsonBody } from "./body-parsers.ts";

const PAGE = 20;
const markSchema = z.object({
	discussionIds: z.array(z.string()).max(1000).optional(),
	read: z.boolean().default(true),
});

type Notice = { repo: Repo; discussion: Discussion; updatedAt: string; eventId: string; read: boolean };

function mentions(discussion: Discussion, name: string): boolean {
	const pattern = new RegExp(`(^|[^A-Za-z0-9_-])@${name.replaceAll(/[.]/g, "\\.")}(?![A-Za-z0-9_-])`, "i");
	return discussion.events.some((event) => event.type === "comment" && pattern.test(event.raw));
}

function reader(identity: Identity): Identity {
	if (identity.token.role === "fineGrained" && !identity.token.webhooks)
		throw new HubError(403, "This token has no right to read notifications.");
	return identity;
}

/** Notifications: the discussions that a user owns, takes part in or is named in, while somebody else spoke last. */
export function notificationRoutes(context: HubContext): Router {
	const router = Router();

	function notices(identity: Identity): Notice[] {
		const me = identity.user.name;
		const found: Notice[] = [];
		for (const repo of context.repos.all()) {
			if (!mayRead(repo, identity)) continue;
			for (const discussion of context.discussions.of(repo)) {
				const last = discussion.events.findLast((event) => event.author !== me);
				const takesPart = discussion.events.some((event) => event.author === me);
				if (last === undefined) continue;
				if (repo.record.namespace !== me && !takesPart && !mentions(discussion, me)) continue;
				const upTo = context.readMarks.readUpTo(me, discussion.id);
				found.push({
					repo,
					discussion,
					updatedAt: last.createdAt,
					eventId: last.id,
					read: upTo !== null && upTo >= last.createdAt,
				});
			}
		}
		return found.sort((a, b) => b.updatedAt.localeCompare(a.updatedAt));
	}

	router.get("/api/notifications", (request, response) => {
		const identity = reader(requireIdentity(context, request));
		const me = identity.user.name;
		const all = notices(identity);
		const mention = queryText(request, "mention") ?? "all";
		const repoName = queryText(request, "repoName");
		const unreadOnly = queryText(request, "readStatus") === "unread";
		const found = all
			.filter((one) => !unreadOnly || !one.read)
			.filter((one) => repoName === null || fullName(one.repo) === repoName)
			.filter(
				(one) =>
					mention === "all" ||
					(mention === "mentions"
						? mentions(one.discussion, me)
						: one.discussion.events.some((event) => event.author === me)),
			);
		const start = queryNumber(request, "p", 0, 1e6) * PAGE;
		response.json({
			notifications: found.slice(start, start + PAGE).map((one) => ({
				type: "repo",
				updatedAt: one.updatedAt,
				read: one.read,
				discussionEventId: one.eventId,
				repo: { name: fullName(one.repo), type: one.repo.record.type },
				discussion: {
					id: one.discussion.id,
					num: one.discussion.num,
					title: one.discussion.title,
					status: one.discussion.status,
					isPullRequest: one.discussion.pull !== null,
					participating: [...new Set(one.discussion.events.map((event) => event.author))].slice(0, 5).map((name) => ({
						_id: context.accounts.user(name)?.id ?? "0".repeat(24),
						avatar: avatarUrl(context, name),
						user: name,
					})),
				},
			})),
			count: { view: found.length, unread: all.filter((one) => !one.read).length, all: all.length },
			start,
		});
	});

	router.post("/api/notifications/mark-as-read", jsonBody, async (request, response) => {
		const identity = reader(requireIdentity(context, request));
		const body = parsedBody(markSchema, request);
		const all = queryFlag(request, "applyToAll");
		const chosen = notices(identity).filter((one) => all || body.discussionIds?.includes(one.discussion.id) === true);
		await context.readMarks.mark(
			identity.user.name,
			new Map(chosen.map((one) => [one.discussion.id, body.read ? one.updatedAt : null])),
		);
		response.json({});
	});
	return router;
}
