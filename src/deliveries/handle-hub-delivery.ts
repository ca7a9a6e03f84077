import { getStatusDiscussion } from "../db/status-discussions.ts";
import { assertNever, RetryableError } from "../errors.ts";
import { followVisibility } from "../jobs/follow-visibility.ts";
import { checkRepo } from "../jobs/watch-rules.ts";
import type { DeliveryRecord } from "../records/delivery.ts";
import type { DeliveriesContext, Settlement } from "./deliveries-context.ts";
import { handlePush } from "./handle-push.ts";
import { readHubEvent } from "./hub-event.ts";

/** The Hub reported a push, a comment or a discussion. */
export async function handleHubDelivery(context: DeliveriesContext, delivery: DeliveryRecord): Promise<Settlement> {
	const { configuration } = context;
	const event = readHubEvent(delivery.body, configuration.watch.ref);
	switch (event.kind) {
		case "ignored":
			return { outcome: "ignored", detail: event.reason };
		case "push":
			return await handlePush(context, delivery, event.repo);
		case "settings": {
			const { failed } = await followVisibility(context, event.repo);
			if (failed > 0) throw new RetryableError(`The visibility of ${event.repo} could not be followed.`);
			return { outcome: "accepted", detail: "What is published of it has its visibility." };
		}
		case "comment": {
			if (!configuration.requests.comments) return { outcome: "ignored", detail: "Comments are switched off." };
			const check = checkRepo(configuration.watch, event.repo);
			if (!check.watched) return { outcome: "ignored", detail: check.reason };
			return await context.handleComment({
				deliveryId: delivery.id,
				repo: event.repo,
				discussion: event.discussion,
				commentId: event.commentId,
				authorId: event.authorId,
			});
		}
		case "discussion": {
			// Whoever opens the closed status discussion again wants the bot back: the head is looked at like a push.
			const { discussion } = await getStatusDiscussion(context.database.handle, event.repo);
			if (discussion !== event.discussion) return { outcome: "ignored", detail: "It is not the bot's discussion." };
			return await handlePush(context, delivery, event.repo);
		}
		default:
			return assertNever(event);
	}
}
