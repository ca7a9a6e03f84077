import { spawn } from "node:child_process";
import { dirname, join } from "node:path";
import { type Request, type Response, Router } from "express";
import { z } from "zod";
import { readJson, writeJsonAtomically } from "../atomic-file.ts";
import { gitEnvironment, MIRROR, syncMirror, takePushed } from "../git-mirror.ts";
import { type HubContext, openRepo, parameter, parsedBody, publishRefs, writerOf } from "../hub-context.ts";
import { HubError } from "../hub-error.ts";
import { newId } from "../identifiers.ts";
import { REPO_TYPES, type Repo, type RepoType } from "../repo-store.ts";
import { jsonBody } from "./body-parsers.ts";

const SERVICES = ["git-upload-pack", "git-receive-pack"] as const;
type Service = (typeof SERVICES)[number];
const LARGEST_HEAD = 64 * 1024;

const lockSchema = z.object({
	id: z.string(),
	path: z.string(),
	locked_at: z.string(),
	owner: z.object({ name: z.string() }),
});
const newLockSchema = z.object({ path: z.string().min(1).max(1024) });
const unlockSchema = z.object({ force: z.boolean().default(false) });

/** Answers one request of a git client by `git http-backend`, a CGI program of git itself. */
async function backend(
	mirror: string,
	call: { readonly request: Request; readonly response: Response; readonly path: string; readonly user: string | null },
): Promise<void> {
	const { request, response, path, user } = call;
	const header = (name: string): string => String(request.headers[name] ?? "");
	const child = spawn("git", ["http-backend"], {
		stdio: ["pipe", "pipe", "ignore"],
		env: {
			...gitEnvironment(),
			GIT_PROJECT_ROOT: dirname(mirror),
			GIT_HTTP_EXPORT_ALL: "1",
			PATH_INFO: `/${MIRROR}/${path}`,
			QUERY_STRING: new URL(request.originalUrl, "http://local").search.slice(1),
			REQUEST_METHOD: request.method,
			CONTENT_TYPE: header("content-type"),
			HTTP_CONTENT_ENCODING: header("content-encoding"),
			GIT_PROTOCOL: header("git-protocol"),
			...(header("content-length") === "" ? {} : { CONTENT_LENGTH: header("content-length") }),
			...(user === null ? {} : { REMOTE_USER: user }),
		},
	});
	const ended = new Promise<void>((resolve, reject) => {
		child.once("error", reject);
		child.once("close", () => resolve());
	});
	child.stdin.on("error", () => {});
	request.pipe(child.stdin);
	response.once("close", () => child.kill());
	let head = Buffer.alloc(0);
	for await (const chunk of child.stdout) {
		if (response.headersSent) {
			if (!response.write(chunk)) await new Promise((resolve) => response.once("drain", resolve));
			continue;
		}
		head = Buffer.concat([head, chunk]);
		const end = head.indexOf("\r\n\r\n");
		if (end < 0) {
			if (head.byteLength > LARGEST_HEAD) throw new HubError(500, "git http-backend gave no answer.");
			continue;
		}
		for (const line of head.subarray(0, end).toString("latin1").split("\r\n")) {
			const [, name = "", value = ""] = /^([^:]+):\s*(.*)$/.exec(line) ?? [];
			if (name.toLowerCase() === "status") response.status(Number(value.slice(0, 3)));
			else if (name !== "") response.setHeader(name, value);
		}
		response.write(head.subarray(end + 4));
	}
	await ended;
	if (!response.headersSent) throw new HubError(500, "git http-backend gave no answer.");
}

