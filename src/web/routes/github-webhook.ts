import { createHmac } from "node:crypto";
import type { Request, Router } from "express";
import { GitHubPayload } from "../../github/webhook-body.ts";
import { parseJson } from "../../parse-json.ts";
import { constantTimeEqual } from "../constant-time-equal.ts";
import { type DeliveryIngestOptions, type ReadDelivery, webhookRoute } from "../webhook-route.ts";

const SIGNATURE = /^sha256=([0-9a-f]{64})$/;
const EVENT_NAME = /^[a-z_]{1,64}$/;
const DELIVERY_ID = /^[0-9A-Za-z-]{1,100}$/;

function signatureOf(request: Request): string | null {
	return SIGNATURE.exec(request.get("x-hub-signature-256") ?? "")?.[1] ?? null;
}

/** Whether the signature, in hex, is the HMAC of these bytes under one of the secrets. */
function wrongSignature(request: Request, bytes: Buffer, secrets: readonly string[]): string | null {
	const signature = signatureOf(request) ?? "";
	// Every secret is tried, so that the time does not tell which one it was.
	const isSigned = secrets
		.map((secret) => constantTimeEqual(createHmac("sha256", secret).update(bytes).digest("hex"), signature))
		.includes(true);
	return isSigned ? null : "wrong signature";
}

function read(request: Request, bytes: Buffer): ReadDelivery {
	const event = request.get("x-github-event") ?? "";
	const id = request.get("x-github-delivery") ?? "";
	const payload = parseJson(bytes);
	if (!EVENT_NAME.test(event) || !DELIVERY_ID.test(id) || !GitHubPayload.safeParse(payload).success) {
		return {
			kind: "malformed",
			message: "Not a webhook of GitHub's: it needs X-GitHub-Event, X-GitHub-Delivery and a body in JSON.",
		};
	}
	if (event === "ping") return { kind: "ping" };
	return { kind: "delivery", dedupeKey: `id:${id}`, body: { event, payload } };
}

/**
 * `POST /webhooks/github`: stored as `{event, payload}`, once by GitHub's delivery id. GitHub never sends again by
 * itself, and events come late, twice or not at all: what one means is read from GitHub.
 */
export function gitHubWebhook(options: DeliveryIngestOptions): Router {
	return webhookRoute(
		{
			path: "/webhooks/github",
			source: "github",
			unauthorized: "The X-Hub-Signature-256 header is missing or does not match this bot's secret.",
			missing: (request) => (signatureOf(request) === null ? "missing header" : null),
			forged: wrongSignature,
			read,
		},
		options,
	);
}
