import type { EngineFigures, Manifest } from "../protocol/manifest.ts";
import { CheckFailure } from "./manifest-checks.ts";

/** Of variants up to so many bits a weight of the linears. */
export type FloorStep = {
	readonly bitsPerWeight: number;
	readonly maximumKlNats: number;
	readonly minimumTopOneAgreement: number;
};

/** Below this KL, another top token only says that the original itself has no clear favourite. */
const FLAT_KL_NATS = 0.1;

/**
 * A variant that computes something else than the original is a failure, whoever won the gate: its own figures, and
 * the engine's where there are any, against limits by bits a weight. Throws `CheckFailure` with the reason.
 */
export function checkFidelityFloor(
	manifest: Manifest,
	engine: EngineFigures | null,
	steps: readonly FloorStep[],
	bitsPerWeight: number,
): string {
	const step = steps
		.toSorted((one, other) => one.bitsPerWeight - other.bitsPerWeight)
		.find((one) => bitsPerWeight <= one.bitsPerWeight);
	if (step === undefined) return `floor: none is set for ${bitsPerWeight.toPrecision(3)} bits a weight`;
	const own = manifest.evaluation.measured.find(({ quantizer }) => quantizer === manifest.quantizer)?.report;
	const figures = [
		...(own === undefined ? [] : [{ by: "", kl: own.klNats.mean, agreement: own.topOneAgreement }]),
		...(engine === null
			? []
			: [{ by: ` in ${engine.name}`, kl: engine.klNats.mean, agreement: engine.topOneAgreement }]),
	];
	for (const { by, kl, agreement } of figures) {
		const limits = `at ${bitsPerWeight.toPrecision(3)} bits a weight at most ${step.maximumKlNats} nats and at least ${percent(step.minimumTopOneAgreement)} are asked for`;
		if (!(kl <= step.maximumKlNats)) {
			throw ruined(`its KL to the original${by} is ${kl.toPrecision(3)} nats a token; ${limits}`);
		}
		if (kl > FLAT_KL_NATS && !(agreement >= step.minimumTopOneAgreement)) {
			throw ruined(`its top token${by} is the original's at ${percent(agreement)} of the positions; ${limits}`);
		}
	}
	return `floor: KL at most ${step.maximumKlNats} nats, the same top token at ${percent(step.minimumTopOneAgreement)} or more`;
}

function ruined(what: string): CheckFailure {
	return new CheckFailure(
		`the variant does not compute the original's distribution: ${what}`,
		"Nothing was published. Ask for more bits, or another container; the limits are verification.floor of the configuration.",
	);
}

function percent(share: number): string {
	return `${Number((100 * share).toPrecision(3))} %`;
}
