import type { HubAccess } from "../hub/hub-access.ts";
import type { Manifest } from "../protocol/manifest.ts";
import type { Recipe } from "../protocol/recipe.ts";
import { fetchSource } from "./fetch-source.ts";
import type { SourceLimits } from "./inspect-files.ts";
import { inspectSource } from "./inspect-source.ts";
import type { ChildLimits } from "./limited-child.ts";
import { type VerificationPolicy, verifyVariant } from "./verify-variant.ts";

type VerifySettings = {
	/** Reads sources. */
	readonly reader: HubAccess;
	readonly sourceLimits: SourceLimits;
	readonly childLimits: ChildLimits;
	readonly policy: VerificationPolicy;
};

/** This folder's functions with their settings filled in, in the form that the job engine takes. */
export function createVerifyPorts(settings: VerifySettings) {
	const { reader, sourceLimits, childLimits, policy } = settings;
	return {
		inspectSource: (request: { readonly repo: string; readonly revision: string; readonly baseSha?: string | null }) =>
			inspectSource({ ...reader, ...request, limits: sourceLimits }),
		fetchSource: (request: {
			readonly repo: string;
			readonly sha: string;
			readonly directory: string;
			readonly base?: { readonly sha: string; readonly directory: string } | null;
			readonly signal: AbortSignal;
		}) => fetchSource({ ...reader, ...request, limits: sourceLimits }),
		verify: (request: {
			readonly directory: string;
			readonly manifest: Manifest;
			readonly recipe: Recipe;
			readonly verificationPath: string | null;
			readonly signal: AbortSignal;
		}) => verifyVariant({ ...request, policy, limits: childLimits }),
	};
}
