import { createHash } from "node:crypto";
import type { Router } from "express";
import express from "express";
import { HubWebhookBody } from "../hub/webhook-body.ts";
import { parseJson } from "../parse-json.ts";
import { constantTimeEqual } from "./constant-time-equal.ts";
import { type DeliveryIngestOptions, storeAndAnswer } from "./delivery-ingest.ts";
import { readBody, refuseDelivery } from "./read-body.ts";

const DELIVERY_ID = /^[\x21-\x7e]{1,200}$/;

/**
 * `POST /webhooks/hub`. The secret is judged before a byte of the body is read, the body's size before it is held;
 * then the delivery is stored and answered. What it means is worked out later, from the Hub itself.
 * Neither the headers nor the secret are kept.
 */
export function hubWebhook(options: DeliveryIngestOptions): Router {
	const { secrets, maxBodyBytes, log, onOutcome } = options;
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
		if (!HubWebhookBody.safeParse(json).success) {
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
		// Anything but 2xx makes the Hub deliver again.
		await storeAndAnswer(options, response, { source: "hub", dedupeKey, body: json });
	});
	return router;
}
