import { existsSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { loadConfiguration } from "../../config/load.ts";
import type { Configuration } from "../../config/schema.ts";
import type { Secrets } from "../../config/secrets.ts";
import { parseRecipe, type Recipe } from "../../protocol/recipe.ts";
import { problemLine } from "../config-check.ts";
import { EXIT_CODES } from "../exit-codes.ts";
import { Stopped, usage } from "./stopped.ts";

export type QuantizeOptions = {
	readonly model: string;
	readonly recipes: readonly string[];
	readonly output: string | null;
	readonly revision: string | null;
	readonly calibration: readonly string[];
	readonly sequences: string | null;
	readonly length: string | null;
	readonly device: string | null;
	readonly llamaCpp: string | null;
	readonly configurationPath: string | null;
	readonly json: boolean;
};

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

/** What is to be done: the configuration with what the command line says instead. */
export type Task = {
	readonly configuration: Configuration;
	readonly secrets: Secrets;
	readonly recipes: readonly Recipe[];
	/** Where the variants are left. */
	readonly output: string;
};

export function taskOf(options: QuantizeOptions): Task {
	const loaded = loadConfiguration(options.configurationPath === null ? {} : { path: options.configurationPath });
	if (!loaded.ok) throw usage(loaded.problems.map(problemLine).join(" "), "See `yaqa-bot config check`.");
	const { configuration, secrets } = loaded;
	const { quantization, runner, watch } = configuration;
	const { calibration } = quantization;
	const recipes = recipesOf(options.recipes.length > 0 ? options.recipes : watch.recipes);
	const files = options.calibration.length > 0 ? options.calibration : calibration.files;
	for (const file of files) if (!existsSync(file)) throw usage(`There is no calibration file ${file}.`);
	return {
		secrets,
		recipes,
		output: resolve(options.output ?? join("quantized", basename(resolve(options.model)))),
		configuration: {
			...configuration,
			quantization: {
				...quantization,
				calibration: {
					...calibration,
					kind: options.calibration.length > 0 ? "text" : calibration.kind,
					files: files.map((file) => resolve(file)),
					sequences: wholeNumber("sequences", options.sequences, calibration.sequences),
					length: wholeNumber("length", options.length, calibration.length),
				},
			},
			runner: {
				...runner,
				device: deviceOf(options.device, runner.device),
				llamaCpp: options.llamaCpp === null ? runner.llamaCpp : resolve(options.llamaCpp),
			},
		},
	};
}
