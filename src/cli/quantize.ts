import { randomUUID } from "node:crypto";
import { existsSync, statSync } from "node:fs";
import { cp, mkdir, mkdtemp, readdir, rename, rm, writeFile } from "node:fs/promises";
import { availableParallelism, totalmem } from "node:os";
import { basename, join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Clock } from "../clock.ts";
import { loadConfiguration } from "../config/load.ts";
import { RUNNER_DIRECTORY, runnerPython } from "../config/project-paths.ts";
import { runnerEnvironment } from "../config/runner-environment.ts";
import type { Configuration } from "../config/schema.ts";
import type { Secrets } from "../config/secrets.ts";
import { assertNever, PermanentError, type Refusal } from "../errors.ts";
import type { Log } from "../log.ts";
import type { ResultEvent } from "../protocol/events.ts";
import { type JobSpec, PROTOCOL_VERSION, parsedRecipe, repoName } from "../protocol/job-spec.ts";
import { MANIFEST_NAME } from "../protocol/read-manifest.ts";
import { parseRecipe, type Recipe, recipeDirectory } from "../protocol/recipe.ts";
import { createLocalRunner } from "../runners/local.ts";
import type { Runner } from "../runners/runner.ts";
import { readAccess } from "../server/hub-access.ts";
import { fetchSource } from "../verify/fetch-source.ts";
import { folderSourceReader } from "../verify/folder-source-reader.ts";
import { inspectFiles, type SourceLimits } from "../verify/inspect-files.ts";
import { inspectSource } from "../verify/inspect-source.ts";
import { manifestOf } from "../verify/manifest-checks.ts";
import { verifyVariant } from "../verify/verify-variant.ts";
import { problemLine } from "./config-check.ts";
import { EXIT_CODES, type ExitCode } from "./exit-codes.ts";
import { folderRevision } from "./folder-revision.ts";
import { createProgressDisplay, type ProgressDisplay } from "./progress-display.ts";
import { printable, type Terminal } from "./terminal.ts";
import { reportVariant, type VariantReport, variantLines } from "./variant-lines.ts";

export type QuantizeOptions = {
	readonly model: string;
	readonly recipes: readonly string[];
	readonly output: string | null;
	readonly revision: string | null;
	readonly calibration: readonly string[];
	readonly sequences: string | null;
	readonly length: string | null;
	readonly device: string | null;
	readonly configurationPath: string | null;
	readonly json: boolean;
};

type Ending =
	| {
			readonly ok: true;
			readonly source: object;
			readonly variants: readonly VariantReport[];
			readonly seconds: object;
	  }
	| { readonly ok: false; readonly exit: ExitCode; readonly refusal: Refusal };

const EVENT_POLL_MILLISECONDS = 200;

class Stopped extends Error {
	readonly exit: ExitCode;
	readonly refusal: Refusal;
	constructor(exit: ExitCode, refusal: Refusal) {
		super(refusal.message);
		this.exit = exit;
		this.refusal = refusal;
	}
}

function usage(message: string, remedy = "See `yaqa-bot help quantize`."): Stopped {
	return new Stopped(EXIT_CODES.usage.code, { code: "invalid-spec", message, remedy });
}

function wholeNumber(name: string, text: string | null, fallback: number): number {
	if (text === null) return fallback;
	if (!/^[1-9]\d{0,6}$/.test(text)) throw usage(`--${name} takes a whole number above 0; not "${text.slice(0, 40)}".`);
	return Number(text);
}

function deviceOf(text: string | null, fallback: Configuration["runner"]["device"]): Configuration["runner"]["device"] {
	switch (text) {
		case null:
			return fallback;
		case "auto":
		case "cpu":
		case "cuda":
			return text;
		default:
			throw usage(`--device takes auto, cpu or cuda; not "${text.slice(0, 40)}".`);
	}
}

function recipesOf(texts: readonly string[]): readonly Recipe[] {
	const recipes = new Map<string, Recipe>();
	for (const text of texts) {
		const parsed = parseRecipe(text);
		if (!parsed.ok) {
			const { message, suggestion } = parsed.refusal;
			throw new Stopped(EXIT_CODES.usage.code, {
				code: "unknown-recipe",
				message,
				remedy: suggestion === null ? "`yaqa-bot help quantize` lists the recipes." : `Did you mean "${suggestion}"?`,
			});
		}
		recipes.set(parsed.recipe.canonical, parsed.recipe);
	}
	return [...recipes.values()];
}

