import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { type Clock, systemClock } from "../clock.ts";
import { createCommentHandler, createReplier } from "../commands/comment-answers.ts";
import { jobRequests } from "../commands/job-requests.ts";
import { joinCommentHandlers, joinRepliers } from "../commands/join-answers.ts";
import type { Database } from "../db/database.ts";
import type { DeliveriesContext } from "../deliveries/deliveries-context.ts";
import type { JobsContext } from "../jobs/context.ts";
import { createEstimator } from "../jobs/estimate/estimator.ts";
import type { Log } from "../log.ts";
import { createEngine, type Engine } from "../queue/engine.ts";
import { createMessageQueue } from "../queue/message-queue.ts";
import { createWake } from "../queue/wake.ts";
import type { Metrics } from "../web/metrics.ts";
import { buildPorts } from "./build-ports.ts";
import { answerRecords, commentSettings } from "./comment-records.ts";
import { createRunner } from "./create-runner.ts";
import { publisherAccess, readAccess } from "./hub-access.ts";
import { discussionForum } from "./hub-answers.ts";
import { issueForum, issueRepos } from "./issue-answers.ts";
import { leasedLock } from "./leased-lock.ts";
import { configuredMachines, measuredRates } from "./machines.ts";
import type { Progress } from "./progress-channel.ts";
import type { Settings } from "./settings.ts";
import { timed, timedPorts } from "./timed-ports.ts";

/** Estimates with the machines there are at that moment, and with what earlier jobs measured. */
function estimatorOf({ configuration, secrets }: Settings, database: Database): NonNullable<JobsContext["estimator"]> {
	const reader = readAccess(configuration, secrets);
	return async () => {
		const machines = await configuredMachines(configuration, reader);
		return machines === null ? null : createEstimator(configuration, machines, await measuredRates(database.handle));
	};
}

/** Where comments are read and answered: the Hub, and GitHub if repos of it are configured. */
function forumsOf({ configuration, secrets, publisherToken }: Settings, database: Database, clock: Clock, log: Log) {
	const shared = { alone: leasedLock({ database, clock, log }), log };
	const publisher = { ...publisherAccess(configuration, secrets), accessToken: publisherToken };
	const issues = issueRepos(configuration, secrets);
	return {
		hub: { ...discussionForum(configuration, publisher), ...commentSettings(configuration, "hub"), ...shared },
		github:
			issues === null
				? null
				: {
						...issueForum(configuration, issues, readAccess(configuration, secrets)),
						...commentSettings(configuration, "github"),
						...shared,
					},
	};
}

/** The engine, and the context that requests and deliveries from outside are taken up with. */
export function buildEngine(options: {
	readonly settings: Settings;
	readonly database: Database;
	readonly progress: Progress;
	readonly metrics: Metrics;
	readonly log: Log;
}): { readonly engine: Engine; readonly context: DeliveriesContext } {
	const { settings, database, progress, metrics, log } = options;
	const { configuration, secrets } = settings;
	const clock = systemClock;
	const forums = forumsOf(settings, database, clock, log);
	const reply = joinRepliers(createReplier(forums.hub), forums.github === null ? null : createReplier(forums.github));
	const queue = createMessageQueue({ database, log });
	const jobs: JobsContext = {
		database,
		clock,
		log,
		configuration,
		ports: timedPorts({ ...buildPorts(settings), reply }, metrics, clock),
		runner: createRunner(configuration, secrets, progress.channel, log),
		estimator: estimatorOf(settings, database),
		newId: randomUUID,
		owner: `${hostname()}:${process.pid}:${randomUUID()}`,
		wake: createWake({ queue, clock, log }),
	};
	const records = {
		...answerRecords({ database, clock, limits: configuration.requests.strangerAnswers }),
		...jobRequests(jobs),
	};
	const handleComment = joinCommentHandlers(
		createCommentHandler({ ...forums.hub, ...records }),
		forums.github === null ? null : createCommentHandler({ ...forums.github, ...records }),
	);
	const context = { ...jobs, handleComment: timed({ metrics, clock }, "comment", handleComment) };
	return { engine: createEngine({ context, queue, onTidied: metrics.setKept }), context };
}
