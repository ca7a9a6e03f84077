import { countRuns, wakeNextInLine } from "../../db/admission.ts";
import { isBrokenConnection } from "../../db/broken-connection.ts";
import {
	appendNotes,
	cleanUpAgain,
	getJob,
	leaseJob,
	releaseLease,
	renewLease,
	traceOfJob,
	withdrawStop,
} from "../../db/jobs.ts";
import { failVariantsOfJob, listVariantsOfJob } from "../../db/variants.ts";
import { diskFull, isDiskFull } from "../../disk-full.ts";
import { assertNever, PermanentError, type Refusal, RetryableError } from "../../errors.ts";
import { inTrace } from "../../log.ts";
import { isFinished, type JobRecord, type JobState, type JobWork, type StopAs } from "../../records/job.ts";
import { type JobsContext, later } from "../context.ts";
import { keepLease, LEASE_SECONDS } from "../keep-lease.ts";
import { type StepName, stepOf } from "../transitions.ts";
import { announceStep } from "./announce.ts";
import { stopRun } from "./clean-up-job.ts";
import { dispatchStep } from "./dispatch.ts";
import { ingestStep } from "./ingest.ts";
import { pollStep } from "./poll.ts";
import { publishStep } from "./publish.ts";
import { advance, advanceIn, StaleJobError, type Step, type StepContext, type StepResult } from "./step-context.ts";
import { verifyStep } from "./verify.ts";

const MAXIMUM_RETRIES = 15;
/** Bugs seldom pass by themselves. */
const MAXIMUM_BUG_RETRIES = 3;
const MAXIMUM_DELAY_SECONDS = 300;

const STEPS: Readonly<Record<StepName, { readonly step: Step; readonly states: readonly JobState[] }>> = {
	dispatch: { step: dispatchStep, states: ["planned", "waiting", "dispatching"] },
	poll: { step: pollStep, states: ["running"] },
	ingest: { step: ingestStep, states: ["ingesting"] },
	verify: { step: verifyStep, states: ["verifying"] },
	publish: { step: publishStep, states: ["publishing"] },
	announce: { step: announceStep, states: ["announcing"] },
};

/** Steps that need the process, or the files, of the runner that has the run. */
const AT_RUNNER: readonly JobState[] = ["dispatching", "running", "ingesting"];

function stopped(stopAs: StopAs): { readonly event: "cancel" | "supersede"; readonly refusal: Refusal } {
	switch (stopAs) {
		case "cancelled":
			return {
				event: "cancel",
				refusal: { code: "cancelled", message: "The job was cancelled.", remedy: "Retry it when it is wanted again." },
			};
		case "superseded":
			return {
				event: "supersede",
				refusal: {
					code: "cancelled",
					message: "A newer commit was pushed before this one was done.",
					remedy: "Nothing: the newer commit has a job of its own.",
				},
			};
		default:
			return assertNever(stopAs);
	}
}

/** Ends a job on request, its run first; `null` when it is too late for that. */
async function stopJob(context: JobsContext, job: JobRecord, stopAs: StopAs): Promise<JobRecord | null> {
	const { database, owner } = context;
	const variants = await listVariantsOfJob(database.handle, job.id);
	const isLate =
		job.state === "announcing" ||
		(job.state === "publishing" && (stopAs === "superseded" || variants.some((one) => one.state === "published")));
	if (isLate) {
		await withdrawStop(database.handle, job.id, owner);
		return null;
	}
	await stopRun(context, job);
	const { event, refusal } = stopped(stopAs);
	return await database.transaction(async (tx) => {
		const moved = await advanceIn(tx, context, job, event, { statusText: refusal.message, set: { refusal } });
		await failVariantsOfJob(tx, job.id, refusal);
		return moved;
	});
}

