import { assertNever } from "../../errors.ts";
import type { AnswerOptions } from "../answer-options.ts";
import type { ParsedCommand } from "../parse/parsed-command.ts";
import { renderHelp, renderPing } from "../replies/render-help.ts";
import { renderInvalid } from "../replies/render-misread.ts";
import { renderRefusal } from "../replies/render-refusal.ts";
import { contextFor } from "../replies/reply-context.ts";
import { approve, type RunCommands } from "./approve.ts";
import { cancel } from "./cancel.ts";
import { type Effect, lasting, passing, type Situation } from "./effect.ts";
import { explain } from "./explain.ts";
import { plan } from "./plan.ts";
import { quantize } from "./quantize.ts";
import { retry } from "./retry.ts";
import { status } from "./status.ts";
import { which } from "./which.ts";

export const NOT_UNDERSTOOD = "not understood";

/** Runs one command. `runCommands`: for the commands that an approval lets go. */
export async function runCommand(
	options: AnswerOptions,
	command: ParsedCommand,
	at: Situation,
	runCommands: RunCommands,
): Promise<Effect> {
	switch (command.kind) {
		case "approve":
			return lasting(command, await approve(options, at, runCommands));
		case "help":
			return passing(command, renderHelp(options.context), "help");
		case "ping":
			return passing(command, renderPing(options.context), "ping");
		case "invalid":
			return passing(command, renderInvalid(options.context, command), NOT_UNDERSTOOD);
		default:
			break;
	}
	const subject = await options.subjectOf(command.model, at.place, at.thread);
	if (!subject.ok) return { ...passing(command, renderRefusal(subject), "refused: the model"), state: "refused" };
	const run = { options, at, source: subject.repo, context: contextFor(options.context, subject) };
	switch (command.kind) {
		case "quantize":
			return await quantize({ ...run, command });
		case "plan":
			return passing(command, await plan({ ...run, command }), "plan");
		case "which":
			return passing(command, await which({ ...run, command }), "which");
		case "status":
			return passing(command, await status({ ...run, command }), "status");
		case "explain":
			return passing(command, await explain({ ...run, command }), "explain");
		case "cancel":
			return lasting(command, await cancel({ ...run, command }));
		case "retry":
			return lasting(command, await retry({ ...run, command }));
		default:
			return assertNever(command);
	}
}
