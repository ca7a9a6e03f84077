import { parseArgs } from "node:util";
import { FAULT_FORMS } from "../local-hub/fault-flag.ts";
import { nearestWord } from "../protocol/recipe.ts";
import { RECIPE_NAMES, RECIPES } from "../protocol/recipe-table.ts";
import { exitCodeList } from "./exit-codes.ts";
import { wrapped } from "./terminal.ts";

type OptionDescription = {
	readonly type: "string" | "boolean";
	readonly short?: string;
	readonly multiple?: boolean;
	/** The name of the value in the usage text. */
	readonly value?: string;
	readonly summary: string;
};

export type CliCommandName =
	| "serve"
	| "on-webhook"
	| "demo"
	| "local-hub"
	| "quantize"
	| "plan"
	| "approve"
	| "verify"
	| "measure"
	| "watch"
	| "config"
	| "backup"
	| "restore"
	| "to-postgres"
	| "rebuild"
	| "doctor"
	| "help";

type CliCommand = {
	readonly name: CliCommandName;
	readonly operands: string;
	readonly minimumOperands: number;
	readonly maximumOperands: number;
	readonly summary: string;
	readonly options: Readonly<Record<string, OptionDescription>>;
	readonly examples: readonly string[];
	/** What one has to know besides, in lines of the help text. */
	readonly notes?: readonly string[];
};

const CONFIG = {
	type: "string",
	short: "c",
	value: "FILE",
	summary: "configuration file (config/yaqa-bot.yaml)",
} as const;
const JSON_OUTPUT = {
	type: "boolean",
	summary: "print one JSON document as the last line of stdout; everything else goes to stderr",
} as const;
/** One line a container. */
function recipeLines(): readonly string[] {
	const lines = [...Map.groupBy(RECIPE_NAMES, ({ container }) => container)].map(([container, recipes]) => {
		const names = recipes.map(({ name }) => name);
		if (container === "gguf") names.push(...RECIPES.mixed.examples);
		return `  ${names.join(" ")}`;
	});
	return ["Recipes:", ...lines, "  Options follow a comma: w4a16,group=32 onnx:q4,embedding=q8 gguf:q4_0,tune=off"];
}

const HELP = { type: "boolean", short: "h", summary: "show this text" } as const;

