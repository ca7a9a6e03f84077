import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { type Clock, systemClock } from "../../src/clock.ts";
import type { CommentHandler } from "../../src/commands/comment-handler.ts";
import { jobRequests } from "../../src/commands/job-requests.ts";
import type { Configuration } from "../../src/config/schema.ts";
import type { Database } from "../../src/db/database.ts";
import type { DeliveriesContext } from "../../src/deliveries/deliveries-context.ts";
import { type StoreDelivery, storeDelivery } from "../../src/deliveries/store-delivery.ts";
import { approveJob } from "../../src/jobs/approve-job.ts";
import type { JobsContext } from "../../src/jobs/context.ts";
import type { Ports } from "../../src/jobs/ports.ts";
import { type SweepReport, sweep } from "../../src/jobs/sweep.ts";
import { type Log, silentLog } from "../../src/log.ts";
import { createEngine, type Engine } from "../../src/queue/engine.ts";
import { createMessageQueue } from "../../src/queue/message-queue.ts";
import { createWake } from "../../src/queue/wake.ts";
import type { Runner } from "../../src/runners/runner.ts";

/** The engine together with everything that is asked of a running bot, on one context. */
export type EngineWithRequests = Engine &
	ReturnType<typeof jobRequests> & {
		readonly storeDelivery: StoreDelivery;
		readonly approveJob: (id: string) => ReturnType<typeof approveJob>;
		readonly sweepNow: () => Promise<SweepReport>;
	};

export function engineWithRequests(options: {
	readonly database: Database;
	readonly configuration: Configuration;
	readonly ports: Ports;
	readonly handleComment?: CommentHandler;
	readonly runner: Runner;
	readonly estimator?: JobsContext["estimator"];
	readonly log?: Log;
	readonly newId?: () => string;
	readonly superviseIntervalMs?: number;
	readonly clock?: Clock;
}): EngineWithRequests {
	const { database, log = silentLog, newId = randomUUID, clock = systemClock } = options;
	const queue = createMessageQueue({ database, log });
	const context: DeliveriesContext = {
		database,
		clock,
		log,
		configuration: options.configuration,
		ports: options.ports,
		runner: options.runner,
		estimator: options.estimator ?? null,
		newId,
		owner: `${hostname()}:${process.pid}:${newId()}`,
		wake: createWake({ queue, clock, log }),
		handleComment: options.handleComment ?? (async () => ({ outcome: "ignored", detail: "nobody answers comments" })),
	};
	const engine = createEngine({
		context,
		queue,
		...(options.superviseIntervalMs === undefined ? {} : { superviseIntervalMs: options.superviseIntervalMs }),
	});
	return {
		...engine,
		...jobRequests(context),
		storeDelivery: (delivery) => storeDelivery(context, delivery),
		approveJob: (id) => approveJob(context, id),
		sweepNow: () => sweep(context),
	};
}