/** git over HTTP: clone, fetch and push with the stock git, and the locks of git-lfs. */
export function gitRoutes(context: HubContext): Router {
	const router = Router();
	const { repos, blobs } = context;

	function open(
		request: Request,
		response: Response,
		type: RepoType,
		service: Service,
	): { repo: Repo; user: string | null } {
		request.params["name"] = parameter(request, "repoGit").replace(/\.git$/, "");
		try {
			const { repo, identity } = openRepo(context, request, type, "content");
			const user = service === "git-receive-pack" ? writerOf(repo, identity).user.name : (identity?.user.name ?? null);
			return { repo, user };
		} catch (error) {
			// Only when it is told how does git ask for a name and a password.
			if (error instanceof HubError && error.status === 401)
				response.set("WWW-Authenticate", 'Basic realm="Authentication required", charset="UTF-8"');
			throw error;
		}
	}

	async function serve(
		request: Request,
		response: Response,
		type: RepoType,
		service: Service,
		path: string,
	): Promise<void> {
		const { repo, user } = open(request, response, type, service);
		const call = { request, response, path, user };
		if (path !== "git-receive-pack" || user === null) {
			const mirror = await repos.locked(repo, () => syncMirror(repo, repos, blobs));
			await backend(mirror, call);
			response.end();
			return;
		}
		const updates = await repos.locked(repo, async () => {
			const mirror = await syncMirror(repo, repos, blobs);
			await backend(mirror, call);
			return await takePushed(mirror, user, repo, repos, blobs);
		});
		// Only now, so that whoever has seen the push end finds it on the Hub.
		response.end();
		if (updates.length > 0) await publishRefs(context, repo, updates);
	}

	for (const type of REPO_TYPES) {
		const base = `${type === "model" ? "" : `/${type}s`}/:ns/:repoGit`;
		router.get(`${base}/info/refs`, async (request, response) => {
			const service = SERVICES.find((one) => one === request.query["service"]);
			if (service === undefined) throw new HubError(403, "Only git's smart protocol is spoken here.");
			await serve(request, response, type, service, "info/refs");
		});
		for (const service of SERVICES)
			router.post(`${base}/${service}`, (request, response) => serve(request, response, type, service, service));
		lockRoutes(context, router, `${base}/info/lfs/locks`, (request, response) => {
			const { repo, user } = open(request, response, type, "git-receive-pack");
			return { repo, user: user ?? "" };
		});
	}
	return router;
}

/** The locks of git-lfs, kept in a file of the repo. */
function lockRoutes(
	context: HubContext,
	of: Router,
	base: string,
	opened: (request: Request, response: Response) => { repo: Repo; user: string },
): void {
	const fileOf = (repo: Repo): string => join(repo.directory, "lfs-locks.json");
	const read = async (repo: Repo) => (await readJson(fileOf(repo), z.array(lockSchema))) ?? [];
	of.get(base, async (request, response) => {
		const { repo } = opened(request, response);
		const path = request.query["path"];
		response.json({ locks: (await read(repo)).filter((one) => typeof path !== "string" || one.path === path) });
	});
	of.post(base, jsonBody, async (request, response) => {
		const { repo, user } = opened(request, response);
		const { path } = parsedBody(newLockSchema, request);
		const lock = await context.repos.locked(repo, async () => {
			const locks = await read(repo);
			const taken = locks.find((one) => one.path === path);
			if (taken !== undefined) throw new HubError(409, "already created lock", { body: { lock: taken } });
			const made = { id: newId(), path, locked_at: context.clock.now().toISOString(), owner: { name: user } };
			await writeJsonAtomically(fileOf(repo), [...locks, made]);
			return made;
		});
		response.status(201).json({ lock });
	});
	of.post(`${base}/verify`, jsonBody, async (request, response) => {
		const { repo, user } = opened(request, response);
		const { ours = [], theirs = [] } = Object.groupBy(await read(repo), (one) =>
			one.owner.name === user ? "ours" : "theirs",
		);
		response.json({ ours, theirs });
	});
	of.post(`${base}/:id/unlock`, jsonBody, async (request, response) => {
		const { repo, user } = opened(request, response);
		const { force } = parsedBody(unlockSchema, request);
		const lock = await context.repos.locked(repo, async () => {
			const locks = await read(repo);
			const found = locks.find((one) => one.id === parameter(request, "id"));
			if (found === undefined) throw new HubError(404, "There is no such lock.");
			if (found.owner.name !== user && !force)
				throw new HubError(403, `${found.path} is locked by ${found.owner.name}.`);
			await writeJsonAtomically(
				fileOf(repo),
				locks.filter((one) => one !== found),
			);
			return found;
		});
		response.json({ lock });
	});
}
