import { Router } from "express";
import { z } from "zod";
import { type Identity, isMemberOf, mayWriteNamespace } from "../accounts.ts";
import { COLLECTION_ITEM_TYPES, COLLECTION_THEMES, type Collection } from "../collection-store.ts";
import {
	type HubContext,
	identityOf,
	mayRead,
	parameter,
	parsedBody,
	queryNumber,
	queryText,
	queryTexts,
	requireIdentity,
} from "../hub-context.ts";
import { HubError } from "../hub-error.ts";
import { newId } from "../identifiers.ts";
import { escapeHtml } from "../markdown.ts";
import { person } from "../people.ts";
import { fullName } from "../repo-store.ts";
import { jsonBody } from "./body-parsers.ts";

const title = z.string().trim().min(1).max(60);
const description = z.string().max(150);
const note = z.string().max(500);
const itemSchema = z.object({ type: z.enum(COLLECTION_ITEM_TYPES), id: z.string().min(1).max(300) });
const createSchema = z.object({
	title,
	description: description.nullish(),
	namespace: z.string(),
	private: z.boolean().nullish(),
	item: itemSchema.nullish(),
});
const patchSchema = z.object({
	title: title.optional(),
	description: description.nullish(),
	private: z.boolean().optional(),
	theme: z.enum(COLLECTION_THEMES).optional(),
	position: z.number().int().optional(),
});
const addSchema = z.object({ item: itemSchema, note: note.nullish() });
const itemPatchSchema = z.object({ note: note.nullish(), position: z.number().int().min(0).nullish() });
const batchSchema = z.array(z.object({ action: z.literal("update"), _id: z.string(), data: itemPatchSchema })).max(500);

function slugOf(text: string): string {
	return (
		text
			.toLowerCase()
			.replaceAll(/[^a-z0-9]+/g, "-")
			.replaceAll(/^-|-$/g, "") || "collection"
	);
}

