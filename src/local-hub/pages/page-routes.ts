import { readFile } from "node:fs/promises";
import { type Request, type Response, Router } from "express";
import { assertNever } from "../../errors.ts";
import type { Discussion, DiscussionEvent } from "../discussion-store.ts";
import { type HubContext, parameter, rest, webPath } from "../hub-context.ts";
import { HubError } from "../hub-error.ts";
import { escapeHtml, renderMarkdown } from "../markdown.ts";
import { type Commit, fullName, REPO_TYPES, type Repo, type RepoType } from "../repo-store.ts";
import { childrenOf, history } from "../repo-view.ts";
import { splitRevision } from "../revisions.ts";
import { aboutPage } from "./about-page.ts";
import { bytesText, pageLayout } from "./page-layout.ts";

const LARGEST_SHOWN = 512 * 1024;

function encodedPath(path: string): string {
	return path.split("/").map(encodeURIComponent).join("/");
}

function time(iso: string): string {
	return `<time datetime="${escapeHtml(iso)}">${escapeHtml(iso.slice(0, 16).replace("T", " "))} UTC</time>`;
}

/** The pages that links in replies and announcements lead to. Public repos only. Long as a list of routes is: each handler stands alone. */
export function pageRoutes(context: HubContext): Router {
	const router = Router();

	const send = (response: Response, title: string, content: string): void => {
		response.set(
			"Content-Security-Policy",
			"default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
		);
		response.set("X-Content-Type-Options", "nosniff");
		response.type("html").send(pageLayout(title, content));
	};

	function open(request: Request, type: RepoType): Repo {
		const repo = context.repos.find(type, `${parameter(request, "ns")}/${parameter(request, "name")}`);
		if (repo === null || repo.record.private) throw new HubError(404, "Repository not found", { code: "RepoNotFound" });
		return repo;
	}

	const link = (repo: Repo): string => `<a href="/${escapeHtml(webPath(repo))}">${escapeHtml(fullName(repo))}</a>`;

	function heading(repo: Repo, tab: "card" | "files" | "discussions" | "commits"): string {
		const base = `/${escapeHtml(webPath(repo))}`;
		const open = context.discussions.of(repo).filter((one) => one.status === "open" || one.status === "draft").length;
		const item = (name: typeof tab, href: string, text: string): string =>
			name === tab ? `<strong>${text}</strong>` : `<a href="${href}">${text}</a>`;
		return `<h1>${link(repo)} <small class="muted">${repo.record.type}${repo.record.gated === false ? "" : ", gated"}</small></h1>
<nav class="tabs">${item("card", base, "Card")}${item("files", `${base}/tree/main`, "Files")}${item("commits", `${base}/commits/main`, "Commits")}${item("discussions", `${base}/discussions`, `Discussions (${open})`)}</nav>`;
	}

	function files(repo: Repo, commit: Commit, revision: string): string {
		const rows = [...commit.files]
			.sort(([a], [b]) => (a < b ? -1 : 1))
			.slice(0, 2000)
			.map(
				([path, entry]) =>
					`<tr><td><a href="/${escapeHtml(webPath(repo))}/resolve/${encodedPath(revision)}/${encodedPath(path)}">${escapeHtml(path)}</a></td><td>${bytesText(entry.size)}</td></tr>`,
			);
		return `<table class="files"><tbody>${rows.join("")}</tbody></table>`;
	}

	function repoList(repos: readonly Repo[]): string {
		if (repos.length === 0) return `<p class="muted">Nothing public here yet.</p>`;
		return `<ul class="plain">${[...repos]
			.sort((a, b) => b.refs.lastModified.localeCompare(a.refs.lastModified))
			.map(
				(repo) =>
					`<li>${link(repo)} <span class="muted">${repo.record.type}, changed ${time(repo.refs.lastModified)}</span></li>`,
			)
			.join("")}</ul>`;
	}

	const visible = (): Repo[] => context.repos.all().filter((repo) => !repo.record.private);

	router.get("/", (_request, response) => {
		send(
			response,
			"Local Hub",
			`<h1>Repos</h1>${repoList(visible())}<p><a href="/__local-hub">About this Hub</a>: who is on it, how to use it, what it can be made to do wrong.</p>`,
		);
	});

	router.get("/__local-hub", (_request, response) => {
		send(response, "About this Hub", aboutPage(context));
	});

	router.get("/:ns", (request, response, next) => {
		const namespace = parameter(request, "ns");
		if (context.accounts.user(namespace) === null && context.accounts.organization(namespace) === null) {
			next();
			return;
		}
		send(
			response,
			namespace,
			`<h1>${escapeHtml(namespace)}</h1>${repoList(visible().filter((repo) => repo.record.namespace === namespace))}`,
		);
	});

	router.get("/collections/:ns/:slug", (request, response) => {
		const collection = context.collections.get(`${parameter(request, "ns")}/${parameter(request, "slug")}`);
		if (collection === null || collection.private) throw new HubError(404, "Collection not found");
		const repos = collection.items
			.map((item) =>
				item.type === "model" || item.type === "dataset" || item.type === "space"
					? context.repos.find(item.type, item.id)
					: null,
			)
			.filter((repo) => repo !== null && !repo.record.private);
		send(
			response,
			collection.title,
			`<h1>${escapeHtml(collection.title)}</h1><p>${escapeHtml(collection.description ?? "")}</p>${repoList(repos.filter((repo) => repo !== null))}`,
		);
	});

	function eventHtml(event: DiscussionEvent, repo: Repo): string {
		const who = `<strong>${escapeHtml(event.author)}</strong>`;
		switch (event.type) {
			case "comment": {
				const body =
					event.hiddenBy === null
						? renderMarkdown(event.raw, null)
						: `<p class="muted">This comment has been hidden.</p>`;
				const edited = event.numEdits > 0 ? ", edited" : "";
				return `<article class="comment" id="${escapeHtml(event.id)}"><div class="head">${who} <span class="muted">${time(event.createdAt)}${edited}</span></div><div class="body">${body}</div></article>`;
			}
			case "status-change":
				return `<p class="event">${who} set this to ${event.status}, ${time(event.createdAt)}</p>`;
			case "title-change":
				return `<p class="event">${who} changed the title from “${escapeHtml(event.from)}” to “${escapeHtml(event.to)}”</p>`;
			case "pinning-change":
				return `<p class="event">${who} ${event.pinned ? "pinned" : "unpinned"} this</p>`;
			case "locking-change":
				return `<p class="event">${who} ${event.locked ? "locked" : "unlocked"} this</p>`;
			case "commit":
				return `<p class="event">${who} committed <a href="/${escapeHtml(webPath(repo))}/commit/${escapeHtml(event.oid)}"><code>${escapeHtml(event.oid.slice(0, 7))}</code></a> ${escapeHtml(event.subject)}</p>`;
			case "ref-deleted":
				return `<p class="event">${who} deleted the reference</p>`;
			default:
				return assertNever(event);
		}
	}

	for (const type of REPO_TYPES) {
		const base = `${type === "model" ? "" : `/${type}s`}/:ns/:name`;

		router.get(`${base}/discussions`, (request, response) => {
			const repo = open(request, type);
			const list = [...context.discussions.of(repo)].sort(
				(a, b) => Number(b.pinned) - Number(a.pinned) || b.num - a.num,
			);
			const row = (one: Discussion): string =>
				`<li><a href="/${escapeHtml(webPath(repo))}/discussions/${one.num}">${escapeHtml(one.title)}</a> <span class="muted">#${one.num}, ${one.pull === null ? "" : "pull request, "}${one.status}${one.pinned ? ", pinned" : ""}, by ${escapeHtml(one.author)}</span></li>`;
			send(
				response,
				`Discussions of ${fullName(repo)}`,
				`${heading(repo, "discussions")}${list.length === 0 ? `<p class="muted">No discussion yet.</p>` : `<ul class="plain">${list.map(row).join("")}</ul>`}`,
			);
		});

		router.get(`${base}/discussions/:num`, (request, response) => {
			const repo = open(request, type);
			const discussion = context.discussions.get(repo, Number(parameter(request, "num")));
			if (discussion === null) throw new HubError(404, "Discussion not found");
			send(
				response,
				`${discussion.title} · ${fullName(repo)}`,
				`${heading(repo, "discussions")}<h2>${escapeHtml(discussion.title)} <span class="muted">#${discussion.num}, ${discussion.status}</span></h2>${discussion.events.map((event) => eventHtml(event, repo)).join("")}`,
			);
		});

		router.get(`${base}/tree/*rest`, async (request, response) => {
			const repo = open(request, type);
			const { commit, revision } = await splitRevision(context.repos, repo, rest(request));
			send(
				response,
				`Files of ${fullName(repo)}`,
				`${heading(repo, "files")}<p class="muted"><code>${escapeHtml(commit.oid.slice(0, 7))}</code> ${escapeHtml(commit.title)}, ${time(commit.date)}</p>${files(repo, commit, revision)}`,
			);
		});

		router.get(`${base}/commits/*rest`, async (request, response) => {
			const repo = open(request, type);
			const { commit } = await splitRevision(context.repos, repo, rest(request));
			const rows = (await history(context, repo, commit))
				.slice(0, 200)
				.map(
					(one) =>
						`<li><a href="/${escapeHtml(webPath(repo))}/commit/${one.oid}"><code>${one.oid.slice(0, 7)}</code></a> ${escapeHtml(one.title)} <span class="muted">by ${escapeHtml(one.author)}, ${time(one.date)}</span></li>`,
				);
			send(
				response,
				`Commits of ${fullName(repo)}`,
				`${heading(repo, "commits")}<ul class="plain">${rows.join("")}</ul>`,
			);
		});

		router.get(`${base}/commit/:oid`, async (request, response) => {
			const repo = open(request, type);
			const commit = await context.repos.commit(repo, parameter(request, "oid"));
			if (commit === null) throw new HubError(404, "Commit not found", { code: "RevisionNotFound" });
			const before = commit.parents[0] === undefined ? null : await context.repos.commit(repo, commit.parents[0]);
			const paths = [...new Set([...(before?.files.keys() ?? []), ...commit.files.keys()])].sort();
			const changed = paths.filter((path) => before?.files.get(path)?.oid !== commit.files.get(path)?.oid);
			const verb = (path: string): string =>
				!before?.files.has(path) ? "added" : commit.files.has(path) ? "changed" : "deleted";
			send(
				response,
				`${commit.title} · ${fullName(repo)}`,
				`${heading(repo, "commits")}<h2>${escapeHtml(commit.title)}</h2><p class="muted"><code>${commit.oid}</code> by ${escapeHtml(commit.author)}, ${time(commit.date)}</p><ul>${changed
					.slice(0, 1000)
					.map((path) => `<li>${verb(path)} <code>${escapeHtml(path)}</code></li>`)
					.join("")}</ul>`,
			);
		});

		router.get(`${base}/blob/*rest`, async (request, response) => {
			const repo = open(request, type);
			const { commit, path, revision } = await splitRevision(context.repos, repo, rest(request));
			const entry = commit.files.get(path);
			if (entry === undefined) throw new HubError(404, `Entry not found: ${path}`, { code: "EntryNotFound" });
			const href = `/${escapeHtml(webPath(repo))}/resolve/${encodedPath(revision)}/${encodedPath(path)}`;
			const showable = entry.lfs === undefined && entry.size <= LARGEST_SHOWN && repo.record.gated === false;
			const bytes = showable ? await readFile(context.blobs.regularPath(entry.oid)) : null;
			const shown = bytes === null || bytes.includes(0) ? "" : `<pre>${escapeHtml(bytes.toString("utf8"))}</pre>`;
			send(
				response,
				`${path} · ${fullName(repo)}`,
				`${heading(repo, "files")}<h2>${escapeHtml(path)}</h2><p><a href="${href}">Download</a> <span class="muted">${bytesText(entry.size)}</span></p>${shown}`,
			);
		});

		router.get(base, async (request, response, next) => {
			const full = `${parameter(request, "ns")}/${parameter(request, "name")}`;
			if (type === "model" && context.repos.find("model", full) === null) {
				next();
				return;
			}
			const repo = open(request, type);
			const { commit } = await splitRevision(context.repos, repo, ["main"]);
			const facts = await context.facts(commit);
			const home = `/${webPath(repo)}`;
			const card =
				facts.cardBody.trim() === ""
					? `<p class="muted">No card yet.</p>`
					: renderMarkdown(facts.cardBody, { links: `${home}/blob/main/`, images: `${home}/resolve/main/` });
			const children = await childrenOf(context, repo, null);
			const bases = facts.baseModels?.models ?? [];
			const tree = [
				bases.length === 0
					? ""
					: `<p>${escapeHtml(facts.baseModels?.relation ?? "")} from ${bases
							.map((base) => {
								const found = context.repos.find("model", base);
								return found === null || found.record.private ? escapeHtml(base) : link(found);
							})
							.join(", ")}</p>`,
				children.length === 0
					? ""
					: `<ul class="plain">${children.map((child) => `<li>${link(child.repo)} <span class="muted">${escapeHtml(child.relation)}</span></li>`).join("")}</ul>`,
			].join("");
			send(
				response,
				fullName(repo),
				`${heading(repo, "card")}<p>${facts.tags.map((tag) => `<span class="tag">${escapeHtml(tag)}</span>`).join("")}</p>
<section>${card}</section>${tree === "" ? "" : `<h2>Model tree</h2>${tree}`}<h2>Files</h2>${files(repo, commit, "main")}`,
			);
		});
	}
	return router;
}
