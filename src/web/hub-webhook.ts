import { createHash } from "node:crypto";
import type { Router } from "express";
import express from "express";
import { z } from "zod";
import type { Clock } from "../clock.ts";
import type { Log } from "../log.ts";
import { constantTimeEqual } from "./constant-time-equal.ts";
import type { WebData } from "./data.ts";
import { parseJson, readBody, refuseDelivery } from "./read-body.ts";

/** What has to be there for a body to be a webhook's; everything else passes through to the step that reads it. */
const WebhookBody = z.looseObject({
	event: z.looseObject({ action: z.string().max(64), scope: z.string().max(64) }),
	repo: z.looseObject({ type: z.string().max(32), name: z.string().max(400) }),
});

const DELIVERY_ID = /^[\x21-\x7e]{1,200}$/;

/** What became of a webhook request, for the metrics. */
export type IngestOutcome = "stored" | "duplicate" | "unauthorized" | "too-large" | "malformed" | "failed";

export type HubWebhookOptions = {
	/** Current and, while it is being rotated, previous. Empty: nothing is accepted. */
	readonly secrets: readonly string[];
	readonly maxBodyBytes: number;
	readonly store: WebData["storeDelivery"];
	readonly clock: Clock;
	readonly log: Log;
	readonly onOutcome: (outcome: IngestOutcome) => void;
};

/**
 * `POST /webhooks/hub`. The secret is judged before a byte of the body is read, the body's size before it is held;
 * then the delivery is stored and answered. What it means is worked out later, from the Hub itself.
 * Neither the headers nor the secret are kept.
 */
export function hubWebhook(options: HubWebhookOptions): Router {
	const { secrets, maxBodyBytes, store, clock, log, onOutcome } = options;
	const router = express.Router();
	router.post("/webhooks/hub", async (request, response) => {
		const given = request.get("x-webhook-secret") ?? "";
		// Every secret is compared, so that the time does not tell which one was near.
		const known = secrets.map((secret) => constantTimeEqual(given, secret)).includes(true);
		if (!known || given === "") {
			onOutcome("unauthorized");
			log.warn("A webhook delivery was refused", {
				reason: secrets.length === 0 ? "not set up" : given === "" ? "missing header" : "wrong header",
			});
			refuseDelivery(response, 401, "The X-Webhook-Secret header is missing or is not the one this bot expects.");
			return;
		}
		const bytes = await readBody(request, maxBodyBytes);
		if (bytes === null) {
			onOutcome("too-large");
			refuseDelivery(response, 413, `A delivery has at most ${maxBodyBytes} bytes.`);
			return;
		}
		const json = parseJson(bytes);
		if (json === undefined) {
			onOutcome("malformed");
			refuseDelivery(response, 400, "The body is not JSON.");
			return;
		}
		const body = WebhookBody.safeParse(json);
		if (!body.success) {
			onOutcome("malformed");
			refuseDelivery(
				response,
				400,
				"The body is not a webhook's: it needs event.action, event.scope, repo.type and repo.name.",
			);
			return;
		}
		const deliveryId = request.get("webhook-id");
		const dedupeKey =
			deliveryId !== undefined && DELIVERY_ID.test(deliveryId)
				? `id:${deliveryId}`
				: `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
		try {
			const stored = await store({ source: "hub", dedupeKey, receivedAt: clock.now(), body: body.data });
			onOutcome(stored.duplicate ? "duplicate" : "stored");
			response.status(stored.duplicate ? 200 : 202).json({ delivery: stored.id, duplicate: stored.duplicate });
		} catch (error) {
			onOutcome("failed");
			log.error("A webhook delivery could not be stored", { error });
			// Anything but 2xx makes the Hub deliver again.
			response
				.set("Retry-After", "30")
				.status(503)
				.json({ error: "The delivery could not be stored; deliver it again." });
		}
	});
	return router;
}
