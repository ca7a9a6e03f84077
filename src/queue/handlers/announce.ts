import { z } from "zod";
import type { JobsContext } from "../../jobs/context.ts";
import { runJobStep } from "../../jobs/steps/run-job-step.ts";

const Message = z.object({ jobId: z.uuid() });

/** People are told of what was published. */
export function announceHandler(context: JobsContext): (data: object) => Promise<void> {
	return async (data) => await runJobStep(context, "announce", Message.parse(data).jobId);
}
