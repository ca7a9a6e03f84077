import type { RequestRecord } from "../../records/request.ts";
import type { AnswerOptions } from "../answer-options.ts";
import type { Section } from "../answer-text.ts";
import type { Author, Comment, Place, Thread } from "../forum.ts";
import type { ParsedCommand } from "../parse/parsed-command.ts";
import type { ReplyContext } from "../replies/reply-context.ts";

/** What one command came to. */
export type Effect = {
	readonly section: Section;
	/** For the operator's page. */
	readonly report: string;
	readonly request: RequestRecord | null;
	/** For the trailer; `null` leaves it as it is. */
	readonly state: string | null;
	readonly waits: boolean;
};

/** Who wrote what, where, and with which rights. */
export type Situation = {
	readonly place: Place;
	readonly thread: Thread;
	/** The model that the thread is about. */
	readonly usual: string | null;
	readonly comment: Comment;
	readonly author: Author;
	readonly botId: string;
	readonly trusted: boolean;
	/** Whether somebody with rights lets this run for the author. */
	readonly approved: boolean;
	readonly replyCommentId: string | null;
};

/** What a command that is about one model is run with. */
export type CommandRun<Kind extends ParsedCommand["kind"]> = {
	readonly command: ParsedCommand & { readonly kind: Kind };
	readonly options: AnswerOptions;
	readonly at: Situation;
	/** The model that the command is about. */
	readonly source: string;
	readonly context: ReplyContext;
};

/** An answer that goes when its line does: it changed nothing. */
export function passing(command: ParsedCommand, text: string, report: string): Effect {
	return {
		section: { key: command.key, request: null, lasting: false, text },
		report,
		request: null,
		state: null,
		waits: false,
	};
}

/** An answer that stays: what it tells of was done. */
export function lasting(command: ParsedCommand, text: string): Effect {
	return {
		...passing(command, text, command.kind),
		section: { key: command.key, request: null, lasting: true, text },
	};
}
