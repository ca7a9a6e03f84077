import { type ConfigurationProblem, loadConfiguration } from "../config/load.ts";
import { SECRET_VARIABLES } from "../config/secrets.ts";
import { EXIT_CODES, type ExitCode } from "./exit-codes.ts";
import type { Terminal } from "./terminal.ts";

export function problemLine(problem: ConfigurationProblem): string {
	const hint = problem.suggestion === null ? "" : ` Did you mean "${problem.suggestion}"?`;
	return `${problem.where === "" ? "" : `${problem.where}: `}${problem.message}${hint}`;
}

/** `yaqa-bot config check`. Secrets are named as set or not; their values are never part of the configuration. */
export function checkConfiguration(
	options: { readonly path: string | null; readonly json: boolean },
	terminal: Terminal,
): ExitCode {
	const loaded = loadConfiguration(options.path === null ? {} : { path: options.path });
	if (!loaded.ok) {
		terminal.err(`${loaded.path ?? "The configuration"} has ${loaded.problems.length} problem(s):\n`);
		for (const problem of loaded.problems) terminal.err(`  ${problemLine(problem)}\n`);
		if (options.json) terminal.out(`${JSON.stringify({ ok: false, path: loaded.path, problems: loaded.problems })}\n`);
		return EXIT_CODES.usage.code;
	}
	const secrets = Object.fromEntries(Object.entries(loaded.secrets).map(([name, value]) => [name, value !== null]));
	if (options.json) {
		terminal.out(`${JSON.stringify({ ok: true, path: loaded.path, configuration: loaded.configuration, secrets })}\n`);
		return EXIT_CODES.ok.code;
	}
	terminal.out(`${JSON.stringify(loaded.configuration, null, 2)}\n`);
	terminal.out(
		`${loaded.path ?? "No file; defaults and environment"}: no problems. The above is in force, defaults included.\n`,
	);
	terminal.out("Secrets, from the environment:\n");
	for (const [name, variables] of Object.entries(SECRET_VARIABLES)) {
		terminal.out(`  ${variables.join(" or ")}: ${secrets[name] === true ? "set" : "not set"}\n`);
	}
	return EXIT_CODES.ok.code;
}
