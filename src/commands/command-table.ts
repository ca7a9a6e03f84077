/** What the bot understands in comments. This table feeds the parser, the help reply and the help page. */
export type CommandName = "quantize" | "status" | "help";

export type CommandDescription = {
	readonly name: CommandName;
	/** Other words for the same command. */
	readonly aliases: readonly string[];
	/** What follows the mention. */
	readonly usage: string;
	readonly summary: string;
	readonly whoCanUse: string;
	/** What follows the mention; each one is parsed in a test. */
	readonly examples: readonly { readonly text: string; readonly meaning: string }[];
};

const THOSE_WITH_RIGHTS = "The owner of the repo, members of its organisation, and people on the operator's list.";
const EVERYBODY = "Everybody.";

export const COMMANDS: readonly CommandDescription[] = [
	{
		name: "quantize",
		aliases: ["quantise", "quant", "make", "convert"],
		usage: "quantize [recipe …] [bits] [container]",
		summary:
			"Makes the variants you name of the newest commit of this repo, and answers here with the links and the measured KL.",
		whoCanUse: THOSE_WITH_RIGHTS,
		examples: [
			{ text: "quantize 8bit gguf", meaning: "An 8-bit GGUF file." },
			{ text: "4bit gguf please", meaning: "The word quantize may be left out." },
			{ text: "quantize recipe=gguf:q8_0", meaning: "A variant by its exact recipe." },
			{ text: "quantize w4a16,group=32 onnx:q4", meaning: "Two recipes, one of them with an option." },
			{ text: "quantize", meaning: "The variants that this bot makes of every push." },
		],
	},
	{
		name: "status",
		aliases: ["state", "progress"],
		usage: "status",
		summary: "Says which variants of this repo are published, under way or failed, and why.",
		whoCanUse: EVERYBODY,
		examples: [{ text: "status", meaning: "The state of every variant of this repo." }],
	},
	{
		name: "help",
		aliases: ["usage", "commands"],
		usage: "help",
		summary: "Lists what the bot understands.",
		whoCanUse: EVERYBODY,
		examples: [{ text: "help", meaning: "This list." }],
	},
];
