import { appendRunnerEvents } from "../../db/jobs.ts";
import { assertNever, type Refusal } from "../../errors.ts";
import type { RunnerEvent, StageName } from "../../protocol/events.ts";
import type { JobWork } from "../../records/job.ts";
import { later } from "../context.ts";
import { advance, StaleJobError, type Step, type StepContext, type StepResult } from "./step-context.ts";

const POLL_SECONDS = 1;
const BATCH = 400;
/** Past this many events of one run, progress is no longer kept: the page shows the newest only. */
const MAXIMUM_PROGRESS_EVENTS = 50_000;

const STAGE_TEXT: Readonly<Record<StageName, string>> = {
	load: "Loading the model",
	calibrate: "Preparing calibration text",
	sketch: "Sketching",
	round: "Rounding",
	tune: "Tuning the scales",
	export: "Writing files",
	evaluate: "Measuring",
	gate: "Choosing",
	finish: "Finishing",
};

function statusOf(events: readonly RunnerEvent[]): string | null {
	const last = events.findLast((event) => event.event === "progress" || event.event === "stage");
	switch (last?.event) {
		case "progress":
			return `${STAGE_TEXT[last.stage]}: ${last.done} of ${last.total} ${last.unit}.`;
		case "stage":
			return `${STAGE_TEXT[last.stage]}${last.status === "started" ? "" : `: ${last.status}`}.`;
		default:
			return null;
	}
}

/** Takes over every event the runner has written by now. */
async function takeEvents(context: StepContext, work: JobWork, handle: string): Promise<void> {
	const { database, runner, clock } = context;
	let seen = work.runnerEventsSeen;
	for (;;) {
		const batch = (await runner.events(handle, seen)).slice(0, BATCH);
		const last = batch.at(-1);
		if (last === undefined) return;
		const kept = batch
			.map((numbered) => numbered.event)
			.filter((event) => event.event !== "progress" || seen < MAXIMUM_PROGRESS_EVENTS);
		const after = seen;
		const taken = await database.transaction((tx) =>
			appendRunnerEvents(tx, {
				jobId: work.job.id,
				fence: work.job.fence,
				owner: context.owner,
				after,
				last: last.number,
				events: kept,
				statusText: statusOf(kept),
				now: clock.now(),
			}),
		);
		if (!taken) throw new StaleJobError(`Job ${work.job.id} moved on while its events were read.`);
		seen = last.number;
		context.signal.throwIfAborted();
	}
}

/** Another attempt when one may help, else the end. */
export async function runLost(
	context: StepContext,
	work: JobWork,
	refusal: Refusal,
	retryable: boolean,
): Promise<StepResult> {
	const { runner, configuration, clock } = context;
	const attempts = configuration.runner.attempts;
	if (!retryable) return { kind: "fail", refusal };
	if (work.runAttempts >= attempts) {
		return {
			kind: "fail",
			refusal: { ...refusal, message: `${refusal.message} It was tried ${work.runAttempts} times.` },
		};
	}
	const { job } = work;
	if (job.runnerHandle !== null) {
		await runner.cancel(job.runnerHandle);
		await runner.setAside(job.runnerHandle);
	}
	const moved = await advance(context, job, "lost", {
		statusText: `The run was lost (${refusal.code}); attempt ${work.runAttempts + 1} of ${attempts} follows.`,
		nextStepAt: later(clock.now(), 2 * work.runAttempts),
		set: { runnerHandle: null },
	});
	return { kind: "moved", job: moved };
}

/** running → ingesting, or another look in a second. */
export const pollStep: Step = async (context, work) => {
	const { runner } = context;
	const { job } = work;
	const handle = job.runnerHandle ?? (await runner.find(job.id, job.fence));
	if (handle === null) {
		return await runLost(
			context,
			work,
			{ code: "runner-lost", message: "The run cannot be found.", remedy: "Retry the job." },
			true,
		);
	}
	const observation = await runner.observe(handle, work.hintAt);
	await takeEvents(context, work, handle);
	switch (observation.status) {
		case "running":
			return { kind: "again", seconds: POLL_SECONDS, statusText: null };
		case "lost":
			return await runLost(context, work, observation.refusal, observation.retryable);
		case "finished": {
			const { result } = observation;
			if (!result.ok) {
				const { code, message, remedy } = result.error;
				return await runLost(context, work, { code, message, remedy }, code === "interrupted");
			}
			const moved = await advance(context, job, "finished", { statusText: "Taking over the files." });
			return { kind: "moved", job: moved };
		}
		default:
			return assertNever(observation);
	}
};
