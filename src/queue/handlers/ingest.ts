import { z } from "zod";
import type { JobsContext } from "../../jobs/context.ts";
import { runJobStep } from "../../jobs/steps/run-job-step.ts";

const Message = z.object({ jobId: z.uuid() });

/** The files of a finished run are taken over and staged. */
export function ingestHandler(context: JobsContext): (data: object) => Promise<void> {
	return async (data) => await runJobStep(context, "ingest", Message.parse(data).jobId);
}
