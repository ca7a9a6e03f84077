import { homedir, tmpdir } from "node:os";
import { ISOLATION_SCRIPT, PROJECT_ROOT, RUNNER_DIRECTORY, runnerPython } from "./project-paths.ts";
import type { Configuration } from "./schema.ts";

/**
 * What runs on this machine are kept from: the data directory with the database, every home with its keys and its Hub
 * login, sockets of other services, shared temporary folders, and the checkout with an operator's files in it.
 */
export function runIsolation(configuration: Configuration) {
	return {
		python: runnerPython(configuration),
		script: ISOLATION_SCRIPT,
		hidden: [
			configuration.database.dataDirectory,
			homedir(),
			"/root",
			"/home",
			"/run",
			"/tmp",
			"/var/tmp",
			tmpdir(),
			PROJECT_ROOT,
		],
		shown: [RUNNER_DIRECTORY],
		required: configuration.runner.isolation === "required",
	};
}
