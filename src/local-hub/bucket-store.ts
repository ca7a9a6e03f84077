import { mkdir, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import type { Clock } from "../clock.ts";
import { createKeyedLock } from "../keyed-lock.ts";
import { readJson, writeJsonAtomically } from "./atomic-file.ts";
import { HubError } from "./hub-error.ts";
import { newId } from "./identifiers.ts";

const fileSchema = z.object({
	xetHash: z.string(),
	size: z.number(),
	mtime: z.string().optional(),
	contentType: z.string().optional(),
	uploadedAt: z.string(),
});
export type BucketFile = z.infer<typeof fileSchema>;

const recordSchema = z.object({
	id: z.string(),
	namespace: z.string(),
	name: z.string(),
	private: z.boolean(),
	createdAt: z.string(),
	updatedAt: z.string(),
	files: z.record(z.string(), fileSchema),
});
type BucketRecord = z.infer<typeof recordSchema>;

export type Bucket = { readonly directory: string; record: BucketRecord };

export type BucketStore = {
	of(namespace: string): readonly Bucket[];
	find(namespace: string, name: string): Bucket | null;
	byId(id: string): Bucket | null;
	create(fields: Pick<BucketRecord, "namespace" | "name" | "private">): Promise<Bucket>;
	change(bucket: Bucket, make: (before: BucketRecord) => Partial<BucketRecord>): Promise<void>;
	delete(bucket: Bucket): Promise<void>;
};

const DIRECTORY = /^[0-9a-f]{24}$/;

/** Buckets: files without history, each a folder with a record; the content is Xet's. */
export async function openBucketStore(dataDirectory: string, clock: Clock): Promise<BucketStore> {
	const root = join(dataDirectory, "buckets");
	await mkdir(root, { recursive: true });
	const buckets = new Map<string, Bucket>();
	const lock = createKeyedLock();

	for (const name of await readdir(root)) {
		const directory = join(root, name);
		const record = DIRECTORY.test(name) ? await readJson(join(directory, "bucket.json"), recordSchema) : null;
		// A creation or a deletion that a kill cut short has no record at its own name.
		if (record === null) await rm(directory, { recursive: true, force: true });
		else buckets.set(record.id, { directory, record });
	}

	const find = (namespace: string, name: string): Bucket | null =>
		[...buckets.values()].find(({ record }) => record.namespace === namespace && record.name === name) ?? null;

	return {
		of: (namespace) => [...buckets.values()].filter(({ record }) => record.namespace === namespace),
		find,
		byId: (id) => buckets.get(id) ?? null,
		create: (fields) =>
			lock(`${fields.namespace}/${fields.name}`, async () => {
				const taken = find(fields.namespace, fields.name);
				if (taken !== null)
					throw new HubError(409, "You already created this bucket", { body: { id: taken.record.id } });
				const at = clock.now().toISOString();
				const record = { ...fields, id: newId(), createdAt: at, updatedAt: at, files: {} };
				const directory = join(root, record.id);
				const building = `${directory}.new`;
				for (const folder of ["xorbs", "xet-files"]) await mkdir(join(building, folder), { recursive: true });
				await writeJsonAtomically(join(building, "bucket.json"), record);
				await rename(building, directory);
				const bucket: Bucket = { directory, record };
				buckets.set(record.id, bucket);
				return bucket;
			}),
		change: (bucket, make) =>
			lock(bucket.record.id, async () => {
				const record = { ...bucket.record, ...make(bucket.record), updatedAt: clock.now().toISOString() };
				await writeJsonAtomically(join(bucket.directory, "bucket.json"), record);
				bucket.record = record;
			}),
		delete: (bucket) =>
			lock(bucket.record.id, async () => {
				const doomed = `${bucket.directory}.deleted`;
				await rename(bucket.directory, doomed);
				buckets.delete(bucket.record.id);
				await rm(doomed, { recursive: true, force: true });
			}),
	};
}
