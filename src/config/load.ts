import { existsSync, readFileSync } from "node:fs";
import { dirname, isAbsolute, resolve } from "node:path";
import { LineCounter, parseDocument } from "yaml";
import type { z } from "zod";
import { nearestWord, parseRecipe } from "../protocol/recipe.ts";
import { environmentWithSecrets } from "./hand-over-secrets.ts";
import { type Configuration, ConfigurationFile, type ConfigurationInput } from "./schema.ts";
import { SECRET_VARIABLES, type Secrets, secretSchemas } from "./secrets.ts";

export type ConfigurationProblem = {
	/** Dotted, such as `watch.recipes.0`, or the name of an environment variable; empty for the file itself. */
	readonly where: string;
	readonly message: string;
	readonly suggestion: string | null;
};

export type LoadedConfiguration =
	| {
			readonly ok: true;
			readonly configuration: Configuration;
			readonly secrets: Secrets;
			/** The file that was read; `null`: defaults and environment only. */
			readonly path: string | null;
	  }
	| { readonly ok: false; readonly problems: readonly ConfigurationProblem[]; readonly path: string | null };

const DEFAULT_CONFIGURATION_PATH = "config/yaqa-bot.yaml";

const MAXIMUM_FILE_BYTES = 1024 * 1024;

type Environment = Readonly<Record<string, string | undefined>>;
type PlainObject = Record<string, unknown>;

type EnvironmentOverride = {
	readonly variable: string;
	readonly path: readonly [string, string];
	readonly number?: true;
};

/** Environment variables that stand above the file. */
export const ENVIRONMENT_OVERRIDES: readonly EnvironmentOverride[] = [
	{ variable: "HF_ENDPOINT", path: ["hub", "url"] },
	{ variable: "YAQA_BOT_HUB_URL", path: ["hub", "url"] },
	{ variable: "YAQA_BOT_NAMESPACE", path: ["hub", "namespace"] },
	{ variable: "YAQA_BOT_USER", path: ["hub", "botUser"] },
	{ variable: "OAUTH_CLIENT_ID", path: ["signIn", "clientId"] },
	{ variable: "YAQA_BOT_OAUTH_CLIENT_ID", path: ["signIn", "clientId"] },
	{ variable: "PORT", path: ["server", "port"], number: true },
	{ variable: "YAQA_BOT_HOST", path: ["server", "host"] },
	{ variable: "YAQA_BOT_PUBLIC_URL", path: ["server", "publicUrl"] },
	{ variable: "YAQA_BOT_DATA_DIR", path: ["database", "dataDirectory"] },
	{ variable: "YAQA_BOT_PYTHON", path: ["runner", "python"] },
	{ variable: "YAQA_BOT_LOG_LEVEL", path: ["log", "level"] },
];

