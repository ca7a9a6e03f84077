import type { Clock } from "../clock.ts";
import type { JobsContext, Work } from "../jobs/context.ts";
import type { Log } from "../log.ts";
import type { MessageQueue } from "./message-queue.ts";
import { queueOfStep } from "./queue-names.ts";

/** What is due later than this is found by the supervisor. */
const SEND_AHEAD_MS = 2000;

function sendOf(queue: Pick<MessageQueue, "send">, work: Work, delaySeconds: number): Promise<void> {
	switch (work.kind) {
		case "step":
			return queue.send(queueOfStep(work.step, work.runner), work.jobId, { jobId: work.jobId }, delaySeconds);
		case "outbox":
			return queue.send("outbox", work.jobId, { jobId: work.jobId }, delaySeconds);
		case "sketch": {
			const { kind: _, ...identity } = work;
			return queue.send("sketch", `${work.repo} ${work.sha} ${work.fingerprint}`, identity, delaySeconds);
		}
		case "delivery":
			return queue.send("deliver", work.deliveryId, { deliveryId: work.deliveryId }, delaySeconds);
	}
}

/** Sends a message for work that is due now or at once. */
export function createWake(options: {
	readonly queue: Pick<MessageQueue, "send">;
	readonly clock: Clock;
	readonly log: Log;
}): JobsContext["wake"] {
	const { queue, clock, log } = options;
	return async (work, at) => {
		// A waiting message bars every later one for the same row, so that only near ones are sent ahead of time.
		const delayMs = at.getTime() - clock.now().getTime();
		if (delayMs > SEND_AHEAD_MS) return;
		try {
			await sendOf(queue, work, delayMs / 1000);
		} catch (error) {
			// The row says what is due; the supervisor sends again.
			log.warn("A queue message could not be sent", { work, error });
		}
	};
}
