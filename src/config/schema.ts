import { z } from "zod";
import { commandWord } from "./names.ts";

/**
 * The configuration file. Every default lives here, so that `config/yaqa-bot.yaml`, its JSON Schema and the program
 * cannot disagree. Secrets are not part of it: they come from the environment alone.
 */

const namespaceName = z
	.string()
	.max(96)
	.regex(/^[A-Za-z0-9][A-Za-z0-9._-]*$/, "a Hub user or organisation name");
const repoPath = z
	.string()
	.max(193)
	.regex(/^[A-Za-z0-9][A-Za-z0-9._-]*\/[A-Za-z0-9][A-Za-z0-9._-]*$/, "a repo name looks like namespace/name");
const httpUrl = z
	.url({ protocol: /^https?$/ })
	.transform((url) => url.replace(/\/+$/, ""))
	.describe("An http or https address without a trailing slash.");
/** `*` stands for any run of characters but `/`. */
const repoGlob = z
	.string()
	.max(200)
	.regex(/^[A-Za-z0-9._*-]+(\/[A-Za-z0-9._*-]+)?$/, "a repo name where * stands for any characters but /");
const filePath = z.string().min(1).max(4096);
const recipeText = z.string().min(1).max(200);

const DEFAULT_RECIPES = ["gguf:q4_0", "onnx:q4", "w4a16"] as const;

const Server = z.strictObject({
	host: z.string().min(1).default("127.0.0.1").describe("Address to listen on; 0.0.0.0 for every interface."),
	port: z.int().min(0).max(65_535).default(7860).describe("Port to listen on; 0 takes a free one."),
	publicUrl: httpUrl
		.nullable()
		.default(null)
		.describe("Where people and the Hub reach this server: used in links and to register the webhook."),
	maxBodyBytes: z
		.int()
		.min(1024)
		.max(64 * 1024 * 1024)
		.default(1024 * 1024)
		.describe("Largest webhook body that is read; a bigger one gets 413."),
	shutdownSeconds: z.int().min(1).max(600).default(20).describe("How long a graceful stop may take."),
});

const Hub = z.strictObject({
	url: httpUrl.default("https://huggingface.co").describe("The Hub's address, or a local Hub's."),
	transferHosts: z
		.array(z.string().regex(/^[a-z0-9-]+(\.[a-z0-9-]+)+$/, "a host's full name, in small letters"))
		.max(100)
		.default([])
		.describe("Hosts besides the Hub's own that it may send transfers of files to, by full name."),
	namespace: namespaceName
		.default("yaqa-bot")
		.describe("The user or organisation that quantized repos are published to."),
	botUser: namespaceName
		.default("yaqa-bot")
		.describe("The account whose tokens these are; its own comments are ignored."),
	mention: commandWord.default("yaqa-bot").describe("The name that commands in comments are addressed to, after an @."),
});

const About = z.strictObject({
	operator: z
		.string()
		.min(1)
		.max(200)
		.nullable()
		.default(null)
		.describe("Who runs this bot, as people should read it."),
	contact: z
		.union([httpUrl, z.email()])
		.nullable()
		.default(null)
		.describe("An address or an e-mail address for questions. Absent: a discussion in a repo that it published."),
	source: httpUrl.nullable().default(null).describe("Where the program's source is found."),
});

/** A user's name, or the number that the Hub gives an account: names can change hands. */
const accountReference = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$/, "a Hub user's name or number");

const SignIn = z.strictObject({
	clientId: z
		.string()
		.regex(/^[\x21-\x7e]{1,200}$/, "the app's client id")
		.nullable()
		.default(null)
		.describe(
			"The Hub's OAuth app by which people sign in on the pages; its secret is YAQA_BOT_OAUTH_CLIENT_SECRET. Absent: nobody can.",
		),
	operators: z
		.array(accountReference)
		.max(1000)
		.default([])
		.describe(
			"Who sees everything and the page /operator once signed in: users by name, or by the 24 digits of their account's number.",
		),
});

const Database = z.strictObject({
	dataDirectory: filePath
		.default("data")
		.describe("Where the embedded database, snapshots, runs and sketches are kept; relative to the working directory."),
	kind: z
		.enum(["embedded", "postgres"])
		.default("embedded")
		.describe("`postgres` needs DATABASE_URL, and DATABASE_URL alone switches to it."),
	poolSize: z.int().min(2).max(200).default(10).describe("Connections to PostgreSQL."),
});

