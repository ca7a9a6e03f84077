import { table } from "../src/cli/terminal.ts";
import { FIGURES_LEGEND } from "../src/cli/variant-lines.ts";
import { ownBytes } from "../src/protocol/importance-file.ts";
import type { Estimate, Manifest, Measured, Quantizer } from "../src/protocol/manifest.ts";
import type { PublishedVariant } from "./check-published.ts";

/** The last line of `npm run demo -- --json`. */
export type DemoResult = {
	readonly ok: true;
	readonly source: { readonly repo: string; readonly revision: string };
	readonly variants: readonly {
		readonly recipe: string;
		readonly repo: string;
		readonly files: readonly { readonly path: string; readonly size: number; readonly sha256: string }[];
		/** KL(original ‖ published), nats a token, on the report texts. */
		readonly klNats: Estimate;
		/** The same container with the same bytes, rounded to nearest and by one-sided GPTQ. */
		readonly baselines: { readonly rtn: Estimate | null; readonly gptq: Estimate | null };
		/** What the gate chose on the selection texts. */
		readonly gate: Quantizer;
		readonly verified: boolean;
	}[];
	readonly seconds: { readonly setup: number; readonly job: number };
};

function measuredBy(manifest: Manifest, quantizer: Quantizer): Measured | null {
	return manifest.evaluation.measured.find((row) => row.quantizer === quantizer) ?? null;
}

function klOf(manifest: Manifest, quantizer: Quantizer): Estimate | null {
	const measured = measuredBy(manifest, quantizer);
	if (measured === null) return null;
	const { mean, standardError } = measured.report.klNats;
	return { mean, standardError };
}

export function resultOf(params: {
	readonly source: DemoResult["source"];
	readonly published: readonly PublishedVariant[];
	readonly setupSeconds: number;
	readonly jobSeconds: number;
}): DemoResult {
	const rounded = (seconds: number) => Math.round(seconds * 10) / 10;
	return {
		ok: true,
		source: params.source,
		variants: params.published.map(({ recipe, repo, files, manifest, problems }) => {
			const klNats = klOf(manifest, manifest.quantizer);
			if (klNats === null) throw new Error(`The manifest of ${recipe} has no figure for its own files.`);
			return {
				recipe,
				repo,
				files,
				klNats,
				baselines: { rtn: klOf(manifest, "rtn"), gptq: klOf(manifest, "one-sided") },
				gate: manifest.gate.winner,
				verified: problems.length === 0,
			};
		}),
		seconds: { setup: rounded(params.setupSeconds), job: rounded(params.jobSeconds) },
	};
}

function kl(estimate: Estimate | null): string {
	if (estimate === null) return "–";
	return `${estimate.mean.toFixed(5)} ± ${estimate.standardError.toFixed(5)}`;
}

function bytes(count: number): string {
	return `${(count / 1e6).toFixed(2)} MB`;
}

/** The demo's figures for people: one row a variant, links below. */
export function renderResult(result: DemoResult, urlOf: (repo: string) => string): string {
	const head = ["recipe", "size", "KL (nats/token)", "GPTQ", "RTN", "gate", "verified"];
	const rows = result.variants.map((variant) => [
		variant.recipe,
		bytes(ownBytes(variant)),
		kl(variant.klNats),
		kl(variant.baselines.gptq),
		kl(variant.baselines.rtn),
		variant.gate,
		variant.verified ? "yes" : "NO",
	]);
	const repos = [...new Set(result.variants.map((variant) => variant.repo))];
	return [table([head, ...rows], [1]), FIGURES_LEGEND, "", ...repos.map((repo) => `  ${urlOf(repo)}`)].join("\n");
}
