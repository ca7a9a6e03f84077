import { getJob, listJobs } from "../../db/jobs.ts";
import { listRequestsOfJob, setReplyComment } from "../../db/requests.ts";
import {
	getStatusDiscussion,
	leaseStatusDiscussion,
	releaseStatusDiscussion,
	setStatusDiscussion,
} from "../../db/status-discussions.ts";
import { listVariantsOfJob, listVariantsOfSource } from "../../db/variants.ts";
import { PermanentError, RetryableError } from "../../errors.ts";
import type { JobRecord } from "../../records/job.ts";
import type { VariantRecord } from "../../records/variant.ts";
import { type JobsContext, later } from "../context.ts";
import { keepLease, LEASE_SECONDS } from "../keep-lease.ts";
import { advance, type Step } from "./step-context.ts";

/** Published variants are public whether or not the discussion says so: after this many failures the job goes on. */
const MAXIMUM_FAILURES = 8;

/** A published job is reported as of a finished one. */
function asShown(job: JobRecord): JobRecord {
	return job.state === "announcing" ? { ...job, state: "done" } : job;
}

/** Brings the source's status discussion, and the answers to this job's requests, up to date. */
export async function announceJob(context: JobsContext, jobId: string): Promise<void> {
	const { database, ports, clock, log } = context;
	const { handle } = database;
	const job = await getJob(handle, jobId);
	if (job === null) return;
	const { sourceRepo } = job;
	const owner = `${context.owner}:${jobId}`;
	const lease = (): Promise<boolean> => {
		const now = clock.now();
		return leaseStatusDiscussion(handle, { sourceRepo, owner, now, until: later(now, LEASE_SECONDS) });
	};
	if (!(await lease())) throw new RetryableError("Somebody else edits the discussion.", { retryAfterSeconds: 1 });
	const release = keepLease(async () => void (await lease()), log);
	try {
		const stored = await getStatusDiscussion(handle, sourceRepo);
		const { items: jobs } = await listJobs(handle, { sourceRepo, limit: 20 });
		const shownJobs = new Set(jobs.map((one) => one.id));
		const all: readonly VariantRecord[] = await listVariantsOfSource(handle, sourceRepo);
		try {
			const { discussion } = await ports.announce({
				sourceRepo,
				discussion: stored.discussion,
				jobs: jobs.map(asShown),
				variants: all.filter((variant) => variant.state === "published" || shownJobs.has(variant.jobId)),
				refused: stored.refused,
			});
			if (discussion !== stored.discussion) {
				await setStatusDiscussion(handle, { sourceRepo, discussion, now: clock.now() });
			}
		} catch (error) {
			if (!(error instanceof PermanentError)) throw error;
			log.warn("The status discussion cannot be kept", { sourceRepo, refusal: error.refusal });
		}
		const variants = await listVariantsOfJob(handle, jobId);
		for (const request of await listRequestsOfJob(handle, jobId)) {
			if (request.replyTo === null) continue;
			try {
				const { replyCommentId } = await ports.reply({ request, job: asShown(job), variants });
				if (replyCommentId !== null && replyCommentId !== request.replyTo.replyCommentId) {
					await setReplyComment(handle, request, replyCommentId);
				}
			} catch (error) {
				if (!(error instanceof PermanentError)) throw error;
				log.warn("A request cannot be answered", { request: request.id, refusal: error.refusal });
			}
		}
	} finally {
		await release();
		await releaseStatusDiscussion(handle, sourceRepo, owner);
	}
}

/** announcing → done. */
export const announceStep: Step = async (context, work) => {
	const { job } = work;
	let reported = true;
	try {
		await announceJob(context, job.id);
	} catch (error) {
		if (work.stepFailures < MAXIMUM_FAILURES) throw error;
		reported = false;
		context.log.error("A finished job could not be announced", { job: job.id, error });
	}
	const moved = await advance(context, job, "announced", {
		statusText: reported ? "Done." : "Done; the discussion could not be updated.",
	});
	return { kind: "moved", job: moved };
};
