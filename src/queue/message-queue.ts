import { PgBoss } from "pg-boss";
import type { Database } from "../db/database.ts";
import type { Log } from "../log.ts";

/**
 * pg-boss as transport: its jobs only say where to look, the rows are the truth. A message that is lost, late or double
 * changes nothing, so messages are never retried by the queue.
 */
export type MessageQueue = {
	/** Opens every queue and fills pg-boss's cache of them: looking one up inside a transaction would never return. */
	start(names: readonly string[]): Promise<void>;
	/** Before `start` and after `stop` nothing is sent: rows that are due are found at the next start. */
	send(name: string, key: string, data: object, delaySeconds: number): Promise<void>;
	work(options: {
		readonly queue: string;
		readonly concurrency: number;
		readonly batch: number;
		readonly work: (message: object) => Promise<unknown>;
	}): Promise<void>;
	/** Drops every message that nobody has taken yet: rows that are due are found by the next look. */
	forgetWaiting(): Promise<void>;
	/** No new work; waits for what runs. */
	stop(deadlineMs: number): Promise<void>;
};

const MESSAGE_EXPIRES_SECONDS = 24 * 3600;

const QUEUE_OPTIONS = {
	// At most one waiting message a key; whoever works on it asks the row.
	policy: "short",
	retryLimit: 0,
	expireInSeconds: MESSAGE_EXPIRES_SECONDS,
	retentionSeconds: 24 * 3600,
	deleteAfterSeconds: 60,
	notify: true,
} as const;

export function createMessageQueue(options: { readonly database: Database; readonly log: Log }): MessageQueue {
	const { database, log } = options;
	let boss: PgBoss | null = null;
	let queues: readonly string[] = [];
	return {
		async start(names) {
			queues = names;
			const starting = new PgBoss({
				...database.queueOptions,
				schema: "yaqa_queue",
				schedule: false,
				useListenNotify: true,
				superviseIntervalSeconds: 30,
				monitorIntervalSeconds: 60,
				monitorVacuum: false,
				reindex: false,
			});
			starting.on("error", (error) => log.warn("The queue reported an error", { error }));
			await starting.start();
			for (const name of names) {
				await starting.createQueue(name, QUEUE_OPTIONS);
				await starting.getQueue(name);
			}
			boss = starting;
		},
		async send(name, key, data, delaySeconds) {
			// A span and not a time: by a clock that is ahead, the message would bar every later one of its key for as long.
			await boss?.send(name, data, {
				singletonKey: key,
				...(delaySeconds > 0.05 ? { startAfter: delaySeconds } : {}),
			});
		},
		async work({ queue, concurrency, batch, work }) {
			await boss?.work<object>(
				queue,
				{
					localConcurrency: concurrency,
					// One fetch a second would be one step a second: while batches come back full the next follows at once.
					batchSize: batch,
					burstWhenBatchFull: true,
					pollingIntervalSeconds: 1,
					notifyPollingIntervalSeconds: 1,
				},
				async (messages) => {
					for (const message of messages) {
						try {
							await work(message.data);
						} catch (error) {
							log.error("A queue handler failed", { queue, error });
						}
					}
				},
			);
		},
		async forgetWaiting() {
			for (const name of queues) await boss?.deleteQueuedJobs(name);
		},
		async stop(deadlineMs) {
			const stopping = boss;
			await stopping?.stop({ graceful: true, close: true, timeout: Math.max(1000, deadlineMs) });
			boss = null;
		},
	};
}