/** How an end without a result is told to a script. */
function exitOf(refusal: Refusal): ExitCode {
	switch (refusal.code) {
		case "cancelled":
		case "interrupted":
			return EXIT_CODES.interrupted.code;
		case "invalid-spec":
		case "unknown-recipe":
			return EXIT_CODES.usage.code;
		case "verification-failed":
			return EXIT_CODES.unverified.code;
		case "out-of-memory":
		case "disk-full":
		case "runner-lost":
		case "runner-unavailable":
		case "timed-out":
		case "internal":
		case "target-taken":
			return EXIT_CODES.failed.code;
		case "repo-not-found":
		case "gated-without-access":
		case "empty-repo":
		case "pickle-only":
		case "remote-code":
		case "broken-safetensors":
		case "unsafe-path":
		case "broken-config":
		case "absurd-config":
		case "unknown-architecture":
		case "already-quantized":
		case "too-large":
		case "licence-forbids":
		case "opted-out":
		case "bad-settings":
		case "not-permitted":
		case "source-refused":
		case "unsupported-model":
			return EXIT_CODES.refused.code;
		default:
			return assertNever(refusal.code);
	}
}

function interrupted(): Stopped {
	return new Stopped(EXIT_CODES.interrupted.code, {
		code: "interrupted",
		message: "Interrupted.",
		remedy: "Run the same command again.",
	});
}

type Source = { readonly repo: string; readonly revision: string; readonly directory: string };

/** Finds out what MODEL is, refuses it with the reason, or has it whole in a folder. */
async function obtainSource(
	options: QuantizeOptions,
	context: {
		readonly configuration: Configuration;
		readonly secrets: Secrets;
		readonly limits: SourceLimits;
		readonly work: string;
		readonly display: ProgressDisplay;
		readonly signal: AbortSignal;
	},
): Promise<Source> {
	const { configuration, secrets, limits, work, display, signal } = context;
	const { model } = options;
	const refuse = (refusal: Refusal): Stopped => new Stopped(exitOf(refusal), refusal);
	if (existsSync(model) && statSync(model).isDirectory()) {
		if (options.revision !== null) throw usage("--revision belongs to a Hub repo; this is a folder.");
		display.step("look at the model");
		const directory = resolve(model);
		const files = await inspectFiles(await folderSourceReader(directory), limits);
		if (!files.ok) throw refuse(files.refusal);
		const name = basename(directory)
			.replaceAll(/[^A-Za-z0-9._-]/g, "-")
			.replace(/^[^A-Za-z0-9]+/, "")
			.slice(0, 96);
		const revision = await folderRevision(directory, files.inspected.files);
		return { repo: `local/${name === "" ? "model" : name}`, revision, directory };
	}
	const repo = repoName.safeParse(model);
	if (!repo.success) {
		throw usage(`"${model.slice(0, 200)}" is neither a folder here nor a repo name such as owner/model.`);
	}
	display.step("look at the model");
	const hub = readAccess(configuration, secrets);
	const inspection = await inspectSource({ ...hub, repo: repo.data, revision: options.revision ?? "main", limits });
	if (!inspection.ok) throw refuse(inspection.refusal);
	const { sha } = inspection.facts;
	const directory = join(work, "source");
	display.step("fetch the model");
	const fetched = await fetchSource({ ...hub, repo: repo.data, sha, directory, limits, signal });
	if (!fetched.ok) throw refuse(fetched.refusal);
	return { repo: repo.data, revision: sha, directory };
}

/** Follows a run to its end, showing its events. */
async function followRun(
	runner: Runner,
	handle: string,
	display: ProgressDisplay,
	signal: AbortSignal,
): Promise<ResultEvent & { readonly ok: true }> {
	let seen = 0;
	async function show(): Promise<void> {
		for (;;) {
			const events = await runner.events(handle, seen);
			if (events.length === 0) return;
			for (const { number, event } of events) {
				seen = number;
				display.event(event);
			}
		}
	}
	for (;;) {
		if (signal.aborted) {
			display.step("stop the run");
			await runner.cancel(handle);
			throw interrupted();
		}
		const observation = await runner.observe(handle);
		await show();
		switch (observation.status) {
			case "running":
				await sleep(EVENT_POLL_MILLISECONDS);
				break;
			case "finished": {
				const { result } = observation;
				if (result.ok) return result;
				const { code, message, remedy } = result.error;
				throw new Stopped(exitOf({ code, message, remedy }), { code, message, remedy });
			}
			case "lost":
				throw new Stopped(exitOf(observation.refusal), observation.refusal);
			default:
				assertNever(observation);
		}
	}
}

