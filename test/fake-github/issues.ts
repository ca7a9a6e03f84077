import type { MatchedOperation } from "./api-contract.ts";
import { Refused } from "./refused.ts";

type Account = { readonly id: number; readonly login: string; readonly type: "User" | "Bot" };
type Comment = {
	readonly id: number;
	readonly issue: number;
	readonly author: Account;
	body: string;
	readonly createdAt: string;
	updatedAt: string;
	reactions: readonly { readonly id: number; readonly login: string; readonly content: string }[];
};
type Issue = {
	readonly number: number;
	readonly opening: Comment;
	readonly title: string;
	locked: boolean;
	deleted: boolean;
};

/** What a test sees and does in the issues of a repo. */
export type IssueBook = {
	readonly repository: string;
	/** Gives somebody a standing: `admin`, `write`, `read`, `none`. People are made when they first write. */
	permit(login: string, permission: string): void;
	open(login: string, title: string, body: string): number;
	comment(login: string, issue: number, body: string): number;
	edit(comment: number, body: string): void;
	lock(issue: number): void;
	delete(issue: number): void;
	/** The issue's comments without the opening message, oldest first. */
	commentsOf(issue: number): readonly { readonly id: number; readonly login: string; readonly body: string }[];
	/** The App's reactions on a comment; `null`: on the issue's opening message. */
	reactionsOf(issue: number, comment: number | null): readonly string[];
	/** Somebody else's reaction. */
	react(login: string, comment: number, content: string): void;
	/** The webhook's payload for the newest message. */
	payloadOf(issue: number, comment: number | null, action: string): unknown;
};

type IssueServer = IssueBook & {
	/** Status and body; `null`: not an operation of issues. */
	act(operation: MatchedOperation, url: URL, body: unknown): readonly [number, unknown] | null;
};

const APP_LOGIN = "yaqa-bot[bot]";

