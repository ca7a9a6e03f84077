import { createHash } from "node:crypto";
import { PermanentError, type Refusal } from "../errors.ts";
import { cancelWorkflowRun } from "../github/cancel-workflow-run.ts";
import { dispatchWorkflow } from "../github/dispatch-workflow.ts";
import { getWorkflowRun } from "../github/get-workflow-run.ts";
import { type GitHubAccess, GitHubRequestError } from "../github/github-access.ts";
import { listWorkflowRuns } from "../github/list-workflow-runs.ts";
import { readRunLog } from "../github/read-run-log.ts";
import type { WorkflowRun } from "../github/workflow-run.ts";
import type { Log } from "../log.ts";
import type { HubStaging } from "./hub-staging.ts";
import {
	createRemoteRunner,
	type ProgressChannel,
	type RemoteEngine,
	type RemoteRun,
	type RemoteRunnerOptions,
} from "./remote-runner.ts";
import { runName } from "./run-name.ts";
import type { Runner } from "./runner.ts";

type Timing = Pick<
	RemoteRunnerOptions,
	"pollMilliseconds" | "settleMilliseconds" | "queueMilliseconds" | "cancelMilliseconds"
>;

export type GitHubActionsOptions = {
	readonly github: GitHubAccess;
	/** File name of the workflow in `.github/workflows` of the repo. */
	readonly workflow: string;
	readonly ref: string;
	readonly staging: HubStaging;
	/** `null`: the bot has no public address; progress comes through the staging repo, a minute late. */
	readonly progress?: ProgressChannel | null;
	readonly log: Log;
	readonly timing?: Partial<Timing>;
};

/** An installation may ask 5,000 times an hour: with this pause, for dozens of runs at once. */
const GITHUB_ACTIONS_TIMING: Timing = {
	pollMilliseconds: 15_000,
	settleMilliseconds: 60_000,
	queueMilliseconds: 3_600_000,
	cancelMilliseconds: 60_000,
};

function ended(code: Refusal["code"], message: string, remedy: string, retryable: boolean): RemoteRun["state"] {
	return { kind: "ended", refusal: { code, message, remedy }, retryable };
}

function stateOf(run: WorkflowRun): RemoteRun["state"] {
	switch (run.status) {
		case "completed":
			break;
		case "queued":
		case "waiting":
		case "requested":
		case "pending":
			return { kind: "queued" };
		default:
			// A status that this version does not know is not an end.
			return { kind: "running" };
	}
	switch (run.conclusion) {
		case "success":
			return { kind: "succeeded" };
		case "cancelled":
			return ended("runner-lost", "The run was cancelled on GitHub.", "Retry the job.", false);
		case "timed_out":
			return ended(
				"timed-out",
				"GitHub ended the run: it took longer than the workflow allows.",
				"The operator raises timeout-minutes in the workflow, or asks for fewer variants at a time; then retries the job.",
				false,
			);
		case "action_required":
		case "startup_failure":
		case "skipped":
			return ended(
				"runner-unavailable",
				`GitHub did not start the workflow (${run.conclusion}).`,
				`The operator looks at ${run.html_url} and at the workflow file, then retries the job.`,
				false,
			);
		default:
			return ended(
				"runner-lost",
				`The workflow ended (${run.conclusion ?? "no conclusion"}) without a result.`,
				`The operator looks at the log of ${run.html_url}, then retries the job.`,
				true,
			);
	}
}

export function createGitHubActionsEngine(options: GitHubActionsOptions): RemoteEngine {
	const { github, workflow, ref } = options;
	const identity = createHash("sha256")
		.update(`${github.apiUrl}\n${github.repository}\n${workflow}`)
		.digest("hex")
		.slice(0, 10);

	function refusedBy(error: unknown): unknown {
		if (!(error instanceof GitHubRequestError)) return error;
		const refuse = (message: string, remedy: string): PermanentError =>
			new PermanentError({ code: "runner-unavailable", message, remedy }, { cause: error });
		if (error.signIn) {
			return refuse(
				`GitHub does not let the App in on ${github.repository}: it was revoked, removed, or its key is another one.`,
				"The operator installs the App on that repo and sets runner.githubActions.appId and YAQA_BOT_GITHUB_APP_KEY, then retries the job.",
			);
		}
		switch (error.status) {
			case 403:
				return refuse(
					`The App may not start workflows in ${github.repository}.`,
					'The operator gives it "Actions: read and write" there, then retries the job.',
				);
			case 404:
				return refuse(
					`There is no workflow ${workflow} in ${github.repository}, or the App cannot see it.`,
					`The operator copies workflows/quantize.yml to .github/workflows/${workflow} on the default branch there, then retries the job.`,
				);
			default:
				return refuse(
					`GitHub does not take the run: ${error.message}`,
					`The operator checks that .github/workflows/${workflow} of ${github.repository} is this version's workflows/quantize.yml and that ${ref} exists; then retries the job.`,
				);
		}
	}

	async function explaining<T>(call: () => Promise<T>): Promise<T> {
		try {
			return await call();
		} catch (error) {
			throw refusedBy(error);
		}
	}

	function runOf(run: WorkflowRun): RemoteRun {
		return { id: String(run.id), createdAt: new Date(run.created_at), state: stateOf(run) };
	}

	return {
		name: `github-actions-${identity}`,
		title: "GitHub Actions",
		list: (attempt) =>
			explaining(async () => (await listWorkflowRuns({ github, workflow, name: runName(attempt) })).map(runOf)),
		get: (id) =>
			explaining(async () => {
				const run = await getWorkflowRun({ github, id: Number(id) });
				return run === null ? null : runOf(run);
			}),
		start: (spec) =>
			explaining(async () => {
				// The run derives the staging repo from these two; it is given nothing that it would have to trust.
				const inputs = { job: spec.job, fence: String(spec.fence) };
				const id = await dispatchWorkflow({ github, workflow, ref, inputs });
				return id === null ? null : String(id);
			}),
		cancel: (id, force) => explaining(() => cancelWorkflowRun({ github, id: Number(id), force })),
		// The lines of a step that runs are not in GitHub's API: the run tells of itself instead.
		readLog: null,
		readEndedLog: (id, onLine, signal) => readRunLog({ github, id: Number(id), onLine, signal }),
	};
}

/** Runs jobs on an operator's own GPU machines, as self-hosted runners of GitHub Actions. */
export function createGitHubActionsRunner(options: GitHubActionsOptions): Runner {
	const { staging, log } = options;
	return createRemoteRunner({
		engine: createGitHubActionsEngine(options),
		staging,
		progress: options.progress ?? null,
		log,
		...GITHUB_ACTIONS_TIMING,
		...options.timing,
	});
}
