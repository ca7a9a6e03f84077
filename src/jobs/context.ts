import type { Clock } from "../clock.ts";
import type { Configuration } from "../config/schema.ts";
import type { Database } from "../db/database.ts";
import type { Log } from "../log.ts";
import type { Runner } from "../runners/runner.ts";
import type { Estimator } from "./estimate/estimator.ts";
import type { Ports } from "./ports.ts";
import type { StepName } from "./transitions.ts";

/** Something to do, for whoever takes it from the queue. The rows say what; this only says where to look. */
export type Work =
	| { readonly kind: "step"; readonly step: StepName; readonly jobId: string; readonly runner: string }
	| { readonly kind: "outbox"; readonly jobId: string }
	| { readonly kind: "delivery"; readonly deliveryId: string }
	| { readonly kind: "sketch"; readonly repo: string; readonly sha: string; readonly fingerprint: string };

/** What the job functions are given. */
export type JobsContext = {
	readonly database: Database;
	readonly clock: Clock;
	readonly log: Log;
	readonly configuration: Configuration;
	readonly ports: Ports;
	readonly runner: Runner;
	/** Estimates jobs on the machines there are; `null` where nobody asks. Machines are looked up anew each time. */
	readonly estimator?: (() => Promise<Estimator | null>) | null;
	readonly newId: () => string;
	/** Names this process in leases. */
	readonly owner: string;
	/** Tells the queue of due work. A lost call costs seconds: the supervisor finds the row. */
	readonly wake: (work: Work, at: Date) => Promise<void>;
};

export function later(now: Date, seconds: number): Date {
	return new Date(now.getTime() + seconds * 1000);
}