/** Issues, comments, reactions and collaborators of one repo. `origin` is known once the server listens. */
export function createIssues(options: {
	readonly repository: string;
	readonly appId: number;
	readonly origin: () => string;
	readonly now: () => Date;
}): IssueServer {
	const { repository, appId, origin, now } = options;
	const people = new Map<string, Account>([[APP_LOGIN, { id: 100, login: APP_LOGIN, type: "Bot" }]]);
	const permissions = new Map<string, string>();
	const issues = new Map<number, Issue>();
	const comments = new Map<number, Comment>();
	let next = 5_000_000_001;

	function person(login: string): Account {
		const known = people.get(login);
		if (known !== undefined) return known;
		const made: Account = { id: 100 + people.size, login, type: login.endsWith("[bot]") ? "Bot" : "User" };
		people.set(login, made);
		return made;
	}

	function write(login: string, issue: number, body: string): Comment {
		const at = now().toISOString();
		const made = { id: next++, issue, author: person(login), body, createdAt: at, updatedAt: at, reactions: [] };
		return made;
	}

	function accountView(account: Account): Record<string, unknown> {
		const url = `${origin()}/users/${encodeURIComponent(account.login)}`;
		return { ...account, node_id: `U_${account.id}`, site_admin: false, url, html_url: url };
	}

	function appView(account: Account): Record<string, unknown> | null {
		if (account.login !== APP_LOGIN) return null;
		const at = "2026-01-01T00:00:00Z";
		const owner = accountView(person("acme"));
		return { id: appId, node_id: "A_1", name: "yaqa-bot", slug: "yaqa-bot", owner, created_at: at, updated_at: at };
	}

	function standing(account: Account): string {
		const permission = permissions.get(account.login) ?? "none";
		return permission === "none" || permission === "read" ? "NONE" : "COLLABORATOR";
	}

	function commentView(comment: Comment): Record<string, unknown> {
		const issue = `${origin()}/repos/${repository}/issues/${comment.issue}`;
		return {
			id: comment.id,
			node_id: `IC_${comment.id}`,
			url: `${origin()}/repos/${repository}/issues/comments/${comment.id}`,
			html_url: `${issue}#issuecomment-${comment.id}`,
			body: comment.body,
			user: accountView(comment.author),
			created_at: comment.createdAt,
			updated_at: comment.updatedAt,
			issue_url: issue,
			author_association: standing(comment.author),
			performed_via_github_app: appView(comment.author),
		};
	}

	function issueView(issue: Issue): Record<string, unknown> {
		const { opening } = issue;
		const url = `${origin()}/repos/${repository}/issues/${issue.number}`;
		return {
			id: opening.id,
			node_id: `I_${opening.id}`,
			url,
			html_url: url,
			repository_url: `${origin()}/repos/${repository}`,
			number: issue.number,
			state: "open",
			title: issue.title,
			body: opening.body,
			user: accountView(opening.author),
			labels: [],
			assignee: null,
			milestone: null,
			locked: issue.locked,
			comments: [...comments.values()].filter((one) => one.issue === issue.number).length,
			closed_at: null,
			created_at: opening.createdAt,
			updated_at: opening.updatedAt,
			author_association: standing(opening.author),
			performed_via_github_app: null,
		};
	}

	function paged<Item>(items: readonly Item[], url: URL): readonly Item[] {
		const size = Number(url.searchParams.get("per_page") ?? 30);
		const first = (Number(url.searchParams.get("page") ?? 1) - 1) * size;
		return items.slice(first, first + size);
	}

	function since<Item extends { updatedAt: string }>(items: readonly Item[], url: URL): readonly Item[] {
		const from = url.searchParams.get("since");
		return items
			.filter((one) => from === null || Date.parse(one.updatedAt) >= Date.parse(from))
			.toSorted((one, other) => Date.parse(one.updatedAt) - Date.parse(other.updatedAt));
	}

	function issueOf(number: unknown): Issue {
		const issue = issues.get(Number(number));
		if (issue === undefined) throw new Refused(404, "Not Found");
		if (issue.deleted) throw new Refused(410, "This issue was deleted");
		return issue;
	}

	function commentOf(id: unknown): Comment {
		const comment = comments.get(Number(id));
		if (comment === undefined || issues.get(comment.issue)?.deleted === true) throw new Refused(404, "Not Found");
		return comment;
	}

	function textOf(body: unknown): string {
		const text = String((body as { readonly body?: unknown }).body ?? "");
		if (text.length > 65_536) throw new Refused(422, "Body is too long (maximum is 65536 characters)");
		return text;
	}

	function reactionView({ id, login, content }: Comment["reactions"][number]): Record<string, unknown> {
		const user = accountView(person(login));
		return { id, node_id: `R_${id}`, user, content, created_at: now().toISOString() };
	}

	function react(on: Comment, login: string, content: string): readonly [number, unknown] {
		const known = on.reactions.find((one) => one.login === login && one.content === content);
		const made = known ?? { id: next++, login, content };
		if (known === undefined) on.reactions = [...on.reactions, made];
		return [known === undefined ? 201 : 200, reactionView(made)];
	}

	function contentOf(body: unknown): string {
		return String((body as { readonly content?: unknown }).content);
	}

	function withdraw(on: Comment, id: unknown): readonly [number, unknown] {
		const known = on.reactions.find((one) => one.id === Number(id));
		if (known === undefined) throw new Refused(404, "Not Found");
		if (known.login !== APP_LOGIN) throw new Refused(403, "Resource not accessible by integration");
		on.reactions = on.reactions.filter((one) => one !== known);
		return [204, null];
	}

	function reactions(on: Comment, url: URL): readonly [number, unknown] {
		const content = url.searchParams.get("content");
		const wanted = on.reactions.filter((one) => content === null || one.content === content);
		return [200, paged(wanted, url).map(reactionView)];
	}

	return {
		repository,
		permit: (login, permission) => void permissions.set(person(login).login, permission),
		open(login, title, body) {
			const number = issues.size + 1;
			issues.set(number, { number, opening: write(login, number, body), title, locked: false, deleted: false });
			return number;
		},
		comment(login, issue, body) {
			const made = write(login, issue, body);
			comments.set(made.id, made);
			return made.id;
		},
		edit(id, body) {
			const comment = commentOf(id);
			comment.body = body;
			comment.updatedAt = now().toISOString();
		},
		lock(issue) {
			issueOf(issue).locked = true;
		},
		delete(issue) {
			issueOf(issue).deleted = true;
		},
		commentsOf: (issue) =>
			[...comments.values()]
				.filter((one) => one.issue === issue)
				.map(({ id, author, body }) => ({ id, login: author.login, body })),
		reactionsOf(issue, comment) {
			const on = comment === null ? issues.get(issue)?.opening : comments.get(comment);
			return (on?.reactions ?? []).filter((one) => one.login === APP_LOGIN).map((one) => one.content);
		},
		react: (login, comment, content) => void react(commentOf(comment), person(login).login, content),
		payloadOf(number, comment, action) {
			const issue = issues.get(number);
			if (issue === undefined) throw new Error("There is no such issue.");
			const written = comment === null ? null : comments.get(comment);
			return {
				action,
				repository: { full_name: repository },
				issue: issueView(issue),
				...(written === null || written === undefined ? {} : { comment: commentView(written) }),
			};
		},
		act(operation, url, body) {
			const { path } = operation;
			switch (operation.id) {
				case "issues/get":
					return [200, issueView(issueOf(path["issue_number"]))];
				case "issues/list-comments": {
					const { number } = issueOf(path["issue_number"]);
					const all = [...comments.values()].filter((one) => one.issue === number);
					return [200, paged(all, url).map(commentView)];
				}
				case "issues/create-comment": {
					const { number, locked } = issueOf(path["issue_number"]);
					// An App with the right to write may comment on a locked issue; this one is a mere commenter.
					if (locked) throw new Refused(403, "Unable to create comment because issue is locked.");
					const made = write(APP_LOGIN, number, textOf(body));
					comments.set(made.id, made);
					return [201, commentView(made)];
				}
				case "issues/update-comment": {
					const comment = commentOf(path["comment_id"]);
					comment.body = textOf(body);
					comment.updatedAt = now().toISOString();
					return [200, commentView(comment)];
				}
				case "issues/list-comments-for-repo":
					return [200, paged(since([...comments.values()], url), url).map(commentView)];
				case "issues/list-for-repo": {
					const all = [...issues.values()].map((issue) => ({ issue, updatedAt: issue.opening.updatedAt }));
					return [200, paged(since(all, url), url).map(({ issue }) => issueView(issue))];
				}
				case "reactions/create-for-issue-comment":
					return react(commentOf(path["comment_id"]), APP_LOGIN, contentOf(body));
				case "reactions/create-for-issue":
					return react(issueOf(path["issue_number"]).opening, APP_LOGIN, contentOf(body));
				case "reactions/list-for-issue-comment":
					return reactions(commentOf(path["comment_id"]), url);
				case "reactions/list-for-issue":
					return reactions(issueOf(path["issue_number"]).opening, url);
				case "reactions/delete-for-issue-comment":
					return withdraw(commentOf(path["comment_id"]), path["reaction_id"]);
				case "reactions/delete-for-issue":
					return withdraw(issueOf(path["issue_number"]).opening, path["reaction_id"]);
				case "repos/get-collaborator-permission-level": {
					const account = people.get(path["username"] ?? "");
					if (account === undefined) throw new Refused(404, `${path["username"]} is not a user`);
					const permission = permissions.get(account.login) ?? "none";
					return [200, { permission, role_name: permission, user: accountView(account) }];
				}
				default:
					return null;
			}
		},
	};
}
