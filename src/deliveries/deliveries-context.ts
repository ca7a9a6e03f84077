import type { CommentHandler } from "../commands/comment-handler.ts";
import type { JobsContext } from "../jobs/context.ts";
import type { DeliveryOutcome } from "../records/delivery.ts";

/** What working on deliveries is given: all that jobs are, and who answers comments. */
export type DeliveriesContext = JobsContext & { readonly handleComment: CommentHandler };

/** What came of a delivery, and why, for the operator. */
export type Settlement = { readonly outcome: Exclude<DeliveryOutcome, "pending">; readonly detail: string };
