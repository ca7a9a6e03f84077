import { parseRecipe } from "../../protocol/recipe.ts";
import type { Container } from "../../protocol/recipe-table.ts";
import type { CommandName } from "../command-table.ts";
import type { Problem } from "./describe-problems.ts";
import { shown } from "./parsed-command.ts";
import {
	ACTING_COMMANDS,
	bitsOf,
	COMMAND_WORDS,
	CONTAINER_WORDS,
	KNOWN_WORDS,
	nearWord,
	OPTION_KEYS,
	OTHER_FORMATS,
	POLITE_WORDS,
	SETTING_KEYS,
	TELLING_WORDS,
} from "./vocabulary.ts";

/** What the words of a line came to, filled by the rules. */
export type LineWords = {
	/** The first command word; later ones are taken for small talk. */
	command: CommandName | null;
	/** Whether a word of a question or a report came before any command. */
	telling: boolean;
	/** Numbers of jobs, or `all`. */
	readonly targets: string[];
	private: boolean;
	/** Canonical recipes that were written out. */
	readonly explicit: string[];
	readonly bits: number[];
	readonly containers: Container[];
	/** Budgets of mixed types, as options of a recipe: `bpw=3.5`, `bytes=4.5gb`. */
	readonly budgets: string[];
	/** Options that stand alone: `group=32`. */
	readonly options: string[];
	readonly problems: Problem[];
};

export function noWords(): LineWords {
	return {
		command: null,
		telling: false,
		targets: [],
		private: false,
		explicit: [],
		bits: [],
		containers: [],
		budgets: [],
		options: [],
		problems: [],
	};
}

type TokenRule = {
	readonly name: string;
	/** A word that this rule is the first to take; a test holds it. */
	readonly example: string;
	/** Adds what the word says to `words`; `false`: the word is not this rule's. */
	readonly take: (token: string, words: LineWords) => boolean;
};

const JOB_NUMBER = /^(?=.*\d)[0-9a-f]{6,8}(?:-[0-9a-f-]{0,27})?$/;

