import { assertNever } from "../errors.ts";
import type { CommentEvent, Discussion, DiscussionEvent } from "./discussion-store.ts";
import { apiPath, type HubContext, namespaceId, publish, repoSnapshot, webPath } from "./hub-context.ts";
import { renderMarkdown } from "./markdown.ts";
import { avatarUrl, eventAuthor, person } from "./people.ts";
import { fullName, type Repo } from "./repo-store.ts";
import type { HubEvent } from "./webhook-payload.ts";

const HIDDEN = "This comment has been hidden";

function eventData(context: HubContext, event: DiscussionEvent): Record<string, unknown> {
	switch (event.type) {
		case "comment": {
			const raw = event.hiddenBy === null ? event.raw : HIDDEN;
			const author = person(context, event.author);
			return {
				edited: event.numEdits > 0,
				hidden: event.hiddenBy !== null,
				...(event.hiddenBy === null ? {} : { hiddenBy: event.hiddenBy }),
				latest: {
					raw,
					html: renderMarkdown(raw, null),
					updatedAt: event.updatedAt,
					...(author === undefined ? {} : { author }),
				},
				numEdits: event.numEdits,
				editors: event.editors,
				editorAvatarUrls: event.editors.map((name) => avatarUrl(context, name)),
				reactions: [],
			};
		}
		case "status-change":
			return { status: event.status, ...(event.reason === null ? {} : { reason: event.reason }) };
		case "title-change":
			return { from: event.from, to: event.to };
		case "pinning-change":
			return { pinned: event.pinned };
		case "locking-change":
			return { locked: event.locked };
		case "commit":
			return { subject: event.subject, oid: event.oid };
		case "ref-deleted":
			return {};
		default:
			return assertNever(event);
	}
}

export function eventView(context: HubContext, repo: Repo, event: DiscussionEvent): Record<string, unknown> {
	const author = eventAuthor(context, repo, event.author);
	return {
		id: event.id,
		...(author === undefined ? {} : { author }),
		createdAt: event.createdAt,
		type: event.type,
		data: eventData(context, event),
	};
}

export function discussionListEntry(context: HubContext, repo: Repo, discussion: Discussion): Record<string, unknown> {
	const author = person(context, discussion.author);
	const owner = repo.record.namespace;
	return {
		num: discussion.num,
		...(author === undefined ? {} : { author }),
		repo: { name: fullName(repo), type: repo.record.type },
		title: discussion.title,
		createdAt: discussion.createdAt,
		topReactions: [],
		status: discussion.status,
		isPullRequest: discussion.pull !== null,
		numComments: discussion.events.filter((event) => event.type === "comment").length,
		numReactionUsers: 0,
		pinned: discussion.pinned,
		repoOwner: {
			name: owner,
			type: context.accounts.organization(owner) === null ? "user" : "org",
			isParticipating: discussion.events.some((event) => event.author === owner),
			isDiscussionAuthor: discussion.author === owner,
		},
	};
}

export function discussionDetails(
	context: HubContext,
	repo: Repo,
	discussion: Discussion,
	conflicts: readonly string[],
): Record<string, unknown> {
	const author = person(context, discussion.author);
	const { pull } = discussion;
	const head = repo.refs.pulls[String(discussion.num)];
	return {
		_id: discussion.id,
		num: discussion.num,
		...(author === undefined ? {} : { author }),
		repo: { name: fullName(repo), type: repo.record.type },
		title: discussion.title,
		createdAt: discussion.createdAt,
		status: discussion.status,
		events: discussion.events.map((event) => eventView(context, repo, event)),
		pinned: discussion.pinned,
		locked: discussion.locked,
		collection: "discussions",
		isPullRequest: pull !== null,
		isReport: false,
		...(pull === null
			? {}
			: {
					changes: {
						base: "refs/heads/main",
						...(pull.mergeCommitId === null ? {} : { mergeCommitId: pull.mergeCommitId }),
						...(head === undefined ? {} : { headCommitId: head }),
						...(pull.refDeleted ? { refDeleted: true } : {}),
					},
					filesWithConflicts: conflicts,
				}),
	};
}

/** The `discussion` and `comment` fields of a webhook payload. */
async function payload(
	context: HubContext,
	repo: Repo,
	discussion: Discussion,
	comment: CommentEvent | null,
): Promise<Pick<HubEvent, "repo" | "discussion" | "comment">> {
	const web = `${context.origin()}/${webPath(repo)}/discussions/${discussion.num}`;
	const id = (name: string): string => namespaceId(context, name);
	return {
		repo: await repoSnapshot(context, repo, { withHead: false }),
		discussion: {
			id: discussion.id,
			title: discussion.title,
			num: discussion.num,
			isPullRequest: discussion.pull !== null,
			status: discussion.status,
			url: { web, api: `${context.origin()}/${apiPath(repo)}/discussions/${discussion.num}` },
			author: { id: id(discussion.author) },
			pinned: discussion.pinned,
			...(discussion.pull === null
				? {}
				: {
						changes: {
							base: "refs/heads/main",
							...(discussion.pull.mergeCommitId === null ? {} : { mergeCommitId: discussion.pull.mergeCommitId }),
						},
					}),
		},
		...(comment === null
			? {}
			: {
					comment: {
						id: comment.id,
						author: { id: id(comment.author) },
						...(comment.hiddenBy === null ? { content: comment.raw } : {}),
						hidden: comment.hiddenBy !== null,
						url: { web: `${web}#${comment.id}` },
					},
				}),
	};
}

export async function publishDiscussion(
	context: HubContext,
	repo: Repo,
	event: HubEvent["event"],
	discussion: Discussion,
	comment: CommentEvent | null,
): Promise<void> {
	await publish(context, repo, { event, ...(await payload(context, repo, discussion, comment)) });
}
