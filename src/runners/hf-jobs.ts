import { createHash } from "node:crypto";
import { cancelJob, getJob, runJob, type SpaceHardwareFlavor } from "@huggingface/hub";
import { z } from "zod";
import { PermanentError, type Refusal } from "../errors.ts";
import type { HubAccess } from "../hub/hub-access.ts";
import { hubStatus } from "../hub/hub-request-error.ts";
import { requestJson } from "../hub/request-json.ts";
import type { Log } from "../log.ts";
import { RUNNER_EXIT_CODES } from "../protocol/runner-exit-codes.ts";
import type { Attempt } from "../records/attempt.ts";
import type { HubStaging } from "./hub-staging.ts";
import { readJobLog } from "./job-log.ts";
import { createRemoteRunner, type RemoteEngine, type RemoteRun, type RemoteRunnerOptions } from "./remote-runner.ts";
import type { Runner } from "./runner.ts";

const WRONG_CALL = new RegExp(`exit code: ${RUNNER_EXIT_CODES["invalid-spec"]}\\b`);

export type HfJobsOptions = {
	/** With the token that may start jobs in `namespace`. */
	readonly hub: HubAccess & { readonly accessToken: string };
	/** Who runs the jobs and pays for them. */
	readonly namespace: string;
	readonly image: string;
	/** `auto`: what the estimate chose for the job. */
	readonly flavor: string;
	readonly timeoutSeconds: number;
	/** Reach the run as secrets only. */
	readonly secrets: { readonly stagingToken: string; readonly readToken: string | null };
	readonly staging: HubStaging;
	readonly log: Log;
	readonly timing?: Partial<Timing>;
};

type Timing = Pick<
	RemoteRunnerOptions,
	"pollMilliseconds" | "settleMilliseconds" | "queueMilliseconds" | "cancelMilliseconds"
>;

const HF_JOBS_TIMING: Timing = {
	pollMilliseconds: 5000,
	settleMilliseconds: 60_000,
	queueMilliseconds: 3_600_000,
	cancelMilliseconds: 60_000,
};

const LABEL = "yaqa-job";

/** The stock client's own type names stages that the Hub does not have. */
const Job = z.object({
	id: z.string().regex(/^[A-Za-z0-9_-]{1,100}$/),
	createdAt: z.iso.datetime(),
	labels: z.record(z.string(), z.string()).nullish(),
	status: z.object({
		stage: z.string(),
		message: z.string().nullish(),
		cancelReason: z.string().nullish(),
	}),
});
type Job = z.infer<typeof Job>;

function ended(code: Refusal["code"], message: string, remedy: string, retryable: boolean): RemoteRun["state"] {
	return { kind: "ended", refusal: { code, message, remedy }, retryable };
}

function stateOf(job: Job, namespace: string): RemoteRun["state"] {
	const said = (job.status.message ?? "").slice(0, 500);
	switch (job.status.stage) {
		case "SCHEDULING":
			return { kind: "queued" };
		case "RUNNING":
			return { kind: "running" };
		case "COMPLETED":
			return { kind: "succeeded" };
		case "CANCELED":
			switch (job.status.cancelReason ?? null) {
				case null:
					return ended("runner-lost", "The run was cancelled on the Hub.", "Retry the job.", false);
				case "NO_CREDITS":
				case "NO_SUBSCRIPTION":
					return ended(
						"runner-unavailable",
						`HF Jobs ended the run because ${namespace} has no credits left.`,
						`Whoever pays for ${namespace} adds credits in its billing settings on the Hub, then retries the job.`,
						false,
					);
				default:
					return ended(
						"runner-unavailable",
						`HF Jobs ended the run: ${job.status.cancelReason}.`,
						`An admin of ${namespace} looks at its limits for Jobs on the Hub, then retries the job.`,
						false,
					);
			}
		case "DELETED":
			return ended("runner-lost", "The run was deleted on the Hub.", "Retry the job.", true);
		case "ERROR":
			if (/time-?out/i.test(said)) {
				return ended(
					"timed-out",
					`HF Jobs ended the run: ${said}.`,
					"The operator raises runner.timeoutSeconds, or asks for fewer variants at a time; then retry the job.",
					false,
				);
			}
			return ended(
				"runner-lost",
				`The run failed on HF Jobs without a result: ${said === "" ? "no reason given" : said}.`,
				"The operator looks at the run's log on the Hub, then retries the job.",
				// What the program calls a wrong call is the same wrong call next time.
				!WRONG_CALL.test(said),
			);
		default:
			// A stage that this version does not know is not an end.
			return { kind: "running" };
	}
}

