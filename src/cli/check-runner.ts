import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Configuration } from "../config/schema.ts";
import type { Secrets } from "../config/secrets.ts";
import { assertNever, PermanentError } from "../errors.ts";
import { mayRunJobs } from "../hub/may-run-jobs.ts";
import { silentLog } from "../log.ts";
import { createGitHubActionsEngine } from "../runners/github-actions.ts";
import { createHfJobsEngine, jobsRefusal } from "../runners/hf-jobs.ts";
import { gitHubActionsOptions, hfJobsOptions } from "../server/create-runner.ts";
import { readAccess } from "../server/hub-access.ts";
import { configuredMachines, ownGpus } from "../server/machines.ts";
import { broken, type Finding, fine, firstLine } from "./finding.ts";

/** No job is called that: what is asked of a service is only whether it answers. */
const NOBODY = { job: "00000000-0000-0000-0000-000000000000", fence: 1 };

async function tried(name: string, detail: string, call: () => Promise<unknown>): Promise<Finding> {
	try {
		await call();
		return fine(name, detail);
	} catch (error) {
		return error instanceof PermanentError
			? broken(name, error.refusal.message, error.refusal.remedy)
			: broken(name, firstLine(error), "Check the address and the network.");
	}
}

async function checkLocal(configuration: Configuration): Promise<Finding> {
	const { device, gpus, llamaCpp } = configuration.runner;
	if (llamaCpp !== null && !existsSync(join(llamaCpp, "conversion", "base.py"))) {
		return broken(
			"Runner",
			`runner.llamaCpp: ${llamaCpp} holds no conversion/base.py`,
			"Name the folder that `git clone` of llama.cpp made, or leave runner.llamaCpp out.",
		);
	}
	const found = await ownGpus();
	const wanted = gpus ?? [];
	// A UUID or a MIG instance is nvidia-smi's to know; a number has to be among those there are.
	const missing = wanted.filter((one) => /^\d+$/.test(one) && Number(one) >= found.length);
	if (device !== "cpu" && missing.length > 0) {
		return broken("Runner", `no GPU ${missing.join(", ")} here`, "Name in runner.gpus what `nvidia-smi -L` lists.");
	}
	if (found.length === 0) {
		return device === "cuda"
			? broken(
					"Runner",
					"no GPU that can be seen, and runner.device is cuda",
					"Install NVIDIA's driver until `nvidia-smi` lists a GPU, or set runner.device to auto.",
				)
			: fine("Runner", "this machine's processor");
	}
	return fine("Runner", `this machine, ${found.map((gpu) => gpu.model).join(", ")}`);
}

/** Whether runs can be started where the configuration wants them, asked of the services themselves. Starts nothing. */
export async function checkRunner(configuration: Configuration, secrets: Secrets): Promise<readonly Finding[]> {
	const { runner } = configuration;
	switch (runner.kind) {
		case "local":
			return [await checkLocal(configuration)];
		case "hf-jobs": {
			const options = hfJobsOptions(configuration, secrets, silentLog);
			const jobs = async (): Promise<void> => {
				await createHfJobsEngine(options).list(NOBODY);
				try {
					await mayRunJobs({ ...options.hub, namespace: options.namespace });
				} catch (error) {
					throw jobsRefusal(error, options.namespace, options.flavor);
				}
			};
			const machines = async (): Promise<void> => {
				const list = await configuredMachines(configuration, readAccess(configuration, secrets));
				if (list?.length === 0) throw new Error(`The Hub offers no hardware called ${options.flavor}.`);
			};
			return await Promise.all([
				tried("HF Jobs", `the token may list and start jobs of ${options.namespace}`, jobs),
				tried("Hardware", options.flavor === "auto" ? "chosen for each job" : options.flavor, machines),
			]);
		}
		case "github-actions": {
			const options = gitHubActionsOptions(configuration, secrets, null, silentLog);
			const { repository } = options.github;
			const workflow = `the App reads the runs of ${options.workflow} in ${repository}`;
			return [await tried("GitHub", workflow, () => createGitHubActionsEngine(options).list(NOBODY))];
		}
		default:
			return assertNever(runner.kind);
	}
}
