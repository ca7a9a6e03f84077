import { MAXIMUM_COMMENT_CHARACTERS } from "../hub/discussion.ts";
import { type Container, nearestWord, parseRecipe, RECIPE_NAMES } from "../protocol/recipe.ts";
import { COMMANDS, type CommandName } from "./command-table.ts";
import { commentLines, REMOVED } from "./comment-lines.ts";

export type ParsedCommand =
	/** `recipes` are canonical; empty means the operator's defaults. */
	| { readonly kind: "quantize"; readonly recipes: readonly string[]; readonly line: string }
	| { readonly kind: "status"; readonly line: string }
	| { readonly kind: "help"; readonly line: string }
	/** Addressed to the bot, but not understood. `suggestion` is what follows the mention; it is safe to show as code. */
	| { readonly kind: "invalid"; readonly line: string; readonly message: string; readonly suggestion: string | null };

export type CommandGrammar = {
	/** The bot's account name, without `@`. */
	readonly botName: string;
	/** What "4bit" and "gguf" alone refer to: the recipes made of every push. */
	readonly defaultRecipes: readonly string[];
};

export const MAXIMUM_COMMANDS = 10;
export const MAXIMUM_RECIPES = 16;
const MAXIMUM_LINE_TOKENS = 40;
const MAXIMUM_SHOWN_CHARACTERS = 80;

const SUGGESTIBLE = /^[A-Za-z0-9:=,._ -]{1,80}$/;

const CONTAINER_WORDS: ReadonlyMap<string, Container> = new Map([
	["gguf", "gguf"],
	["llama.cpp", "gguf"],
	["llamacpp", "gguf"],
	["ollama", "gguf"],
	["onnx", "onnx"],
	["onnxruntime", "onnx"],
	["transformers.js", "onnx"],
	["compressed-tensors", "compressed-tensors"],
	["vllm", "compressed-tensors"],
	["sglang", "compressed-tensors"],
	["gptq", "gptq"],
]);

const POLITE_WORDS: ReadonlySet<string> = new Set(
	(
		"a an the this that it in into to of for from as at on and also with me us i we you my our your model repo please pls " +
		"thanks thank hi hello hey dear want need like would could can give have get a variant variants version versions file " +
		"files format quantized quantised quantization weights bit bits"
	).split(" "),
);

const OPTION_KEYS: ReadonlySet<string> = new Set(["group", "block", "refine", "tune"]);
const COMMAND_WORDS: ReadonlyMap<string, CommandName> = new Map(
	COMMANDS.flatMap((command) => [command.name, ...command.aliases].map((word) => [word, command.name] as const)),
);
const KNOWN_WORDS: readonly string[] = [
	...COMMAND_WORDS.keys(),
	...CONTAINER_WORDS.keys(),
	...RECIPE_NAMES.map((recipe) => recipe.name),
	"4bit",
	"8bit",
];

/** What follows the mention when `line` is addressed to the bot, else `null`. */
function addressed(written: string, botName: string): string | null {
	// Copied from a page or a reply, a mention may carry invisible joiners.
	const line = written.replaceAll(/[\u200B-\u200D\u2060\uFEFF]/g, "").trimStart();
	const mention = `@${botName.toLowerCase()}`;
	if (line.slice(0, mention.length).toLowerCase() !== mention) return null;
	const rest = line.slice(mention.length);
	// "@yaqa-bot2" and "@yaqa-bot-fan" are other people.
	return /^(?:$|[\s:,!?]|\.(?:\s|$))/.test(rest) ? rest.replace(/^[:,.!?]+/, "").trim() : null;
}

function shown(text: string): string {
	return text.length <= MAXIMUM_SHOWN_CHARACTERS ? text : `${text.slice(0, MAXIMUM_SHOWN_CHARACTERS)}…`;
}

/** Bits that a word asks for: "8bit", "8-bit", "bits=8", "int8", "q8". */
function bitsOf(token: string): number | null {
	const match = /^(?:bits?=)?([1-9]\d?)-?bits?$|^bits?=([1-9]\d?)$|^(?:int|q)([1-9])$/.exec(token);
	const digits = match?.[1] ?? match?.[2] ?? match?.[3];
	return digits === undefined ? null : Number(digits);
}

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

