import { join } from "node:path";
import { ownFiles } from "../protocol/importance-file.ts";
import type { EngineFigures, Manifest } from "../protocol/manifest.ts";
import type { ChildLimits } from "./limited-child.ts";
import {
	judgeWithLlamaCpp,
	type Kernels,
	LLAMA_CPP_REMEDY,
	type LlamaCppMeasurement,
	type LlamaCppVerdict,
	type TokenizerComparison,
} from "./llama-cpp-judge.ts";
import { assertCheck, CheckFailure } from "./manifest-checks.ts";

/**
 * How far llama.cpp's KL may lie from the one that the runner measured on the decoded weights: llama.cpp rounds the
 * activations to 8 bits as well, which costs the demo model 0.00015 nats and random ones up to 0.002. A wrong header
 * costs tenths.
 */
const KL_ALLOWANCE = { standardErrors: 3, relative: 0.25, absoluteNats: 0.004 } as const;

/**
 * Texts whose other cut is reported and not refused: GGUF cannot say Unicode's normal forms, nor that a token swallows
 * spaces, nor that the space that SentencePiece puts first is left out where the text has one.
 */
export const HARMLESS_KINDS: ReadonlySet<string> = new Set(["decomposed", "leading-space", "spaced-special"]);
const MAXIMUM_TOLD = 20;

export type EngineOutcome =
	| { readonly kind: "measured"; readonly engine: EngineFigures; readonly check: string }
	/** Loaded only, for want of the reference tensors. */
	| { readonly kind: "loaded"; readonly check: string }
	| { readonly kind: "unmeasured"; readonly reason: string; readonly check: string };

/** Whether files may pass that no engine measured. */
export type UnmeasuredPolicy = "refuse" | "allow";

/** A GGUF variant in llama.cpp: throws `CheckFailure`, which names what differs. */
export async function checkInLlamaCpp(request: {
	readonly directory: string;
	readonly manifest: Manifest;
	readonly verificationPath: string | null;
	readonly unmeasured: UnmeasuredPolicy;
	readonly limits: ChildLimits;
	readonly signal?: AbortSignal;
	readonly judge?: typeof judgeWithLlamaCpp;
}): Promise<EngineOutcome> {
	const { directory, manifest, verificationPath, unmeasured, limits, signal, judge = judgeWithLlamaCpp } = request;
	const first = ownFiles(manifest)
		.map(({ path }) => path)
		.filter((path) => path.endsWith(".gguf") && !path.startsWith("mmproj-"))
		.toSorted()[0];
	assertCheck(first !== undefined, "there is no .gguf file");
	const verdict: LlamaCppVerdict = await judge({
		modelPath: join(directory, first),
		verificationPath,
		limits,
		...(signal === undefined ? {} : { signal }),
	});
	switch (verdict.kind) {
		case "missing":
			if (unmeasured === "refuse") {
				throw new CheckFailure(
					`llama.cpp cannot judge it here (${verdict.reason}), and no GGUF is published that it has not judged`,
					`${LLAMA_CPP_REMEDY} Or let such files pass: verification.unmeasured: allow.`,
				);
			}
			return {
				kind: "unmeasured",
				reason: verdict.reason,
				check: `llama.cpp: not asked, ${verdict.reason}; the operator lets such files pass`,
			};
		case "refused":
			throw new CheckFailure(
				`llama.cpp does not run ${first}: ${verdict.reason}`,
				"Nothing was published. The format cannot hold this model as it is, or it is a bug worth reporting; other containers may do.",
			);
		case "loaded":
			return {
				kind: "loaded",
				check: `llama.cpp ${verdict.version}: loads it; the reference tensors are not at hand, so that KL and tokens were not measured again`,
			};
		case "measured":
			return judged(manifest, verdict);
	}
}

