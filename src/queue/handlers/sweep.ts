import { z } from "zod";
import type { JobsContext } from "../../jobs/context.ts";
import { sweepSlot } from "../../jobs/sweep.ts";

const Message = z.object({ slot: z.string().min(1).max(100) });

/** The watched repos are looked over for pushes that no delivery told of. */
export function sweepHandler(context: JobsContext): (data: object) => Promise<void> {
	return async (data) => {
		await sweepSlot(context, Message.parse(data).slot);
	};
}