function isPlainObject(value: unknown): value is PlainObject {
	return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** `over` above `base`, object by object; arrays and scalars are replaced whole. */
function merge(base: unknown, over: unknown): unknown {
	if (over === undefined) return base;
	if (!isPlainObject(base) || !isPlainObject(over)) return over;
	const merged: PlainObject = { ...base };
	for (const [key, value] of Object.entries(over)) merged[key] = merge(merged[key], value);
	return merged;
}

/** The schema behind `default`, `prefault`, `nullable`: what has the keys. */
function unwrap(schema: z.core.$ZodType): z.core.$ZodType {
	const definition = schema._zod.def;
	return "innerType" in definition ? unwrap(definition.innerType as z.core.$ZodType) : schema;
}

function keysAt(path: readonly PropertyKey[]): readonly string[] {
	let schema: z.core.$ZodType = ConfigurationFile;
	for (const part of path) {
		const definition = unwrap(schema)._zod.def;
		if ("shape" in definition) {
			const next = (definition.shape as Record<string, z.core.$ZodType>)[String(part)];
			if (next === undefined) return [];
			schema = next;
		} else if ("element" in definition) {
			schema = definition.element as z.core.$ZodType;
		} else return [];
	}
	const definition = unwrap(schema)._zod.def;
	return "shape" in definition ? Object.keys(definition.shape as object) : [];
}

function problemsOf(error: z.ZodError): ConfigurationProblem[] {
	return error.issues.flatMap((issue): ConfigurationProblem[] => {
		if (issue.code !== "unrecognized_keys") {
			return [{ where: issue.path.join("."), message: issue.message, suggestion: null }];
		}
		return issue.keys.map((key) => ({
			where: [...issue.path, key].join("."),
			message: `There is no setting "${key}" ${issue.path.length === 0 ? "here" : `in "${issue.path.join(".")}"`}.`,
			suggestion: nearestWord(key, keysAt(issue.path)),
		}));
	});
}

function readYaml(path: string): { value: unknown; problems: ConfigurationProblem[] } {
	let text: string;
	try {
		text = readFileSync(path, "utf8");
	} catch (error) {
		const reason = error instanceof Error ? error.message : String(error);
		return { value: {}, problems: [{ where: "", message: `Cannot read ${path}: ${reason}`, suggestion: null }] };
	}
	if (text.length > MAXIMUM_FILE_BYTES) {
		return { value: {}, problems: [{ where: "", message: `${path} is larger than 1 MiB.`, suggestion: null }] };
	}
	const lines = new LineCounter();
	const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
	const problems = document.errors.map((error) => {
		const position = lines.linePos(error.pos[0]);
		return { where: "", message: `Line ${position.line}, column ${position.col}: ${error.message}`, suggestion: null };
	});
	// maxAliasCount bounds what an alias bomb can expand to.
	const value: unknown = problems.length > 0 ? {} : document.toJS({ maxAliasCount: 100 });
	if (value !== null && !isPlainObject(value)) {
		problems.push({ where: "", message: `${path} has to hold settings by name, such as "server:".`, suggestion: null });
	}
	return { value: value ?? {}, problems };
}

function readSecrets(env: Environment): { secrets: Secrets; problems: ConfigurationProblem[] } {
	const problems: ConfigurationProblem[] = [];
	function read(name: keyof Secrets): string | null {
		for (const variable of SECRET_VARIABLES[name]) {
			const value = env[variable]?.trim();
			if (value === undefined || value === "") continue;
			const parsed = secretSchemas[name].safeParse(value);
			if (parsed.success) return parsed.data;
			const needs = parsed.error.issues.map((issue) => issue.message).join(", ");
			// The value itself is never part of the message.
			problems.push({ where: variable, message: `The value is not usable; it has to be ${needs}.`, suggestion: null });
			return null;
		}
		return null;
	}
	const secrets: Secrets = {
		publisherToken: read("publisherToken"),
		readToken: read("readToken"),
		webhookSecret: read("webhookSecret"),
		previousWebhookSecret: read("previousWebhookSecret"),
		databaseUrl: read("databaseUrl"),
		stagingToken: read("stagingToken"),
		jobsToken: read("jobsToken"),
		gitHubAppKey: read("gitHubAppKey"),
		gitHubWebhookSecret: read("gitHubWebhookSecret"),
		previousGitHubWebhookSecret: read("previousGitHubWebhookSecret"),
		operatorToken: read("operatorToken"),
		oauthClientSecret: read("oauthClientSecret"),
		signingKey: read("signingKey"),
	};
	return { secrets, problems };
}

function environmentLayer(env: Environment): PlainObject {
	const layer: Record<string, PlainObject> = {};
	for (const { variable, path, number } of ENVIRONMENT_OVERRIDES) {
		const value = env[variable]?.trim();
		if (value === undefined || value === "") continue;
		const [section, key] = path;
		layer[section] = { ...layer[section], [key]: number === true && /^\d+$/.test(value) ? Number(value) : value };
	}
	return layer;
}

function recipeProblems(where: string, recipes: readonly string[]): ConfigurationProblem[] {
	return recipes.flatMap((text, index): ConfigurationProblem[] => {
		const parsed = parseRecipe(text);
		if (parsed.ok) return [];
		return [{ where: `${where}.${index}`, message: parsed.refusal.message, suggestion: parsed.refusal.suggestion }];
	});
}

/** What a runner elsewhere needs, by the name of the setting or variable that lacks it. */
function runnerProblems(configuration: Configuration, secrets: Secrets): ConfigurationProblem[] {
	const { runner, hub } = configuration;
	if (runner.kind === "local") return [];
	const needed: [where: string, value: string | null][] = [
		["runner.stagingNamespace", runner.stagingNamespace],
		["YAQA_BOT_STAGING_TOKEN", secrets.stagingToken],
	];
	if (runner.kind === "hf-jobs") {
		needed.push(
			["runner.hfJobs.namespace", runner.hfJobs.namespace],
			["runner.hfJobs.image", runner.hfJobs.image],
			["YAQA_BOT_JOBS_TOKEN", secrets.jobsToken],
		);
	} else {
		needed.push(
			["runner.githubActions.repository", runner.githubActions.repository],
			["runner.githubActions.appId", runner.githubActions.appId],
			["YAQA_BOT_GITHUB_APP_KEY", secrets.gitHubAppKey],
		);
	}
	const problems = needed
		.filter(([, value]) => value === null)
		.map(([where]) => ({ where, message: `The runner "${runner.kind}" needs it.`, suggestion: null }));
	// The token that runs are given could write what is published.
	if (runner.stagingNamespace === hub.namespace) {
		problems.push({
			where: "runner.stagingNamespace",
			message: "It has to be another namespace than hub.namespace: runs can write to it.",
			suggestion: null,
		});
	}
	if (secrets.stagingToken !== null && secrets.stagingToken === secrets.publisherToken) {
		problems.push({
			where: "YAQA_BOT_STAGING_TOKEN",
			message: "It has to be another token than the publishing one: runs are given it.",
			suggestion: null,
		});
	}
	return problems;
}

/** What answering in GitHub issues needs. */
function gitHubProblems(configuration: Configuration, secrets: Secrets): ConfigurationProblem[] {
	const { github } = configuration.requests;
	if (github.repositories.length === 0) return [];
	const needed: readonly [where: string, value: string | null][] = [
		["requests.github.appId", github.appId ?? configuration.runner.githubActions.appId],
		["YAQA_BOT_GITHUB_APP_KEY", secrets.gitHubAppKey],
	];
	return needed
		.filter(([, value]) => value === null)
		.map(([where]) => ({ where, message: "Answering in GitHub issues needs it.", suggestion: null }));
}

/** What signing in needs, besides the app's id. */
function signInProblems(configuration: Configuration, secrets: Secrets): ConfigurationProblem[] {
	if (configuration.signIn.clientId === null) return [];
	const needed: readonly [where: string, value: string | null][] = [
		["server.publicUrl", configuration.server.publicUrl],
		["YAQA_BOT_OAUTH_CLIENT_SECRET", secrets.oauthClientSecret],
	];
	return needed
		.filter(([, value]) => value === null)
		.map(([where]) => ({ where, message: "Signing in on the pages needs it.", suggestion: null }));
}

/** More runs than GPUs for them would wait in the runner, where nobody sees why. */
function gpuProblems({ runner }: Configuration): ConfigurationProblem[] {
	if (runner.gpus === null) return [];
	if (new Set(runner.gpus).size < runner.gpus.length) {
		return [{ where: "runner.gpus", message: "A GPU is named twice.", suggestion: null }];
	}
	const slots = Math.floor(runner.gpus.length / runner.gpusPerRun);
	if (runner.concurrency <= slots) return [];
	return [
		{
			where: "runner.concurrency",
			message: `It has to be at most ${slots}: there are ${runner.gpus.length} GPUs in runner.gpus, and a run gets ${runner.gpusPerRun}.`,
			suggestion: null,
		},
	];
}

/** What the schema cannot say: settings that only make sense together. */
function crossChecks(configuration: Configuration, secrets: Secrets): ConfigurationProblem[] {
	const { watch, quantization, database } = configuration;
	const problems = recipeProblems("watch.recipes", watch.recipes);
	for (const [index, rule] of watch.rules.entries()) {
		problems.push(...recipeProblems(`watch.rules.${index}.recipes`, rule.recipes ?? []));
	}
	if (quantization.calibration.kind === "text" && quantization.calibration.files.length === 0) {
		problems.push({
			where: "quantization.calibration.files",
			message: 'The kind "text" needs at least one file.',
			suggestion: null,
		});
	}
	const files = [
		...quantization.calibration.files.map((path, index) => ({
			path,
			where: `quantization.calibration.files.${index}`,
		})),
		...(["selection", "report"] as const).flatMap((split) =>
			quantization.evaluation[split].map(({ path }, index) => ({
				path,
				where: `quantization.evaluation.${split}.${index}.path`,
			})),
		),
	];
	for (const { path, where } of files) {
		if (!existsSync(path)) problems.push({ where, message: `There is no file ${path}.`, suggestion: null });
	}
	problems.push(
		...gpuProblems(configuration),
		...runnerProblems(configuration, secrets),
		...gitHubProblems(configuration, secrets),
		...signInProblems(configuration, secrets),
	);
	const [sketchNamespace] = configuration.sketches.repo?.split("/") ?? [];
	if (sketchNamespace !== undefined && sketchNamespace === configuration.runner.stagingNamespace) {
		problems.push({
			where: "sketches.repo",
			message: "It has to be in another namespace than runner.stagingNamespace: runs can write there.",
			suggestion: null,
		});
	}
	if (database.kind === "postgres" && secrets.databaseUrl === null) {
		problems.push({
			where: "database.kind",
			message: 'The kind "postgres" needs the environment variable DATABASE_URL.',
			suggestion: null,
		});
	}
	return problems;
}

/**
 * Defaults, then the file, then the environment, then `overrides` (the command line).
 * Paths of texts are taken relative to the file, everything else relative to the working directory.
 */
export function loadConfiguration(
	options: { readonly path?: string; readonly env?: Environment; readonly overrides?: ConfigurationInput } = {},
): LoadedConfiguration {
	const env = options.env ?? environmentWithSecrets();
	const named = options.path ?? (env["YAQA_BOT_CONFIG"]?.trim() || undefined);
	const path = resolve(named ?? DEFAULT_CONFIGURATION_PATH);
	const exists = named !== undefined || existsSync(path);
	const file = exists ? readYaml(path) : { value: {}, problems: [] };
	const usedPath = exists ? path : null;
	const { secrets, problems: secretProblems } = readSecrets(env);
	const early = [...file.problems, ...secretProblems];
	if (file.problems.length > 0) return { ok: false, problems: early, path: usedPath };

	const layered = merge(merge(file.value, environmentLayer(env)), options.overrides);
	const parsed = ConfigurationFile.safeParse(layered);
	if (!parsed.success) return { ok: false, problems: [...early, ...problemsOf(parsed.error)], path: usedPath };

	const base = exists ? dirname(path) : process.cwd();
	const absolute = (text: string) => (isAbsolute(text) ? text : resolve(base, text));
	const { quantization, database, runner } = parsed.data;
	const configuration: Configuration = {
		...parsed.data,
		database: {
			...database,
			dataDirectory: resolve(database.dataDirectory),
			kind: secrets.databaseUrl === null ? database.kind : "postgres",
		},
		runner: { ...runner, llamaCpp: runner.llamaCpp === null ? null : absolute(runner.llamaCpp) },
		quantization: {
			...quantization,
			calibration: { ...quantization.calibration, files: quantization.calibration.files.map(absolute) },
			evaluation: {
				...quantization.evaluation,
				selection: quantization.evaluation.selection.map((text) => ({ ...text, path: absolute(text.path) })),
				report: quantization.evaluation.report.map((text) => ({ ...text, path: absolute(text.path) })),
			},
		},
	};
	const problems = [...early, ...crossChecks(configuration, secrets)];
	if (problems.length > 0) return { ok: false, problems, path: usedPath };
	return { ok: true, configuration, secrets, path: usedPath };
}
