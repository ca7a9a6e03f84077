import { mkdir } from "node:fs/promises";
import { countRuns, lockRunner } from "../../db/jobs.ts";
import { findSketch } from "../../db/sketches.ts";
import { listVariantsOfJob } from "../../db/variants.ts";
import { later } from "../context.ts";
import { jobSpecOf, sketchFingerprint } from "../job-spec-of.ts";
import type { JobRecord } from "../records.ts";
import { workFolders } from "../work-folders.ts";
import { advance, advanceIn, type Step, type StepContext } from "./step-context.ts";

const WAIT_SECONDS = 15;

/** Takes a runner slot for the job; `null` when all are taken. */
async function takeSlot(context: StepContext, job: JobRecord, runAttempts: number): Promise<JobRecord | null> {
	const { database, runner, configuration, clock } = context;
	return await database.transaction(async (tx) => {
		await lockRunner(tx, runner.name);
		const busy = await countRuns(tx, runner.name, job.id);
		if (busy >= configuration.runner.concurrency) return null;
		return await advanceIn(tx, context, job, "dispatch", {
			statusText: "Fetching the source.",
			keepLease: true,
			set: {
				// Results of every earlier attempt are refused from here on.
				fence: job.fence + 1,
				runner: runner.name,
				runnerHandle: null,
				runAttempts: runAttempts + 1,
				runnerEventsSeen: 0,
				startedAt: job.startedAt ?? clock.now(),
			},
		});
	});
}

/** planned, waiting → dispatching → running. */
export const dispatchStep: Step = async (context, work) => {
	const { database, ports, runner, configuration, clock, signal } = context;
	let { job } = work;
	if (job.state !== "dispatching") {
		const taken = await takeSlot(context, job, work.runAttempts);
		if (taken === null) {
			const statusText = "Waits for a free runner.";
			if (job.state === "waiting") return { kind: "again", seconds: WAIT_SECONDS, statusText };
			const nextStepAt = later(clock.now(), WAIT_SECONDS);
			return { kind: "moved", job: await advance(context, job, "wait", { statusText, nextStepAt }) };
		}
		job = taken;
	}
	const folders = workFolders(configuration.database.dataDirectory);
	const sourceDirectory = folders.source(job.sourceRepo, job.sourceSha);
	await mkdir(sourceDirectory, { recursive: true });
	const fetched = await ports.fetchSource({
		repo: job.sourceRepo,
		sha: job.sourceSha,
		directory: sourceDirectory,
		signal,
	});
	if (!fetched.ok) return { kind: "fail", refusal: fetched.refusal };
	signal.throwIfAborted();

	const variants = (await listVariantsOfJob(database.handle, job.id)).filter((one) => one.state !== "published");
	const sketch = await findSketch(database.handle, {
		repo: job.sourceRepo,
		sha: job.sourceSha,
		fingerprint: sketchFingerprint(configuration),
	});
	const spec = jobSpecOf({ job, variants, configuration, sourceDirectory, sketchDirectory: sketch?.directory ?? null });
	const { handle } = await runner.dispatch(spec);
	const moved = await advance(context, job, "started", {
		statusText: "Running.",
		set: { runnerHandle: handle },
	});
	return { kind: "moved", job: moved };
};
