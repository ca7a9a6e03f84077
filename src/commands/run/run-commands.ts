import type { AnswerOptions } from "../answer-options.ts";
import { writeAnswer } from "../answer-text.ts";
import type { Answer } from "../answers-of.ts";
import { commandsOf } from "../commands-of.ts";
import type { ParsedCommand } from "../parse/parsed-command.ts";
import { MISREAD, renderHelpHint } from "../replies/render-misread.ts";
import type { ReplyTrailer } from "../reply-trailer.ts";
import { writeToThread } from "../write-to-thread.ts";
import type { Effect, Situation } from "./effect.ts";
import { NOT_UNDERSTOOD, runCommand } from "./run-command.ts";

const MAXIMUM_KEYS = 60;
/** The line that stands after what was not understood. */
const HINT = "hint0help";

type Ran = {
	/** For the operator's page. */
	readonly report: string;
	readonly written: boolean;
	readonly sign: "done" | "refused" | null;
};

/** Runs `commands` one after the other and writes the answer, with what stood in it and still counts. */
export async function runCommands(
	options: AnswerOptions,
	commands: readonly ParsedCommand[],
	before: Answer | null,
	at: Situation,
): Promise<Ran> {
	const effects: Effect[] = [];
	for (const command of commands) effects.push(await runCommand(options, command, at, runCommands));
	const present = new Set(commandsOf(options, at.comment, at.usual).map((command) => command.key));
	const ranNow = new Set(commands.map((command) => command.key));
	const kept = (before?.sections ?? []).filter(
		(section) => !ranNow.has(section.key) && (section.lasting || present.has(section.key)),
	);
	const sections = [...kept, ...effects.map((effect) => effect.section)];
	const misread = sections.filter((section) => section.text.startsWith(MISREAD)).map((section) => section.text);
	if (misread.length > 0 && !sections.some((section) => section.key === HINT)) {
		sections.push({ key: HINT, request: null, lasting: false, text: renderHelpHint(options.context, misread) });
	}
	const request = effects.findLast((effect) => effect.request !== null)?.request ?? null;
	const waiting = [
		...(before?.trailer.waiting ?? []).filter((key) => !ranNow.has(key) && present.has(key)),
		...effects.filter((effect) => effect.waits).map((effect) => effect.section.key),
	];
	const trailer: ReplyTrailer = {
		v: 1,
		comment: at.comment.id,
		request: request?.id ?? before?.trailer.request ?? null,
		state: effects.findLast((effect) => effect.state !== null)?.state ?? before?.trailer.state ?? "answered",
		ran: [...new Set([...(before?.trailer.ran ?? []), ...ranNow])].slice(-MAXIMUM_KEYS),
		waiting: waiting.slice(-MAXIMUM_KEYS),
	};
	const id = await writeToThread(options, at.place, before, writeAnswer({ sections, trailer }));
	if (id !== null) {
		for (const effect of effects) {
			if (effect.request !== null && effect.request.replyTo?.replyCommentId !== id) {
				await options.rememberReply(effect.request, id);
			}
		}
	}
	return { report: effects.map((effect) => effect.report).join(", "), written: id !== null, sign: signOf(effects) };
}

/** How a comment is marked once it is answered; `null`: a job goes on. */
function signOf(effects: readonly Effect[]): "done" | "refused" | null {
	if (effects.some((effect) => effect.state === "refused" || effect.report === NOT_UNDERSTOOD)) return "refused";
	return effects.every((effect) => effect.state === null || effect.state === "published") ? "done" : null;
}
