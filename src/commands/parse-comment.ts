import { createHash } from "node:crypto";
import { MAXIMUM_COMMENT_CHARACTERS } from "../hub/discussion.ts";
import {
	type Container,
	editDistance,
	MIXED_NAME,
	nearestWord,
	parseRecipe,
	RECIPE_NAMES,
	RECIPE_OPTIONS,
} from "../protocol/recipe.ts";
import { COMMANDS, type CommandName, QUANTIZE_OPTIONS } from "./command-table.ts";
import { commentLines, REMOVED } from "./comment-lines.ts";

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

type CommandGrammar = {
	/** The bot's account name, without `@`. */
	readonly botName: string;
	/** What "4bit" and "gguf" alone refer to: the recipes made of every push to the model. `null`: the thread's. */
	readonly defaultRecipes: (model: string | null) => readonly string[];
};

export const MAXIMUM_COMMANDS = 10;
const MAXIMUM_RECIPES = 16;
const MAXIMUM_LINE_TOKENS = 40;
const MAXIMUM_SHOWN_CHARACTERS = 80;

const SUGGESTIBLE = /^[A-Za-z0-9:=,._/ -]{1,80}$/;

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
		"files format quantized quantised quantization weights bit bits did do does is was it's fail failed happen happened job jobs " +
		"how what when will be so far now there everything last newest latest commit fit fits within under most"
	).split(" "),
);

/** Formats that people know and this bot does not write, with the nearest that it does. */
const OTHER_FORMATS: ReadonlyMap<string, { readonly word: string; readonly name: string }> = new Map(
	[
		{
			known: "awq autoawq bnb bitsandbytes nf4 hqq marlin",
			word: "vllm",
			name: "compressed-tensors, for vLLM and SGLang",
		},
		{ known: "fp8 w8a8", word: "w8a16", name: "w8a16" },
		{ known: "exl2 exl3 mlx ggml", word: "gguf", name: "GGUF" },
		{ known: "openvino tensorrt coreml", word: "onnx", name: "ONNX" },
	].flatMap(({ known, word, name }) => known.split(" ").map((other) => [other, { word, name }] as const)),
);

const OPTION_KEYS: ReadonlySet<string> = new Set(RECIPE_OPTIONS);
const SETTING_KEYS: readonly string[] = [...QUANTIZE_OPTIONS.map((option) => option.key), ...OPTION_KEYS];
const COMMAND_WORDS: ReadonlyMap<string, CommandName> = new Map(
	COMMANDS.flatMap((command) => [command.name, ...command.aliases].map((word) => [word, command.name] as const)),
);
const KNOWN_WORDS: readonly string[] = [
	...COMMAND_WORDS.keys(),
	...CONTAINER_WORDS.keys(),
	...RECIPE_NAMES.map((recipe) => recipe.name),
	...QUANTIZE_OPTIONS.map((option) => option.key),
	"all",
	"4bit",
	"8bit",
];
/** Marks that make text be seen in another order than it is read. */
const DIRECTION_MARKS = /[\u200E\u200F\u202A-\u202E\u2066-\u2069]/;
const JOB_NUMBER = /^(?=.*\d)[0-9a-f]{6,8}(?:-[0-9a-f-]{0,27})?$/;
const MODEL = /^[A-Za-z0-9][A-Za-z0-9._-]{0,95}\/[A-Za-z0-9][A-Za-z0-9._-]{0,95}$/;
const REVISION = /^[A-Za-z0-9][A-Za-z0-9._/-]{0,99}$/;

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
			.replaceAll(/\b(\d{1,2}(?:\.\d{1,3})?)\s+bpw\b(?!=)/g, "$1bpw")
			.replaceAll(/\b(\d{1,6}(?:\.\d{1,3})?)\s+([kmgt]i?b)\b(?!=)/g, "$1$2")
			.split(/\s+/)
			.map((token) => token.replaceAll(/^["'(]+|["').,;:!?]+$/g, ""))
			.filter((token) => token.length > 0)
	);
}

type Wish = {
	explicit: string[];
	bits: number[];
	/** Budgets of mixed types, as options of a recipe: `bpw=3.5`, `bytes=4.5gb`. */
	budgets: string[];
	containers: Container[];
	options: string[];
};

function recipesOfWish(
	wish: Wish,
	usualRecipes: readonly string[],
): { recipes: string[] } | { message: string; suggestion: string | null } {
	const recipes = [...wish.explicit];
	const defaults = usualRecipes.flatMap((text) => {
		const parsed = parseRecipe(text);
		return parsed.ok ? [parsed.recipe] : [];
	});
	const [budget] = wish.budgets;
	if (budget !== undefined) {
		if (wish.bits.length > 0) {
			const key = budget.split("=", 1)[0];
			return { message: `bits and ${key} exclude each other: say one of them.`, suggestion: null };
		}
		const other = wish.containers.find((container) => container !== MIXED_NAME);
		for (const option of wish.budgets) {
			const parsed = parseRecipe(`${MIXED_NAME},${option}`);
			if (!parsed.ok) return { message: parsed.refusal.message, suggestion: null };
			if (other !== undefined) {
				return {
					message: `Types are mixed in GGUF files only, not in ${other}.`,
					suggestion: `quantize gguf ${option}`,
				};
			}
			recipes.push(parsed.recipe.canonical);
		}
	} else if (wish.bits.length > 0 || wish.containers.length > 0) {
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
					const widths = [...new Set(known.map((candidate) => candidate.bits))].toSorted((one, other) => one - other);
					// Of two that are as near the one that keeps more.
					const nearest = widths
						.toReversed()
						.toSorted((one, other) => Math.abs(one - wanted) - Math.abs(other - wanted))[0];
					return {
						message: `There is no ${wanted}-bit ${container} recipe; ${container} has ${widths.join(", ")} bits.`,
						suggestion: nearest === undefined ? null : `quantize ${nearest}bit ${container}`,
					};
				}
				recipes.push(name.name);
			}
		}
	}
	if (wish.options.length > 0) {
		if (recipes.length === 0) {
			return { message: `Say which recipe "${shown(wish.options.join(","))}" belongs to.`, suggestion: null };
		}
		const last = recipes.length - 1;
		recipes[last] = [recipes[last], ...wish.options].join(",");
	}
	return { recipes };
}

