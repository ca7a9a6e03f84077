import { schedule } from "node-cron";
import type { JobsContext } from "../jobs/context.ts";
import type { MessageQueue } from "./message-queue.ts";

/** Looks over the watched repos at once and at the configured times. `stop` ends that; `null` where it is switched off. */
export async function scheduleSweeps(
	{ configuration, clock, log }: JobsContext,
	queue: MessageQueue,
): Promise<{ stop(): Promise<void> } | null> {
	const { enabled, cron } = configuration.sweep;
	if (!enabled) return null;
	const task = schedule(
		cron,
		async ({ date }) => {
			// Every replica is triggered; the slot's row lets one of them through.
			const slot = `cron:${date.toISOString().slice(0, 19)}`;
			await queue.send("sweep", slot, { slot }, 0).catch((error: unknown) => {
				log.warn("A sweep could not be started", { error });
			});
		},
		{ timezone: "UTC", noOverlap: true },
	);
	const slot = `start:${clock.now().toISOString()}`;
	await queue.send("sweep", slot, { slot }, 0);
	return {
		async stop() {
			await task.destroy();
		},
	};
}
