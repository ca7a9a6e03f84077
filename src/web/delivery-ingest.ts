import type { Response } from "express";
import type { Clock } from "../clock.ts";
import type { StoreDelivery } from "../deliveries/store-delivery.ts";
import type { Log } from "../log.ts";

/** What became of a webhook request, for the metrics. */
type IngestOutcome = "stored" | "duplicate" | "unauthorized" | "too-large" | "malformed" | "failed";

/** What every door for webhooks is built with. */
export type DeliveryIngestOptions = {
	/** Current and, while it is being rotated, previous. Empty: nothing is accepted. */
	readonly secrets: readonly string[];
	readonly maxBodyBytes: number;
	readonly store: StoreDelivery;
	readonly clock: Clock;
	readonly log: Log;
	readonly onOutcome: (outcome: IngestOutcome) => void;
};

/** Stores a delivery that was judged sound, and answers it: 202, 200 for one that is there, 503 to get it again. */
export async function storeAndAnswer(
	{ store, clock, log, onOutcome }: DeliveryIngestOptions,
	response: Response,
	delivery: Omit<Parameters<StoreDelivery>[0], "receivedAt">,
): Promise<void> {
	try {
		const stored = await store({ ...delivery, receivedAt: clock.now() });
		onOutcome(stored.duplicate ? "duplicate" : "stored");
		response.status(stored.duplicate ? 200 : 202).json({ delivery: stored.id, duplicate: stored.duplicate });
	} catch (error) {
		onOutcome("failed");
		log.error("A webhook delivery could not be stored", { source: delivery.source, error });
		response
			.set("Retry-After", "30")
			.status(503)
			.json({ error: "The delivery could not be stored; deliver it again." });
	}
}
