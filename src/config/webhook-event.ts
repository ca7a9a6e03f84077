import { z } from "zod";

const Variables = z.object({
	WEBHOOK_PAYLOAD: z.string().min(1).max(2_000_000),
	WEBHOOK_ID: z.string().min(1).max(200).optional(),
	WEBHOOK_SECRET: z.string().max(1000).optional(),
});

/** What HF Jobs gives to a job that a webhook started. */
export type WebhookEvent = {
	/** The same when the Hub starts a job for it again; `null`: not told. */
	readonly id: string | null;
	readonly payload: string;
	readonly secret: string | null;
};

/** The event that this process was started for; `null`: it was started by somebody, without one. */
export function readWebhookEvent(env: Readonly<Record<string, string | undefined>> = process.env): WebhookEvent | null {
	const parsed = Variables.safeParse(env);
	if (!parsed.success) return null;
	const { WEBHOOK_PAYLOAD: payload, WEBHOOK_ID: id, WEBHOOK_SECRET: secret } = parsed.data;
	return { id: id ?? null, payload, secret: secret ?? null };
}