/** The command line. This table feeds the parser and every help text. */
export const CLI_COMMANDS: readonly CliCommand[] = [
	{
		name: "serve",
		operands: "",
		minimumOperands: 0,
		maximumOperands: 0,
		summary: "Run the bot: webhooks, queue, pages.",
		options: {
			config: CONFIG,
			port: { type: "string", short: "p", value: "PORT", summary: "port to listen on, instead of server.port" },
			host: { type: "string", value: "ADDRESS", summary: "address to listen on, instead of server.host" },
			json: JSON_OUTPUT,
			help: HELP,
		},
		examples: ["yaqa-bot serve", "yaqa-bot serve --config /etc/yaqa-bot.yaml --port 8080"],
	},
	{
		name: "on-webhook",
		operands: "",
		minimumOperands: 0,
		maximumOperands: 0,
		summary: "Work on one event of the Hub's to its end, as a job that a webhook starts: the bot without a server.",
		options: { config: CONFIG, json: JSON_OUTPUT, help: HELP },
		examples: ["yaqa-bot on-webhook", "yaqa-bot on-webhook --config bot.yaml --json"],
		notes: [
			"HF Jobs gives the event in WEBHOOK_PAYLOAD. What is published already is read from the Hub. Started by hand, without",
			"an event, it does nothing: that job's id is what the webhook is made with.",
		],
	},
	{
		name: "demo",
		operands: "",
		minimumOperands: 0,
		maximumOperands: 0,
		summary: "Show everything on this machine: a local Hub, a push, a run, published repos.",
		options: {
			exit: { type: "boolean", summary: "end when the variants are published and checked" },
			keep: { type: "boolean", summary: "keep the demo's folder" },
			port: { type: "string", short: "p", value: "PORT", summary: "port of the bot's pages (a free one)" },
			"hub-port": { type: "string", value: "PORT", summary: "port of the local Hub (a free one)" },
			"data-dir": { type: "string", value: "FOLDER", summary: "where everything is kept (a temporary folder)" },
			"database-url": { type: "string", value: "URL", summary: "PostgreSQL instead of the embedded database" },
			json: JSON_OUTPUT,
			help: HELP,
		},
		examples: ["yaqa-bot demo", "yaqa-bot demo --json --exit"],
		notes: [
			"It takes a few minutes, needs neither account nor GPU, and talks to no Hub but the one it starts. Without --exit",
			"it stays open until Ctrl-C, so that the pages can be looked at.",
		],
	},
	{
		name: "local-hub",
		operands: "",
		minimumOperands: 0,
		maximumOperands: 0,
		summary: "Run the local Hub alone, for rehearsals and for trying things out with stock clients.",
		options: {
			port: { type: "string", short: "p", value: "PORT", summary: "port to listen on (7861; 0 takes a free one)" },
			host: { type: "string", value: "ADDRESS", summary: "address to listen on (127.0.0.1)" },
			"data-dir": { type: "string", value: "FOLDER", summary: "where repos are kept (data/local-hub)" },
			users: {
				type: "string",
				value: "FILE",
				summary: "YAML of users, their tokens and organisations (an owner, the bot, a visitor)",
			},
			jobs: {
				type: "string",
				multiple: true,
				value: "FOLDER",
				summary: "run jobs, as processes of this machine, with the programs of this folder; may be repeated (no jobs)",
			},
			fault: {
				type: "string",
				multiple: true,
				value: "FAULT",
				summary: "what goes wrong from the start, see below; may be repeated (nothing)",
			},
			cdn: { type: "boolean", summary: "large files come from another host, as the Hub's do" },
			json: JSON_OUTPUT,
			help: HELP,
		},
		examples: ["yaqa-bot local-hub --port 7861", "yaqa-bot local-hub --users people.yaml --fault dropWebhooks=1"],
		notes: ["Faults:", ...FAULT_FORMS.map((form) => `  ${form}`), "The page /__local-hub explains the rest."],
	},
	{
		name: "quantize",
		operands: "MODEL",
		minimumOperands: 1,
		maximumOperands: 1,
		summary: "Quantize a Hub repo or a folder here and now; needs no server and publishes nothing.",
		options: {
			recipe: {
				type: "string",
				short: "r",
				multiple: true,
				value: "RECIPE",
				summary: "a variant to make, see below; may be repeated (the configuration's watch.recipes)",
			},
			output: { type: "string", short: "o", value: "FOLDER", summary: "where the variants are left (quantized/MODEL)" },
			revision: { type: "string", value: "REVISION", summary: "branch or commit of a repo (main)" },
			calibration: {
				type: "string",
				multiple: true,
				value: "FILE",
				summary: "a text file to calibrate on; may be repeated (the model's own samples)",
			},
			sequences: { type: "string", value: "N", summary: "calibration sequences, instead of the configuration's" },
			length: { type: "string", value: "TOKENS", summary: "length of a calibration sequence" },
			device: { type: "string", value: "DEVICE", summary: "auto, cpu or cuda" },
			"llama-cpp": {
				type: "string",
				value: "FOLDER",
				summary: "a checkout of llama.cpp whose converter lays GGUF files out (the package of it)",
			},
			config: CONFIG,
			json: JSON_OUTPUT,
			help: HELP,
		},
		examples: [
			"yaqa-bot quantize demo/model --recipe gguf:q4_0 --recipe w4a16,group=32",
			"yaqa-bot quantize owner/model -r gguf:q8_0 -o out --json",
		],
		notes: recipeLines(),
	},
	{
		name: "plan",
		operands: "REPO|CONFIG.json",
		minimumOperands: 1,
		maximumOperands: 1,
		summary: "Say what quantizing a Hub repo needs and costs, machine by machine; starts nothing.",
		options: {
			revision: { type: "string", value: "REVISION", summary: "branch or commit (main)" },
			variants: { type: "string", value: "N", summary: "how many variants (as many as watch.recipes has)" },
			stages: { type: "boolean", summary: "stage by stage, of the repo's config.json alone" },
			sequences: { type: "string", value: "N", summary: "calibration sequences, for a plan by stages" },
			length: { type: "string", value: "TOKENS", summary: "length of a calibration sequence, for the same" },
			disk: { type: "string", value: "SIZE", summary: "of every machine, as 6TB, instead of what it has" },
			config: CONFIG,
			json: JSON_OUTPUT,
			help: HELP,
		},
		examples: [
			"yaqa-bot plan owner/model",
			"yaqa-bot plan owner/model --variants 1 --json",
			"yaqa-bot plan config.json --disk 6TB",
		],
	},
	{
		name: "approve",
		operands: "JOB",
		minimumOperands: 1,
		maximumOperands: 1,
		summary: "Let a job run that waits because it costs more than budget.approvalUsd.",
		options: { config: CONFIG, json: JSON_OUTPUT, help: HELP },
		examples: ["yaqa-bot approve 0b8d3c1e-5f0a-4a3e-9d53-2f6f0c7a9b11"],
	},
	{
		name: "verify",
		operands: "[VARIANT]",
		minimumOperands: 0,
		maximumOperands: 1,
		summary: "Check a published repo, a variant's folder, or everything in a namespace, against the manifests.",
		options: {
			all: {
				type: "string",
				value: "NAMESPACE",
				summary: "check every repo of a user or organisation that holds variants",
			},
			revision: { type: "string", value: "REVISION", summary: "branch or commit of a repo (main)" },
			verification: {
				type: "string",
				value: "FILE",
				summary: "the run's verification.safetensors: the KL of ONNX files is computed again with it",
			},
			key: {
				type: "string",
				value: "FILE",
				summary: "the operator's public key (PEM): manifests have to be signed by it",
			},
			kl: {
				type: "boolean",
				summary: "compute KL again, against the original's commit that the manifest names; takes the original's size",
			},
			config: CONFIG,
			json: JSON_OUTPUT,
			help: HELP,
		},
		examples: [
			"yaqa-bot verify yaqa-bot/model-YAQA-GGUF",
			"yaqa-bot verify quantized/model/gguf-q4_0",
			"yaqa-bot verify --all yaqa-bot",
		],
	},
	{
		name: "measure",
		operands: "MODEL FILE …",
		minimumOperands: 2,
		maximumOperands: 100,
		summary: "Measure anybody's quantized files of a model: KL, top-1, size, bits a weight.",
		options: {
			revision: { type: "string", value: "REVISION", summary: "branch or commit of the model's repo (main)" },
			text: {
				type: "string",
				multiple: true,
				value: "[DOMAIN=]FILE",
				summary: "a text to measure on; may be repeated (the model's own samples)",
			},
			sequences: { type: "string", value: "N", summary: "sequences of each text (32)" },
			length: { type: "string", value: "TOKENS", summary: "tokens of a sequence (2048)" },
			device: { type: "string", value: "DEVICE", summary: "auto, cpu or cuda" },
			config: CONFIG,
			json: JSON_OUTPUT,
			help: HELP,
		},
		examples: [
			"yaqa-bot measure owner/model ours-Q4_K_M.gguf theirs-Q4_K_M.gguf",
			"yaqa-bot measure demo/model quantized/model/gguf-q4_0 --json",
		],
		notes: [
			"MODEL is the original: a Hub repo or a folder. A FILE is a GGUF file of any type, an ONNX graph, or a folder:",
			"what quantize left, GPTQ or compressed-tensors weights, or what else transformers opens.",
		],
	},
	{
		name: "watch",
		operands: "add|remove|list [NAME …]",
		minimumOperands: 1,
		maximumOperands: 100,
		summary: "Change or show what is watched: users, organisations, models; and the Hub's webhook with it.",
		options: { config: CONFIG, json: JSON_OUTPUT, help: HELP },
		examples: ["yaqa-bot watch add my-org someone/their-model", "yaqa-bot watch list --json"],
	},
	{
		name: "backup",
		operands: "FILE",
		minimumOperands: 1,
		maximumOperands: 1,
		summary: "Write the whole database to a compressed file, as of one moment.",
		options: { config: CONFIG, json: JSON_OUTPUT, help: HELP },
		examples: ["yaqa-bot backup yaqa-bot.backup.gz"],
		notes: [
			"With PostgreSQL the bot may go on meanwhile; the embedded database lets one program in, so that the bot is stopped",
			"first. The file holds the key that progress is signed with: keep it as you keep the database.",
		],
	},
	{
		name: "restore",
		operands: "FILE",
		minimumOperands: 1,
		maximumOperands: 1,
		summary: "Put a backup into an empty database of either kind, all or nothing.",
		options: { config: CONFIG, json: JSON_OUTPUT, help: HELP },
		examples: ["yaqa-bot restore yaqa-bot.backup.gz"],
	},
	{
		name: "rebuild",
		operands: "",
		minimumOperands: 0,
		maximumOperands: 0,
		summary: "Fill an empty database with what stands on the Hub in the bot's namespace.",
		options: { config: CONFIG, json: JSON_OUTPUT, help: HELP },
		examples: ["yaqa-bot rebuild", "yaqa-bot rebuild --json"],
		notes: [
			"For a database that was lost without a backup. Published variants, their sources and which commits are known come",
			"back; requests, deliveries and the history of jobs do not.",
		],
	},
	{
		name: "to-postgres",
		operands: "",
		minimumOperands: 0,
		maximumOperands: 0,
		summary: "Move what the embedded database holds to the PostgreSQL that DATABASE_URL names.",
		options: { config: CONFIG, json: JSON_OUTPUT, help: HELP },
		examples: ["yaqa-bot to-postgres", "yaqa-bot to-postgres --json"],
		notes: ["Stop the bot first. The embedded database stays as it was, marked so that no bot works on it by mistake."],
	},
	{
		name: "config",
		operands: "check",
		minimumOperands: 1,
		maximumOperands: 1,
		summary: "Read the configuration, name every problem, print what is in force.",
		options: { config: CONFIG, json: JSON_OUTPUT, help: HELP },
		examples: ["yaqa-bot config check", "yaqa-bot config check --config my.yaml --json"],
	},
	{
		name: "doctor",
		operands: "",
		minimumOperands: 0,
		maximumOperands: 0,
		summary: "Look at everything the bot needs and say how to mend what is missing.",
		options: { config: CONFIG, json: JSON_OUTPUT, help: HELP },
		examples: ["yaqa-bot doctor"],
	},
	{
		name: "help",
		operands: "[COMMAND]",
		minimumOperands: 0,
		maximumOperands: 1,
		summary: "Show this overview, or all about one command.",
		options: { json: JSON_OUTPUT, help: HELP },
		examples: ["yaqa-bot help quantize"],
	},
];

