import type { Refusal } from "../errors.ts";
import type { Handle } from "./database.ts";
import { storableJsonOrNull } from "./storable.ts";

type StatusDiscussion = {
	readonly discussion: number | null;
	readonly refused: { readonly sha: string | null; readonly refusal: Refusal } | null;
};

export async function getStatusDiscussion(handle: Handle, sourceRepo: string): Promise<StatusDiscussion> {
	const row = await handle
		.selectFrom("status_discussions")
		.select(["discussion", "refused"])
		.where("source_repo", "=", sourceRepo)
		.executeTakeFirst();
	if (row === undefined) return { discussion: null, refused: null };
	return { discussion: row.discussion, refused: row.refused as StatusDiscussion["refused"] };
}

export async function setStatusDiscussion(
	handle: Handle,
	request: { readonly sourceRepo: string; readonly discussion: number | null; readonly now: Date },
): Promise<void> {
	await handle
		.insertInto("status_discussions")
		.values({
			source_repo: request.sourceRepo,
			discussion: request.discussion,
			refused: null,
			lease_owner: null,
			lease_until: null,
			updated_at: request.now,
		})
		.onConflict((conflict) =>
			conflict.column("source_repo").doUpdateSet({ discussion: request.discussion, updated_at: request.now }),
		)
		.execute();
}

/** What the newest look at the source itself came to; `null` clears it. */
export async function setSourceRefusal(
	handle: Handle,
	request: { readonly sourceRepo: string; readonly refused: StatusDiscussion["refused"]; readonly now: Date },
): Promise<void> {
	await handle
		.insertInto("status_discussions")
		.values({
			source_repo: request.sourceRepo,
			discussion: null,
			refused: storableJsonOrNull(request.refused),
			lease_owner: null,
			lease_until: null,
			updated_at: request.now,
		})
		.onConflict((conflict) =>
			conflict
				.column("source_repo")
				.doUpdateSet({ refused: storableJsonOrNull(request.refused), updated_at: request.now }),
		)
		.execute();
}

/** Makes `owner` the only one who edits the repo's discussion until `until`; `false` when somebody else is. */
export async function leaseStatusDiscussion(
	handle: Handle,
	request: { readonly sourceRepo: string; readonly owner: string; readonly now: Date; readonly until: Date },
): Promise<boolean> {
	const lease = { lease_owner: request.owner, lease_until: request.until };
	const row = await handle
		.insertInto("status_discussions")
		.values({
			source_repo: request.sourceRepo,
			discussion: null,
			refused: null,
			...lease,
			updated_at: request.now,
		})
		.onConflict((conflict) =>
			conflict
				.column("source_repo")
				.doUpdateSet(lease)
				.where((eb) =>
					eb.or([
						eb("status_discussions.lease_until", "is", null),
						eb("status_discussions.lease_until", "<", request.now),
						eb("status_discussions.lease_owner", "=", request.owner),
					]),
				),
		)
		.returning("source_repo")
		.executeTakeFirst();
	return row !== undefined;
}

export async function releaseStatusDiscussion(handle: Handle, sourceRepo: string, owner: string): Promise<void> {
	await handle
		.updateTable("status_discussions")
		.set({ lease_owner: null, lease_until: null })
		.where("source_repo", "=", sourceRepo)
		.where("lease_owner", "=", owner)
		.execute();
}
