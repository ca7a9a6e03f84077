import { pathToFileURL } from "node:url";
import { EXIT_CODES } from "./cli/exit-codes.ts";
import { runCommand } from "./cli/run-command.ts";
import { printable, type Terminal } from "./cli/terminal.ts";
import { handOverSecrets } from "./config/hand-over-secrets.ts";
import { PermanentError, RetryableError } from "./errors.ts";

function createTerminal(): Terminal {
	return {
		out: (text) => void process.stdout.write(text),
		err: (text) => void process.stderr.write(text),
		isScreen: process.stderr.isTTY === true,
		columns: () => process.stderr.columns ?? 80,
	};
}

/** What happened outside is reported in a sentence; what nobody expected, with where it happened. */
function failureText(error: unknown): { readonly message: string; readonly detail: string } {
	if (error instanceof PermanentError) {
		return { message: `${error.refusal.message} ${error.refusal.remedy}`, detail: "" };
	}
	if (error instanceof RetryableError) return { message: error.message, detail: "Another try may succeed.\n" };
	const message = error instanceof Error ? error.message : String(error);
	const where = error instanceof Error ? (error.stack ?? "").split("\n").slice(1).join("\n") : "";
	return { message, detail: `${where}\nThis is a bug in yaqa-bot; please report it with these lines.\n` };
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
	handOverSecrets();
	const terminal = createTerminal();
	const args = process.argv.slice(2);
	try {
		process.exitCode = await runCommand(args, terminal);
	} catch (error) {
		const { message, detail } = failureText(error);
		terminal.err(`${printable(message)}\n${detail}`);
		if (args.includes("--json")) terminal.out(`${JSON.stringify({ ok: false, error: { message } })}\n`);
		process.exitCode = EXIT_CODES.failed.code;
	}
}
