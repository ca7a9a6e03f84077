import { readFitQuestion } from "../../fit/fit-question.ts";
import { parseRecipe } from "../../protocol/recipe.ts";
import type { Container } from "../../protocol/recipe-table.ts";
import { REMOVED } from "../comment-lines.ts";
import { askedRecipes } from "./asked-recipes.ts";
import { describeProblems } from "./describe-problems.ts";
import { type CommandGrammar, keyOf, type ParsedCommand, shown } from "./parsed-command.ts";
import { takeModel, takeOptions, tokensOf } from "./split-line.ts";
import { type LineWords, readTokens } from "./token-rules.ts";
import { CONTAINER_WORDS } from "./vocabulary.ts";

const MAXIMUM_RECIPES = 16;
const MAXIMUM_LINE_TOKENS = 40;
/** Marks that make text be seen in another order than it is read. */
const DIRECTION_MARKS = /[\u200E\u200F\u202A-\u202E\u2066-\u2069]/;
const MODEL = /^[A-Za-z0-9][A-Za-z0-9._-]{0,95}\/[A-Za-z0-9][A-Za-z0-9._-]{0,95}$/;
const REVISION = /^[A-Za-z0-9][A-Za-z0-9._/-]{0,99}$/;

/** How the commands of one line are made: all of them carry the line, its model and a key. */
type LineForms = {
	readonly common: (key: string) => Pick<ParsedCommand, "line" | "key" | "model">;
	readonly invalid: (message: string, suggestion?: string | null) => ParsedCommand;
};

function formsOf(line: string, written: string, model: string | null): LineForms {
	const common: LineForms["common"] = (key) => ({
		line: shown(line),
		key: model === null ? key : keyOf(key, model),
		model,
	});
	return {
		common,
		invalid: (message, suggestion = null) => ({
			kind: "invalid",
			message,
			suggestion,
			...common(keyOf("invalid", written)),
		}),
	};
}

/** What is wrong with a line before any of its words is read; `null`: nothing. */
function unreadable(written: string): string | null {
	if (written.includes(REMOVED)) {
		return "I do not read code, links or HTML inside a command. Write it as plain text.";
	}
	if (DIRECTION_MARKS.test(written)) {
		return "The line holds invisible marks that turn the direction of text, so that what is seen is not what is read. Type it anew.";
	}
	return null;
}

/** The command of one line. `line`: as it stands in the comment; `written`: what follows the mention in it. */
export function parseLine(line: string, written: string, grammar: CommandGrammar): ParsedCommand {
	const unnamed = formsOf(line, written, null);
	const fault = unreadable(written);
	if (fault !== null) return unnamed.invalid(fault);
	const options = takeOptions(written);
	const { rest, models } = takeModel(options.rest);
	const tokens = tokensOf(rest);
	if (tokens.length === 0 && options.values.size === 0 && models.length === 0) {
		return { kind: "help", ...unnamed.common(keyOf("help")) };
	}
	if (tokens.length > MAXIMUM_LINE_TOKENS) {
		return unnamed.invalid(`A command has at most ${MAXIMUM_LINE_TOKENS} words.`);
	}
	if (options.twice !== null) return unnamed.invalid(`The option "${options.twice}" is given twice.`);
	const optionModel = options.values.get("model");
	const named = [...new Set([...(optionModel === undefined ? [] : [optionModel]), ...models])];
	if (named.length > 1) return unnamed.invalid("Name one model in a line, each on a line of its own.");
	const [model = null] = named;
	if (model !== null && !MODEL.test(model)) {
		return unnamed.invalid(`"${shown(model)}" cannot be the name of a model on the Hub: those look like owner/model.`);
	}
	const forms = formsOf(line, written, model);
	const revision = options.values.get("revision") ?? null;
	if (revision !== null && (!REVISION.test(revision) || revision.includes(".."))) {
		return forms.invalid(`"${shown(revision)}" cannot be the name of a branch, a tag or a commit.`);
	}
	if (isFitQuestion(tokens)) return fitCommand(rest, forms);
	const words = readTokens(tokens);
	if (words.problems.length > 0) {
		const { message, suggestion } = describeProblems(words.problems, written);
		return forms.invalid(message, suggestion);
	}
	switch (words.command) {
		case "which":
			return fitCommand(rest, forms);
		case "status":
		case "help":
		case "ping":
		case "approve":
			return { kind: words.command, ...forms.common(keyOf(words.command)) };
		case "cancel":
		case "retry":
		case "explain":
			return jobCommand(words.command, words, forms);
		case "quantize":
		case "plan":
		case null: {
			const calibration = options.values.get("calibration")?.toLowerCase() ?? null;
			return variantCommand(words.command, words, { model, revision, calibration }, grammar, forms);
		}
	}
}