const Watch = z.strictObject({
	namespaces: z
		.array(namespaceName)
		.max(1000)
		.default([])
		.describe("Users and organisations whose models are quantized."),
	repos: z.array(repoPath).max(10_000).default([]).describe("Single models that are quantized."),
	exclude: z.array(repoGlob).max(1000).default([]).describe("Models left alone: `someone/*`, `*/draft-*`, `*-test`."),
	ref: z.literal("refs/heads/main").default("refs/heads/main").describe("The branch whose pushes count."),
	recipes: z
		.array(recipeText)
		.min(1)
		.max(16)
		.default([...DEFAULT_RECIPES])
		.describe("What is made of a push."),
	rules: z
		.array(
			z.strictObject({
				match: repoGlob.describe("The repos that this rule is for; the first rule that matches counts."),
				recipes: z.array(recipeText).min(1).max(16).optional().describe("Instead of watch.recipes."),
				maxParameters: z.int().min(1).optional().describe("A lower limit than watch.maxParameters."),
				tags: z
					.strictObject({
						any: z.array(z.string().min(1).max(100)).max(50).default([]).describe("One of these has to be there."),
						none: z.array(z.string().min(1).max(100)).max(50).default([]).describe("None of these may be there."),
					})
					.optional()
					.describe("Which of these models are quantized, by the Hub's tags."),
				pipelineTags: z
					.array(z.string().min(1).max(100))
					.max(50)
					.optional()
					.describe("Only models that the Hub lists under one of these tasks: text-generation, image-text-to-text."),
				architectures: z
					.array(z.string().min(1).max(200))
					.max(200)
					.optional()
					.describe("Only models of one of these architectures, as their config.json names them."),
				hours: z
					.string()
					.regex(/^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$/, "hours look like 22:00-06:00 (UTC)")
					.optional()
					.describe("Pushes at other hours (UTC) are taken up by the sweep when these begin."),
			}),
		)
		.max(200)
		.default([])
		.describe("Other recipes, limits, tags and hours for some repos."),
	maxParameters: z
		.int()
		.min(1)
		.default(8_000_000_000)
		.describe("Models with more parameters are refused with the reason."),
	existing: z
		.boolean()
		.default(false)
		.describe(
			"Whether models that a namespace holds when it is first watched are quantized too. Listed repos always are.",
		),
	supersede: z
		.boolean()
		.default(true)
		.describe("Whether a newer push ends unfinished work on an older commit that nobody asked for by name."),
});

const gitHubRepository = z
	.string()
	.max(200)
	.regex(/^[A-Za-z0-9-]+\/[A-Za-z0-9._-]+$/, "a GitHub repo looks like owner/name");
const gitHubAppId = z.string().regex(/^[A-Za-z0-9.]{1,64}$/, "a GitHub App's id");

const GitHubRequests = z.strictObject({
	repositories: z
		.array(
			z.strictObject({
				repository: gitHubRepository.describe("As owner/name."),
				model: repoPath
					.nullable()
					.default(null)
					.describe("The Hub model that its issues are about when neither the command nor the issue names one."),
			}),
		)
		.max(1000)
		.default([])
		.describe("GitHub repos in whose issues the same commands are answered, about watched public models."),
	mention: commandWord
		.nullable()
		.default(null)
		.describe("The name that commands in issues are addressed to. Absent: hub.mention."),
	allow: z
		.array(namespaceName)
		.max(10_000)
		.default([])
		.describe("GitHub users who may ask, beside those who may write to the repo."),
	apiUrl: httpUrl.nullable().default(null).describe("GitHub's API. Absent: runner.githubActions.apiUrl."),
	appId: gitHubAppId
		.nullable()
		.default(null)
		.describe(
			'The GitHub App that is installed there, with "Issues: read and write" and the event "Issue comment". Absent: runner.githubActions.appId.',
		),
});

