import { Router } from "express";
import { z } from "zod";
import { mayWriteNamespace } from "../accounts.ts";
import { cardProblems } from "../card-rules.ts";
import { DEFAULT_GIT_ATTRIBUTES, GIT_ATTRIBUTES_FILE } from "../git-attributes.ts";
import type { FileEntry } from "../git-objects.ts";
import {
	type HubContext,
	mayRead,
	mayWrite,
	namespaceId,
	openRepo,
	parsedBody,
	publish,
	repoSnapshot,
	requireIdentity,
	webPath,
	writerOf,
} from "../hub-context.ts";
import { HubError } from "../hub-error.ts";
import { checkedPath, isRepoNamePart } from "../identifiers.ts";
import { REPO_TYPES, type Repo, type RepoType } from "../repo-store.ts";
import { jsonBody } from "./body-parsers.ts";

const LARGEST_CREATED_FILE = 1024 * 1024;

const type = z.enum(REPO_TYPES).nullish();
const createSchema = z.object({
	name: z.string().min(1).max(200),
	organization: z.string().nullish(),
	type,
	private: z.boolean().nullish(),
	visibility: z.enum(["public", "private", "protected"]).nullish(),
	license: z
		.string()
		.regex(/^[a-z0-9.-]+$/)
		.max(100)
		.nullish(),
	files: z
		.array(z.object({ path: z.string(), content: z.string(), encoding: z.enum(["utf-8", "base64"]).default("utf-8") }))
		.max(100)
		.default([]),
});
const deleteSchema = z.object({ name: z.string().min(1), organization: z.string().nullish(), type });
const moveSchema = z.object({ fromRepo: z.string(), toRepo: z.string(), type });
const settingsSchema = z.object({
	private: z.boolean().optional(),
	visibility: z.enum(["public", "private", "protected"]).optional(),
	gated: z.union([z.literal(false), z.literal("auto"), z.literal("manual")]).optional(),
	discussionsDisabled: z.boolean().optional(),
});
const yamlSchema = z.object({ content: z.string().max(4 * 1024 * 1024), repoType: z.string().nullish() });

function splitName(full: string): { namespace: string; name: string } {
	const [namespace, name, more] = full.split("/");
	if (namespace === undefined || name === undefined || more !== undefined || !isRepoNamePart(name))
		throw new HubError(400, `Invalid repo id: ${JSON.stringify(full.slice(0, 200))}.`);
	return { namespace, name };
}

