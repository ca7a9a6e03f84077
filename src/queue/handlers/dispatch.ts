import { z } from "zod";
import type { JobsContext } from "../../jobs/context.ts";
import { runJobStep } from "../../jobs/steps/run-job-step.ts";

const Message = z.object({ jobId: z.uuid() });

/** A planned job gets its run started, or waits for a free runner. */
export function dispatchHandler(context: JobsContext): (data: object) => Promise<void> {
	return async (data) => await runJobStep(context, "dispatch", Message.parse(data).jobId);
}
