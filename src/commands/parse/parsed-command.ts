import { createHash } from "node:crypto";
import type { FitQuestion } from "../../fit/fit-question.ts";
import type { Container } from "../../protocol/recipe-table.ts";

/** What `quantize` and `plan` are about. */
type Wanted = {
	/** Canonical; empty means the operator's defaults. */
	readonly recipes: readonly string[];
	/** A branch, tag or commit as written; `null`: the newest commit of main. */
	readonly revision: string | null;
	readonly calibration: string | null;
	readonly private: boolean;
};

type Common = {
	readonly line: string;
	/** The same for lines that ask the same: an edited comment runs only keys that are new. */
	readonly key: string;
	/** The Hub model that the line names; `null`: the one that the thread is about. */
	readonly model: string | null;
};

export type ParsedCommand =
	| (Common & Wanted & { readonly kind: "quantize" })
	| (Common & Wanted & { readonly kind: "plan" })
	| (Common & { readonly kind: "which"; readonly question: FitQuestion; readonly container: Container | null })
	| (Common & { readonly kind: "status" })
	| (Common & { readonly kind: "approve" })
	| (Common & { readonly kind: "help" })
	| (Common & { readonly kind: "ping" })
	/** `target`: the beginning of a job's number, a canonical recipe, or `all`. */
	| (Common & { readonly kind: "cancel"; readonly target: string | null })
	| (Common & { readonly kind: "retry"; readonly target: string | null })
	| (Common & { readonly kind: "explain"; readonly target: string | null })
	/** Addressed to the bot, but not understood. `suggestion` is what follows the mention; it is safe to show as code. */
	| (Common & { readonly kind: "invalid"; readonly message: string; readonly suggestion: string | null });

export type CommandGrammar = {
	/** The bot's account name, without `@`. */
	readonly botName: string;
	/** What "4bit" and "gguf" alone refer to: the recipes made of every push to the model. `null`: the thread's. */
	readonly defaultRecipes: (model: string | null) => readonly string[];
};

const MAXIMUM_SHOWN_CHARACTERS = 80;

/** What somebody wrote, short enough to be said back. */
export function shown(text: string): string {
	return text.length <= MAXIMUM_SHOWN_CHARACTERS ? text : `${text.slice(0, MAXIMUM_SHOWN_CHARACTERS)}…`;
}

/** One key for all lines that ask the same. */
export function keyOf(...parts: readonly unknown[]): string {
	return createHash("sha256").update(JSON.stringify(parts)).digest("hex").slice(0, 12);
}
