import { z } from "zod";
import type { JobsContext } from "../../jobs/context.ts";
import { runSideWork } from "../../jobs/steps/run-side-work.ts";

const Message = z.object({ jobId: z.uuid() });

/** The status discussion, the replies and the clean-up of a job catch up with its state. */
export function sideHandler(context: JobsContext): (data: object) => Promise<void> {
	return async (data) => await runSideWork(context, Message.parse(data).jobId);
}
