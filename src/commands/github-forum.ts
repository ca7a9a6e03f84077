import { addReaction } from "../github/add-reaction.ts";
import { createIssueComment } from "../github/create-issue-comment.ts";
import { deleteReaction } from "../github/delete-reaction.ts";
import { getIssue } from "../github/get-issue.ts";
import { getPermission } from "../github/get-permission.ts";
import { type GitHubAccess, GitHubRequestError } from "../github/github-access.ts";
import type { Issue, IssueComment } from "../github/issue.ts";
import { listIssueComments } from "../github/list-issue-comments.ts";
import { listReactions } from "../github/list-reactions.ts";
import { updateIssueComment } from "../github/update-issue-comment.ts";
import type { Author, Comment, Forum, Place } from "./forum.ts";

/** Stands for an issue's opening message, which has no number of its own. */
const OPENING = "issue";

/** The id that comments of the App itself carry here. */
const OWN = "the App";
/** Those who may write to the repo may spend its owner's GPU hours. */
const TRUSTED: ReadonlySet<string> = new Set(["admin", "write"]);
const GONE: ReadonlySet<number> = new Set([404, 410, 451]);
const UNWRITABLE: ReadonlySet<number> = new Set([403, 404, 410, 451]);
/** A reaction is a courtesy: one that GitHub does not take, or that is gone already, stops nothing. */
const UNREACTABLE: ReadonlySet<number> = new Set([...UNWRITABLE, 422]);
const SIGNS = { seen: "eyes", done: "rocket", refused: "confused" } as const;

async function unlessRefused<Result>(
	statuses: ReadonlySet<number>,
	work: () => Promise<Result>,
): Promise<Result | null> {
	try {
		return await work();
	} catch (error) {
		// Where the App's own sign-in is refused, the operator has to see it: that is no answer about one issue.
		if (error instanceof GitHubRequestError && !error.signIn && statuses.has(error.status)) return null;
		throw error;
	}
}

/** Issues of GitHub repos. `access`: signed in as the App's installation on a repo; `null` for one not configured. */
export function gitHubForum(options: {
	readonly appId: string;
	readonly access: (repository: string) => GitHubAccess | null;
}): Forum {
	const { appId, access } = options;

	function of(place: Place): GitHubAccess {
		const github = access(place.repo);
		if (github === null) throw new Error(`${place.repo} is not among the configured GitHub repos.`);
		return github;
	}

	function authorOf(written: Pick<IssueComment | Issue, "user" | "performed_via_github_app">): Author | null {
		const { user } = written;
		if (user === null) return null;
		const robot = user.type === "Bot";
		const own = robot && String(written.performed_via_github_app?.id ?? "") === appId;
		return { id: own ? OWN : String(user.id), name: user.login, trusted: null, robot };
	}

	return {
		botId: async () => OWN,
		isTrusted: async (place, author) => TRUSTED.has(await getPermission(of(place), author.name)),
		read: (place) =>
			unlessRefused(GONE, async () => {
				const github = of(place);
				const issue = await getIssue(github, place.thread);
				const comments = await listIssueComments(github, place.thread);
				const opening: Comment = { id: OPENING, author: authorOf(issue), text: issue.body ?? "" };
				return {
					title: issue.title,
					locked: issue.locked,
					comments: [
						opening,
						...comments.map((comment) => ({
							id: String(comment.id),
							author: authorOf(comment),
							text: comment.body ?? "",
						})),
					],
				};
			}),
		post: (place, text) =>
			unlessRefused(UNWRITABLE, async () => {
				const { id } = await createIssueComment(of(place), place.thread, text);
				return { id: String(id) };
			}),
		edit: (place, commentId, text) =>
			unlessRefused(UNWRITABLE, async () => {
				await updateIssueComment(of(place), Number(commentId), text);
				return { id: commentId };
			}),
		acknowledge: async (place, commentId, sign) => {
			const github = of(place);
			const to = commentId === OPENING ? { issue: place.thread } : { comment: Number(commentId) };
			const added = await unlessRefused(UNREACTABLE, () => addReaction(github, to, SIGNS[sign]));
			const self = added?.user?.id;
			if (sign === "seen" || self === undefined) return;
			// What came of it stands alone: the eyes go, and the end of an earlier try.
			const all = (await unlessRefused(UNREACTABLE, () => listReactions(github, to))) ?? [];
			for (const { id, user, content } of all) {
				if (user?.id !== self || content === SIGNS[sign]) continue;
				await unlessRefused(UNREACTABLE, () => deleteReaction(github, to, id));
			}
		},
	};
}