/** Puts a finished folder in its place. One that an earlier run left there gives way; anything else is not touched. */
async function place(from: string, to: string): Promise<void> {
	if (existsSync(to)) {
		const isOurs = existsSync(join(to, MANIFEST_NAME)) || (await readdir(to)).length === 0;
		if (!isOurs) {
			throw new Stopped(EXIT_CODES.failed.code, {
				code: "target-taken",
				message: `${to} exists and was not made by yaqa-bot.`,
				remedy: "Move it away, or choose another --output.",
			});
		}
		await rm(to, { recursive: true });
	}
	await rename(from, to);
}

async function run(options: QuantizeOptions, context: QuantizeContext, display: ProgressDisplay): Promise<Ending> {
	const { signal, clock, log } = context;
	const begun = clock.now().getTime();
	const loaded = loadConfiguration(options.configurationPath === null ? {} : { path: options.configurationPath });
	if (!loaded.ok) {
		throw usage(loaded.problems.map(problemLine).join(" "), "See `yaqa-bot config check`.");
	}
	const { configuration, secrets } = loaded;
	const { quantization } = configuration;
	const recipes = recipesOf(options.recipes.length > 0 ? options.recipes : configuration.watch.recipes);
	const sequences = wholeNumber("sequences", options.sequences, quantization.calibration.sequences);
	const length = wholeNumber("length", options.length, quantization.calibration.length);
	const device = deviceOf(options.device, configuration.runner.device);
	const files = options.calibration.length > 0 ? options.calibration : quantization.calibration.files;
	for (const file of files) if (!existsSync(file)) throw usage(`There is no calibration file ${file}.`);
	const usesText = options.calibration.length > 0 || quantization.calibration.kind === "text";

	const output = resolve(options.output ?? join("quantized", basename(resolve(options.model))));
	await mkdir(output, { recursive: true });
	// On the output's own disk, so that finished folders move into place instead of being copied.
	const work = await mkdtemp(join(output, ".work-"));
	try {
		const limits: SourceLimits = { maximumWeightBytes: 4 * configuration.watch.maxParameters };
		const source = await obtainSource(options, { configuration, secrets, limits, work, display, signal });
		if (signal.aborted) throw interrupted();
		const { seed } = quantization.calibration;
		const sketchFolder = join(output, "sketch");
		const spec: JobSpec = {
			protocol: PROTOCOL_VERSION,
			job: randomUUID(),
			fence: 1,
			source: { repo: source.repo, revision: source.revision, path: source.directory },
			calibration: usesText
				? { kind: "text", files: files.map((file) => resolve(file)), sequences, length, seed }
				: { kind: "self", sequences, length, seed },
			evaluation: quantization.evaluation,
			sketch: { ...quantization.sketch, ...(existsSync(sketchFolder) ? { reuse: sketchFolder } : {}) },
			tuning: { ...quantization.tuning },
			variants: recipes.map((recipe) => ({ id: randomUUID(), recipe: parsedRecipe(recipe) })),
			staging: { kind: "directory", path: join(work, "staging") },
			limits: {
				...(configuration.runner.threads === null ? {} : { threads: configuration.runner.threads }),
				...(configuration.runner.memoryBytes === null ? {} : { memoryBytes: configuration.runner.memoryBytes }),
				device,
			},
		};
		const runner = createLocalRunner({
			runsDirectory: join(work, "runs"),
			logsDirectory: join(output, "logs"),
			cacheDirectory: join(configuration.database.dataDirectory, "cache"),
			python: runnerPython(configuration),
			runnerDirectory: RUNNER_DIRECTORY,
			environment: runnerEnvironment(),
			timeoutSeconds: configuration.runner.timeoutSeconds,
			memoryBytes: configuration.runner.memoryBytes,
			graceSeconds: configuration.runner.graceSeconds,
			log,
		});
		display.step("start the runner");
		const { handle } = await runner.dispatch(spec);
		const staging = join(work, "staging");
		let result: ResultEvent & { readonly ok: true };
		try {
			result = await followRun(runner, handle, display, signal);
			await runner.collect(handle, staging);
		} finally {
			await runner.discard(handle);
		}

		const verificationPath = join(staging, result.verification);
		const reports: VariantReport[] = [];
		for (const recipe of recipes) {
			if (signal.aborted) throw interrupted();
			display.step(`verify ${recipe.canonical}`);
			const folder = recipeDirectory(recipe.canonical);
			const from = join(staging, folder);
			const manifest = await manifestOf(from);
			const verification = await verifyVariant({
				directory: from,
				manifest,
				recipe,
				verificationPath: existsSync(verificationPath) ? verificationPath : null,
				policy: configuration.verification,
				limits: {
					milliseconds: 30 * 60_000,
					memoryBytes: Math.floor(totalmem() * 0.8),
					threads: availableParallelism(),
				},
				signal,
			});
			const directory = join(output, verification.ok ? folder : `${folder}.unverified`);
			if (verification.ok && verification.manifest !== manifest) {
				await writeFile(join(from, MANIFEST_NAME), `${JSON.stringify(verification.manifest, null, 2)}\n`);
			}
			await place(from, directory);
			const report = {
				manifest: verification.ok ? verification.manifest : manifest,
				directory,
				verified: verification.ok,
				checks: verification.checks,
			};
			reports.push(reportVariant(report));
			display.step(null);
			display.say(`${verification.ok ? "✓" : "✗"} verify ${recipe.canonical}`);
			for (const check of verification.checks) display.say(`    ${check}`);
		}
		if (existsSync(verificationPath)) await rename(verificationPath, join(output, "verification.safetensors"));
		const madeSketch = join(staging, result.sketch.directory);
		if (existsSync(madeSketch)) {
			await rm(sketchFolder, { recursive: true, force: true });
			await cp(madeSketch, sketchFolder, { recursive: true });
		}
		return {
			ok: true,
			source: { repo: source.repo, revision: source.revision },
			variants: reports,
			seconds: { job: (clock.now().getTime() - begun) / 1000 },
		};
	} finally {
		await rm(work, { recursive: true, force: true });
	}
}