/** What a plain refusal by the Jobs API means; other failures pass. */
export function jobsRefusal(error: unknown, namespace: string, flavor: string): unknown {
	const refuse = (message: string, remedy: string): PermanentError =>
		new PermanentError({ code: "runner-unavailable", message, remedy }, { cause: error });
	switch (hubStatus(error)) {
		case 401:
			return refuse(
				"The Hub does not accept the token for HF Jobs: it has expired or was revoked.",
				"The operator makes a new one and sets YAQA_BOT_JOBS_TOKEN, then retries the job.",
			);
		case 402:
			return refuse(
				`HF Jobs starts nothing for ${namespace}: it has no credits.`,
				`Whoever pays for ${namespace} adds credits in its billing settings on the Hub, then retries the job.`,
			);
		case 403:
			return refuse(
				`The token may not run jobs for ${namespace}.`,
				"The operator gives YAQA_BOT_JOBS_TOKEN the right to start and manage jobs there, then retries the job.",
			);
		case 501:
			return refuse(
				"This Hub runs no jobs.",
				"The operator sets another runner.kind (local, or github-actions), then retries the job.",
			);
		case 400:
		case 404:
		case 422:
			return refuse(
				`HF Jobs does not take the run: ${error instanceof Error ? error.message.slice(0, 300) : "refused"}.`,
				`The operator checks runner.hfJobs: namespace ${namespace}, flavor ${flavor} and the image; then retries the job.`,
			);
		default:
			return error;
	}
}

export function createHfJobsEngine(options: HfJobsOptions): RemoteEngine {
	const { hub, namespace, secrets } = options;
	const identity = createHash("sha256").update(`${hub.hubUrl}\n${namespace}`).digest("hex").slice(0, 10);

	function runOf(answer: unknown): RemoteRun {
		const job = Job.parse(answer);
		return { id: job.id, createdAt: new Date(job.createdAt), state: stateOf(job, namespace) };
	}
	const markOf = (attempt: Attempt): string => `${attempt.job}.${attempt.fence}`;

	const readLog: RemoteEngine["readEndedLog"] = (jobId, onLine, signal) =>
		readJobLog({ hubUrl: hub.hubUrl, accessToken: hub.accessToken, namespace, jobId, onLine, signal });

	return {
		name: `hf-jobs-${identity}`,
		title: "HF Jobs",
		async list(attempt) {
			try {
				const label = encodeURIComponent(`${LABEL}=${markOf(attempt)}`);
				const jobs = await requestJson({
					...hub,
					path: `/api/jobs/${encodeURIComponent(namespace)}?label=${label}`,
					schema: z.array(Job),
				});
				// A server that overlooks the filter must not have us follow, or end, somebody else's job.
				return jobs.filter((job) => job.labels?.[LABEL] === markOf(attempt)).map(runOf);
			} catch (error) {
				throw jobsRefusal(error, namespace, options.flavor);
			}
		},
		async get(id) {
			try {
				return runOf(await getJob({ ...hub, namespace, jobId: id }));
			} catch (error) {
				if (hubStatus(error) === 404) return null;
				throw jobsRefusal(error, namespace, options.flavor);
			}
		},
		async start(spec, stagingRepo, placement) {
			const flavor = options.flavor === "auto" ? placement.flavor : options.flavor;
			if (flavor === null) {
				throw new PermanentError({
					code: "runner-unavailable",
					message: "No hardware was chosen for the run.",
					remedy: "The operator names one as runner.hfJobs.flavor, then retries the job.",
				});
			}
			try {
				const job = await runJob({
					...hub,
					namespace,
					dockerImage: options.image,
					command: ["yaqa-runner", "remote"],
					arguments: ["--staging", stagingRepo, "--job", spec.job, "--fence", String(spec.fence)],
					environment: { HF_ENDPOINT: hub.hubUrl },
					secrets: {
						YAQA_STAGING_TOKEN: secrets.stagingToken,
						...(secrets.readToken === null ? {} : { HF_TOKEN: secrets.readToken }),
					},
					// The list of flavors grows faster than the client's type.
					flavor: flavor as SpaceHardwareFlavor,
					timeoutSeconds: options.timeoutSeconds,
					attempts: 1,
					labels: { [LABEL]: markOf({ job: spec.job, fence: spec.fence }) },
				});
				// The job is there, whatever its description looks like: then the list tells its id.
				return Job.safeParse(job).data?.id ?? null;
			} catch (error) {
				if (error instanceof SyntaxError) return null;
				throw jobsRefusal(error, namespace, flavor);
			}
		},
		async cancel(id) {
			try {
				await cancelJob({ ...hub, namespace, jobId: id });
			} catch (error) {
				if (hubStatus(error) === 404 || hubStatus(error) === 409) return;
				throw jobsRefusal(error, namespace, options.flavor);
			}
		},
		readLog,
		// The same stream, which then ends by itself.
		readEndedLog: readLog,
	};
}

/** Runs jobs on Hugging Face's machines. */
export function createHfJobsRunner(options: HfJobsOptions): Runner {
	const { staging, log } = options;
	return createRemoteRunner({
		engine: createHfJobsEngine(options),
		staging,
		log,
		...HF_JOBS_TIMING,
		...options.timing,
	});
}
