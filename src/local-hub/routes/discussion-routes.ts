import { Router } from "express";
import { z } from "zod";
import { type Identity, mayDiscuss } from "../accounts.ts";
import { mergeTrees } from "../commit-operations.ts";
import type { CommentEvent, Discussion, DiscussionEvent } from "../discussion-store.ts";
import { discussionDetails, discussionListEntry, eventView, publishDiscussion } from "../discussion-view.ts";
import { gitDiff, syncMirror } from "../git-mirror.ts";
import {
	type HubContext,
	mayWrite,
	openRepo,
	parameter,
	parsedBody,
	publishRefs,
	queryFlag,
	queryNumber,
	queryText,
	webPath,
	writerOf,
} from "../hub-context.ts";
import { HubError } from "../hub-error.ts";
import { newId } from "../identifiers.ts";
import { REPO_TYPES, type Repo } from "../repo-store.ts";
import { revisionOrThrow } from "../revisions.ts";
import { jsonBody } from "./body-parsers.ts";

const PAGE = 10;
const title = z.string().trim().min(3).max(200);
const text = z.string().max(65_536);
const createSchema = z.object({ title, description: text, pullRequest: z.boolean().nullish() });
const commentSchema = z.object({ comment: text.min(1) });
const editSchema = z.object({ content: text.min(1) });
const statusSchema = z.object({ status: z.enum(["open", "closed"]), comment: text.nullish() });
const titleSchema = z.object({ title });
const mergeSchema = z.object({ comment: text.nullish() });
const pinSchema = z.object({ pinned: z.boolean() });