async function failJob(context: JobsContext, job: JobRecord, refusal: Refusal): Promise<JobRecord> {
	try {
		await stopRun(context, job);
	} catch (error) {
		// An expired token lets nobody look for the run; the job must not wait for a new one to say so. The clean-up ends
		// the run when it can.
		if (!(error instanceof PermanentError)) throw error;
		context.log.warn("The run of a failed job cannot be ended yet", { job: job.id, error });
	}
	if (job.state === "announcing") return await advance(context, job, "announced", { statusText: refusal.message });
	return await context.database.transaction(async (tx) => {
		const moved = await advanceIn(tx, context, job, "fail", { statusText: refusal.message, set: { refusal } });
		await failVariantsOfJob(tx, job.id, refusal);
		return moved;
	});
}

/** What an exception of a step means for the job. */
function resultOfError(context: JobsContext, work: JobWork, error: unknown): StepResult {
	const failures = work.stepFailures + 1;
	const delay = Math.min(MAXIMUM_DELAY_SECONDS, 2 ** failures);
	if (error instanceof PermanentError) return { kind: "fail", refusal: error.refusal };
	if (isDiskFull(error)) return { kind: "fail", refusal: diskFull("the job's files") };
	const reason = error instanceof Error ? error.message : String(error);
	const isPassing = error instanceof RetryableError || isBrokenConnection(error);
	if (isPassing && failures <= MAXIMUM_RETRIES) {
		return {
			kind: "again",
			seconds: (error instanceof RetryableError ? error.retryAfterSeconds : null) ?? delay,
			statusText: `${reason} Trying again (${failures}).`,
		};
	}
	context.log.error("A step failed", { job: work.job.id, state: work.job.state, fence: work.job.fence, error });
	if (!isPassing && failures <= MAXIMUM_BUG_RETRIES) {
		return { kind: "again", seconds: delay, statusText: `Something went wrong; trying again (${failures}).` };
	}
	return {
		kind: "fail",
		refusal: {
			code: "internal",
			message: `The step "${stepOf(work.job.state)}" failed ${failures} times: ${reason.slice(0, 1000)}`,
			remedy: "Look at the bot's log for the cause, then retry the job.",
		},
	};
}

/** Does what is due for one job, if nobody else does. Safe to call at any time, any number of times, from anywhere. */
export async function runJobStep(context: JobsContext, step: StepName, jobId: string): Promise<void> {
	const { database, clock } = context;
	const { handle } = database;
	// Every call is an owner of its own: a call that stalls past its lease cannot pass for the one that took over.
	const owner = `${context.owner}:${context.newId()}`;
	const now = clock.now();
	const work = await leaseJob(handle, {
		id: jobId,
		states: STEPS[step].states,
		owner,
		now,
		until: later(now, LEASE_SECONDS),
	});
	if (work === null) return;
	await inTrace(await traceOfJob(handle, jobId), () => stepUnderLease(context, step, work, owner));
}

async function stepUnderLease(context: JobsContext, step: StepName, work: JobWork, owner: string): Promise<void> {
	const { database, clock, log } = context;
	const { handle } = database;
	const { job } = work;
	const jobId = job.id;
	if (AT_RUNNER.includes(job.state) && job.runner !== context.runner.name) {
		await releaseLease(handle, {
			id: jobId,
			owner,
			nextStepAt: clock.now(),
			stepFailures: work.stepFailures,
			statusText: null,
		});
		return;
	}

	const controller = new AbortController();
	let stopAs = work.stopAs;
	let isHeld = true;
	const renew = async () => {
		const renewed = await renewLease(handle, { id: jobId, owner, until: later(clock.now(), LEASE_SECONDS) });
		isHeld = renewed.held;
		stopAs = renewed.stopAs;
		if (!isHeld || (stopAs !== null && job.state !== "publishing")) controller.abort();
	};
	const release = keepLease(renew, log);
	const stepContext: StepContext = { ...context, owner, signal: controller.signal };

	let result: StepResult | null = null;
	try {
		if (stopAs !== null) {
			const ended = await stopJob(stepContext, job, stopAs);
			if (ended !== null) result = { kind: "moved", job: ended };
			else stopAs = null;
		}
		result ??= await STEPS[step].step(stepContext, work);
	} catch (error) {
		// A call that slept past its lease fails on what its successor cleared away, before any heartbeat told it so.
		await renew().catch((problem: unknown) => log.warn("A lease could not be renewed", { error: problem }));
		if (error instanceof StaleJobError || !isHeld) {
			await dropLate(context, work, step);
		} else if (controller.signal.aborted && stopAs !== null) {
			result = await endStopped(stepContext, jobId, stopAs);
		} else {
			result = resultOfError(context, work, error);
		}
	} finally {
		await release();
	}
	if (result !== null) await settle(stepContext, work, step, result);
}

