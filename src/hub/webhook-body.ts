import { z } from "zod";

const UpdatedRef = z.object({ ref: z.string(), newSha: z.string().nullable().optional() });
const Comment = z.object({
	id: z.string().max(100),
	hidden: z.boolean().optional(),
	author: z.object({ id: z.string().max(100) }).optional(),
});

/**
 * What is read of a webhook's body. Without `event` and `repo` it is none; every other part only says where to look, so
 * that one of another shape than expected counts as left out: refusing would make the Hub suspend the webhook.
 */
export const HubWebhookBody = z.looseObject({
	event: z.looseObject({ action: z.string().max(64), scope: z.string().max(64) }),
	repo: z.looseObject({ type: z.string().max(32), name: z.string().max(400) }),
	updatedRefs: z.array(UpdatedRef).max(10_000).optional().catch(undefined),
	discussion: z
		.object({ num: z.int().min(1) })
		.optional()
		.catch(undefined),
	comment: Comment.optional().catch(undefined),
});