export type ParsedCommandLine =
	| {
			readonly ok: true;
			readonly command: CliCommand;
			readonly operands: readonly string[];
			readonly text: (option: string) => string | null;
			readonly texts: (option: string) => readonly string[];
			readonly flag: (option: string) => boolean;
	  }
	| {
			readonly ok: false;
			readonly message: string;
			readonly suggestion: string | null;
			/** The command that was meant; `null` where there is none of that name. */
			readonly command: CliCommandName | null;
	  };

export function findCommand(name: string): CliCommand | null {
	return CLI_COMMANDS.find((command) => command.name === name) ?? null;
}

/** Reads the arguments after the program's name. */
export function parseCommandLine(args: readonly string[]): ParsedCommandLine {
	const [first, ...rest] = args;
	const asked = first === undefined || first === "--help" || first === "-h" ? "help" : first;
	const command = findCommand(asked);
	if (command === null) {
		return {
			ok: false,
			message: `There is no command "${asked.slice(0, 60)}".`,
			suggestion: nearestWord(
				asked.slice(0, 60),
				CLI_COMMANDS.map((candidate) => candidate.name),
			),
			command: null,
		};
	}
	const unknown = (option: string): ParsedCommandLine => {
		const near = nearestWord(option.replace(/^-+/, ""), Object.keys(command.options));
		return {
			ok: false,
			message: `"yaqa-bot ${command.name}" has no option "${option}".`,
			suggestion: near === null ? null : `--${near}`,
			command: command.name,
		};
	};
	const wrong = (message: string): ParsedCommandLine => ({
		ok: false,
		message,
		suggestion: null,
		command: command.name,
	});
	let parsed: { values: Record<string, unknown>; positionals: string[] };
	try {
		parsed = parseArgs({
			args: rest,
			allowPositionals: true,
			strict: true,
			options: Object.fromEntries(
				Object.entries(command.options).map(([name, option]) => [
					name,
					{
						type: option.type,
						...(option.short === undefined ? {} : { short: option.short }),
						...(option.multiple === true ? { multiple: true } : {}),
					},
				]),
			),
		});
	} catch (error) {
		const message = error instanceof Error ? error.message : String(error);
		const option = /Unknown option '([^']+)'/.exec(message)?.[1];
		if (option !== undefined) return unknown(option);
		return wrong(message.split("\n", 1)[0] ?? message);
	}
	const { values, positionals } = parsed;
	const wantsHelp = values["help"] === true;
	if (!wantsHelp && positionals.length < command.minimumOperands) {
		return wrong(`"yaqa-bot ${command.name}" needs ${command.operands}.`);
	}
	if (positionals.length > command.maximumOperands) {
		return wrong(`"yaqa-bot ${command.name}" does not take "${positionals[command.maximumOperands] ?? ""}".`);
	}
	return {
		ok: true,
		command,
		operands: positionals,
		text: (option) => {
			const value = values[option];
			return typeof value === "string" ? value : null;
		},
		texts: (option) => {
			const value = values[option];
			return Array.isArray(value) ? value.map(String) : [];
		},
		flag: (option) => values[option] === true,
	};
}

