import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { countRuns, holdJob, jobsAhead, lockAdmission, readAdmission } from "../../db/admission.ts";
import { getJob, setRemark } from "../../db/jobs.ts";
import { dropReuse, getVariant, listVariantsOfJob } from "../../db/variants.ts";
import type { Refusal } from "../../errors.ts";
import { isFinished, type JobRecord } from "../../records/job.ts";
import type { SourceBase } from "../../records/source.ts";
import { isOpen, type VariantRecord } from "../../records/variant.ts";
import { holdOf, lineText, monthStart } from "../admission.ts";
import { later } from "../context.ts";
import { placementOf } from "../estimate/choose-machine.ts";
import { estimateRun } from "../estimate/estimate-run.ts";
import { jobSpecOf, type SourceDirectories } from "../job-spec-of.ts";
import { useFolder } from "../retention/kept-folder.ts";
import { findEarlierSketch } from "../stored-sketches.ts";
import { workFolders } from "../work-folders.ts";
import { advance, advanceIn, type Step, type StepContext, type StepResult } from "./step-context.ts";

/** A free slot wakes the first in line; the rest look only to tell people how many are ahead. */
const WAIT_SECONDS = 60;
const LONGEST_HOLD_SECONDS = 900;
const DAY_SECONDS = 24 * 3600;

type Slot =
	| { readonly ok: true; readonly job: JobRecord }
	| { readonly ok: false; readonly statusText: string; readonly seconds: number };

/** Takes a runner slot for the job, if it is its turn and its cost is allowed. */
async function takeSlot(context: StepContext, job: JobRecord, runAttempts: number): Promise<Slot> {
	const { database, runner, configuration, clock } = context;
	return await database.transaction(async (tx): Promise<Slot> => {
		await lockAdmission(tx);
		const now = clock.now();
		const hold = holdOf(
			job.id,
			await readAdmission(tx, { id: job.id, monthStart: monthStart(now), dayStart: later(now, -DAY_SECONDS) }),
			configuration.budget,
			now,
		);
		await holdJob(tx, job.id, hold?.until ?? null);
		if (hold !== null) {
			const seconds = Math.max(1, (hold.until.getTime() - now.getTime()) / 1000);
			// A ceiling that was raised is noticed before the hold ends.
			return { ok: false, statusText: hold.statusText, seconds: Math.min(LONGEST_HOLD_SECONDS, seconds) };
		}
		const free = context.configuration.runner.concurrency - (await countRuns(tx, runner.name, job.id));
		const ahead = (await jobsAhead(tx, job.id, now)) ?? 0;
		if (ahead >= free) return { ok: false, statusText: lineText(ahead), seconds: WAIT_SECONDS };
		const dispatching = await advanceIn(tx, context, job, "dispatch", {
			statusText: "Fetching the source.",
			keepLease: true,
			set: {
				// Results of every earlier attempt are refused from here on.
				fence: job.fence + 1,
				runner: runner.name,
				runnerHandle: null,
				runAttempts: runAttempts + 1,
				runnerEventsSeen: 0,
				startedAt: job.startedAt ?? now,
			},
		});
		return { ok: true, job: dispatching };
	});
}

const REUSE_WAIT_SECONDS = 15;

/**
 * planned, waiting → publishing, for a job all of whose variants take over the files of an earlier commit with the same
 * weights; it waits for those that are still under way. `null`: a run is needed, be it that these came to nothing.
 */
async function reuse(context: StepContext, job: JobRecord): Promise<StepResult | null> {
	const { database, clock } = context;
	const { handle } = database;
	const variants = (await listVariantsOfJob(handle, job.id)).filter((one) => one.state !== "published");
	const origins: VariantRecord[] = [];
	for (const { reusedFrom } of variants) {
		const origin = reusedFrom === undefined || reusedFrom === null ? null : await getVariant(handle, reusedFrom);
		if (origin === null) {
			await dropReuse(handle, job.id);
			return null;
		}
		origins.push(origin);
	}
	const open = origins.filter((origin) => origin.state !== "published");
	for (const origin of open) {
		const other = await getJob(handle, origin.jobId);
		if (origin.state === "failed" || other === null || isFinished(other.state) || other.cancelRequested) {
			const remark = `The run on commit ${origin.sourceSha.slice(0, 8)}, whose weights are the same, came to nothing, hence a run for this one.`;
			await database.transaction(async (tx) => {
				await dropReuse(tx, job.id);
				await setRemark(tx, job.id, remark);
			});
			return null;
		}
	}
	const [first] = open;
	if (first !== undefined) {
		const statusText = `Waits for the run on commit ${first.sourceSha.slice(0, 8)}, whose weights are the same.`;
		const nextStepAt = later(clock.now(), REUSE_WAIT_SECONDS);
		// Out of line: it takes no runner from anybody.
		await holdJob(handle, job.id, nextStepAt);
		if (job.state === "waiting") return { kind: "again", seconds: REUSE_WAIT_SECONDS, statusText };
		return { kind: "moved", job: await advance(context, job, "wait", { statusText, nextStepAt }) };
	}
	const moved = await advance(context, job, "reuse", {
		statusText: "The weights are unchanged: publishing the new tokenizer, template and card.",
		set: { startedAt: job.startedAt ?? clock.now() },
	});
	return { kind: "moved", job: moved };
}

