import { z } from "zod";
import type { JobsContext } from "../../jobs/context.ts";
import { processDelivery } from "../../jobs/process-delivery.ts";

const Message = z.object({ deliveryId: z.uuid() });

/** A stored delivery is read for what it asks. */
export function deliverHandler(context: JobsContext): (data: object) => Promise<void> {
	return async (data) => await processDelivery(context, Message.parse(data).deliveryId);
}
