import type { Router } from "express";
import express from "express";
import { z } from "zod";
import type { Log } from "../../log.ts";
import type { Attempt } from "../../records/attempt.ts";
import { type NumberedEvent, parseEventLine } from "../../runners/run-events.ts";
import { readBody, refuseDelivery } from "../read-body.ts";

const Path = z.object({ job: z.uuid(), fence: z.coerce.number().int().min(1).max(999_999_999) });
const BEARER = /^Bearer ([\x21-\x7e]{1,200})$/;
/** A run that tells of more is not believed. */
const HIGHEST_NUMBER = 100_000;

export type ProgressIngestOptions = {
	readonly maxBodyBytes: number;
	readonly isAllowed: (attempt: Attempt, token: string) => boolean;
	/** `false`: the attempt is not under way. */
	readonly store: (attempt: Attempt, events: readonly NumberedEvent[]) => Promise<boolean>;
	readonly log: Log;
};

/**
 * `POST /api/runs/JOB/FENCE/events`: a run elsewhere tells of its progress, one event a line, with the token that came
 * with its job. Results do not count here: they come with the files.
 */
export function progressIngest(options: ProgressIngestOptions): Router {
	const { maxBodyBytes, isAllowed, store, log } = options;
	const router = express.Router();
	router.post("/api/runs/:job/:fence/events", async (request, response) => {
		const path = Path.safeParse(request.params);
		const [, token] = BEARER.exec(request.get("authorization") ?? "") ?? [];
		if (!path.success || token === undefined || !isAllowed(path.data, token)) {
			refuseDelivery(response, 401, "The token is not one for this attempt, or has expired.");
			return;
		}
		const attempt = path.data;
		const bytes = await readBody(request, maxBodyBytes);
		if (bytes === null) {
			refuseDelivery(response, 413, `At most ${maxBodyBytes} bytes at once.`);
			return;
		}
		const events = bytes
			.toString("utf8")
			.split("\n")
			.flatMap((line) => {
				const event = line === "" ? null : parseEventLine(line, attempt);
				const number = event?.number;
				const isUsable = event !== null && event.event !== "result" && number !== undefined;
				return isUsable && number <= HIGHEST_NUMBER ? [{ number, event }] : [];
			});
		try {
			if (await store(attempt, events)) response.status(204).end();
			else refuseDelivery(response, 410, "The attempt is not under way.");
		} catch (error) {
			log.error("Progress of a run could not be stored", { job: attempt.job, error });
			refuseDelivery(response, 503, "The events could not be stored; send them again.");
		}
	});
	return router;
}