/** "which fits 8 GB", "what runs on an RTX 4090": a question, whatever else its words mean in other lines. */
function isFitQuestion(tokens: readonly string[]): boolean {
	const [first = ""] = tokens;
	return first === "which" || (first === "what" && tokens.some((token) => /^(?:fits?|runs?)$/.test(token)));
}

function fitCommand(rest: string, forms: LineForms): ParsedCommand {
	let container: Container | null = null;
	const words = rest.split(/\s+/).filter((word) => {
		const found = CONTAINER_WORDS.get(
			word
				.toLowerCase()
				.replace(/^(?:format|container)=/, "")
				.replace(/[?!.,]+$/, ""),
		);
		container = found ?? container;
		return found === undefined;
	});
	const reading = readFitQuestion(words.join(" "));
	if (!reading.ok) return forms.invalid(reading.message, "which fits 8 GB at 8k");
	const { question } = reading;
	return { kind: "which", question, container, ...forms.common(keyOf("which", question, container)) };
}

function jobCommand(command: "cancel" | "retry" | "explain", words: LineWords, forms: LineForms): ParsedCommand {
	const named = command === "cancel" ? words.targets : words.targets.filter((target) => target !== "all");
	const all = command === "explain" ? [...named, ...words.explicit] : named;
	if (all.length > 1) return forms.invalid(`Say one job to ${command}, each on a line of its own.`);
	const target = all[0] ?? null;
	return { kind: command, target, ...forms.common(keyOf(command, target)) };
}

/** `quantize` and `plan`. `command` is `null` where a line names no command: it may ask for variants all the same. */
function variantCommand(
	command: "quantize" | "plan" | null,
	words: LineWords,
	options: { readonly model: string | null; readonly revision: string | null; readonly calibration: string | null },
	grammar: CommandGrammar,
	forms: LineForms,
): ParsedCommand {
	const { model, revision, calibration } = options;
	// "quantize all" means all that a push gives.
	if (words.targets.some((target) => target !== "all")) {
		return forms.invalid(`I do not know what to do with "${shown(words.targets.join(" "))}" here.`, "status");
	}
	const asked = askedRecipes(words, grammar.defaultRecipes(model));
	if (!asked.ok) return forms.invalid(asked.message, asked.suggestion);
	const says = asked.recipes.length > 0 || revision !== null || calibration !== null || words.private;
	if (command === null && !says) {
		if (model !== null) return forms.invalid("Say what to do with the model.", `quantize 8bit gguf ${model}`);
		return { kind: "help", ...forms.common(keyOf("help")) };
	}
	const canonical = new Set<string>();
	for (const text of asked.recipes) {
		const parsed = parseRecipe(text);
		if (!parsed.ok) return forms.invalid(parsed.refusal.message, parsed.refusal.suggestion);
		canonical.add(parsed.recipe.canonical);
	}
	if (canonical.size > MAXIMUM_RECIPES) return forms.invalid(`A command names at most ${MAXIMUM_RECIPES} recipes.`);
	const recipes = [...canonical];
	if (command === null && words.telling) {
		return forms.invalid(
			"I start a run only where it is asked for, and this reads like a question or a report.",
			recipes.length > 0 ? ["quantize", ...recipes, ...(model === null ? [] : [model])].join(" ") : null,
		);
	}
	const kind = command ?? "quantize";
	return {
		kind,
		recipes,
		revision,
		calibration,
		private: words.private,
		...forms.common(keyOf(kind, recipes.toSorted(), revision, calibration, words.private)),
	};
}