const Requests = z.strictObject({
	comments: z.boolean().default(true).describe("Whether commands in comments are answered."),
	allow: z
		.array(namespaceName)
		.max(10_000)
		.default([])
		.describe("People who may ask on any watched repo, beside its owners and organisation members."),
	ignore: z
		.array(namespaceName)
		.max(10_000)
		.default(["SFconvertbot", "parquet-converter", "librarian-bots"])
		.describe("Accounts that are never answered. Names that end in -bot never are."),
	strangers: z
		.enum(["refuse", "approval", "public"])
		.default("refuse")
		.describe(
			"What becomes of requests by others: refused with the reason, kept until one with rights approves, or run within the quota. Each request costs a run.",
		),
	quota: z
		.strictObject({
			perPersonPerDay: z.int().min(0).max(10_000).default(3).describe("Requests of one person in any 24 hours."),
			perDay: z.int().min(0).max(100_000).default(50).describe("Requests by comment in any 24 hours, of all people."),
		})
		.prefault({})
		.describe("Limits of the public queue; those with rights are not counted out."),
	strangerAnswers: z
		.strictObject({
			perPersonPerDay: z.int().min(0).max(10_000).default(30).describe("Answers to one person in any 24 hours."),
			perDay: z.int().min(0).max(100_000).default(1000).describe("Answers to all of them together in any 24 hours."),
		})
		.prefault({})
		.describe("How often people without rights are answered at all, over all threads; ten times in one thread."),
	pollSeconds: z
		.int()
		.min(0)
		.max(86_400)
		.default(60)
		.describe("Without a public address: how often the bot's notifications are read for mentions. 0: never."),
	github: GitHubRequests.prefault({}),
});

const TextFile = z.strictObject({
	domain: z
		.string()
		.regex(/^[a-z0-9-]{1,32}$/, "a short word such as prose or code")
		.describe("Names the text on the card."),
	path: filePath.describe("A UTF-8 text file; relative to this configuration file."),
});

const Quantization = z.strictObject({
	calibration: z
		.strictObject({
			kind: z
				.enum(["self", "text"])
				.default("self")
				.describe("`self` samples texts from the model itself; `text` reads files."),
			files: z.array(filePath).max(64).default([]).describe("For `text`; relative to this configuration file."),
			sequences: z.int().min(1).max(1_000_000).default(128).describe("How many sequences are calibrated on."),
			length: z.int().min(8).max(131_072).default(256).describe("Tokens of one sequence."),
			seed: z.int().min(0).default(0).describe("Of samples and shuffles; another one gives another sketch."),
		})
		.prefault({}),
	evaluation: z
		.strictObject({
			selection: z
				.array(TextFile)
				.max(16)
				.default([])
				.describe("What the gate chooses on. Empty: the model's own samples."),
			report: z
				.array(TextFile)
				.max(16)
				.default([])
				.describe("What the card's figures come from. Empty: the model's own samples."),
			sequences: z.int().min(2).max(100_000).default(32).describe("Sequences of each text."),
			length: z.int().min(8).max(131_072).default(256).describe("Tokens of one sequence."),
			verificationSequences: z
				.int()
				.min(1)
				.max(64)
				.default(4)
				.describe("Sequences that the control plane recomputes KL on."),
		})
		.prefault({}),
	sketch: z
		.strictObject({
			kind: z
				.enum(["a", "b"])
				.default("a")
				.describe("`a`: power iteration over single tokens. `b`: whole sequences, in one pass."),
			iterations: z
				.int()
				.min(1)
				.max(16)
				.default(6)
				.describe("Half steps of the power iteration for `a`; rounds for `b`."),
			sigmaInput: z
				.number()
				.min(0)
				.max(10)
				.optional()
				.describe(
					"Added to the input factor's unit mean diagonal. Absent: chosen for each linear on calibration text that is kept from the sketch.",
				),
			sigmaOutput: z.number().min(0).max(10).optional().describe("Added to the output factor's, likewise."),
		})
		.prefault({}),
	tuning: z
		.strictObject({
			passes: z
				.int()
				.min(0)
				.max(64)
				.default(4)
				.describe(
					"Passes over the calibration text that tune the scales; each takes about as long as a sketch's. 0: none.",
				),
		})
		.prefault({}),
});

const Verification = z.strictObject({
	unmeasured: z
		.enum(["refuse", "allow"])
		.default("refuse")
		.describe(
			"GGUF files where llama.cpp is not on this machine: refused, or published with a card that says that no engine measured them.",
		),
	floor: z
		.array(
			z.strictObject({
				bitsPerWeight: z.number().min(0).max(64).describe("For variants up to so many bits a weight."),
				maximumKlNats: z.number().min(0).describe("Their KL to the original, in nats a token, at most."),
				minimumTopOneAgreement: z
					.number()
					.min(0)
					.max(1)
					.describe("The share of positions at which the most likely token is the original's, at least."),
			}),
		)
		.max(16)
		.default([
			{ bitsPerWeight: 2.99, maximumKlNats: 6, minimumTopOneAgreement: 0.1 },
			{ bitsPerWeight: 3.99, maximumKlNats: 3, minimumTopOneAgreement: 0.2 },
			{ bitsPerWeight: 5.99, maximumKlNats: 1.5, minimumTopOneAgreement: 0.4 },
			{ bitsPerWeight: 64, maximumKlNats: 0.5, minimumTopOneAgreement: 0.6 },
		])
		.describe("What a variant has to reach to be published, whoever won the gate. Empty: anything passes."),
});

