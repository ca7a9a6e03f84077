import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import type { Clock } from "../clock.ts";
import type { AnswerOptions } from "../commands/answer-options.ts";
import type { Host } from "../commands/host.ts";
import { createKeyedLock, type KeyedLock } from "../commands/keyed-lock.ts";
import type { Configuration } from "../config/schema.ts";
import type { Database } from "../db/database.ts";
import { listJobs } from "../db/jobs.ts";
import { acquireLease, releaseLease } from "../db/leases.ts";
import { countCommentRequests, listRequestsOfJob, setReplyComment } from "../db/requests.ts";
import { listVariantsOfSource } from "../db/variants.ts";
import { RetryableError } from "../errors.ts";
import { recipesOfRules } from "../jobs/watch-rules.ts";
import type { Log } from "../log.ts";

const LEASE_SECONDS = 120;
const WAIT_SECONDS = 20;
const DAY_SECONDS = 86_400;
const JOBS_SHOWN = 50;

/** Who may ask for what, as the configuration says. */
export function commentSettings(
	configuration: Configuration,
	host: Host = "hub",
): Pick<AnswerOptions, "defaultRecipes" | "calibration" | "allow" | "ignore" | "strangers" | "quota" | "host"> {
	const { requests, watch, quantization } = configuration;
	return {
		host,
		defaultRecipes: (repo) => recipesOfRules(watch, repo).map((recipe) => recipe.canonical),
		calibration: quantization.calibration.kind,
		allow: host === "hub" ? requests.allow : requests.github.allow,
		ignore: requests.ignore,
		strangers: requests.strangers,
		quota: requests.quota,
	};
}

/**
 * Work of the same key one after the other, across all processes on the database: two replicas that hear of one comment
 * at the same moment would else both find no answer and post two.
 */
export function leasedLock(options: { readonly database: Database; readonly clock: Clock }): KeyedLock {
	const { database, clock } = options;
	const within = createKeyedLock();
	return (key, work) =>
		within(key, async () => {
			const name = `thread ${key}`;
			const owner = `${hostname()}:${process.pid}:${randomUUID()}`;
			for (let waited = 0; ; waited += 0.2) {
				const now = clock.now();
				const until = new Date(now.getTime() + LEASE_SECONDS * 1000);
				if (await acquireLease(database.handle, { name, owner, now, until })) break;
				if (waited >= WAIT_SECONDS) {
					throw new RetryableError("Another process answers in this thread.", { retryAfterSeconds: 5 });
				}
				await sleep(200);
			}
			try {
				return await work();
			} finally {
				await releaseLease(database.handle, { name, owner });
			}
		});
}

/** What answering reads and keeps in the database. */
export function answerRecords(options: {
	readonly database: Database;
	readonly clock: Clock;
	readonly log: Log;
}): Pick<AnswerOptions, "countRequests" | "requestersOf" | "rememberReply" | "statusOf" | "alone"> {
	const { database, clock } = options;
	const { handle } = database;
	return {
		countRequests: (requester) =>
			countCommentRequests(handle, { requester, since: new Date(clock.now().getTime() - DAY_SECONDS * 1000) }),
		requestersOf: async (jobId) =>
			(await listRequestsOfJob(handle, jobId)).map((request) =>
				request.kind === "comment" ? request.requester : null,
			),
		rememberReply: (request, id) => setReplyComment(handle, request, id),
		statusOf: async (sourceRepo) => ({
			jobs: (await listJobs(handle, { sourceRepo, limit: JOBS_SHOWN })).items,
			variants: await listVariantsOfSource(handle, sourceRepo),
		}),
		alone: leasedLock({ database, clock }),
	};
}
