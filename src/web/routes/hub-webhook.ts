import { createHash } from "node:crypto";
import type { Request, Router } from "express";
import { HubWebhookBody } from "../../hub/webhook-body.ts";
import { parseJson } from "../../parse-json.ts";
import { constantTimeEqual } from "../constant-time-equal.ts";
import { type DeliveryIngestOptions, type ReadDelivery, webhookRoute } from "../webhook-route.ts";

const DELIVERY_ID = /^[\x21-\x7e]{1,200}$/;

function missingSecret(request: Request, secrets: readonly string[]): string | null {
	const given = request.get("x-webhook-secret") ?? "";
	// Every secret is compared, so that the time does not tell which one was near.
	const known = secrets.map((secret) => constantTimeEqual(given, secret)).includes(true);
	if (given === "") return "missing header";
	return known ? null : "wrong header";
}

function read(request: Request, bytes: Buffer): ReadDelivery {
	const body = parseJson(bytes);
	if (body === undefined) return { kind: "malformed", message: "The body is not JSON." };
	if (!HubWebhookBody.safeParse(body).success) {
		return {
			kind: "malformed",
			message: "The body is not a webhook's: it needs event.action, event.scope, repo.type and repo.name.",
		};
	}
	const id = request.get("webhook-id");
	const dedupeKey =
		id !== undefined && DELIVERY_ID.test(id)
			? `id:${id}`
			: `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
	return { kind: "delivery", dedupeKey, body };
}

/** `POST /webhooks/hub`: the Hub sends the secret itself, and sends again after anything but 2xx. */
export function hubWebhook(options: DeliveryIngestOptions): Router {
	return webhookRoute(
		{
			path: "/webhooks/hub",
			source: "hub",
			unauthorized: "The X-Webhook-Secret header is missing or is not the one this bot expects.",
			missing: missingSecret,
			forged: () => null,
			read,
		},
		options,
	);
}