export type QuantizeContext = {
	readonly terminal: Terminal;
	readonly signal: AbortSignal;
	readonly clock: Clock;
	readonly log: Log;
};

/** `yaqa-bot quantize`: the whole way from a model to verified files, with no server and nothing published. */
export async function quantize(options: QuantizeOptions, context: QuantizeContext): Promise<ExitCode> {
	const { terminal, clock } = context;
	const display = createProgressDisplay(terminal, () => clock.now());
	let ending: Ending;
	try {
		ending = await run(options, context, display);
	} catch (error) {
		if (error instanceof Stopped) ending = { ok: false, exit: error.exit, refusal: error.refusal };
		else if (context.signal.aborted)
			ending = { ok: false, exit: EXIT_CODES.interrupted.code, refusal: interrupted().refusal };
		else if (error instanceof PermanentError)
			ending = { ok: false, exit: exitOf(error.refusal), refusal: error.refusal };
		else {
			const message = error instanceof Error ? error.message : String(error);
			ending = {
				ok: false,
				exit: EXIT_CODES.failed.code,
				refusal: { code: "internal", message, remedy: "Try again; `yaqa-bot doctor` looks for what is missing." },
			};
		}
	} finally {
		display.close();
	}
	if (!ending.ok) {
		terminal.err(`${printable(ending.refusal.message)}\n${printable(ending.refusal.remedy)}\n`);
		if (options.json) terminal.out(`${JSON.stringify({ ok: false, error: ending.refusal })}\n`);
		return ending.exit;
	}
	const allVerified = ending.variants.every((variant) => variant.verified);
	if (options.json) terminal.out(`${JSON.stringify({ ...ending, ok: allVerified })}\n`);
	else terminal.out(`${printable(variantLines(ending.variants))}\n`);
	return allVerified ? EXIT_CODES.ok.code : EXIT_CODES.unverified.code;
}
