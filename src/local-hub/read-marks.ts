import { join } from "node:path";
import { z } from "zod";
import { createKeyedLock } from "../keyed-lock.ts";
import { readJson, writeJsonAtomically } from "./atomic-file.ts";

const schema = z.record(z.string(), z.record(z.string(), z.string()));

/** Up to when each user has read each discussion, by the time of its last event. */
export type ReadMarks = {
	readUpTo(user: string, discussionId: string): string | null;
	mark(user: string, marks: ReadonlyMap<string, string | null>): Promise<void>;
};

export async function openReadMarks(dataDirectory: string): Promise<ReadMarks> {
	const file = join(dataDirectory, "read-marks.json");
	const known = new Map(Object.entries((await readJson(file, schema)) ?? {}));
	const lock = createKeyedLock();
	return {
		readUpTo: (user, discussionId) => known.get(user)?.[discussionId] ?? null,
		mark: (user, marks) =>
			lock("marks", async () => {
				const of = { ...known.get(user) };
				for (const [discussion, at] of marks) {
					if (at === null) delete of[discussion];
					else of[discussion] = at;
				}
				known.set(user, of);
				await writeJsonAtomically(file, Object.fromEntries(known));
			}),
	};
}
