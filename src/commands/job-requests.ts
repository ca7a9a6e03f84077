import { cancelJob } from "../jobs/cancel-job.ts";
import type { JobsContext } from "../jobs/context.ts";
import { previewRequest } from "../jobs/estimate/preview-request.ts";
import { recordRequest } from "../jobs/record-request.ts";
import { retryJob } from "../jobs/retry-job.ts";
import type { JobRequests } from "./answer-options.ts";

/** What commands ask of the jobs of this context. */
export function jobRequests(context: JobsContext): JobRequests {
	return {
		recordRequest: (input) => recordRequest(context, input),
		previewRequest: (input) => previewRequest(context, input),
		cancelJob: (id) => cancelJob(context, id),
		retryJob: (id) => retryJob(context, id),
	};
}
