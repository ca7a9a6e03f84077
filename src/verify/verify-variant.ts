import { join } from "node:path";
import type { Refusal } from "../errors.ts";
import type { Manifest } from "../protocol/manifest.ts";
import type { Recipe } from "../protocol/recipe.ts";
import { checkCompressedTensors } from "./compressed-tensors-checks.ts";
import { checkFidelityFloor, type FloorStep } from "./fidelity-floor.ts";
import { checkGguf } from "./gguf-checks.ts";
import { checkGptq } from "./gptq-checks.ts";
import type { ChildLimits } from "./limited-child.ts";
import { checkInLlamaCpp, type UnmeasuredPolicy } from "./llama-cpp-checks.ts";
import {
	assertCheck,
	CheckFailure,
	checkManifestConsistency,
	checkManifestFiles,
	manifestOf,
} from "./manifest-checks.ts";
import { checkMlx } from "./mlx-checks.ts";
import { checkOnnx, onnxGraphPath } from "./onnx-checks.ts";
import { onnxKl } from "./onnx-kl.ts";
import { refusal } from "./refusals.ts";

/** `checks`: one line for every check that was made. */
export type VariantVerification =
	| {
			readonly ok: true;
			/** The manifest with what the engine measured, as it is to be published. */
			readonly manifest: Manifest;
			readonly checks: readonly string[];
	  }
	| { readonly ok: false; readonly refusal: Refusal; readonly checks: readonly string[] };

/** The control plane's KL and the runner's may differ by this: other kernels, other order of float32 sums. */
const KL_TOLERANCE = { relative: 0.02, absolute: 1e-5 } as const;

/** What a variant has to reach, as the configuration says. */
export type VerificationPolicy = {
	readonly unmeasured: UnmeasuredPolicy;
	readonly floor: readonly FloorStep[];
};

/**
 * Checks one variant's files against its manifest and recipe: their structure, then in the engine that people run them
 * with, as a child process.
 */
export async function verifyVariant(request: {
	/** The folder with the manifest's files and `manifest.json`. */
	readonly directory: string;
	/** What the runner reported; the folder's own must be the same. */
	readonly manifest: Manifest;
	readonly recipe: Recipe;
	/** `verification.safetensors`, or `null` when it is not at hand: then no KL is computed. */
	readonly verificationPath: string | null;
	readonly policy: VerificationPolicy;
	readonly limits: ChildLimits;
	readonly signal?: AbortSignal;
}): Promise<VariantVerification> {
	const { directory, manifest, recipe, verificationPath, policy, limits, signal } = request;
	const ending = signal === undefined ? {} : { signal };
	const checks: string[] = [];
	try {
		const own = await manifestOf(directory);
		assertCheck(
			canonicalJson(withoutEngine(own)) === canonicalJson(withoutEngine(manifest)),
			"the folder's manifest.json is not the one that the runner reported",
		);
		checkManifestConsistency(manifest, recipe);
		checks.push("manifest: valid, and its figures agree with one another");
		await checkManifestFiles(directory, manifest, recipe.name.container);
		checks.push(`files: ${manifest.files.length} with the sizes and sha256 of the manifest, none besides`);
		let measured = manifest;
		switch (recipe.name.container) {
			case "gguf": {
				checks.push(await checkGguf(directory, manifest, recipe));
				const outcome = await checkInLlamaCpp({
					directory,
					manifest,
					verificationPath,
					unmeasured: policy.unmeasured,
					limits,
					...ending,
				});
				checks.push(outcome.check);
				if (outcome.kind === "measured") measured = { ...withoutEngine(manifest), engine: outcome.engine };
				else if (outcome.kind === "unmeasured") {
					measured = { ...withoutEngine(manifest), unmeasured: { reason: outcome.reason } };
				}
				break;
			}
			case "compressed-tensors":
				checks.push(await checkCompressedTensors(directory, manifest, recipe));
				break;
			case "onnx":
				checks.push(await checkOnnx(directory, manifest, recipe));
				checks.push(
					await checkKl(join(directory, onnxGraphPath(manifest)), manifest, verificationPath, limits, signal),
				);
				break;
			case "gptq":
				checks.push(await checkGptq(directory, manifest, recipe));
				break;
			case "mlx":
				checks.push(await checkMlx(directory, manifest, recipe));
				break;
		}
		checks.push(checkFidelityFloor(manifest, measured.engine ?? null, policy.floor, bitsPerWeightOf(manifest, recipe)));
		return { ok: true, manifest: measured, checks };
	} catch (error) {
		if (!(error instanceof CheckFailure)) throw error;
		checks.push(`failed: ${error.message}`);
		return {
			ok: false,
			checks,
			refusal: refusal(
				"verification-failed",
				`The files of ${recipe.canonical} did not pass verification: ${error.message}.`,
				error.remedy ??
					"Nothing was published. A retry computes them again; if it fails again, it is a bug worth reporting.",
			),
		};
	}
}

/** What the runner wrote: the engine's figures and the model's shape are added where it is verified. */
function withoutEngine(manifest: Manifest): Manifest {
	const { engine: _engine, unmeasured: _unmeasured, shape: _shape, ...rest } = manifest;
	return rest;
}

/** A budget of bytes tells its bits only in the manifest. */
function bitsPerWeightOf(manifest: Manifest, recipe: Recipe): number {
	const { mixed } = manifest;
	if (mixed == null) return recipe.name.bits;
	return mixed.published === "mixed" ? mixed.bitsPerWeight : mixed.uniform.bitsPerWeight;
}

async function checkKl(
	graphPath: string,
	manifest: Manifest,
	verificationPath: string | null,
	limits: ChildLimits,
	signal: AbortSignal | undefined,
): Promise<string> {
	if (verificationPath === null) return "KL: not computed again, the reference tensors are not at hand";
	const result = await onnxKl({ graphPath, verificationPath, limits, ...(signal === undefined ? {} : { signal }) });
	assertCheck(result.ok, result.ok ? "" : `onnxruntime: ${result.reason}`);
	const { klNats, sequences, positions } = result.kl;
	const claimed = manifest.verification;
	assertCheck(
		sequences === claimed.sequences,
		`the reference tensors hold ${sequences} sequences, the manifest says ${claimed.sequences}`,
	);
	const difference = Math.abs(klNats - claimed.klNats);
	assertCheck(
		difference <= KL_TOLERANCE.relative * Math.abs(claimed.klNats) + KL_TOLERANCE.absolute,
		`onnxruntime measures a KL of ${klNats.toPrecision(4)} nats, the manifest says ${claimed.klNats.toPrecision(4)}`,
	);
	return `KL: ${klNats.toPrecision(4)} nats a token in onnxruntime over ${positions} positions, manifest ${claimed.klNats.toPrecision(4)}`;
}

/** JSON with sorted keys: two manifests that say the same are the same text. */
function canonicalJson(value: unknown): string {
	return JSON.stringify(value, (_key, part: unknown) =>
		typeof part === "object" && part !== null && !Array.isArray(part)
			? Object.fromEntries(Object.entries(part).sort(([one], [other]) => (one < other ? -1 : 1)))
			: part,
	);
}