export function overviewText(): string {
	const width = Math.max(...CLI_COMMANDS.map((command) => `${command.name} ${command.operands}`.length)) + 2;
	const lines = CLI_COMMANDS.map((command) =>
		wrapped(`  ${`${command.name} ${command.operands}`.padEnd(width)}`, command.summary),
	);
	return [
		wrapped("", "yaqa-bot: quantized variants of Hub models, with their KL measured on the published files"),
		"",
		"Usage: yaqa-bot COMMAND [OPTIONS]",
		"",
		...lines,
		"",
		"Exit status:",
		exitCodeList(),
		"",
		'"yaqa-bot help COMMAND" shows the options of one.',
		'In a clone, "npm run yaqa-bot -- COMMAND" is yaqa-bot.',
	].join("\n");
}

export function commandText(command: CliCommand): string {
	const left = Object.entries(command.options).map(([name, option]) => ({
		flags: `${option.short === undefined ? "    " : `-${option.short}, `}--${name}${option.type === "string" ? ` ${option.value ?? "TEXT"}` : ""}`,
		summary: option.summary,
	}));
	const width = Math.max(...left.map((option) => option.flags.length)) + 2;
	return [
		`Usage: yaqa-bot ${[command.name, command.operands, "[OPTIONS]"].filter((part) => part !== "").join(" ")}`,
		"",
		wrapped("", command.summary),
		"",
		"Options (defaults in parentheses):",
		...left.map((option) => wrapped(`  ${option.flags.padEnd(width)}`, option.summary)),
		"",
		"Examples:",
		...command.examples.map((example) => `  ${example}`),
		...(command.notes === undefined ? [] : ["", ...command.notes.map((note) => wrapped("", note, 4))]),
	].join("\n");
}
