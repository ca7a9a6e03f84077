import { spawn } from "node:child_process";
import { RUNNER_DIRECTORY } from "../config/project-paths.ts";
import { runnerEnvironment } from "../config/runner-environment.ts";
import { printable, type Terminal } from "./terminal.ts";

/** Runs a program of the runner's, which sees no token and no Hub. Its exit code; `null`: a signal ended it. */
export function runRunnerOffline(
	request: {
		readonly program: readonly string[];
		/** Its folders. */
		readonly environment: Readonly<Record<string, string>>;
		readonly onOutput: (text: string) => void;
	},
	{ terminal, signal }: { readonly terminal: Terminal; readonly signal: AbortSignal },
): Promise<number | null> {
	const [command = "", ...args] = request.program;
	return new Promise((done, failed) => {
		const child = spawn(command, args, {
			cwd: RUNNER_DIRECTORY,
			env: {
				...runnerEnvironment(),
				...request.environment,
				...{ HF_HUB_OFFLINE: "1", TRANSFORMERS_OFFLINE: "1", HF_HUB_DISABLE_TELEMETRY: "1" },
			},
			stdio: ["ignore", "pipe", "pipe"],
		});
		const end = (): void => void child.kill("SIGTERM");
		signal.addEventListener("abort", end, { once: true });
		child.stdout.setEncoding("utf8").on("data", request.onOutput);
		child.stderr.setEncoding("utf8").on("data", (text: string) => terminal.err(printable(text)));
		child.on("error", failed);
		child.on("close", (code) => {
			signal.removeEventListener("abort", end);
			done(code);
		});
	});
}
