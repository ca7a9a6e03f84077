import { randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { cp, mkdir, mkdtemp, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../../clock.ts";
import { RUNNER_DIRECTORY, runnerPython } from "../../config/project-paths.ts";
import { runIsolation } from "../../config/run-isolation.ts";
import { runnerEnvironment } from "../../config/runner-environment.ts";
import { PermanentError, type Refusal } from "../../errors.ts";
import { jobSpecOf } from "../../jobs/job-spec-of.ts";
import type { Log } from "../../log.ts";
import type { ResultEvent } from "../../protocol/events.ts";
import type { JobSpec } from "../../protocol/job-spec.ts";
import { createLocalRunner } from "../../runners/local.ts";
import { runMemoryBytes } from "../../runners/run-memory.ts";
import { EXIT_CODES, type ExitCode } from "../exit-codes.ts";
import { createProgressDisplay, type ProgressDisplay } from "../progress-display.ts";
import { printable, type Terminal } from "../terminal.ts";
import { type VariantReport, variantLines } from "../variant-lines.ts";
import { checkVariant } from "./check-variant.ts";
import { exitOf } from "./exit-of-refusal.ts";
import { followRun } from "./follow-run.ts";
import { obtainSource, type Source } from "./obtain-source.ts";
import { type QuantizeOptions, type Task, taskOf } from "./quantize-options.ts";
import { interrupted, Stopped } from "./stopped.ts";

export type QuantizeContext = {
	readonly terminal: Terminal;
	readonly signal: AbortSignal;
	readonly clock: Clock;
	readonly log: Log;
};

type RefusedRecipe = { readonly recipe: string; readonly message: string; readonly remedy: string };

type Ending =
	| {
			readonly ok: true;
			readonly source: object;
			readonly variants: readonly VariantReport[];
			/** Recipes that cannot hold the model. */
			readonly refused: readonly RefusedRecipe[];
			readonly seconds: object;
	  }
	| { readonly ok: false; readonly exit: ExitCode; readonly refusal: Refusal };

function specOf({ configuration, recipes, output }: Task, source: Source, staging: string): JobSpec {
	const sketch = join(output, "sketch");
	return jobSpecOf({
		job: { id: randomUUID(), fence: 1, sourceRepo: source.repo, sourceSha: source.revision },
		variants: recipes.map((recipe) => ({ id: randomUUID(), recipe: recipe.canonical })),
		configuration,
		base: source.base,
		sourceDirectories: { source: source.directory, base: source.base?.directory ?? null },
		earlierSketch: { directory: existsSync(sketch) ? sketch : null, stored: null },
		stagingDirectory: staging,
	});
}

/** Runs a job on this machine and leaves its output in `staging`. */
async function runHere(
	spec: JobSpec,
	{ configuration, output }: Task,
	context: {
		readonly work: string;
		readonly staging: string;
		readonly display: ProgressDisplay;
		readonly signal: AbortSignal;
		readonly log: Log;
	},
): Promise<ResultEvent & { readonly ok: true }> {
	const { work, staging, display, signal, log } = context;
	const runner = createLocalRunner({
		runsDirectory: join(work, "runs"),
		logsDirectory: join(output, "logs"),
		cacheDirectory: join(configuration.database.dataDirectory, "cache"),
		python: runnerPython(configuration),
		runnerDirectory: RUNNER_DIRECTORY,
		environment: runnerEnvironment(),
		timeoutSeconds: configuration.runner.timeoutSeconds,
		memoryBytes: runMemoryBytes(configuration.runner.memoryBytes),
		isolation: runIsolation(configuration),
		graceSeconds: configuration.runner.graceSeconds,
		llamaCpp: configuration.runner.llamaCpp,
		log,
	});
	display.step("start the runner");
	const { handle } = await runner.dispatch(spec);
	try {
		const result = await followRun(runner, handle, display, signal);
		await runner.collect(handle, staging);
		return result;
	} finally {
		await runner.discard(handle);
	}
}

/** Leaves what a run gave besides its variants: the sketch for the next one, the tensors that verify the files again. */
async function keepByproducts(staging: string, result: ResultEvent & { readonly ok: true }, output: string) {
	const verification = join(staging, result.verification);
	if (existsSync(verification)) await rename(verification, join(output, "verification.safetensors"));
	const made = join(staging, result.sketch.directory);
	if (!existsSync(made)) return;
	const sketch = join(output, "sketch");
	await rm(sketch, { recursive: true, force: true });
	await cp(made, sketch, { recursive: true });
}

async function run(options: QuantizeOptions, context: QuantizeContext, display: ProgressDisplay): Promise<Ending> {
	const { signal, clock, log } = context;
	const begun = clock.now().getTime();
	const task = taskOf(options);
	const { configuration, secrets, recipes, output } = task;
	await mkdir(output, { recursive: true });
	// On the output's own disk, so that finished folders move into place instead of being copied.
	const work = await mkdtemp(join(output, ".work-"));
	try {
		const source = await obtainSource(options, { configuration, secrets, work, display, signal });
		if (signal.aborted) throw interrupted();
		const staging = join(work, "staging");
		const result = await runHere(specOf(task, source, staging), task, { work, staging, display, signal, log });
		const verificationPath = join(staging, result.verification);
		const variants: VariantReport[] = [];
		const refused = result.refused.map(({ recipe, message, remedy }) => ({ recipe, message, remedy }));
		for (const { recipe, message, remedy } of refused) display.say(`✗ ${recipe}: ${message} ${remedy}`);
		for (const recipe of recipes) {
			if (refused.some((one) => one.recipe === recipe.canonical)) continue;
			variants.push(await checkVariant(recipe, { configuration, staging, output, verificationPath, display, signal }));
		}
		await keepByproducts(staging, result, output);
		return {
			ok: true,
			source: { repo: source.repo, revision: source.revision },
			variants,
			refused,
			seconds: { job: (clock.now().getTime() - begun) / 1000 },
		};
	} finally {
		await rm(work, { recursive: true, force: true });
	}
}

function endingOf(error: unknown, signal: AbortSignal): Ending & { readonly ok: false } {
	if (error instanceof Stopped) return { ok: false, exit: error.exit, refusal: error.refusal };
	if (signal.aborted) return { ok: false, exit: EXIT_CODES.interrupted.code, refusal: interrupted().refusal };
	if (error instanceof PermanentError) return { ok: false, exit: exitOf(error.refusal), refusal: error.refusal };
	const message = error instanceof Error ? error.message : String(error);
	return {
		ok: false,
		exit: EXIT_CODES.failed.code,
		refusal: { code: "internal", message, remedy: "Try again; `yaqa-bot doctor` looks for what is missing." },
	};
}

/** `yaqa-bot quantize`: the whole way from a model to verified files, with no server and nothing published. */
export async function quantize(options: QuantizeOptions, context: QuantizeContext): Promise<ExitCode> {
	const { terminal, clock } = context;
	const display = createProgressDisplay(terminal, () => clock.now());
	let ending: Ending;
	try {
		ending = await run(options, context, display);
	} catch (error) {
		ending = endingOf(error, context.signal);
	} finally {
		display.close();
	}
	if (!ending.ok) {
		terminal.err(`${printable(ending.refusal.message)}\n${printable(ending.refusal.remedy)}\n`);
		if (options.json) terminal.out(`${JSON.stringify({ ok: false, error: ending.refusal })}\n`);
		return ending.exit;
	}
	const allVerified = ending.variants.every((variant) => variant.verified);
	const isWhole = allVerified && ending.refused.length === 0;
	if (options.json) terminal.out(`${JSON.stringify({ ...ending, ok: isWhole })}\n`);
	else {
		const lines = ending.refused.map(({ recipe, message, remedy }) => `\n${recipe} was not made. ${message} ${remedy}`);
		terminal.out(`${printable(`${variantLines(ending.variants)}${lines.join("")}`)}\n`);
	}
	if (!allVerified) return EXIT_CODES.unverified.code;
	return isWhole ? EXIT_CODES.ok.code : EXIT_CODES.refused.code;
}
