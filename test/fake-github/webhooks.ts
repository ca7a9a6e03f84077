import { createHmac, randomUUID } from "node:crypto";

/** How deliveries reach the bot: as a rule once and in order, and sometimes in no way that one would choose. */
export type DeliveryMode = "once" | "twice-and-backwards";

type Delivery = { readonly id: string; readonly event: string; readonly body: string };

export type WebhookSender = {
	/** From now on events go there, signed with the secret. */
	sendTo(hook: { readonly url: string; readonly secret: string; readonly mode: DeliveryMode }): void;
	/** `isLast`: nothing more comes of this subject. */
	emit(subject: string, event: string, payload: object, isLast: boolean): void;
	/** Status codes of the answers, in the order they came. */
	readonly answers: readonly number[];
	/** Waits until everything sent was answered. */
	settle(): Promise<void>;
};

/** GitHub's side of a webhook: signs the bytes it sends, names each delivery, never sends again. */
export function createWebhookSender(): WebhookSender {
	let hook: Parameters<WebhookSender["sendTo"]>[0] | null = null;
	let sending: Promise<void> = Promise.resolve();
	const held = new Map<string, Delivery[]>();
	const answers: number[] = [];

	function send(delivery: Delivery): void {
		const target = hook;
		if (target === null) return;
		sending = sending.then(async () => {
			try {
				const response = await fetch(target.url, {
					method: "POST",
					headers: {
						"Content-Type": "application/json",
						"X-GitHub-Event": delivery.event,
						"X-GitHub-Delivery": delivery.id,
						"X-Hub-Signature-256": `sha256=${createHmac("sha256", target.secret).update(delivery.body).digest("hex")}`,
					},
					body: delivery.body,
				});
				await response.body?.cancel();
				answers.push(response.status);
			} catch {
				answers.push(0);
			}
		});
	}

	return {
		answers,
		sendTo(given) {
			hook = given;
		},
		emit(subject, event, payload, isLast) {
			const delivery = { id: randomUUID(), event, body: JSON.stringify(payload) };
			if (hook?.mode !== "twice-and-backwards") {
				send(delivery);
				return;
			}
			const waiting = [...(held.get(subject) ?? []), delivery];
			held.set(subject, waiting);
			if (!isLast) return;
			held.delete(subject);
			for (const one of waiting.toReversed().flatMap((each) => [each, each])) send(one);
		},
		settle: () => sending,
	};
}
