import { sql } from "kysely";
import type { DeliveryOutcome, DeliveryRecord } from "../records/delivery.ts";
import { cursorTime, decodeCursor, type Page, pageLimit, pageOf } from "./cursor.ts";
import type { Handle } from "./database.ts";
import { deliveryOfRow } from "./records-of-rows.ts";
import { storableJson, storableText } from "./storable.ts";
import { type Audience, shownTo } from "./visibility.ts";

/** Stores a delivery once: `stored` is `false` when one with the same key is there, and `id` is that one's. */
export async function insertDelivery(
	handle: Handle,
	delivery: {
		readonly id: string;
		readonly source: DeliveryRecord["source"];
		readonly dedupeKey: string;
		readonly receivedAt: Date;
		readonly body: unknown;
	},
): Promise<{ readonly stored: boolean; readonly id: string }> {
	const inserted = await handle
		.insertInto("deliveries")
		.values({
			id: delivery.id,
			source: delivery.source,
			dedupe_key: storableText(delivery.dedupeKey),
			received_at: delivery.receivedAt,
			outcome: "pending",
			detail: null,
			body: storableJson(delivery.body),
			next_attempt_at: delivery.receivedAt,
			lease_owner: null,
			lease_until: null,
		})
		.onConflict((conflict) => conflict.columns(["source", "dedupe_key"]).doNothing())
		.returning("id")
		.executeTakeFirst();
	if (inserted !== undefined) return { stored: true, id: inserted.id };
	const found = await handle
		.selectFrom("deliveries")
		.select("id")
		.where("source", "=", delivery.source)
		.where("dedupe_key", "=", storableText(delivery.dedupeKey))
		.executeTakeFirstOrThrow();
	return { stored: false, id: found.id };
}

/** Has a delivery worked on anew that came to one of these ends: `true` when it had. */
export async function reviveDelivery(
	handle: Handle,
	request: { readonly id: string; readonly after: readonly Exclude<DeliveryOutcome, "pending">[]; readonly now: Date },
): Promise<boolean> {
	const row = await handle
		.updateTable("deliveries")
		.set({ outcome: "pending", attempts: 0, next_attempt_at: request.now, lease_owner: null, lease_until: null })
		.where("id", "=", request.id)
		.where("outcome", "in", request.after)
		.returning("id")
		.executeTakeFirst();
	return row !== undefined;
}

/** Takes a pending delivery for `owner` until `until`; `null` when it is settled or somebody else works on it. */
export async function leaseDelivery(
	handle: Handle,
	request: { readonly id: string; readonly owner: string; readonly now: Date; readonly until: Date },
): Promise<{ readonly delivery: DeliveryRecord; readonly attempts: number } | null> {
	const row = await handle
		.updateTable("deliveries")
		.set((eb) => ({ lease_owner: request.owner, lease_until: request.until, attempts: eb("attempts", "+", 1) }))
		.where("id", "=", request.id)
		.where("outcome", "=", "pending")
		.where((eb) => eb.or([eb("lease_until", "is", null), eb("lease_until", "<", request.now)]))
		.returningAll()
		.executeTakeFirst();
	return row === undefined ? null : { delivery: deliveryOfRow(row), attempts: row.attempts };
}

export async function renewDeliveryLease(
	handle: Handle,
	request: { readonly id: string; readonly owner: string; readonly until: Date },
): Promise<void> {
	await handle
		.updateTable("deliveries")
		.set({ lease_until: request.until })
		.where("id", "=", request.id)
		.where("lease_owner", "=", request.owner)
		.execute();
}

export async function settleDelivery(
	handle: Handle,
	request: {
		readonly id: string;
		readonly owner: string;
		readonly outcome: DeliveryOutcome;
		readonly detail: string;
		readonly nextAttemptAt: Date;
	},
): Promise<void> {
	await handle
		.updateTable("deliveries")
		.set({
			outcome: request.outcome,
			detail: storableText(request.detail).slice(0, 4000),
			next_attempt_at: request.nextAttemptAt,
			lease_owner: null,
			lease_until: null,
		})
		.where("id", "=", request.id)
		.where("lease_owner", "=", request.owner)
		.execute();
}

/** Pending deliveries that are due and nobody works on. */
export async function listDueDeliveries(handle: Handle, now: Date, limit: number): Promise<readonly string[]> {
	const rows = await handle
		.selectFrom("deliveries")
		.select("id")
		.where("outcome", "=", "pending")
		.where("next_attempt_at", "<=", now)
		.where((eb) => eb.or([eb("lease_until", "is", null), eb("lease_until", "<", now)]))
		.orderBy("next_attempt_at")
		.limit(limit)
		.execute();
	return rows.map((row) => row.id);
}

/** Newest first. */
export async function listDeliveries(
	handle: Handle,
	options: {
		readonly outcome?: DeliveryOutcome;
		readonly audience?: Audience;
		readonly cursor?: string | null;
		readonly limit?: number;
	} = {},
): Promise<Page<DeliveryRecord>> {
	const limit = pageLimit(options.limit, 50);
	const after = cursorTime(decodeCursor(options.cursor));
	// What a delivery says of itself decides here: nobody but the operator sees those of private repos.
	const audience = options.audience === undefined || options.audience === "operator" ? "operator" : "everybody";
	let query = handle.selectFrom("deliveries").selectAll();
	if (audience === "everybody") {
		query = query
			.where(shownTo(audience, sql`deliveries.body->'repo'->>'name'`))
			.where(sql<boolean>`coalesce(deliveries.body->'repo'->>'private', 'false') <> 'true'`)
			.where(sql<boolean>`coalesce(deliveries.body->'payload'->'repository'->>'private', 'false') <> 'true'`);
	}
	if (options.outcome !== undefined) query = query.where("outcome", "=", options.outcome);
	if (after !== null) query = query.where(sql<boolean>`(received_at, id) < (${after.at}, ${after.id}::uuid)`);
	const rows = await query
		.orderBy("received_at", "desc")
		.orderBy("id", "desc")
		.limit(limit + 1)
		.execute();
	return pageOf(rows, limit, deliveryOfRow, (row) => [row.received_at.toISOString(), row.id]);
}

export async function getDelivery(handle: Handle, id: string): Promise<DeliveryRecord | null> {
	const row = await handle.selectFrom("deliveries").selectAll().where("id", "=", id).executeTakeFirst();
	return row === undefined ? null : deliveryOfRow(row);
}
