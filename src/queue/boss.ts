import { PgBoss } from "pg-boss";
import type { Database } from "../db/database.ts";
import type { Log } from "../log.ts";

/**
 * pg-boss as transport: its jobs only say where to look, the rows are the truth. A message that is lost, late or double
 * changes nothing, so messages are never retried by the queue.
 */
export type MessageQueue = {
	/** Opens every queue and fills pg-boss's cache of them: looking one up inside a transaction would never return. */
	open(names: readonly string[]): Promise<void>;
	send(name: string, key: string, data: object, at: Date): Promise<void>;
	work<Data extends object>(
		name: string,
		options: { readonly concurrency: number; readonly batch: number },
		handler: (data: Data) => Promise<void>,
	): Promise<void>;
	/** No new work; waits for what runs. */
	stop(deadlineMs: number): Promise<void>;
};

const MESSAGE_EXPIRES_SECONDS = 24 * 3600;

export async function startQueue(options: { readonly database: Database; readonly log: Log }): Promise<MessageQueue> {
	const { database, log } = options;
	const boss = new PgBoss({
		...database.queueOptions,
		schema: "yaqa_queue",
		schedule: false,
		useListenNotify: true,
		superviseIntervalSeconds: 30,
		monitorIntervalSeconds: 60,
		monitorVacuum: false,
		reindex: false,
	});
	boss.on("error", (error) => log.warn("The queue reported an error", { error }));
	await boss.start();
	return {
		async open(names) {
			for (const name of names) {
				await boss.createQueue(name, {
					// At most one waiting message a key; whoever works on it asks the row.
					policy: "short",
					retryLimit: 0,
					expireInSeconds: MESSAGE_EXPIRES_SECONDS,
					retentionSeconds: 24 * 3600,
					deleteAfterSeconds: 60,
					notify: true,
				});
				await boss.getQueue(name);
			}
		},
		async send(name, key, data, at) {
			const delaySeconds = (at.getTime() - Date.now()) / 1000;
			await boss.send(name, data, {
				singletonKey: key,
				...(delaySeconds > 0.05 ? { startAfter: at } : {}),
			});
		},
		async work(name, { concurrency, batch }, handler) {
			await boss.work<Parameters<typeof handler>[0]>(
				name,
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
							await handler(message.data);
						} catch (error) {
							log.error("A queue handler failed", { queue: name, error });
						}
					}
				},
			);
		},
		async stop(deadlineMs) {
			await boss.stop({ graceful: true, close: true, timeout: Math.max(1000, deadlineMs) });
		},
	};
}
