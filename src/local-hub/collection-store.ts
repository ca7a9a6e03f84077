import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { createKeyedLock } from "../keyed-lock.ts";
import { readJson, writeJsonAtomically } from "./atomic-file.ts";

export const COLLECTION_THEMES = ["orange", "blue", "green", "purple", "pink", "indigo"] as const;
export const COLLECTION_ITEM_TYPES = ["paper", "collection", "space", "model", "dataset", "bucket"] as const;

const collectionSchema = z.object({
	id: z.string(),
	slug: z.string(),
	namespace: z.string(),
	title: z.string(),
	description: z.string().nullable(),
	private: z.boolean(),
	theme: z.enum(COLLECTION_THEMES),
	position: z.number(),
	lastUpdated: z.string(),
	items: z.array(
		z.object({
			_id: z.string(),
			id: z.string(),
			type: z.enum(COLLECTION_ITEM_TYPES),
			note: z.string().nullable(),
		}),
	),
});
export type Collection = z.infer<typeof collectionSchema>;

export type CollectionStore = {
	all(): readonly Collection[];
	get(slug: string): Collection | null;
	save(collection: Collection): Promise<void>;
	delete(slug: string): Promise<void>;
	/** Read, change and save with nobody in between. */
	locked<T>(work: () => Promise<T>): Promise<T>;
};

export async function openCollectionStore(dataDirectory: string): Promise<CollectionStore> {
	await mkdir(dataDirectory, { recursive: true });
	const file = join(dataDirectory, "collections.json");
	const collections = new Map<string, Collection>();
	for (const collection of (await readJson(file, z.array(collectionSchema))) ?? [])
		collections.set(collection.slug, collection);
	const lock = createKeyedLock();
	return {
		all: () => [...collections.values()],
		get: (slug) => collections.get(slug) ?? null,
		async save(collection) {
			const next = new Map(collections).set(collection.slug, collection);
			await writeJsonAtomically(file, [...next.values()]);
			collections.set(collection.slug, collection);
		},
		async delete(slug) {
			await writeJsonAtomically(
				file,
				[...collections.values()].filter((collection) => collection.slug !== slug),
			);
			collections.delete(slug);
		},
		locked: (work) => lock("collections", work),
	};
}