/** Discussions and pull requests. Long as a list of routes is: each handler stands alone. */
export function discussionRoutes(context: HubContext): Router {
	const router = Router();
	const now = (): string => context.clock.now().toISOString();

	function comment(author: string, raw: string): CommentEvent {
		const at = now();
		return {
			id: newId(),
			type: "comment",
			author,
			createdAt: at,
			updatedAt: at,
			raw,
			editors: [author],
			numEdits: 0,
			hiddenBy: null,
		};
	}

	function speaker(repo: Repo, identity: Identity | null): Identity {
		if (identity === null) throw new HubError(401, "Invalid username or password.");
		if (!mayDiscuss(identity, repo.record.namespace))
			throw new HubError(403, "This token has no right to take part in discussions.");
		if (repo.record.discussionsDisabled) throw new HubError(403, "Discussions are disabled for this repo.");
		return identity;
	}

	function find(repo: Repo, num: string): Discussion {
		const discussion = /^[0-9]{1,9}$/.test(num) ? context.discussions.get(repo, Number(num)) : null;
		if (discussion === null) throw new HubError(404, "Discussion not found");
		return discussion;
	}

	const authorOrWriter = (repo: Repo, identity: Identity, author: string): void => {
		if (identity.user.name !== author && !mayWrite(repo, identity))
			throw new HubError(403, "Only its author and those who may write to the repo can change this.");
	};

	/** What a pull request changes, as git tells it. */
	async function diffOf(repo: Repo, { pull, num }: Discussion): Promise<string | null> {
		const head = repo.refs.pulls[String(num)];
		if (pull === null || head === undefined) return null;
		const mirror = await context.repos.locked(repo, () => syncMirror(repo, context.repos, context.blobs));
		return await gitDiff(mirror, pull.startedFrom, head);
	}

	/** Reads the newest state, changes and saves it with no other writer in between. */
	const change = (
		repo: Repo,
		num: number,
		make: (discussion: Discussion) => Promise<Discussion> | Discussion,
	): Promise<Discussion> =>
		context.repos.locked(repo, async () => {
			const after = await make(find(repo, String(num)));
			await context.discussions.save(repo, after);
			return after;
		});

	async function conflicts(repo: Repo, discussion: Discussion): Promise<readonly string[]> {
		const head = repo.refs.pulls[String(discussion.num)];
		if (discussion.pull === null || head === undefined || discussion.status === "merged") return [];
		const base = await revisionOrThrow(context.repos, repo, discussion.pull.startedFrom);
		const ours = await revisionOrThrow(context.repos, repo, "refs/heads/main");
		const theirs = await revisionOrThrow(context.repos, repo, head);
		return mergeTrees(base.files, ours.files, theirs.files).conflicts;
	}

	for (const type of REPO_TYPES) {
		const base = `/api/${type}s/:ns/:name/discussions`;

		router.get(base, (request, response) => {
			const { repo } = openRepo(context, request, type, "read");
			const kind = queryText(request, "type") ?? "all";
			const status = queryText(request, "status") ?? "all";
			const author = queryText(request, "author");
			const search = queryText(request, "search")?.toLowerCase() ?? null;
			const isOpen = (one: Discussion): boolean => one.status === "open" || one.status === "draft";
			const ofKind = context.discussions
				.of(repo)
				.filter((one) => kind === "all" || (kind === "pull_request") === (one.pull !== null))
				.filter((one) => author === null || one.author === author)
				.filter((one) => search === null || one.title.toLowerCase().includes(search));
			const found = ofKind
				.filter((one) => status === "all" || (status === "open") === isOpen(one))
				.sort((a, b) => Number(b.pinned) - Number(a.pinned) || b.num - a.num);
			const start = queryNumber(request, "p", 0, 1e6) * PAGE;
			response.json({
				discussions: found.slice(start, start + PAGE).map((one) => discussionListEntry(context, repo, one)),
				count: found.length,
				start,
				numClosedDiscussions: ofKind.filter((one) => !isOpen(one)).length,
			});
		});

		router.post(base, jsonBody, async (request, response) => {
			const { repo, identity } = openRepo(context, request, type, "read");
			const author = speaker(repo, identity).user.name;
			const body = parsedBody(createSchema, request);
			const isPull = body.pullRequest === true;
			const opening = comment(author, body.description);
			const made = await context.repos.locked(repo, async () => {
				const main = repo.refs.branches["main"] ?? "";
				const num = context.discussions.nextNum(repo);
				const discussion: Discussion = {
					id: newId(),
					num,
					title: body.title,
					status: isPull ? "draft" : "open",
					author,
					createdAt: opening.createdAt,
					pinned: false,
					locked: false,
					events: [opening],
					pull: isPull ? { startedFrom: main, mergeCommitId: null, refDeleted: false } : null,
				};
				if (isPull) await context.repos.setRefs(repo, { pulls: { ...repo.refs.pulls, [num]: main } });
				await context.discussions.save(repo, discussion);
				return discussion;
			});
			await publishDiscussion(context, repo, { action: "create", scope: "discussion" }, made, opening);
			if (isPull)
				await publishRefs(context, repo, [
					{ ref: `refs/pr/${made.num}`, oldSha: null, newSha: made.pull?.startedFrom ?? null },
				]);
			response.json({
				url: `${context.origin()}/${webPath(repo)}/discussions/${made.num}`,
				num: made.num,
				pullRequest: isPull,
				...(isPull ? { references: { base: "refs/heads/main" } } : {}),
			});
		});

		router.get(`${base}/:num`, async (request, response) => {
			const { repo } = openRepo(context, request, type, "read");
			const discussion = find(repo, parameter(request, "num"));
			const details = discussionDetails(context, repo, discussion, await conflicts(repo, discussion));
			const diff = queryFlag(request, "diff") ? await diffOf(repo, discussion) : null;
			response.json({ ...details, ...(diff === null ? {} : { diff }) });
		});

		router.delete(`${base}/:num`, async (request, response) => {
			const { repo, identity } = openRepo(context, request, type, "read");
			writerOf(repo, identity);
			const discussion = find(repo, parameter(request, "num"));
			await context.repos.locked(repo, async () => {
				const pulls = Object.entries(repo.refs.pulls).filter(([num]) => num !== String(discussion.num));
				if (discussion.pull !== null) await context.repos.setRefs(repo, { pulls: Object.fromEntries(pulls) });
				await context.discussions.delete(repo, discussion.num);
			});
			await publishDiscussion(context, repo, { action: "delete", scope: "discussion" }, discussion, null);
			response.json({});
		});

		router.post(`${base}/:num/comment`, jsonBody, async (request, response) => {
			const { repo, identity } = openRepo(context, request, type, "read");
			const author = speaker(repo, identity).user.name;
			const { num, locked } = find(repo, parameter(request, "num"));
			if (locked && (identity === null || !mayWrite(repo, identity)))
				throw new HubError(403, "This discussion has been locked.");
			const said = comment(author, parsedBody(commentSchema, request).comment);
			const after = await change(repo, num, (one) => ({ ...one, events: [...one.events, said] }));
			await publishDiscussion(context, repo, { action: "create", scope: "discussion.comment" }, after, said);
			response.status(201).json({ newMessage: eventView(context, repo, said) });
		});

		for (const action of ["edit", "hide"] as const)
			router.post(`${base}/:num/comment/:comment/${action}`, jsonBody, async (request, response) => {
				const { repo, identity } = openRepo(context, request, type, "read");
				const who = speaker(repo, identity);
				const { num } = find(repo, parameter(request, "num"));
				const id = parameter(request, "comment").toLowerCase();
				const content = action === "edit" ? parsedBody(editSchema, request).content : null;
				let updated: CommentEvent | null = null;
				const after = await change(repo, num, (one) => {
					const before = one.events.find((event) => event.id === id);
					if (before === undefined || before.type !== "comment") throw new HubError(404, "Comment not found");
					if (content !== null && before.author !== who.user.name)
						throw new HubError(403, "Only its author can edit a comment.");
					authorOrWriter(repo, who, before.author);
					if (before.hiddenBy !== null) throw new HubError(400, "A hidden comment stays as it is.");
					updated =
						content === null
							? { ...before, hiddenBy: who.user.name, updatedAt: now() }
							: { ...before, raw: content, updatedAt: now(), numEdits: before.numEdits + 1 };
					const event: DiscussionEvent = updated;
					return { ...one, events: one.events.map((other) => (other.id === id ? event : other)) };
				});
				if (updated === null) throw new HubError(404, "Comment not found");
				await publishDiscussion(context, repo, { action: "update", scope: "discussion.comment" }, after, updated);
				response.json({ updatedComment: eventView(context, repo, updated) });
			});

		router.post(`${base}/:num/status`, jsonBody, async (request, response) => {
			const { repo, identity } = openRepo(context, request, type, "read");
			const who = speaker(repo, identity);
			const body = parsedBody(statusSchema, request);
			const discussion = find(repo, parameter(request, "num"));
			authorOrWriter(repo, who, discussion.author);
			const said = body.comment ? comment(who.user.name, body.comment) : null;
			const event: DiscussionEvent = {
				id: newId(),
				type: "status-change",
				author: who.user.name,
				createdAt: now(),
				status: body.status,
				reason: null,
			};
			const after = await change(repo, discussion.num, (one) => {
				if (one.status === "merged") throw new HubError(409, "A merged pull request stays merged.");
				return { ...one, status: body.status, events: [...one.events, ...(said === null ? [] : [said]), event] };
			});
			await publishDiscussion(context, repo, { action: "update", scope: "discussion" }, after, said);
			response.json({ newStatus: eventView(context, repo, event) });
		});

		router.post(`${base}/:num/title`, jsonBody, async (request, response) => {
			const { repo, identity } = openRepo(context, request, type, "read");
			const who = speaker(repo, identity);
			const to = parsedBody(titleSchema, request).title;
			const discussion = find(repo, parameter(request, "num"));
			authorOrWriter(repo, who, discussion.author);
			const event: DiscussionEvent = {
				id: newId(),
				type: "title-change",
				author: who.user.name,
				createdAt: now(),
				from: discussion.title,
				to,
			};
			const after = await change(repo, discussion.num, (one) => ({
				...one,
				title: to,
				events: [...one.events, { ...event, from: one.title }],
			}));
			await publishDiscussion(context, repo, { action: "update", scope: "discussion" }, after, null);
			response.json({ newTitle: eventView(context, repo, event) });
		});

		router.post(`${base}/:num/pin`, jsonBody, async (request, response) => {
			const { repo, identity } = openRepo(context, request, type, "read");
			const who = writerOf(repo, identity);
			const { pinned } = parsedBody(pinSchema, request);
			const { num } = find(repo, parameter(request, "num"));
			const event: DiscussionEvent = {
				id: newId(),
				type: "pinning-change",
				author: who.user.name,
				createdAt: now(),
				pinned,
			};
			const after = await change(repo, num, (one) =>
				one.pinned === pinned ? one : { ...one, pinned, events: [...one.events, event] },
			);
			await publishDiscussion(context, repo, { action: "update", scope: "discussion" }, after, null);
			response.json({});
		});

		// A button of the Hub's page; no stock client has the call.
		router.post(`${base}/:num/lock`, jsonBody, async (request, response) => {
			const { repo, identity } = openRepo(context, request, type, "read");
			const who = writerOf(repo, identity);
			const { locked } = parsedBody(z.object({ locked: z.boolean() }), request);
			const { num } = find(repo, parameter(request, "num"));
			const event: DiscussionEvent = {
				id: newId(),
				type: "locking-change",
				author: who.user.name,
				createdAt: now(),
				locked,
			};
			const after = await change(repo, num, (one) => ({ ...one, locked, events: [...one.events, event] }));
			await publishDiscussion(context, repo, { action: "update", scope: "discussion" }, after, null);
			response.json({});
		});

		router.post(`${base}/:num/merge`, jsonBody, async (request, response) => {
			const { repo, identity } = openRepo(context, request, type, "read");
			const who = writerOf(repo, identity);
			const body = parsedBody(mergeSchema, request);
			const { num } = find(repo, parameter(request, "num"));
			const said = body.comment ? comment(who.user.name, body.comment) : null;
			let update: { ref: string; oldSha: string; newSha: string } | null = null;
			const after = await change(repo, num, async (one) => {
				const head = repo.refs.pulls[String(num)];
				if (one.pull === null || head === undefined) throw new HubError(400, "This is not an open pull request.");
				if (one.status === "merged") throw new HubError(409, "The pull request is merged already.");
				if (one.status === "closed") throw new HubError(400, "The pull request is closed.");
				const start = await revisionOrThrow(context.repos, repo, one.pull.startedFrom);
				const main = await revisionOrThrow(context.repos, repo, "refs/heads/main");
				const theirs = await revisionOrThrow(context.repos, repo, head);
				const { files, conflicts: clashing } = mergeTrees(start.files, main.files, theirs.files);
				if (clashing.length > 0) throw new HubError(409, `Merge conflicts in: ${clashing.slice(0, 20).join(", ")}`);
				const made = await context.repos.writeCommit(repo, {
					parents: [main.oid, theirs.oid],
					author: who.user.name,
					title: `${one.title} (#${num})`,
					message: "",
					files,
				});
				await context.repos.setRefs(repo, { branches: { ...repo.refs.branches, main: made.oid } });
				update = { ref: "refs/heads/main", oldSha: main.oid, newSha: made.oid };
				const event: DiscussionEvent = {
					id: newId(),
					type: "status-change",
					author: who.user.name,
					createdAt: now(),
					status: "merged",
					reason: null,
				};
				return {
					...one,
					status: "merged",
					pull: { ...one.pull, mergeCommitId: made.oid },
					events: [...one.events, ...(said === null ? [] : [said]), event],
				};
			});
			if (update !== null) await publishRefs(context, repo, [update]);
			await publishDiscussion(context, repo, { action: "update", scope: "discussion" }, after, said);
			response.json({});
		});

		router.delete(`${base}/:num/ref`, async (request, response) => {
			const { repo, identity } = openRepo(context, request, type, "read");
			const who = writerOf(repo, identity);
			const { num } = find(repo, parameter(request, "num"));
			let oldSha: string | null = null;
			await change(repo, num, async (one) => {
				const head = repo.refs.pulls[String(num)];
				if (one.pull === null || head === undefined) throw new HubError(404, "There is no such reference.");
				if (one.status === "open" || one.status === "draft")
					throw new HubError(400, "Only the ref of a closed or merged pull request can be deleted.");
				oldSha = head;
				const pulls = Object.fromEntries(Object.entries(repo.refs.pulls).filter(([key]) => key !== String(num)));
				await context.repos.setRefs(repo, { pulls });
				const event: DiscussionEvent = { id: newId(), type: "ref-deleted", author: who.user.name, createdAt: now() };
				return { ...one, pull: { ...one.pull, refDeleted: true }, events: [...one.events, event] };
			});
			await publishRefs(context, repo, [{ ref: `refs/pr/${num}`, oldSha, newSha: null }]);
			response.json({});
		});
	}
	return router;
}