function judged(
	manifest: Manifest,
	{ version, kernels, measurement }: Extract<LlamaCppVerdict, { kind: "measured" }>,
): EngineOutcome {
	const engine = { ...figuresOf(version, measurement), kernels };
	const claimed = manifest.verification;
	assertCheck(
		measurement.sequences.length === claimed.sequences,
		`the reference tensors hold ${measurement.sequences.length} sequences, the manifest says ${claimed.sequences}`,
	);
	assertTokens(measurement.tokenizer);
	assertKl("", engine.klNats.mean, claimed.klNats, claimed.standardError ?? 0);
	const window = claimed.window?.klNats;
	if (engine.windowKlNats != null && window != null) {
		assertKl(` beyond the sliding window of ${claimed.window?.tokens} tokens`, engine.windowKlNats, window, 0);
	}
	const { tokens, greedy } = engine;
	const beyond = engine.windowKlNats == null ? "" : `, ${engine.windowKlNats.toPrecision(4)} beyond the sliding window`;
	return {
		kind: "measured",
		engine,
		check: `llama.cpp ${version}${kernelsText(kernels)}: KL ${engine.klNats.mean.toPrecision(4)} nats a token over ${engine.positions} positions${beyond}, manifest ${claimed.klNats.toPrecision(4)}; ${tokens.equal} of ${tokens.texts} hard texts cut alike; ${greedy.equal} of ${greedy.tokens} greedy tokens the original's`,
	};
}

function kernelsText(kernels: Kernels | null): string {
	if (kernels === null) return "";
	const ended = kernels.ended === null ? "" : `; those for ${kernels.ended}, this processor's, end on it`;
	return `, kernels for ${kernels.used}${ended}`;
}

function assertKl(where: string, measured: number, claimed: number, standardError: number): void {
	const allowed =
		KL_ALLOWANCE.standardErrors * standardError + KL_ALLOWANCE.relative * Math.abs(claimed) + KL_ALLOWANCE.absoluteNats;
	if (Math.abs(measured - claimed) <= allowed) return;
	throw new CheckFailure(
		`llama.cpp computes another distribution from it: a KL of ${measured.toPrecision(3)} nats a token${where}, the decoded weights give ${claimed.toPrecision(3)}`,
		"Nothing was published: llama.cpp has a fixed form of this architecture that this checkpoint's config departs from. Ask for another container.",
	);
}

function assertTokens(tokenizer: TokenizerComparison | null): void {
	if (tokenizer === null) return;
	const remedy = "Nothing was published: GGUF cannot say what this tokenizer does. Ask for another container.";
	const grave = tokenizer.different.filter(({ kind }) => !HARMLESS_KINDS.has(kind));
	const [first] = grave;
	if (first !== undefined) {
		throw new CheckFailure(
			`llama.cpp cuts ${grave.length} of ${tokenizer.texts} texts into other tokens than the original's tokenizer, such as ${quotedText(first.text)} into ${first.found.length} instead of ${first.expected.length}`,
			remedy,
		);
	}
	if (tokenizer.opening !== null) {
		const { expected, found } = tokenizer.opening;
		throw new CheckFailure(
			`llama.cpp begins or ends a prompt with other tokens than the original's tokenizer: ${listed(found)} instead of ${listed(expected)}`,
			remedy,
		);
	}
	if (tokenizer.end !== null) {
		throw new CheckFailure(
			`llama.cpp does not end a text at the original's token ${tokenizer.end.expected}, but at ${tokenizer.end.found ?? "none"}`,
			remedy,
		);
	}
}

function figuresOf(version: string, measurement: LlamaCppMeasurement): EngineFigures {
	const { sequences, tokenizer, greedy, window } = measurement;
	const positions = sequences.reduce((sum, one) => sum + one.positions, 0);
	const mean = sequences.reduce((sum, one) => sum + one.klNats * one.positions, 0) / positions;
	const count = sequences.length;
	const spread = sequences.reduce((sum, one) => sum + ((one.klNats - mean) * one.positions) ** 2, 0);
	return {
		name: "llama.cpp",
		version,
		klNats: {
			mean: Math.max(0, mean),
			standardError: count < 2 ? 0 : Math.sqrt((count / (count - 1)) * spread) / positions,
		},
		topOneAgreement: sequences.reduce((sum, one) => sum + one.agreeing, 0) / positions,
		positions,
		windowKlNats: window?.klNats ?? null,
		tokens: {
			texts: tokenizer?.texts ?? 0,
			equal: tokenizer === null ? 0 : tokenizer.texts - tokenizer.different.length,
			different: (tokenizer?.different ?? []).slice(0, MAXIMUM_TOLD).map(({ text }) => text.slice(0, 200)),
		},
		greedy: greedy ?? { tokens: 0, equal: 0 },
	};
}

function quotedText(text: string): string {
	return JSON.stringify(text.length > 60 ? `${text.slice(0, 60)}…` : text);
}

function listed(ids: readonly number[]): string {
	return `[${ids.slice(0, 12).join(", ")}${ids.length > 12 ? ", …" : ""}]`;
}