/** Collections of repos. Long as a list of routes is: each handler stands alone. */
export function collectionRoutes(context: HubContext): Router {
	const router = Router();
	const { collections } = context;
	const now = (): string => context.clock.now().toISOString();

	async function itemView(
		item: Collection["items"][number],
		position: number,
		identity: Identity | null,
	): Promise<Record<string, unknown> | null> {
		const common = {
			_id: item._id,
			id: item.id,
			type: item.type,
			position,
			...(item.note === null ? {} : { note: { html: escapeHtml(item.note), text: item.note } }),
		};
		if (item.type !== "model" && item.type !== "dataset" && item.type !== "space") return common;
		const repo = context.repos.find(item.type, item.id);
		if (repo === null || !mayRead(repo, identity)) return null;
		const commit = await context.repos.commit(repo, repo.refs.branches["main"] ?? "");
		const facts = commit === null ? null : await context.facts(commit);
		return {
			...common,
			id: fullName(repo),
			author: repo.record.namespace,
			downloads: 0,
			likes: 0,
			isLikedByUser: false,
			private: repo.record.private,
			gated: repo.record.gated,
			repoType: item.type,
			lastModified: repo.refs.lastModified,
			...(item.type === "model"
				? {
						availableInferenceProviders: [],
						...(facts?.pipelineTag ? { pipeline_tag: facts.pipelineTag } : {}),
						...(facts?.safetensors ? { numParameters: facts.safetensors.total } : {}),
					}
				: {}),
		};
	}

	async function view(collection: Collection, identity: Identity | null): Promise<Record<string, unknown>> {
		const items = await Promise.all(collection.items.map((item, position) => itemView(item, position, identity)));
		return {
			slug: collection.slug,
			title: collection.title,
			...(collection.description === null ? {} : { description: collection.description }),
			lastUpdated: collection.lastUpdated,
			gating: false,
			owner: person(context, collection.namespace) ?? { name: collection.namespace },
			items: items.filter((item) => item !== null),
			position: collection.position,
			theme: collection.theme,
			private: collection.private,
			upvotes: 0,
			isUpvotedByUser: false,
			shareUrl: `${context.origin()}/collections/${collection.slug}`,
		};
	}

	function open(identity: Identity | null, slug: string): Collection {
		const collection = collections.get(slug);
		const hidden = collection?.private === true && (identity === null || !isMemberOf(identity, collection.namespace));
		if (collection === null || hidden) throw new HubError(404, "Collection not found");
		return collection;
	}

	function openToWrite(identity: Identity, slug: string): Collection {
		const collection = open(identity, slug);
		if (!mayWriteNamespace(identity, collection.namespace, "collection.write"))
			throw new HubError(403, "You don't have the rights to change this collection.");
		return collection;
	}

	async function withItem(
		collection: Collection,
		identity: Identity,
		item: z.infer<typeof itemSchema>,
		text: string | null,
	): Promise<Collection> {
		if (item.type === "model" || item.type === "dataset" || item.type === "space") {
			const repo = context.repos.find(item.type, item.id);
			if (repo === null || !mayRead(repo, identity)) throw new HubError(404, `There is no ${item.type} ${item.id}.`);
		}
		if (collection.items.some((other) => other.type === item.type && other.id === item.id))
			throw new HubError(409, "The item is in the collection already.");
		return {
			...collection,
			lastUpdated: now(),
			items: [...collection.items, { _id: newId(), id: item.id, type: item.type, note: text }],
		};
	}

	router.get("/api/collections", async (request, response) => {
		const identity = identityOf(context, request);
		const owners = queryTexts(request, "owner");
		const items = queryTexts(request, "item");
		const text = queryText(request, "q")?.toLowerCase() ?? null;
		const found = collections
			.all()
			.filter((one) => !one.private || (identity !== null && isMemberOf(identity, one.namespace)))
			.filter((one) => owners.length === 0 || owners.includes(one.namespace))
			.filter((one) => items.every((item) => one.items.some((other) => `${other.type}s/${other.id}` === item)))
			.filter((one) => text === null || one.title.toLowerCase().includes(text))
			.sort((a, b) => b.lastUpdated.localeCompare(a.lastUpdated));
		const limit = Math.max(1, queryNumber(request, "limit", 20, 100));
		const start = queryNumber(request, "cursor", 0, 1e9);
		if (start + limit < found.length) {
			const url = new URL(request.originalUrl, context.origin());
			url.searchParams.set("cursor", String(start + limit));
			response.set("Link", `<${url.href}>; rel="next"`);
		}
		response.json(
			await Promise.all(
				found.slice(start, start + limit).map(async (one) => {
					const { position: _position, shareUrl: _shareUrl, ...rest } = await view(one, identity);
					return rest;
				}),
			),
		);
	});

	router.post("/api/collections", jsonBody, async (request, response) => {
		const identity = requireIdentity(context, request);
		const body = parsedBody(createSchema, request);
		if (!mayWriteNamespace(identity, body.namespace, "collection.write"))
			throw new HubError(403, `You don't have the rights to create a collection under "${body.namespace}".`);
		const made = await collections.locked(async () => {
			const same = collections.all().find((one) => one.namespace === body.namespace && one.title === body.title);
			if (same !== undefined)
				throw new HubError(409, "A collection with this title exists already.", { body: { slug: same.slug } });
			const id = newId();
			let collection: Collection = {
				id,
				slug: `${body.namespace}/${slugOf(body.title)}-${id}`,
				namespace: body.namespace,
				title: body.title,
				description: body.description ?? null,
				private: body.private ?? false,
				theme: "blue",
				position: 0,
				lastUpdated: now(),
				items: [],
			};
			if (body.item) collection = await withItem(collection, identity, body.item, null);
			await collections.save(collection);
			return collection;
		});
		response.json(await view(made, identity));
	});

	const base = "/api/collections/:ns/:slug";
	const slug = (request: Parameters<typeof parameter>[0]): string =>
		`${parameter(request, "ns")}/${parameter(request, "slug")}`;

	router.get(base, async (request, response) => {
		const identity = identityOf(context, request);
		response.json(await view(open(identity, slug(request)), identity));
	});

	router.patch(base, jsonBody, async (request, response) => {
		const identity = requireIdentity(context, request);
		const body = parsedBody(patchSchema, request);
		const after = await collections.locked(async () => {
			const before = openToWrite(identity, slug(request));
			const changed: Collection = {
				...before,
				title: body.title ?? before.title,
				description: body.description === undefined ? before.description : body.description,
				private: body.private ?? before.private,
				theme: body.theme ?? before.theme,
				position: body.position ?? before.position,
				lastUpdated: now(),
			};
			await collections.save(changed);
			return changed;
		});
		response.json({ success: true, data: await view(after, identity) });
	});

	router.delete(base, async (request, response) => {
		const identity = requireIdentity(context, request);
		await collections.locked(async () => collections.delete(openToWrite(identity, slug(request)).slug));
		response.json({});
	});

	router.post(`${base}/items`, jsonBody, async (request, response) => {
		const identity = requireIdentity(context, request);
		const body = parsedBody(addSchema, request);
		const after = await collections.locked(async () => {
			const changed = await withItem(openToWrite(identity, slug(request)), identity, body.item, body.note ?? null);
			await collections.save(changed);
			return changed;
		});
		response.json(await view(after, identity));
	});

	async function changeItem(
		identity: Identity,
		of: string,
		id: string,
		change: z.infer<typeof itemPatchSchema>,
	): Promise<void> {
		const before = openToWrite(identity, of);
		const item = before.items.find((one) => one._id === id);
		if (item === undefined) throw new HubError(404, "There is no such item.");
		const others = before.items.filter((one) => one._id !== id);
		const position = change.position ?? before.items.indexOf(item);
		others.splice(position, 0, { ...item, note: change.note === undefined ? item.note : change.note });
		await collections.save({ ...before, items: others, lastUpdated: now() });
	}

	router.post(`${base}/items/batch`, jsonBody, async (request, response) => {
		const identity = requireIdentity(context, request);
		const changes = parsedBody(batchSchema, request);
		await collections.locked(async () => {
			for (const change of changes) await changeItem(identity, slug(request), change._id, change.data);
		});
		response.json({});
	});

	router.patch(`${base}/items/:item`, jsonBody, async (request, response) => {
		const identity = requireIdentity(context, request);
		const change = parsedBody(itemPatchSchema, request);
		await collections.locked(() => changeItem(identity, slug(request), parameter(request, "item"), change));
		response.json({});
	});

	router.delete(`${base}/items/:item`, async (request, response) => {
		const identity = requireIdentity(context, request);
		await collections.locked(async () => {
			const before = openToWrite(identity, slug(request));
			const items = before.items.filter((one) => one._id !== parameter(request, "item"));
			if (items.length === before.items.length) throw new HubError(404, "There is no such item.");
			await collections.save({ ...before, items, lastUpdated: now() });
		});
		response.json({});
	});
	return router;
}
