import { RUNNER_DIRECTORY, runnerPython } from "../config/project-paths.ts";
import { runIsolation } from "../config/run-isolation.ts";
import { runnerEnvironment } from "../config/runner-environment.ts";
import type { Configuration } from "../config/schema.ts";
import type { Secrets } from "../config/secrets.ts";
import { assertNever } from "../errors.ts";
import { createGitHubAccess } from "../github/github-access.ts";
import { createHubFetch } from "../hub/hub-fetch.ts";
import { localRunnerFolders } from "../jobs/work-folders.ts";
import type { Log } from "../log.ts";
import { createGitHubActionsRunner, type GitHubActionsOptions } from "../runners/github-actions.ts";
import { createHfJobsRunner, type HfJobsOptions } from "../runners/hf-jobs.ts";
import { createHubStaging, type HubStaging } from "../runners/hub-staging.ts";
import { createLocalRunner } from "../runners/local.ts";
import type { ProgressChannel } from "../runners/remote-runner.ts";
import { runMemoryBytes } from "../runners/run-memory.ts";
import type { Runner } from "../runners/runner.ts";

/** What `loadConfiguration` makes sure of; without it the bot would not have started. */
function present<T>(value: T | null, what: string): T {
	if (value === null) throw new Error(`${what} is not set.`);
	return value;
}

function stagingOf(configuration: Configuration, secrets: Secrets): HubStaging {
	const { url: hubUrl, transferHosts } = configuration.hub;
	return createHubStaging({
		hub: {
			hubUrl,
			accessToken: present(secrets.stagingToken, "YAQA_BOT_STAGING_TOKEN"),
			fetch: createHubFetch({ hubUrl, transferHosts }),
		},
		namespace: present(configuration.runner.stagingNamespace, "runner.stagingNamespace"),
	});
}

export function hfJobsOptions(configuration: Configuration, secrets: Secrets, log: Log): HfJobsOptions {
	const { runner } = configuration;
	const { url: hubUrl, transferHosts } = configuration.hub;
	return {
		hub: {
			hubUrl,
			accessToken: present(secrets.jobsToken, "YAQA_BOT_JOBS_TOKEN"),
			fetch: createHubFetch({ hubUrl, transferHosts }),
		},
		namespace: present(runner.hfJobs.namespace, "runner.hfJobs.namespace"),
		image: present(runner.hfJobs.image, "runner.hfJobs.image"),
		flavor: runner.hfJobs.flavor,
		timeoutSeconds: runner.timeoutSeconds,
		secrets: {
			stagingToken: present(secrets.stagingToken, "YAQA_BOT_STAGING_TOKEN"),
			readToken: secrets.readToken,
		},
		staging: stagingOf(configuration, secrets),
		log,
	};
}

export function gitHubActionsOptions(
	configuration: Configuration,
	secrets: Secrets,
	progress: ProgressChannel | null,
	log: Log,
): GitHubActionsOptions {
	const { apiUrl, repository, workflow, ref, appId } = configuration.runner.githubActions;
	return {
		github: createGitHubAccess({
			apiUrl,
			repository: present(repository, "runner.githubActions.repository"),
			appId: present(appId, "runner.githubActions.appId"),
			privateKey: present(secrets.gitHubAppKey, "YAQA_BOT_GITHUB_APP_KEY"),
		}),
		workflow,
		ref,
		staging: stagingOf(configuration, secrets),
		progress,
		log,
	};
}

/** The runner that the configuration asks for. */
export function createRunner(
	configuration: Configuration,
	secrets: Secrets,
	progress: ProgressChannel | null,
	log: Log,
): Runner {
	const { runner } = configuration;
	switch (runner.kind) {
		case "local":
			return createLocalRunner({
				...localRunnerFolders(configuration.database.dataDirectory),
				python: runnerPython(configuration),
				runnerDirectory: RUNNER_DIRECTORY,
				environment: runnerEnvironment(),
				timeoutSeconds: runner.timeoutSeconds,
				memoryBytes: runMemoryBytes(runner.memoryBytes),
				isolation: runIsolation(configuration),
				graceSeconds: runner.graceSeconds,
				llamaCpp: runner.llamaCpp,
				gpus: runner.gpus === null ? null : { devices: runner.gpus, perRun: runner.gpusPerRun },
				log,
			});
		case "hf-jobs":
			return createHfJobsRunner(hfJobsOptions(configuration, secrets, log));
		case "github-actions":
			return createGitHubActionsRunner(gitHubActionsOptions(configuration, secrets, progress, log));
		default:
			return assertNever(runner.kind);
	}
}
