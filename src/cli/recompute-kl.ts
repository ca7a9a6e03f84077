import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { runnerPython } from "../config/project-paths.ts";
import { runIsolation } from "../config/run-isolation.ts";
import { runnerEnvironment } from "../config/runner-environment.ts";
import type { Configuration } from "../config/schema.ts";
import type { Secrets } from "../config/secrets.ts";
import { parseJson } from "../parse-json.ts";
import { Estimate, type Manifest } from "../protocol/manifest.ts";
import { formatEstimate } from "../publish/figures.ts";
import { type Isolation, measureIsolation } from "../runners/isolation.ts";
import type { ProgressDisplay } from "./progress-display.ts";
import { obtainSource, type Source } from "./quantize/obtain-source.ts";
import { Stopped } from "./quantize/stopped.ts";
import { runRunnerOffline } from "./run-runner-offline.ts";
import { printable, type Terminal } from "./terminal.ts";

type Variant = { readonly directory: string; readonly manifest: Manifest };
type Recomputed = { readonly ok: boolean; readonly check: string };

const Measured = z.object({
	measured: z.array(z.object({ folder: z.string(), report: z.object({ klNats: Estimate }) })),
});
/** The domain of texts that the original wrote itself: SELF_DOMAIN of the runner. */
const OWN_SAMPLES = "self";
const MAXIMUM_OUTPUT_CHARACTERS = 64 * 2 ** 20;
/** Samples are drawn anew: so far may the figure be above the manifest's. */
const STANDARD_ERRORS = 4;
const SHARE = 0.25;
/** Below it two figures are both nothing. */
const NOTHING_NATS = 1e-4;

/** What the manifest says the published files measured on its report texts. */
function claimedKl(manifest: Manifest): Estimate | null {
	return manifest.evaluation.measured.find((row) => row.quantizer === manifest.quantizer)?.report.klNats ?? null;
}

/** Whether a figure bears out the one in the manifest. A lower one does: nobody was promised too much. */
export function bearsOut(found: Estimate, claimed: Estimate): boolean {
	const error = Math.hypot(found.standardError, claimed.standardError);
	return found.mean - claimed.mean <= Math.max(STANDARD_ERRORS * error, SHARE * claimed.mean, NOTHING_NATS);
}

/** The report's texts, where they are samples of the original itself: those anybody can draw anew. */
function samplesOf(manifest: Manifest): { readonly sequences: number; readonly length: number } | null {
	const texts = manifest.evaluation.texts.filter(({ split }) => split === "report");
	const [text] = texts;
	return text === undefined || texts.length > 1 || text.domain !== OWN_SAMPLES ? null : text;
}

function verdict(manifest: Manifest, found: Estimate | null): Recomputed {
	const claimed = claimedKl(manifest);
	if (claimed === null) return { ok: false, check: "failed: the manifest says no KL" };
	if (found === null) return { ok: false, check: "failed: the runner measured no KL of these files" };
	if (samplesOf(manifest) === null) {
		const check = `noted: KL ${formatEstimate(found)} nats a token on samples of the original; the manifest's ${formatEstimate(claimed)} is on texts of the operator's, which are not public`;
		return { ok: true, check };
	}
	const figures = `KL ${formatEstimate(found)} nats a token on new samples of the original, ${formatEstimate(claimed)} in the manifest`;
	return bearsOut(found, claimed)
		? { ok: true, check: `ok: ${figures}` }
		: { ok: false, check: `failed: ${figures}: more than chance explains` };
}

/**
 * Computes the KL of variants again, from their public files and the original's commit that their manifests name, in a
 * process that is isolated as runs are. One verdict a variant, in their order.
 */