/** The first rule that takes a word decides what it means; the last takes all. */
export const TOKEN_RULES: readonly TokenRule[] = [
	{
		name: "command",
		example: "quantize",
		take: (token, words) => {
			const command = COMMAND_WORDS.get(token);
			if (command === undefined) return false;
			// "did you make the gguf?" is no order.
			if (!words.telling || !ACTING_COMMANDS.has(command)) words.command ??= command;
			return true;
		},
	},
	{
		name: "job",
		example: "3f2a91bc",
		take: (token, words) => {
			if (token !== "all" && !JOB_NUMBER.test(token)) return false;
			words.targets.push(token);
			return true;
		},
	},
	{
		name: "question or report",
		example: "did",
		take: (token, words) => {
			if (!TELLING_WORDS.has(token)) return false;
			if (words.command === null) words.telling = true;
			return true;
		},
	},
	{ name: "small talk", example: "please", take: (token) => POLITE_WORDS.has(token) },
	{
		name: "private",
		example: "private=yes",
		take: (token, words) => {
			if (!/^private(?:=(?:yes|true|on))?$/.test(token)) return false;
			words.private = true;
			return true;
		},
	},
	{
		name: "container",
		example: "format=onnx",
		take: (token, words) => {
			const container = CONTAINER_WORDS.get(token.replace(/^(?:format|container)=/, ""));
			if (container === undefined) return false;
			words.containers.push(container);
			return true;
		},
	},
	{
		name: "bits a weight on average",
		example: "3.5bpw",
		take: (token, words) => {
			const average = /^bpw=([^,]*)$|^(\d{1,2}(?:\.\d{1,3})?)bpw$/.exec(token)?.slice(1).join("");
			if (average === undefined) return false;
			words.budgets.push(`bpw=${average}`);
			return true;
		},
	},
	{
		name: "size of the files",
		example: "4.5gb",
		take: (token, words) => {
			const size = /^bytes=([^,]*)$|^(\d{1,6}(?:\.\d{1,3})?[kmgt]i?b)$/.exec(token)?.slice(1).join("");
			if (size === undefined) return false;
			words.budgets.push(`bytes=${size}`);
			return true;
		},
	},
	{
		name: "bits",
		example: "bits=4,8",
		take: (token, words) => {
			const list = /^bits=(\d{1,2}(?:,\d{1,2})+)$/.exec(token)?.[1];
			const bits = list === undefined ? [bitsOf(token)] : list.split(",").map(Number);
			if (!bits.every((one) => one !== null)) return false;
			words.bits.push(...bits);
			return true;
		},
	},
	{
		name: "option of a recipe",
		example: "group=32",
		take: (token, words) => {
			if (!/^(?:group|block|refine|tune|zero|embedding)=[^,]*$/.test(token)) return false;
			words.options.push(token);
			return true;
		},
	},
	{
		name: "option in short",
		example: "g32",
		take: (token, words) => {
			const group = /^g(\d{1,3})$/.exec(token)?.[1];
			if (group === undefined && token !== "tune") return false;
			words.options.push(group === undefined ? "tune=on" : `group=${group}`);
			return true;
		},
	},
	{
		name: "format that is not written",
		example: "awq",
		take: (token, { problems }) => {
			const other = OTHER_FORMATS.get(token.replace(/^(?:format|container|recipe)=/, ""));
			if (other === undefined) return false;
			problems.push({
				word: token,
				message: `I do not write ${shown(token)}; the nearest I have is ${other.name}.`,
				near: other.word,
			});
			return true;
		},
	},
	{
		name: "option that does not exist",
		example: "grup=32",
		take: (token, { problems }) => {
			const [key = "", ...value] = token.split("=");
			const isOption = value.length > 0 && /^[a-z_-]{2,20}$/.test(key);
			if (!isOption || SETTING_KEYS.includes(key) || key === "recipes") return false;
			const near = nearWord(key, SETTING_KEYS);
			const message = `There is no option "${shown(key)}".`;
			problems.push({ word: token, message, near: near === null ? null : `${near}=${value.join("=")}` });
			return true;
		},
	},
	{
		name: "recipe",
		example: "q8_0",
		take: (token, words) => {
			for (const text of writtenRecipes(token.replace(/^recipes?=/, ""))) takeRecipe(token, text, words);
			return true;
		},
	},
];

/** The recipes of a list with commas, in which options follow their recipe. */
function writtenRecipes(token: string): readonly string[] {
	const recipes: string[] = [];
	for (const part of token.split(",").filter((text) => text.length > 0)) {
		const key = part.split("=", 1)[0] ?? "";
		const last = recipes.length - 1;
		if (OPTION_KEYS.has(key) && part.includes("=") && last >= 0) recipes[last] += `,${part}`;
		else recipes.push(part);
	}
	return recipes;
}

/** One recipe of the word `token`, or a problem. */
function takeRecipe(token: string, text: string, words: LineWords): void {
	// People write "q8_0" for "gguf:q8_0".
	const bareGguf = /^i?q\d_[a-z0-9_]+$/.test(text);
	const parsed = parseRecipe(bareGguf ? `gguf:${text}` : text);
	if (parsed.ok) {
		words.explicit.push(parsed.recipe.canonical);
		return;
	}
	const looksLikeRecipe = bareGguf || /[:=]|^w\d+a\d+|^recipes?=/.test(token);
	const suggested = parsed.refusal.suggestion;
	const near =
		suggested !== null && parseRecipe(suggested).ok
			? suggested
			: nearWord(bareGguf ? `gguf:${text}` : text, KNOWN_WORDS);
	words.problems.push({
		word: text,
		message: looksLikeRecipe ? parsed.refusal.message : `I do not know the word "${shown(text)}".`,
		near,
	});
}

/** Thanks at the end of a request are no report. */
function withoutThanks(tokens: readonly string[]): readonly string[] {
	const thanks = /(?:^| )(?:thanks|thank you)$/.exec(tokens.join(" "))?.[0].trim().split(" ").length ?? 0;
	return thanks < tokens.length ? tokens.slice(0, tokens.length - thanks) : tokens;
}

export function readTokens(tokens: readonly string[]): LineWords {
	const words = noWords();
	for (const token of withoutThanks(tokens)) TOKEN_RULES.find((rule) => rule.take(token, words));
	return words;
}