type Problem = { readonly word: string; readonly message: string; readonly near: string | null };

/** `key=value` pairs whose value keeps its capitals, taken out of the line. */
function takeOptions(rest: string): {
	readonly rest: string;
	readonly values: ReadonlyMap<string, string>;
	readonly twice: string | null;
} {
	const values = new Map<string, string>();
	let twice: string | null = null;
	const left = rest.replaceAll(
		/(^|\s)(revision|calibration|model)=(\S*)/gi,
		(_all, space: string, key: string, value: string) => {
			const name = key.toLowerCase();
			if (values.has(name)) twice = name;
			values.set(name, value.replaceAll(/^["']|["'.,;]+$/g, ""));
			return space;
		},
	);
	// "from branch dev" is the same wish.
	const told = left.replaceAll(
		/(^|\s)(?:from\s+)?(?:branch|tag)\s+([^\s=]+)/gi,
		(all, space: string, value: string) => {
			if (values.has("revision")) return all;
			values.set("revision", value.replaceAll(/[.,;!?]+$/g, ""));
			return space;
		},
	);
	return { rest: told, values, twice };
}

/** A model written as it stands, `owner/name`, with the rest of the line. Two words of the grammar are none. */
function takeModel(rest: string): { readonly rest: string; readonly models: readonly string[] } {
	const models: string[] = [];
	const left = rest.replaceAll(
		/(^|\s)([A-Za-z0-9][\w.-]*\/[A-Za-z0-9][\w.-]*)(?=\s|$)/g,
		(all, space: string, word) => {
			const name = String(word).replace(/[.,;:!?]+$/, "");
			const [owner = ""] = name.toLowerCase().split("/");
			if (CONTAINER_WORDS.has(owner) || bitsOf(owner) !== null || parseRecipe(owner).ok) return all;
			models.push(name);
			return space;
		},
	);
	return { rest: left, models };
}

function keyOf(...parts: readonly unknown[]): string {
	return createHash("sha256").update(JSON.stringify(parts)).digest("hex").slice(0, 12);
}

const MAXIMUM_PROBLEMS = 5;

/** One message for everything in a line that is not known, with the line as it was probably meant. */
function describeProblems(
	problems: readonly Problem[],
	rest: string,
): { readonly message: string; readonly suggestion: string | null } {
	const told = problems.slice(0, MAXIMUM_PROBLEMS).map((problem) => problem.message);
	const more = problems.length - told.length;
	if (more > 0) told.push(`And ${more} more.`);
	let corrected = rest;
	for (const { word, near } of problems) {
		if (near !== null) corrected = corrected.replace(new RegExp(escapeForPattern(word), "i"), () => near);
	}
	const [only] = problems;
	const near = problems.every((problem) => problem.near !== null);
	const suggestion = near && SUGGESTIBLE.test(corrected) ? corrected : (only?.near ?? null);
	const isSafe = suggestion !== null && SUGGESTIBLE.test(suggestion);
	return { message: told.join(" "), suggestion: isSafe && (problems.length === 1 || near) ? suggestion : null };
}

function parseLine(line: string, written: string, grammar: CommandGrammar): ParsedCommand {
	let model: string | null = null;
	const common = (key: string) => ({ line: shown(line), key: model === null ? key : keyOf(key, model), model });
	const invalid = (message: string, suggestion: string | null = null): ParsedCommand => ({
		kind: "invalid",
		message,
		suggestion,
		...common(keyOf("invalid", written)),
	});
	if (written.includes(REMOVED)) {
		return invalid("I do not read code, links or HTML inside a command. Write it as plain text.");
	}
	if (DIRECTION_MARKS.test(written)) {
		return invalid(
			"The line holds invisible marks that turn the direction of text, so that what is seen is not what is read. Type it anew.",
		);
	}
	const { rest: unnamed, values, twice } = takeOptions(written);
	const { rest, models } = takeModel(unnamed);
	const tokens = tokensOf(rest);
	if (tokens.length === 0 && values.size === 0 && models.length === 0)
		return { kind: "help", ...common(keyOf("help")) };
	if (tokens.length > MAXIMUM_LINE_TOKENS) return invalid(`A command has at most ${MAXIMUM_LINE_TOKENS} words.`);
	if (twice !== null) return invalid(`The option "${twice}" is given twice.`);
	const named = [...new Set([...(values.has("model") ? [values.get("model") ?? ""] : []), ...models])];
	if (named.length > 1) return invalid("Name one model in a line, each on a line of its own.");
	const [modelName = null] = named;
	if (modelName !== null && !MODEL.test(modelName)) {
		return invalid(`"${shown(modelName)}" cannot be the name of a model on the Hub: those look like owner/model.`);
	}
	model = modelName;
	const revision = values.get("revision") ?? null;
	if (revision !== null && (!REVISION.test(revision) || revision.includes(".."))) {
		return invalid(`"${shown(revision)}" cannot be the name of a branch, a tag or a commit.`);
	}

	const wish: Wish = { explicit: [], bits: [], budgets: [], containers: [], options: [] };
	const problems: Problem[] = [];
	const targets: string[] = [];
	let wantsPrivate = false;
	let command: CommandName | null = null;
	for (const token of tokens) {
		const word = COMMAND_WORDS.get(token);
		if (word !== undefined) {
			command ??= word;
			continue;
		}
		if (token === "all" || JOB_NUMBER.test(token)) {
			targets.push(token);
			continue;
		}
		if (POLITE_WORDS.has(token)) continue;
		if (/^private(?:=(?:yes|true|on))?$/.test(token)) {
			wantsPrivate = true;
			continue;
		}
		const container = CONTAINER_WORDS.get(token.replace(/^(?:format|container)=/, ""));
		if (container !== undefined) {
			wish.containers.push(container);
			continue;
		}
		const average = /^bpw=([^,]*)$|^(\d{1,2}(?:\.\d{1,3})?)bpw$/.exec(token)?.slice(1).join("");
		if (average !== undefined) {
			wish.budgets.push(`bpw=${average}`);
			continue;
		}
		const size = /^bytes=([^,]*)$|^(\d{1,6}(?:\.\d{1,3})?[kmgt]i?b)$/.exec(token)?.slice(1).join("");
		if (size !== undefined) {
			wish.budgets.push(`bytes=${size}`);
			continue;
		}
		const list = /^bits=(\d{1,2}(?:,\d{1,2})+)$/.exec(token)?.[1];
		const bits = list === undefined ? [bitsOf(token)] : list.split(",").map(Number);
		if (bits.every((one) => one !== null)) {
			wish.bits.push(...bits);
			continue;
		}
		if (/^(?:group|block|refine|tune|zero|embedding)=[^,]*$/.test(token)) {
			wish.options.push(token);
			continue;
		}
		const group = /^g(\d{1,3})$/.exec(token)?.[1];
		if (group !== undefined || token === "tune") {
			wish.options.push(group === undefined ? "tune=on" : `group=${group}`);
			continue;
		}
		const other = OTHER_FORMATS.get(token.replace(/^(?:format|container|recipe)=/, ""));
		if (other !== undefined) {
			problems.push({
				word: token,
				message: `I do not write ${shown(token)}; the nearest I have is ${other.name}.`,
				near: other.word,
			});
			continue;
		}
		const [key = "", ...value] = token.split("=");
		if (value.length > 0 && /^[a-z_-]{2,20}$/.test(key) && !SETTING_KEYS.includes(key) && key !== "recipes") {
			const near = nearWord(key, SETTING_KEYS);
			const message = `There is no option "${shown(key)}".`;
			problems.push({ word: token, message, near: near === null ? null : `${near}=${value.join("=")}` });
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
					: nearWord(bareGguf ? `gguf:${text}` : text, KNOWN_WORDS);
			problems.push({
				word: text,
				message: looksLikeRecipe ? parsed.refusal.message : `I do not know the word "${shown(text)}".`,
				near,
			});
		}
	}
	if (problems.length > 0) {
		const { message, suggestion } = describeProblems(problems, written);
		return invalid(message, suggestion);
	}
	switch (command) {
		case "status":
		case "help":
		case "ping":
		case "approve":
			return { kind: command, ...common(keyOf(command)) };
		case "cancel":
		case "retry":
		case "explain": {
			const named = command === "cancel" ? targets : targets.filter((target) => target !== "all");
			const all = command === "explain" ? [...named, ...wish.explicit] : named;
			if (all.length > 1) return invalid(`Say one job to ${command}, each on a line of its own.`);
			const target = all[0] ?? null;
			return { kind: command, target, ...common(keyOf(command, target)) };
		}
		case "quantize":
		case "plan":
		case null:
			break;
	}
	// "quantize all" means all that a push gives.
	if (targets.some((target) => target !== "all")) {
		return invalid(`I do not know what to do with "${shown(targets.join(" "))}" here.`, `status`);
	}
	const wished = recipesOfWish(wish, grammar.defaultRecipes(model));
	if ("message" in wished) return invalid(wished.message, wished.suggestion);
	const asked = wished.recipes.length > 0 || revision !== null || values.has("calibration") || wantsPrivate;
	if (command === null && !asked) {
		if (model !== null) return invalid("Say what to do with the model.", `quantize 8bit gguf ${model}`);
		return { kind: "help", ...common(keyOf("help")) };
	}
	const canonical = new Set<string>();
	for (const text of wished.recipes) {
		const parsed = parseRecipe(text);
		if (!parsed.ok) return invalid(parsed.refusal.message, parsed.refusal.suggestion);
		canonical.add(parsed.recipe.canonical);
	}
	if (canonical.size > MAXIMUM_RECIPES) return invalid(`A command names at most ${MAXIMUM_RECIPES} recipes.`);
	const recipes = [...canonical];
	const calibration = values.get("calibration")?.toLowerCase() ?? null;
	const kind = command ?? "quantize";
	return {
		kind,
		recipes,
		revision,
		calibration,
		private: wantsPrivate,
		...common(keyOf(kind, recipes.toSorted(), revision, calibration, wantsPrivate)),
	};
}

/** The word that was meant; a short word is near few others. */
function nearWord(word: string, candidates: readonly string[]): string | null {
	const near = nearestWord(word, candidates);
	const most = word.length <= 3 ? 1 : Math.max(2, Math.floor(word.length / 3));
	return near !== null && editDistance(word, near) <= most ? near : null;
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
				key: keyOf("too many"),
				model: null,
				message: `I read at most ${MAXIMUM_COMMANDS} commands a comment; the rest was left out.`,
				suggestion: null,
			});
			break;
		}
		commands.push(parseLine(line, rest, grammar));
	}
	return commands;
}
