import { randomBytes } from "node:crypto";
import { systemClock } from "../clock.ts";
import type { Configuration } from "../config/schema.ts";
import type { Database } from "../db/database.ts";
import { deletePushedEvents, insertPushedEvents, listPushedEvents, signingKey } from "../db/pushed-events.ts";
import { RunnerEvent } from "../protocol/events.ts";
import { isProgressToken, progressToken } from "../runners/progress-token.ts";
import type { ProgressChannel } from "../runners/remote-runner.ts";
import type { ProgressIngestOptions } from "../web/routes/progress-ingest.ts";

/** A run may wait for its machine for so long before its own time begins. */
const QUEUE_SECONDS = 2 * 3600;
const BATCH = 1000;

/** Both ends of what runs tell of themselves: the grant that goes out with a job, and the door it opens. */
export type Progress = {
	/** `null` without a public address. */
	readonly channel: ProgressChannel | null;
	readonly door: Pick<ProgressIngestOptions, "isAllowed" | "store">;
};

export async function openProgress(configuration: Configuration, database: Database): Promise<Progress> {
	const { handle } = database;
	const key = await signingKey(handle, "progress", randomBytes(32).toString("hex"), systemClock.now());
	const { publicUrl } = configuration.server;
	const lifetime = (configuration.runner.timeoutSeconds + QUEUE_SECONDS) * 1000;
	return {
		channel:
			publicUrl === null
				? null
				: {
						grant: (attempt) => ({
							url: `${publicUrl}/api/runs/${attempt.job}/${attempt.fence}/events`,
							token: progressToken(key, attempt, new Date(systemClock.now().getTime() + lifetime)),
						}),
						async read(attempt, after) {
							const rows = await listPushedEvents(handle, attempt, after, BATCH);
							return rows.flatMap(({ number, body }) => {
								const event = RunnerEvent.safeParse(body);
								return event.success ? [{ number, event: event.data }] : [];
							});
						},
						forget: (attempt) => deletePushedEvents(handle, attempt),
					},
		door: {
			isAllowed: (attempt, token) => isProgressToken(key, attempt, token, systemClock.now()),
			store: (attempt, events) => insertPushedEvents(handle, attempt, events),
		},
	};
}
