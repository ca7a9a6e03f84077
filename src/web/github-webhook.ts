import { createHmac } from "node:crypto";
import type { Router } from "express";
import express from "express";
import { GitHubPayload } from "../github/webhook-body.ts";
import { parseJson } from "../parse-json.ts";
import { constantTimeEqual } from "./constant-time-equal.ts";
import { type DeliveryIngestOptions, storeAndAnswer } from "./delivery-ingest.ts";
import { readBody, refuseDelivery } from "./read-body.ts";

const SIGNATURE = /^sha256=([0-9a-f]{64})$/;
const EVENT_NAME = /^[a-z_]{1,64}$/;
const DELIVERY_ID = /^[0-9A-Za-z-]{1,100}$/;

/** Whether `signature`, in hex, is the HMAC of these bytes under one of the secrets. */
function isSigned(bytes: Buffer, signature: string, secrets: readonly string[]): boolean {
	// Every secret is tried, so that the time does not tell which one it was.
	return secrets
		.map((secret) => constantTimeEqual(createHmac("sha256", secret).update(bytes).digest("hex"), signature))
		.includes(true);
}

/**
 * `POST /webhooks/github`. The body's size is judged before it is held, its signature before it is parsed; then the
 * delivery is stored as `{event, payload}`, once by GitHub's delivery id, and answered. GitHub never sends again by
 * itself, and events come late, twice or not at all: what one means is read from GitHub.
 */
export function gitHubWebhook(options: DeliveryIngestOptions): Router {
	const { secrets, maxBodyBytes, log, onOutcome } = options;
	const router = express.Router();
	router.post("/webhooks/github", async (request, response) => {
		const unauthorized = (reason: string): void => {
			onOutcome("unauthorized");
			log.warn("A GitHub delivery was refused", { reason });
			refuseDelivery(response, 401, "The X-Hub-Signature-256 header is missing or does not match this bot's secret.");
		};
		const [, signature] = SIGNATURE.exec(request.get("x-hub-signature-256") ?? "") ?? [];
		if (signature === undefined || secrets.length === 0) {
			unauthorized(secrets.length === 0 ? "not set up" : "missing header");
			return;
		}
		const bytes = await readBody(request, maxBodyBytes);
		if (bytes === null) {
			onOutcome("too-large");
			refuseDelivery(response, 413, `A delivery has at most ${maxBodyBytes} bytes.`);
			return;
		}
		if (!isSigned(bytes, signature, secrets)) {
			unauthorized("wrong signature");
			return;
		}
		const event = request.get("x-github-event") ?? "";
		const id = request.get("x-github-delivery") ?? "";
		const payload = parseJson(bytes);
		if (!EVENT_NAME.test(event) || !DELIVERY_ID.test(id) || !GitHubPayload.safeParse(payload).success) {
			onOutcome("malformed");
			refuseDelivery(
				response,
				400,
				"Not a webhook of GitHub's: it needs X-GitHub-Event, X-GitHub-Delivery and a body of content type application/json.",
			);
			return;
		}
		if (event === "ping") {
			onOutcome("stored");
			response.json({ pong: true });
			return;
		}
		await storeAndAnswer(options, response, {
			source: "github",
			dedupeKey: `id:${id}`,
			body: { event, payload },
		});
	});
	return router;
}
