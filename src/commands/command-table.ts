/** What the bot understands in comments. This table feeds the parser, the help reply, the help page and `docs/comments.md`. */
export type CommandName =
	| "quantize"
	| "plan"
	| "which"
	| "status"
	| "explain"
	| "cancel"
	| "retry"
	| "approve"
	| "help"
	| "ping";

type CommandDescription = {
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

const THOSE_WITH_RIGHTS =
	"The owner of the repo, members of its organisation, and people on the operator's list. Whether others may ask, wait for approval or are refused is the operator's setting.";
const TRUSTED = "The owner of the repo, members of its organisation, and people on the operator's list.";
const EVERYBODY = "Everybody.";

export const COMMANDS: readonly CommandDescription[] = [
	{
		name: "quantize",
		aliases: ["quantise", "quant", "make", "convert"],
		usage: "quantize [recipe …] [bits] [container] [revision=…]",
		summary:
			"Makes the variants you name of the newest commit of this repo, and answers here with the links and the measured KL.",
		whoCanUse: THOSE_WITH_RIGHTS,
		examples: [
			{ text: "quantize 8bit gguf", meaning: "An 8-bit GGUF file." },
			{ text: "4bit gguf please", meaning: "The word quantize may be left out." },
			{ text: "quantize recipe=gguf:q8_0", meaning: "A variant by its exact recipe." },
			{ text: "quantize w4a16,group=32 onnx:q4", meaning: "Two recipes, one of them with an option." },
			{ text: "quantize bits=4,8 format=onnx", meaning: "Two bit-widths in one container." },
			{ text: "quantize 8bit gguf revision=main", meaning: "Of a branch, tag or commit." },
			{ text: "quantize", meaning: "The variants that this bot makes of every push." },
		],
	},
	{
		name: "plan",
		aliases: ["estimate", "dry-run"],
		usage: "plan [as for quantize]",
		summary:
			"Says what quantize would do: the commit, the variants, where they would go and their size. Nothing is made.",
		whoCanUse: EVERYBODY,
		examples: [{ text: "plan 8bit gguf", meaning: "What an 8-bit GGUF would be." }],
	},
	{
		name: "which",
		aliases: [],
		usage: "which fits MEMORY or HARDWARE [at CONTEXT] [container]",
		summary: "Says which published file of this model to take for that memory and context, and how to run it.",
		whoCanUse: EVERYBODY,
		examples: [
			{
				text: "which fits 8 GB at 8k",
				meaning: "The file nearest to the original that runs in 8 GB with 8,192 tokens.",
			},
			{ text: "which fits RTX 4090 at 32k gguf", meaning: "The same by the card's name, of the files for llama.cpp." },
			{ text: "which fits M3 Pro 36 GB", meaning: "On a Mac, in what macOS lets the graphics have." },
		],
	},
	{
		name: "status",
		aliases: ["state", "progress", "going", "ready", "done", "finished"],
		usage: "status",
		summary: "Says which variants of this repo are published, under way or failed, and why.",
		whoCanUse: EVERYBODY,
		examples: [{ text: "status", meaning: "The state of every variant of this repo." }],
	},
	{
		name: "explain",
		aliases: ["why"],
		usage: "explain [job | recipe]",
		summary:
			"Says what became of a job and why: what failed and what helps, or what was chosen and what it was compared with.",
		whoCanUse: EVERYBODY,
		examples: [
			{ text: "explain", meaning: "The newest job of this repo." },
			{ text: "explain gguf:q8_0", meaning: "The job that made this variant." },
		],
	},
	{
		name: "cancel",
		aliases: ["stop", "abort"],
		usage: "cancel [job | all]",
		summary: "Ends a job of this repo that is not public yet; nothing of it is left behind.",
		whoCanUse: `${TRUSTED} Others may cancel what they alone asked for.`,
		examples: [
			{ text: "cancel", meaning: "The one job of this repo that is going on." },
			{ text: "cancel 3f2a91bc", meaning: "A job by the beginning of its number." },
			{ text: "cancel all", meaning: "All that is going on for this repo." },
		],
	},
	{
		name: "retry",
		aliases: ["again", "rerun"],
		usage: "retry [job]",
		summary: "Gives a job that failed or was cancelled another try, at the same commit.",
		whoCanUse: TRUSTED,
		examples: [{ text: "retry", meaning: "The newest job of this repo that came to nothing." }],
	},
	{
		name: "approve",
		aliases: ["ok-to-quantize"],
		usage: "approve",
		summary: "Lets the requests in this discussion run that wait for approval.",
		whoCanUse: TRUSTED,
		examples: [{ text: "approve", meaning: "All that waits in this discussion." }],
	},
	{
		name: "help",
		aliases: ["usage", "commands"],
		usage: "help",
		summary: "Lists what the bot understands.",
		whoCanUse: EVERYBODY,
		examples: [{ text: "help", meaning: "This list." }],
	},
	{
		name: "ping",
		aliases: [],
		usage: "ping",
		summary: "Tells that the bot is there and reads this discussion.",
		whoCanUse: EVERYBODY,
		examples: [{ text: "ping", meaning: "A sign of life." }],
	},
];

/** What may follow quantize and plan as `key=value`, besides recipes. */
export const QUANTIZE_OPTIONS: readonly { readonly key: string; readonly value: string; readonly meaning: string }[] = [
	{ key: "bits", value: "4,8", meaning: "Bits of a weight; several with commas." },
	{ key: "bpw", value: "3.5", meaning: "Bits a weight on average, types mixed by what each layer can bear." },
	{
		key: "bytes",
		value: "4.5GB",
		meaning:
			"Types mixed as above, so that the files together are no larger. kB, MB, GB count in thousands, KiB, MiB, GiB in 1024s.",
	},
	{
		key: "embedding",
		value: "q8",
		meaning: "ONNX: embedding and output layer in blocks of 8 or 4 bits (q8, q4) instead of floating point.",
	},
	{ key: "format", value: "gguf", meaning: "The container: gguf, onnx, compressed-tensors, gptq, mlx." },
	{ key: "recipe", value: "gguf:q4_0", meaning: "An exact recipe; several with commas." },
	{
		key: "revision",
		value: "main",
		meaning:
			"A branch, a tag, or a commit in the history of one; otherwise the newest commit of main. Pull requests do not count: everybody can open one. A commit that is not main's newest gets a repo of its own, `…-at-1a2b3c4d5e6f`, and never takes the newest one's place.",
	},
	{
		key: "model",
		value: "owner/name",
		meaning:
			"In a GitHub issue: the model on the Hub, unless the issue's title, a line “Model: owner/name” in it or the operator's configuration names it. The bare name does as well.",
	},
	{
		key: "calibration",
		value: "default",
		meaning: "The texts to calibrate on. The operator chooses them: only the bot's own choice can be named.",
	},
	{
		key: "private",
		value: "",
		meaning: "Variants of private repos are private by themselves; of public ones this bot makes public variants only.",
	},
];
