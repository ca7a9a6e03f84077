import type { AnswerOptions } from "../answer-options.ts";
import { type Answer, answersOf } from "../answers-of.ts";
import { commandsOf } from "../commands-of.ts";
import type { ParsedCommand } from "../parse/parsed-command.ts";
import { renderApproved, renderMayNot } from "../replies/render-permission.ts";
import type { Situation } from "./effect.ts";

/** Runs commands of a comment and brings its answer up to date. */
export type RunCommands = (
	options: AnswerOptions,
	commands: readonly ParsedCommand[],
	before: Answer | null,
	at: Situation,
) => Promise<unknown>;

/** Runs what waits in other answers of this thread, in the name of those who asked. */
export async function approve(options: AnswerOptions, at: Situation, runCommands: RunCommands): Promise<string> {
	const { context } = options;
	if (!at.trusted) return renderMayNot(context, "approve", at.author.name);
	let approved = 0;
	for (const answer of answersOf(at.thread, at.botId)) {
		if (answer.trailer.waiting.length === 0) continue;
		const comment = at.thread.comments.find((one) => one.id === answer.trailer.comment);
		if (comment?.author === undefined || comment.author === null) continue;
		// What was shown as waiting is what runs: a line that was changed since has another key.
		const waiting = commandsOf(options, comment, at.usual).filter((command) =>
			answer.trailer.waiting.includes(command.key),
		);
		if (waiting.length === 0) continue;
		const { author } = comment;
		await runCommands(options, waiting, answer, { ...at, comment, author, trusted: false, approved: true });
		approved += waiting.length;
	}
	return renderApproved(context, approved);
}
