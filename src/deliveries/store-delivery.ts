import { insertDelivery, reviveDelivery } from "../db/deliveries.ts";
import type { JobsContext } from "../jobs/context.ts";
import type { DeliveryRecord } from "../records/delivery.ts";

/** Stores a delivery as it came. `duplicate`: one with its key is there, and `id` is that one's. */
export type StoreDelivery = (
	delivery: Pick<DeliveryRecord, "source" | "dedupeKey" | "receivedAt" | "body">,
) => Promise<{ readonly id: string; readonly duplicate: boolean }>;

/** Durable when it returns. The same key twice is one delivery, which is worked on again only if it had failed. */
export async function storeDelivery(
	context: Pick<JobsContext, "database" | "clock" | "newId" | "wake">,
	delivery: Parameters<StoreDelivery>[0],
): ReturnType<StoreDelivery> {
	const { handle } = context.database;
	const { id, stored } = await insertDelivery(handle, { ...delivery, id: context.newId() });
	const now = context.clock.now();
	const isDue = stored || (await reviveDelivery(handle, { id, after: ["failed"], now }));
	if (isDue) await context.wake({ kind: "delivery", deliveryId: id }, now);
	return { id, duplicate: !stored };
}