function tokensOf(rest: string): readonly string[] {
	return (
		rest
			.toLowerCase()
			// "8 bit" is one wish.
			.replaceAll(/\b(\d{1,2})\s+(bits?)\b/g, "$1$2")
			.split(/\s+/)
			.map((token) => token.replaceAll(/^["'(]+|["').,;:!?]+$/g, ""))
			.filter((token) => token.length > 0)
	);
}

type Wish = { explicit: string[]; bits: number[]; containers: Container[]; options: string[] };

function recipesOfWish(wish: Wish, grammar: CommandGrammar): { recipes: string[] } | { message: string } {
	const recipes = [...wish.explicit];
	const defaults = grammar.defaultRecipes.flatMap((text) => {
		const parsed = parseRecipe(text);
		return parsed.ok ? [parsed.recipe] : [];
	});
	if (wish.bits.length > 0 || wish.containers.length > 0) {
		const containers =
			wish.containers.length > 0 ? wish.containers : [...new Set(defaults.map((recipe) => recipe.name.container))];
		for (const container of containers) {
			const usual = defaults.filter((recipe) => recipe.name.container === container);
			const bits = wish.bits.length > 0 ? wish.bits : null;
			if (bits === null && usual.length > 0) {
				recipes.push(...usual.map((recipe) => recipe.canonical));
				continue;
			}
			for (const wanted of bits ?? [4]) {
				const name = RECIPE_NAMES.find((candidate) => candidate.container === container && candidate.bits === wanted);
				if (name === undefined) {
					const known = RECIPE_NAMES.filter((candidate) => candidate.container === container);
					const what = known.length === 0 ? "none yet" : known.map((candidate) => candidate.name).join(", ");
					return {
						message: `There is no ${wanted}-bit ${container} recipe in this version. For ${container}: ${what}.`,
					};
				}
				recipes.push(name.name);
			}
		}
	}
	if (wish.options.length > 0) {
		if (recipes.length === 0) return { message: `Say which recipe "${shown(wish.options.join(","))}" belongs to.` };
		const last = recipes.length - 1;
		recipes[last] = [recipes[last], ...wish.options].join(",");
	}
	return { recipes };
}

function parseLine(line: string, rest: string, grammar: CommandGrammar): ParsedCommand {
	const invalid = (message: string, suggestion: string | null = null): ParsedCommand => ({
		kind: "invalid",
		line: shown(line),
		message,
		suggestion,
	});
	if (rest.includes(REMOVED)) {
		return invalid("I do not read code, links or HTML inside a command. Write it as plain text.");
	}
	const tokens = tokensOf(rest);
	if (tokens.length === 0) return { kind: "help", line: shown(line) };
	if (tokens.length > MAXIMUM_LINE_TOKENS) return invalid(`A command has at most ${MAXIMUM_LINE_TOKENS} words.`);

	const wish: Wish = { explicit: [], bits: [], containers: [], options: [] };
	let command: CommandName | null = null;
	for (const token of tokens) {
		const word = COMMAND_WORDS.get(token);
		if (word !== undefined) {
			command ??= word;
			continue;
		}
		if (POLITE_WORDS.has(token)) continue;
		const container = CONTAINER_WORDS.get(token.replace(/^(?:format|container)=/, ""));
		if (container !== undefined) {
			wish.containers.push(container);
			continue;
		}
		const list = /^bits=(\d{1,2}(?:,\d{1,2})+)$/.exec(token)?.[1];
		const bits = list === undefined ? [bitsOf(token)] : list.split(",").map(Number);
		if (bits.every((one) => one !== null)) {
			wish.bits.push(...bits);
			continue;
		}
		if (/^(?:group|block|refine|tune)=[^,]*$/.test(token)) {
			wish.options.push(token);
			continue;
		}
		// People write "q8_0" for "gguf:q8_0".
		for (const text of writtenRecipes(token.replace(/^recipes?=/, ""))) {
			const bareGguf = /^q\d_[a-z0-9_]+$/.test(text);
			const parsed = parseRecipe(bareGguf ? `gguf:${text}` : text);
			if (parsed.ok) {
				wish.explicit.push(parsed.recipe.canonical);
				continue;
			}
			const looksLikeRecipe = bareGguf || /[:=]|^w\d+a\d+|^recipes?=/.test(token);
			const suggested = parsed.refusal.suggestion;
			const near =
				suggested !== null && isAvailable(suggested)
					? suggested
					: nearestWord(bareGguf ? `gguf:${text}` : text, KNOWN_WORDS);
			const corrected = near === null ? null : rest.replace(new RegExp(escapeForPattern(text), "i"), () => near);
			return invalid(
				looksLikeRecipe ? parsed.refusal.message : `I do not know the word "${shown(text)}".`,
				corrected !== null && SUGGESTIBLE.test(corrected) ? corrected : near,
			);
		}
	}
	switch (command) {
		case "status":
		case "help":
			return { kind: command, line: shown(line) };
		case "quantize":
		case null:
			break;
	}
	const wished = recipesOfWish(wish, grammar);
	if ("message" in wished) return invalid(wished.message);
	if (command === null && wished.recipes.length === 0) return { kind: "help", line: shown(line) };
	const canonical = new Set<string>();
	for (const text of wished.recipes) {
		const parsed = parseRecipe(text);
		if (!parsed.ok) return invalid(parsed.refusal.message, parsed.refusal.suggestion);
		canonical.add(parsed.recipe.canonical);
	}
	if (canonical.size > MAXIMUM_RECIPES) return invalid(`A command names at most ${MAXIMUM_RECIPES} recipes.`);
	return { kind: "quantize", recipes: [...canonical], line: shown(line) };
}

function isAvailable(recipe: string): boolean {
	return parseRecipe(recipe).ok;
}

function escapeForPattern(text: string): string {
	return text.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&");
}

/** The commands of one comment, in order. Empty when nobody addressed the bot. */
export function parseComment(markdown: string, grammar: CommandGrammar): readonly ParsedCommand[] {
	if (markdown.length > MAXIMUM_COMMENT_CHARACTERS) return [];
	// Most comments never name the bot: they cost no parsing.
	if (!markdown.includes("@") || !markdown.toLowerCase().includes(grammar.botName.toLowerCase())) return [];
	const commands: ParsedCommand[] = [];
	for (const line of commentLines(markdown)) {
		const rest = addressed(line, grammar.botName);
		if (rest === null) continue;
		if (commands.length === MAXIMUM_COMMANDS) {
			commands.push({
				kind: "invalid",
				line: shown(line),
				message: `I read at most ${MAXIMUM_COMMANDS} commands a comment; the rest was left out.`,
				suggestion: null,
			});
			break;
		}
		commands.push(parseLine(line, rest, grammar));
	}
	return commands;
}
