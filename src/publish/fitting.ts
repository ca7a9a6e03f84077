import { chooseFile, type FileChoice, type FitCandidate } from "../fit/choose-file.ts";
import { DEFAULT_CONTEXT, type FitQuestion } from "../fit/fit-question.ts";
import { type CacheType, weightBytes } from "../fit/memory.ts";
import { ownFiles } from "../protocol/importance-file.ts";
import type { Manifest } from "../protocol/manifest.ts";
import type { Container } from "../protocol/recipe-table.ts";
import type { VariantRecord } from "../records/variant.ts";
import { formatBytes } from "./figures.ts";
import { summarizeVariant, type VariantSummary } from "./variant-summary.ts";

/** A published variant as somebody who chooses sees it. */
export type Choosable = FitCandidate & { readonly summary: VariantSummary; readonly manifest: Manifest };

export type Fit = {
	/** `null`: nobody said what it is to fit in. */
	readonly question: FitQuestion | null;
	readonly context: number;
	/** What was asked for, where that is longer. */
	readonly wantedContext: number;
	readonly cache: CacheType;
	/** One engine's files; `null`: all. */
	readonly container: Container | null;
	/** What the model was trained for. */
	readonly contextLength: number | null;
	readonly choice: FileChoice<Choosable>;
};

function choosable(variant: VariantRecord, hubUrl: string): readonly Choosable[] {
	const { manifest } = variant;
	const summary = summarizeVariant(variant, hubUrl);
	if (variant.state !== "published" || manifest === null || summary.container === null) return [];
	return [
		{
			container: summary.container,
			recipe: variant.recipe,
			weights: weightBytes(manifest),
			shape: manifest.shape ?? null,
			klNats: summary.klNats,
			summary,
			manifest,
		},
	];
}

/** The newest commit a file was published of counts; where there is none, what there is. */
function ofNewest(candidates: readonly Choosable[], newestSha: string | null): readonly Choosable[] {
	const newest = candidates.filter((one) => one.summary.source.sha === newestSha);
	return newest.length > 0 ? newest : candidates;
}

/** Which of a model's published files fits, and which of them to take. */
export function fitVariants(
	variants: readonly VariantRecord[],
	asked: {
		readonly hubUrl: string;
		readonly newestSha: string | null;
		readonly question: FitQuestion | null;
		readonly context?: number | null;
		readonly cache?: CacheType;
		readonly container: Container | null;
	},
): Fit {
	const all = ofNewest(
		variants.flatMap((variant) => choosable(variant, asked.hubUrl)),
		asked.newestSha,
	);
	const candidates = asked.container === null ? all : all.filter((one) => one.container === asked.container);
	const contextLength = all.find((one) => one.shape !== null)?.shape?.contextLength ?? null;
	const wanted = asked.question?.context ?? asked.context ?? DEFAULT_CONTEXT;
	// More than the model was trained for helps nobody; a longer one that was asked for is told about.
	const context = contextLength === null ? wanted : Math.min(wanted, contextLength);
	const cache = asked.question?.cache ?? asked.cache ?? "f16";
	return {
		question: asked.question,
		context,
		wantedContext: wanted,
		cache,
		container: asked.container,
		contextLength,
		choice: chooseFile(candidates, { memory: asked.question?.memory ?? null, context, cache }),
	};
}

/** `8k`, `131k` is none: whole multiples of 1024 with the unit, other counts bare. */
export function formatContext(tokens: number): string {
	return tokens >= 1024 && tokens % 1024 === 0 ? `${tokens / 1024}k` : String(tokens);
}

/** The file of a variant that somebody opens, by its name in the repo; `null`: the folder as a whole. */
export function mainFile(manifest: Pick<Manifest, "files">): string | null {
	const named = ownFiles(manifest).filter(({ path }) => path.endsWith(".gguf") && !/(?:^|\/)mmproj-/.test(path));
	const graph = manifest.files.find(({ path }) => path.endsWith(".onnx"));
	return named.toSorted((one, other) => one.path.localeCompare(other.path))[0]?.path ?? graph?.path ?? null;
}

/** Why that file; what helps, where none fits. */
export function fitReason(fit: Fit): string {
	const { context, wantedContext } = fit;
	const reason = reasonOf(fit);
	if (wantedContext <= context || fit.question?.context == null) return reason;
	return `${reason} The model was trained for ${formatContext(context)} tokens: a longer context is not counted.`;
}

function reasonOf(fit: Fit): string {
	const { recommended, rows } = fit.choice;
	const others = rows.filter((row) => row.fits === true).length - 1;
	if (recommended !== null) {
		const nearest =
			others < 1
				? "It is the only file that fits"
				: `Of ${others + 1} files that fit it is the nearest to the original`;
		const longest = recommended.longestContext;
		const room =
			longest === null || longest <= fit.context
				? ""
				: `; there is room for a context of ${formatContext(longest)} tokens`;
		return `${nearest}${room}.`;
	}
	const smallest = rows.toSorted((one, other) => one.memory.total - other.memory.total)[0];
	if (smallest === undefined) return "No file is published yet.";
	if (smallest.longestContext !== null) {
		return `The smallest, ${smallest.candidate.recipe}, fits with a context of ${formatContext(smallest.longestContext)} tokens.`;
	}
	return `The smallest, ${smallest.candidate.recipe}, takes ${formatBytes(smallest.memory.total)} with that context; llama.cpp can leave part of a model in the machine's own memory, which is slower.`;
}
