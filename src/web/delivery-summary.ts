import { GitHubWebhookBody } from "../github/webhook-body.ts";
import { HubWebhookBody } from "../hub/webhook-body.ts";
import type { DeliveryRecord } from "../records/delivery.ts";
import type { DeliverySummary } from "./views/deliveries-page.ts";

/** What it is about, as far as its body tells. */
function subjectOf(delivery: DeliveryRecord): Pick<DeliverySummary, "event" | "repo"> {
	if (delivery.source === "github") {
		const { data } = GitHubWebhookBody.safeParse(delivery.body);
		if (data === undefined) return { event: "github", repo: null };
		const { action, repository } = data.payload;
		return { event: `github ${data.event} ${action ?? ""}`.trim(), repo: repository?.full_name ?? null };
	}
	const { data } = HubWebhookBody.safeParse(delivery.body);
	if (data === undefined) return { event: delivery.source, repo: null };
	return { event: `${data.event.scope} ${data.event.action}`, repo: data.repo.name };
}

export function summarizeDelivery(delivery: DeliveryRecord): DeliverySummary {
	return {
		id: delivery.id,
		receivedAt: delivery.receivedAt.toISOString(),
		outcome: delivery.outcome,
		detail: delivery.detail,
		...subjectOf(delivery),
	};
}
