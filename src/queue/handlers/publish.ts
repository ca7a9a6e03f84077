import { z } from "zod";
import type { JobsContext } from "../../jobs/context.ts";
import { runJobStep } from "../../jobs/steps/run-job-step.ts";

const Message = z.object({ jobId: z.uuid() });

/** Verified files become public. */
export function publishHandler(context: JobsContext): (data: object) => Promise<void> {
	return async (data) => await runJobStep(context, "publish", Message.parse(data).jobId);
}
