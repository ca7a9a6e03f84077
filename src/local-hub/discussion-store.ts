import { readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { readJson, writeJsonAtomically } from "./atomic-file.ts";
import type { Repo } from "./repo-store.ts";

const common = { id: z.string(), createdAt: z.string(), author: z.string() };
const eventSchema = z.discriminatedUnion("type", [
	z.object({
		...common,
		type: z.literal("comment"),
		raw: z.string(),
		updatedAt: z.string(),
		editors: z.array(z.string()),
		numEdits: z.number(),
		hiddenBy: z.string().nullable(),
	}),
	z.object({
		...common,
		type: z.literal("status-change"),
		status: z.enum(["draft", "open", "closed", "merged"]),
		reason: z.string().nullable(),
	}),
	z.object({ ...common, type: z.literal("title-change"), from: z.string(), to: z.string() }),
	z.object({ ...common, type: z.literal("pinning-change"), pinned: z.boolean() }),
	z.object({ ...common, type: z.literal("locking-change"), locked: z.boolean() }),
	z.object({ ...common, type: z.literal("commit"), subject: z.string(), oid: z.string() }),
	z.object({ ...common, type: z.literal("ref-deleted") }),
]);
export type DiscussionEvent = z.infer<typeof eventSchema>;
export type CommentEvent = Extract<DiscussionEvent, { type: "comment" }>;

const discussionSchema = z.object({
	id: z.string(),
	num: z.number(),
	title: z.string(),
	status: z.enum(["draft", "open", "closed", "merged"]),
	author: z.string(),
	createdAt: z.string(),
	pinned: z.boolean(),
	/** Only those who may write to the repo still comment. */
	locked: z.boolean().default(false),
	events: z.array(eventSchema),
	pull: z
		.object({
			/** The commit of main that the pull request started from: the base of the three-way merge. */
			startedFrom: z.string(),
			mergeCommitId: z.string().nullable(),
			refDeleted: z.boolean(),
		})
		.nullable(),
});
export type Discussion = z.infer<typeof discussionSchema>;

export type DiscussionStore = {
	of(repo: Repo): readonly Discussion[];
	get(repo: Repo, num: number): Discussion | null;
	nextNum(repo: Repo): number;
	save(repo: Repo, discussion: Discussion): Promise<void>;
	delete(repo: Repo, num: number): Promise<void>;
	load(repo: Repo): Promise<void>;
	forget(repo: Repo): void;
};

export function createDiscussionStore(): DiscussionStore {
	const byRepo = new Map<string, { discussions: Map<number, Discussion>; last: number }>();
	const entry = (repo: Repo): { discussions: Map<number, Discussion>; last: number } => {
		const found = byRepo.get(repo.record.id);
		if (found !== undefined) return found;
		const made = { discussions: new Map<number, Discussion>(), last: 0 };
		byRepo.set(repo.record.id, made);
		return made;
	};
	const path = (repo: Repo, num: number): string => join(repo.directory, "discussions", `${num}.json`);

	return {
		of: (repo) => [...entry(repo).discussions.values()],
		get: (repo, num) => entry(repo).discussions.get(num) ?? null,
		nextNum: (repo) => entry(repo).last + 1,
		async save(repo, discussion) {
			await writeJsonAtomically(path(repo, discussion.num), discussion);
			const of = entry(repo);
			of.discussions.set(discussion.num, discussion);
			of.last = Math.max(of.last, discussion.num);
		},
		async delete(repo, num) {
			// the empty mark keeps the number from being given out again
			await writeFile(join(repo.directory, "discussions", `${num}.deleted`), "");
			await rm(path(repo, num), { force: true });
			entry(repo).discussions.delete(num);
		},
		async load(repo) {
			const of = entry(repo);
			for (const name of await readdir(join(repo.directory, "discussions"))) {
				const num = /^([0-9]+)\.(json|deleted)$/.exec(name);
				if (num === null) continue;
				of.last = Math.max(of.last, Number(num[1]));
				if (num[2] === "deleted") continue;
				const discussion = await readJson(join(repo.directory, "discussions", name), discussionSchema);
				if (discussion === null) continue;
				of.discussions.set(discussion.num, discussion);
			}
		},
		forget: (repo) => {
			byRepo.delete(repo.record.id);
		},
	};
}
