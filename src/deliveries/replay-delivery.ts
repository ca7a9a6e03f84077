import { reviveDelivery } from "../db/deliveries.ts";
import type { JobsContext } from "../jobs/context.ts";

/** Has a delivery worked on anew that is settled, as though it had just come; `false`: there is none, or it is under way. */
export async function replayDelivery(
	context: Pick<JobsContext, "database" | "clock" | "wake">,
	id: string,
): Promise<boolean> {
	const now = context.clock.now();
	const after = ["accepted", "ignored", "failed"] as const;
	if (!(await reviveDelivery(context.database.handle, { id, after, now }))) return false;
	await context.wake({ kind: "delivery", deliveryId: id }, now);
	return true;
}