/** The step may have moved the job before it was interrupted, so that the row is read again. */
async function endStopped(context: StepContext, jobId: string, stopAs: StopAs): Promise<StepResult | null> {
	const current = await getJob(context.database.handle, jobId);
	if (current === null || isFinished(current.state)) return null;
	const ended = await stopJob(context, current, stopAs);
	return ended === null ? { kind: "again", seconds: 0, statusText: null } : { kind: "moved", job: ended };
}

async function settle(context: StepContext, work: JobWork, step: StepName, result: StepResult): Promise<void> {
	const { database, clock, owner } = context;
	const { handle } = database;
	try {
		switch (result.kind) {
			case "moved":
				await follow(context, work.job, result.job);
				return;
			case "again": {
				const nextStepAt = later(clock.now(), result.seconds);
				const isFailure = result.statusText !== null && work.job.state !== "waiting";
				if (isFailure && result.statusText !== null) {
					await database.transaction((tx) =>
						appendNotes(tx, { job: work.job, owner, notes: [result.statusText ?? ""], now: clock.now() }),
					);
				}
				await releaseLease(handle, {
					id: work.job.id,
					owner,
					nextStepAt,
					stepFailures: isFailure ? work.stepFailures + 1 : 0,
					statusText: result.statusText,
				});
				await context.wake({ kind: "step", step, jobId: work.job.id, runner: work.job.runner }, nextStepAt);
				return;
			}
			case "fail": {
				const current = (await getJob(handle, work.job.id)) ?? work.job;
				if (isFinished(current.state)) return;
				await follow(context, work.job, await failJob(context, current, result.refusal));
				return;
			}
			default:
				assertNever(result);
		}
	} catch (error) {
		if (!(error instanceof StaleJobError)) throw error;
		await dropLate(context, work, step);
	}
}

/** Nothing of a step that stalled is recorded; what it left outside goes with the next clean-up. */
async function dropLate(context: JobsContext, work: JobWork, step: StepName): Promise<void> {
	const { database, clock, log } = context;
	const { id, fence } = work.job;
	log.warn("A step's outcome came too late and was dropped", { job: id, step, fence });
	const now = clock.now();
	if (await cleanUpAgain(database.handle, id, now)) await context.wake({ kind: "outbox", jobId: id }, now);
}

/** Wakes as many of those in line as there are free slots. */
export async function wakeLine(context: JobsContext, now: Date): Promise<void> {
	const { handle } = context.database;
	const free = context.configuration.runner.concurrency - (await countRuns(handle, context.runner.name, null));
	for (const id of await wakeNextInLine(handle, now, free)) {
		await context.wake({ kind: "step", step: "dispatch", jobId: id, runner: "" }, now);
	}
}

/** Tells the queue what a move made due. */
async function follow(context: JobsContext, before: JobRecord, after: JobRecord): Promise<void> {
	const now = context.clock.now();
	const { id: job, sourceRepo, fence } = after;
	context.log.info("A job went on", { job, source: sourceRepo, fence, from: before.state, to: after.state });
	const next = stepOf(after.state);
	if (next !== null && after.state !== "waiting") {
		await context.wake({ kind: "step", step: next, jobId: after.id, runner: after.runner }, now);
	}
	await context.wake({ kind: "outbox", jobId: after.id }, now);
	const heldRunner = before.state === "running" || before.state === "dispatching";
	if ((heldRunner || isFinished(after.state)) && after.state !== "running") {
		await wakeLine(context, now);
	}
}
