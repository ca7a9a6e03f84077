import { z } from "zod";
import type { JobsContext } from "../../jobs/context.ts";
import { runJobStep } from "../../jobs/steps/run-job-step.ts";

const Message = z.object({ jobId: z.uuid() });

/** A run is looked at: its events are taken over, its end is seen. */
export function pollHandler(context: JobsContext): (data: object) => Promise<void> {
	return async (data) => await runJobStep(context, "poll", Message.parse(data).jobId);
}