const HfJobs = z.strictObject({
	namespace: namespaceName.nullable().default(null).describe("Who runs the jobs, and pays for them."),
	image: z
		.string()
		.min(1)
		.max(500)
		.nullable()
		.default(null)
		.describe("The container image with yaqa-runner of this version, by tag or digest."),
	flavor: z
		.string()
		.regex(/^[a-z0-9-]{1,64}$/, "a hardware flavor such as a10g-small")
		.default("auto")
		.describe(
			"`auto`: the cheapest of the Hub's live list that holds the job, chosen for each. Or one that `hf jobs hardware` lists.",
		),
});

const OwnMachine = z.strictObject({
	gpu: z.string().min(1).max(100).describe("The GPU as manifests name it, such as NVIDIA L40S."),
	gpus: z.int().min(1).max(64).default(1).describe("How many of them."),
	gpuMemoryGiB: z.number().min(1).max(4096).describe("Memory of one."),
	memoryGiB: z.number().min(1).max(65_536).describe("The machine's own memory."),
	cores: z.int().min(1).max(4096).default(8).describe("Its processor cores."),
	usdPerHour: z.number().min(0).max(10_000).default(0).describe("What an hour costs; 0 for what is paid for anyway."),
});

const GitHubActions = z.strictObject({
	apiUrl: httpUrl.default("https://api.github.com").describe("GitHub's API, or a GitHub Enterprise Server's."),
	repository: gitHubRepository.nullable().default(null).describe("The private repo that holds the workflow."),
	workflow: z
		.string()
		.regex(/^[A-Za-z0-9._-]+\.ya?ml$/, "a file name such as quantize.yml")
		.default("quantize.yml")
		.describe("Its file in .github/workflows, a copy of workflows/quantize.yml."),
	ref: z.string().min(1).max(200).default("main").describe("The branch that it is run from."),
	appId: gitHubAppId
		.nullable()
		.default(null)
		.describe("The GitHub App that is installed there; its key is YAQA_BOT_GITHUB_APP_KEY."),
	machine: OwnMachine.nullable()
		.default(null)
		.describe("What its machines are like, for estimates: nobody tells the bot. Absent: jobs go without."),
});

const Runner = z.strictObject({
	kind: z
		.enum(["local", "hf-jobs", "github-actions"])
		.default("local")
		.describe(
			"Where GPU work runs. `local`: a process on this machine. `hf-jobs`: Hugging Face's machines. `github-actions`: self-hosted machines of a GitHub repo.",
		),
	stagingNamespace: namespaceName
		.nullable()
		.default(null)
		.describe("For runs elsewhere: a user or organisation on the Hub that holds nothing but staging repos."),
	hfJobs: HfJobs.prefault({}),
	githubActions: GitHubActions.prefault({}),
	python: filePath
		.nullable()
		.default(null)
		.describe("The Python with yaqa-runner; gpu-runner/.venv/bin/python of this checkout when absent."),
	llamaCpp: filePath
		.nullable()
		.default(null)
		.describe(
			"For local runs: a checkout of llama.cpp, whose converter lays GGUF files out; the package of it that is installed when absent.",
		),
	gpus: z
		.array(z.string().regex(/^(\d{1,3}|(GPU|MIG)-[A-Za-z0-9/-]{1,80})$/, "a number or UUID as nvidia-smi -L lists it"))
		.min(1)
		.max(64)
		.nullable()
		.default(null)
		.describe("For local runs: the GPUs they share out, each run its own. Absent: every run sees all there are."),
	gpusPerRun: z.int().min(1).max(64).default(1).describe("How many of runner.gpus a run gets."),
	timeoutSeconds: z
		.int()
		.min(1)
		.max(30 * 86_400)
		.default(6 * 3600)
		.describe("A run that takes longer is ended."),
	memoryBytes: z
		.int()
		.min(64 * 1024 * 1024)
		.nullable()
		.default(null)
		.describe("A run whose processes hold more resident memory is ended. Absent: nine tenths of the machine's memory."),
	isolation: z
		.enum(["auto", "required"])
		.default("auto")
		.describe(
			"Local runs get namespaces and an account of their own, without a network and with no files but theirs. `auto`: as far as the system allows (`yaqa-bot doctor` says how far). `required`: rather no run than one without.",
		),
	threads: z.int().min(1).max(1024).nullable().default(null).describe("CPU threads of a run. Absent: all cores."),
	device: z
		.enum(["auto", "cpu", "cuda"])
		.default("auto")
		.describe("Where runs compute. `auto`: on a GPU where there is one."),
	concurrency: z.int().min(1).max(64).default(1).describe("Runs at the same time; further jobs wait."),
	attempts: z.int().min(1).max(10).default(3).describe("How often a run that vanished is tried before the job fails."),
	graceSeconds: z.int().min(0).max(600).default(10).describe("Between SIGTERM and SIGKILL when a run is cancelled."),
});

