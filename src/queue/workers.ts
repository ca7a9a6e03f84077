import { z } from "zod";
import type { DeliveriesContext } from "../deliveries/deliveries-context.ts";
import { processDelivery } from "../deliveries/process-delivery.ts";
import { runJobStep } from "../jobs/steps/run-job-step.ts";
import { runOutbox } from "../jobs/steps/run-outbox.ts";
import { storeDueSketch } from "../jobs/stored-sketches.ts";
import { sweepSlot } from "../jobs/sweep.ts";
import type { StepName } from "../jobs/transitions.ts";
import { queueOfStep } from "./queue-names.ts";

/** Who takes what from which queue. */
type Worker = {
	readonly queue: string;
	/** How many messages are worked on side by side. */
	readonly concurrency: number;
	/** How many are taken at once, to be worked on one by one; those of a dead worker are sent again by the supervisor. */
	readonly batch: number;
	readonly work: (message: object) => Promise<unknown>;
};

const JobMessage = z.object({ jobId: z.uuid() });
const DeliveryMessage = z.object({ deliveryId: z.uuid() });
const SketchMessage = z.object({ repo: z.string(), sha: z.string(), fingerprint: z.string() });
const SlotMessage = z.object({ slot: z.string().min(1).max(100) });

/** Where the work is over in a moment. */
const SHORT = 4;

/** Every queue, and what is done with its messages. */
export function workersOf(context: DeliveriesContext): readonly Worker[] {
	const { runner, configuration } = context;
	const step = (name: StepName, concurrency: number, batch: number): Worker => ({
		queue: queueOfStep(name, runner.name),
		concurrency,
		batch,
		work: (message) => runJobStep(context, name, JobMessage.parse(message).jobId),
	});
	return [
		{
			queue: "deliver",
			concurrency: 2,
			batch: 1,
			work: (message) => processDelivery(context, DeliveryMessage.parse(message).deliveryId),
		},
		step("dispatch", 2, SHORT),
		step("poll", configuration.runner.concurrency, SHORT),
		step("ingest", 1, 1),
		step("verify", 1, 1),
		step("publish", 1, 1),
		step("announce", 1, SHORT),
		{
			queue: "outbox",
			concurrency: 1,
			batch: SHORT,
			work: (message) => runOutbox(context, JobMessage.parse(message).jobId),
		},
		{
			queue: "sketch",
			concurrency: 1,
			batch: 1,
			work: (message) => storeDueSketch(context, SketchMessage.parse(message)),
		},
		{
			queue: "sweep",
			concurrency: 1,
			batch: 1,
			work: (message) => sweepSlot(context, SlotMessage.parse(message).slot),
		},
	];
}
