import { isTargetRepo } from "../db/variants.ts";
import { assertNever } from "../errors.ts";
import type { JobsContext } from "../jobs/context.ts";
import { recordRequest } from "../jobs/record-request.ts";
import { checkHours, checkRepo } from "../jobs/watch-rules.ts";
import type { DeliveryRecord } from "../records/delivery.ts";
import type { Settlement } from "./deliveries-context.ts";

/** A watched repo may have a new commit: what its rules ask for is requested. */
export async function handlePush(context: JobsContext, delivery: DeliveryRecord, repo: string): Promise<Settlement> {
	const check = checkRepo(context.configuration.watch, repo);
	if (!check.watched) return { outcome: "ignored", detail: check.reason };
	const hours = checkHours(context.configuration.watch, repo, context.clock.now());
	if (!hours.watched) return { outcome: "ignored", detail: hours.reason };
	if (await isTargetRepo(context.database.handle, repo)) {
		return { outcome: "ignored", detail: "It is one of our own quantized repos." };
	}
	// The delivery only says where to look: the branch's head is read from the Hub, so that old or shuffled deliveries
	// cannot bring back an older commit.
	const outcome = await recordRequest(context, {
		kind: "push",
		sourceRepo: repo,
		recipes: [],
		requester: null,
		replyTo: null,
		dedupeKey: `delivery:${delivery.id}`,
	});
	switch (outcome.kind) {
		case "planned":
			return {
				outcome: "accepted",
				detail: `${outcome.created ? "Planned" : "Joined"} job ${outcome.job.id}.`,
			};
		case "published":
			return { outcome: "accepted", detail: "Everything is published already." };
		case "refused":
			return { outcome: "ignored", detail: `${outcome.refusal.code}: ${outcome.refusal.message}` };
		default:
			return assertNever(outcome);
	}
}