const Sketches = z.strictObject({
	repo: repoPath
		.nullable()
		.default(null)
		.describe(
			"A data set repo on the Hub where sketches are kept for later jobs on any runner. Absent: this machine alone.",
		),
	visibility: z
		.enum(["private", "public"])
		.default("private")
		.describe("Public: others may use them, and the repo has a card. Sketches of private or gated models stay here."),
});

const Budget = z.strictObject({
	perJobUsd: z
		.number()
		.min(0)
		.nullable()
		.default(null)
		.describe("Jobs that are estimated to cost more are refused. Absent: no ceiling."),
	perMonthUsd: z
		.number()
		.min(0)
		.nullable()
		.default(null)
		.describe("What the jobs of a calendar month (UTC) may cost together; further ones wait. Absent: no ceiling."),
	approvalUsd: z
		.number()
		.min(0)
		.nullable()
		.default(null)
		.describe("Jobs above this wait until `yaqa-bot approve` lets them run. Absent: none does."),
	runsPerNamespacePerDay: z
		.int()
		.min(1)
		.max(100_000)
		.nullable()
		.default(null)
		.describe("Runs of one namespace's models in 24 hours; further ones wait. Absent: no limit."),
});

const keptFolder = (days: number, gigabytes: number, what: string) =>
	z
		.strictObject({
			days: z.number().min(0).max(36_500).default(days).describe("Days after their last use."),
			gigabytes: z.number().min(0).default(gigabytes).describe("All together; the least recently used go first."),
		})
		.prefault({})
		.describe(what);

const Retention = z.strictObject({
	everyMinutes: z
		.number()
		.min(0.01)
		.max(1440)
		.default(30)
		.describe("How often it is looked over what is kept. What a job under way needs never goes."),
	freeGigabytes: z
		.number()
		.min(0)
		.default(5)
		.describe("With less free space, sources and then sketches go, the least recently used first, however new."),
	sources: keptFolder(14, 100, "Snapshots of models. Those of private ones go with the last job on them."),
	sketches: keptFolder(90, 50, "Sketches on this machine."),
	logs: keptFolder(30, 1, "What runs wrote to stderr."),
	deliveries: z
		.strictObject({
			days: z.number().min(2).max(36_500).default(30).describe("Days after they came."),
			rows: z.int().min(0).default(100_000).describe("How many; none that is newer than two days goes."),
		})
		.prefault({})
		.describe("Webhook deliveries that were worked on."),
	events: z
		.strictObject({
			days: z.number().min(0).max(36_500).default(90).describe("Days after the job's end."),
			rows: z.int().min(0).default(1_000_000).describe("How many; those of the jobs that ended first go first."),
		})
		.prefault({})
		.describe("What runs told of themselves. A job's changes of state stay."),
});

const Sweep = z.strictObject({
	enabled: z.boolean().default(true).describe("Whether pushes are looked for whose webhook was lost."),
	cron: z
		.string()
		.min(9)
		.max(200)
		.default("*/15 * * * *")
		.describe("When watched repos are looked over for missed pushes (UTC)."),
});

const LogSection = z.strictObject({
	level: z.enum(["debug", "info", "warn", "error"]).default("info").describe("What is logged: this and worse."),
});

export const ConfigurationFile = z.strictObject({
	server: Server.prefault({}),
	hub: Hub.prefault({}),
	about: About.prefault({}),
	signIn: SignIn.prefault({}),
	database: Database.prefault({}),
	watch: Watch.prefault({}),
	requests: Requests.prefault({}),
	quantization: Quantization.prefault({}),
	verification: Verification.prefault({}),
	runner: Runner.prefault({}),
	sketches: Sketches.prefault({}),
	budget: Budget.prefault({}),
	retention: Retention.prefault({}),
	sweep: Sweep.prefault({}),
	log: LogSection.prefault({}),
});

/** What the program runs with; safe to print, since secrets are kept apart. */
export type Configuration = z.infer<typeof ConfigurationFile>;
/** What a person may write: everything optional. */
export type ConfigurationInput = z.input<typeof ConfigurationFile>;