/** Creation, deletion, moving and settings of repos. Long as a list of routes is: each handler stands alone. */
export function repoAdminRoutes(context: HubContext): Router {
	const router = Router();
	const find = (kind: RepoType, full: string): Repo | null => context.repos.find(kind, full);

	router.post("/api/repos/create", jsonBody, async (request, response) => {
		const identity = requireIdentity(context, request);
		const body = parsedBody(createSchema, request);
		const kind = body.type ?? "model";
		const named = body.name.includes("/") ? splitName(body.name) : { namespace: null, name: body.name };
		if (named.namespace !== null && body.organization && named.namespace !== body.organization)
			throw new HubError(400, "The name and the organization name two different namespaces.");
		const namespace = body.organization ?? named.namespace ?? identity.user.name;
		const { name } = named;
		if (!isRepoNamePart(name)) throw new HubError(400, `Invalid repo name: ${JSON.stringify(name.slice(0, 200))}.`);
		if (!mayWriteNamespace(identity, namespace))
			throw new HubError(403, `You don't have the rights to create a ${kind} under the namespace "${namespace}".`);
		const taken = find(kind, `${namespace}/${name}`);
		if (taken !== null && taken.record.namespace === namespace && taken.record.name === name) {
			throw new HubError(409, `You already created this ${kind} repo: ${namespace}/${name}`, {
				body: { url: `${context.origin()}/${webPath(taken)}` },
			});
		}
		const files = new Map<string, FileEntry>();
		const put = async (path: string, content: Buffer): Promise<void> => {
			if (content.byteLength > LARGEST_CREATED_FILE) throw new HubError(413, `${path} is too large for a creation.`);
			files.set(checkedPath(path), { oid: await context.blobs.putRegular(content), size: content.byteLength });
		};
		await put(GIT_ATTRIBUTES_FILE, Buffer.from(DEFAULT_GIT_ATTRIBUTES));
		if (body.license) await put("README.md", Buffer.from(`---\nlicense: ${body.license}\n---\n`));
		for (const file of body.files)
			await put(file.path, Buffer.from(file.content, file.encoding === "base64" ? "base64" : "utf8"));
		const repo = await context.repos.create({
			type: kind,
			namespace,
			name,
			private:
				body.visibility === undefined || body.visibility === null
					? (body.private ?? false)
					: body.visibility !== "public",
			createdBy: identity.user.name,
			files,
		});
		await publish(context, repo, {
			event: { action: "create", scope: "repo" },
			repo: await repoSnapshot(context, repo, { withHead: true }),
		});
		response.json({
			url: `${context.origin()}/${webPath(repo)}`,
			name: `${namespace}/${name}`,
			id: repo.record.id,
		});
	});

	router.delete("/api/repos/delete", jsonBody, async (request, response) => {
		const identity = requireIdentity(context, request);
		const body = parsedBody(deleteSchema, request);
		const full = body.name.includes("/") ? body.name : `${body.organization ?? identity.user.name}/${body.name}`;
		const repo = find(body.type ?? "model", full);
		if (repo === null || !mayRead(repo, identity))
			throw new HubError(404, "Repository not found", { code: "RepoNotFound" });
		writerOf(repo, identity);
		const snapshot = await repoSnapshot(context, repo, { withHead: true });
		await context.repos.delete(repo);
		context.discussions.forget(repo);
		await publish(context, repo, { event: { action: "delete", scope: "repo" }, repo: snapshot });
		response.json({ success: true });
	});

	router.post("/api/repos/move", jsonBody, async (request, response) => {
		const identity = requireIdentity(context, request);
		const body = parsedBody(moveSchema, request);
		const repo = find(body.type ?? "model", body.fromRepo);
		if (repo === null || !mayRead(repo, identity))
			throw new HubError(404, "Repository not found", { code: "RepoNotFound" });
		const { namespace, name } = splitName(body.toRepo);
		if (!mayWrite(repo, identity) || !mayWriteNamespace(identity, namespace))
			throw new HubError(403, `You don't have the rights to move a repo to the namespace "${namespace}".`);
		const before = await repoSnapshot(context, repo, { withHead: true });
		await context.repos.move(repo, namespace, name);
		await publish(context, repo, {
			event: { action: "move", scope: "repo" },
			repo: before,
			movedTo: { name: `${namespace}/${name}`, owner: { id: namespaceId(context, namespace) } },
		});
		response.json({ success: true });
	});

	for (const kind of REPO_TYPES)
		router.put(`/api/${kind}s/:ns/:name/settings`, jsonBody, async (request, response) => {
			const { repo } = openRepo(context, request, kind, "write");
			const body = parsedBody(settingsSchema, request);
			const secret = body.visibility === undefined ? body.private : body.visibility !== "public";
			const updatedConfig: Record<string, unknown> = {};
			await context.repos.locked(repo, async () => {
				if (secret !== undefined && secret !== repo.record.private) updatedConfig["private"] = secret;
				await context.repos.saveRecord(repo, {
					...(secret === undefined ? {} : { private: secret }),
					...(body.gated === undefined ? {} : { gated: body.gated }),
					...(body.discussionsDisabled === undefined ? {} : { discussionsDisabled: body.discussionsDisabled }),
				});
			});
			await publish(context, repo, {
				event: { action: "update", scope: "repo.config" },
				repo: await repoSnapshot(context, repo, { withHead: true }),
				updatedConfig,
			});
			response.json(body);
		});

	router.post("/api/validate-yaml", jsonBody, (request, response) => {
		const body = parsedBody(yamlSchema, request);
		const problems = cardProblems(body.content);
		// the Python client looks for errors only behind a 400
		response.status(problems.errors.length > 0 ? 400 : 200).json(problems);
	});
	return router;
}
