import { z } from "zod";
import type { JobsContext } from "../../jobs/context.ts";
import { runJobStep } from "../../jobs/steps/run-job-step.ts";

const Message = z.object({ jobId: z.uuid() });

/** Staged files are downloaded back and judged. */
export function verifyHandler(context: JobsContext): (data: object) => Promise<void> {
	return async (data) => await runJobStep(context, "verify", Message.parse(data).jobId);
}
