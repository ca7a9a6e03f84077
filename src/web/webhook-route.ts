import type { Request, Response, Router } from "express";
import express from "express";
import type { Clock } from "../clock.ts";
import type { StoreDelivery } from "../deliveries/store-delivery.ts";
import type { Log } from "../log.ts";
import { readBody, refuseDelivery } from "./read-body.ts";

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

export type ReadDelivery =
	| { readonly kind: "delivery"; readonly dedupeKey: string; readonly body: unknown }
	/** Nothing to store: the sender tries whether somebody is there. */
	| { readonly kind: "ping" }
	| { readonly kind: "malformed"; readonly message: string };

type WebhookDoor = {
	readonly path: string;
	readonly source: Parameters<StoreDelivery>[0]["source"];
	/** What a sender without the secret is told. */
	readonly unauthorized: string;
	/** What the headers alone lack, for the log; `null`: nothing. Before a byte of the body is read. */
	readonly missing: (request: Request, secrets: readonly string[]) => string | null;
	/** What of the body contradicts its signature; `null`: nothing. Before it is parsed. */
	readonly forged: (request: Request, bytes: Buffer, secrets: readonly string[]) => string | null;
	readonly read: (request: Request, bytes: Buffer) => ReadDelivery;
};

/**
 * One door for webhooks: who sends is looked at before the body is read, its type and size before it is held, its
 * signature before it is parsed. Then the delivery is stored and answered; what it means is worked out later, from the
 * host itself. Neither the headers nor the secret are kept.
 */
export function webhookRoute(door: WebhookDoor, options: DeliveryIngestOptions): Router {
	const { secrets, maxBodyBytes, log, onOutcome } = options;
	const router = express.Router();
	router.post(door.path, async (request, response) => {
		const unauthorized = (reason: string): void => {
			onOutcome("unauthorized");
			log.warn("A webhook delivery was refused", { source: door.source, reason });
			refuseDelivery(response, 401, door.unauthorized);
		};
		const malformed = (status: number, message: string): void => {
			onOutcome("malformed");
			refuseDelivery(response, status, message);
		};
		const missing = secrets.length === 0 ? "not set up" : door.missing(request, secrets);
		if (missing !== null) {
			unauthorized(missing);
			return;
		}
		if (request.is("application/json") === false) {
			malformed(415, "A delivery is JSON: set the webhook's content type to application/json.");
			return;
		}
		const bytes = await readBody(request, maxBodyBytes);
		if (bytes === null) {
			onOutcome("too-large");
			refuseDelivery(response, 413, `A delivery has at most ${maxBodyBytes} bytes.`);
			return;
		}
		const forged = door.forged(request, bytes, secrets);
		if (forged !== null) {
			unauthorized(forged);
			return;
		}
		const read = door.read(request, bytes);
		switch (read.kind) {
			case "malformed":
				malformed(400, read.message);
				return;
			case "ping":
				onOutcome("stored");
				response.json({ pong: true });
				return;
			case "delivery":
				await storeAndAnswer(options, response, { source: door.source, dedupeKey: read.dedupeKey, body: read.body });
				return;
		}
	});
	return router;
}

/** Stores a sound delivery and answers it: 202, 200 for one that is there, 503 to get it again: 2xx alone ends it. */
async function storeAndAnswer(
	{ store, clock, log, onOutcome }: DeliveryIngestOptions,
	response: Response,
	delivery: Omit<Parameters<StoreDelivery>[0], "receivedAt">,
): Promise<void> {
	try {
		const stored = await store({ ...delivery, receivedAt: clock.now() });
		onOutcome(stored.duplicate ? "duplicate" : "stored");
		log.info("A webhook delivery arrived", { trace: stored.id, source: delivery.source, duplicate: stored.duplicate });
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