/**
 * Has the source where the run looks for it: in a folder of this machine, or on the Hub, from where a run elsewhere
 * fetches it by itself. In both cases it is looked at once more, as it is now.
 */
async function sourceForRun(
	{ configuration, ports, runner, signal }: StepContext,
	{ sourceRepo: repo, sourceSha: sha }: JobRecord,
	base: SourceBase | null,
): Promise<
	| { readonly ok: true; readonly directories: SourceDirectories | null }
	| { readonly ok: false; readonly refusal: Refusal }
> {
	if (runner.isRemote) {
		const inspection = await ports.inspectSource({ repo, revision: sha, baseSha: base?.sha ?? null });
		return inspection.ok ? { ok: true, directories: null } : { ok: false, refusal: inspection.refusal };
	}
	const folder = workFolders(configuration.database.dataDirectory).source(repo, sha);
	// An adapter's base lies beside it and goes with it: it may be private for the adapter's sake alone.
	const directories = base === null ? { source: folder, base: null } : adaptedFolders(folder, base);
	return await useFolder(folder, async () => {
		await mkdir(folder, { recursive: true });
		const fetched = await ports.fetchSource({
			repo,
			sha,
			directory: directories.source,
			base: base === null || directories.base === null ? null : { sha: base.sha, directory: directories.base },
			signal,
		});
		return fetched.ok ? { ok: true, directories } : { ok: false, refusal: fetched.refusal };
	});
}

function adaptedFolders(folder: string, { sha }: SourceBase) {
	return { source: join(folder, "adapter"), base: join(folder, `base-${sha}`) };
}

/** planned, waiting → dispatching → running. */
export const dispatchStep: Step = async (context, work) => {
	const { database, runner, configuration, clock, signal } = context;
	let { job } = work;
	let { flavor } = work;
	if (job.state !== "dispatching") {
		const reusing = await reuse(context, job);
		if (reusing !== null) return reusing;
		const estimated = await estimateRun(context, work);
		if (!estimated.ok) return { kind: "fail", refusal: estimated.refusal };
		({ flavor } = estimated);
		const taken = await takeSlot(context, job, work.runAttempts);
		if (!taken.ok) {
			const { statusText, seconds } = taken;
			if (job.state === "waiting") return { kind: "again", seconds, statusText };
			const nextStepAt = later(clock.now(), seconds);
			return { kind: "moved", job: await advance(context, job, "wait", { statusText, nextStepAt }) };
		}
		job = taken.job;
	}
	const base = work.facts?.base ?? null;
	const source = await sourceForRun(context, job, base);
	if (!source.ok) return { kind: "fail", refusal: source.refusal };
	signal.throwIfAborted();

	const variants = (await listVariantsOfJob(database.handle, job.id)).filter(isOpen);
	const earlierSketch = await findEarlierSketch(context, work, signal);
	const spec = jobSpecOf({
		job,
		variants,
		configuration,
		base,
		sourceDirectories: source.directories,
		earlierSketch,
		stagingDirectory: workFolders(configuration.database.dataDirectory).output(job.id, job.fence),
	});
	// Fetching may have taken long, and a start may cost money.
	const current = await getJob(database.handle, job.id);
	if (current?.cancelRequested === true) return { kind: "again", seconds: 0, statusText: null };
	const { handle } = await runner.dispatch(spec, await placementOf(context, { ...work, flavor }, variants.length));
	const moved = await advance(context, job, "started", {
		statusText: "Running.",
		set: { runnerHandle: handle },
	});
	return { kind: "moved", job: moved };
};