export async function recomputeKl(
	variants: readonly Variant[],
	context: {
		readonly configuration: Configuration;
		readonly secrets: Secrets;
		readonly work: string;
		readonly display: ProgressDisplay;
		readonly terminal: Terminal;
		readonly signal: AbortSignal;
	},
): Promise<readonly Recomputed[]> {
	const { configuration, work, terminal } = context;
	const isolation = await measureIsolation(runIsolation(configuration), {
		folder: join(work, "isolation"),
		environment: runnerEnvironment(),
	});
	const verdicts = new Map<Variant, Recomputed>();
	const { sequences, length } = configuration.quantization.evaluation;
	const bySource = Map.groupBy(variants, ({ manifest }) => {
		const size = samplesOf(manifest) ?? { sequences, length };
		const { repo, revision, base } = manifest.source;
		return `${repo}@${revision}@${base?.revision ?? ""}@${size.sequences}@${size.length}`;
	});
	let group = 0;
	for (const [key, ofSource] of bySource) {
		const [repo = "", revision = "", baseSha = "", ...size] = key.split("@");
		const name = `${repo}@${revision}`;
		terminal.err(`measure against ${printable(name)} …\n`);
		let found: ReadonlyMap<string, Estimate> | string;
		try {
			const folder = join(work, `original-${group++}`);
			await mkdir(folder);
			const source = await obtainSource(
				{ model: repo, revision, baseSha: baseSha === "" ? null : baseSha },
				{ ...context, work: folder },
			);
			const original = await originalOf(isolation, source, { folder, ...context });
			found =
				original === null
					? "the adapter cannot be merged onto its base; what the runner said stands above"
					: await measured(isolation, { source: original, variants: ofSource, folder, size, ...context });
		} catch (error) {
			if (!(error instanceof Stopped)) throw error;
			found = `the original cannot be had: ${error.refusal.message}`;
		}
		for (const variant of ofSource) {
			verdicts.set(
				variant,
				typeof found === "string"
					? { ok: false, check: `failed: ${found}` }
					: verdict(variant.manifest, found.get(variant.directory) ?? null),
			);
		}
	}
	return variants.map((variant) => verdicts.get(variant) ?? { ok: false, check: "failed: it was not measured" });
}

/** The folder of the model that was quantized: an adapter merged onto its base; `null`: it could not be. */
async function originalOf(
	isolation: Isolation,
	{ directory, base }: Source,
	context: {
		readonly folder: string;
		readonly configuration: Configuration;
		readonly terminal: Terminal;
		readonly signal: AbortSignal;
	},
): Promise<string | null> {
	if (base === null) return directory;
	const { folder, configuration, terminal, signal } = context;
	const [home, temporary, merging] = [join(folder, "home"), join(folder, "tmp"), join(folder, "merging")];
	for (const place of [home, temporary, merging]) await mkdir(place, { recursive: true });
	const output = join(merging, "merged");
	const program = [
		runnerPython(configuration),
		...["-m", "yaqa_runner", "merge", base.directory, directory, "--output", output],
	];
	const code = await runRunnerOffline(
		{
			program: isolation.wrap(program, {
				shown: [base.directory, directory],
				written: [home, temporary, merging],
			}),
			environment: { HOME: home, TMPDIR: temporary, NUMBA_CACHE_DIR: join(home, "numba") },
			onOutput: () => undefined,
		},
		{ terminal, signal },
	);
	signal.throwIfAborted();
	return code === 0 ? output : null;
}

/** KL of each variant by its folder; or why there is none. */
async function measured(
	isolation: Isolation,
	request: {
		readonly source: string;
		readonly variants: readonly Variant[];
		readonly folder: string;
		/** How many sequences, of how many tokens. */
		readonly size: readonly string[];
		readonly configuration: Configuration;
		readonly terminal: Terminal;
		readonly signal: AbortSignal;
	},
): Promise<ReadonlyMap<string, Estimate> | string> {
	const { source, variants, folder, size, configuration, terminal, signal } = request;
	const [sequences = "", length = ""] = size;
	const folders = variants.map(({ directory }) => directory);
	const [home, temporary] = [join(folder, "home"), join(folder, "tmp")];
	for (const place of [home, temporary]) await mkdir(place, { recursive: true });
	const numbers = ["--sequences", sequences, "--length", length];
	const program = [
		runnerPython(configuration),
		...["-m", "yaqa_runner", "measure", source, ...folders, ...numbers, "--json"],
	];
	let output = "";
	const code = await runRunnerOffline(
		{
			program: isolation.wrap(program, { shown: [source, ...folders], written: [home, temporary] }),
			environment: { HOME: home, TMPDIR: temporary, NUMBA_CACHE_DIR: join(home, "numba") },
			onOutput: (text) => {
				output = `${output}${text}`.slice(-MAXIMUM_OUTPUT_CHARACTERS);
			},
		},
		{ terminal, signal },
	);
	signal.throwIfAborted();
	const parsed = Measured.safeParse(parseJson(output.trim().split("\n").at(-1) ?? ""));
	if (code !== 0 || !parsed.success) return `the runner ended with ${code} and no figures; what it said stands above`;
	return new Map(parsed.data.measured.map((one) => [one.folder, one.report.klNats]));
}
