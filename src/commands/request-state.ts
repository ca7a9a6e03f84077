import type { RequestOutcome } from "../jobs/ports.ts";
import type { RequestState } from "./replies/render-request.ts";

export function requestStateOf(outcome: RequestOutcome): RequestState {
	switch (outcome.kind) {
		case "planned":
			return { request: outcome.request, job: outcome.job, variants: outcome.variants };
		case "published":
			return { request: outcome.request, job: null, variants: outcome.variants };
		case "refused":
			return { request: { ...outcome.request, refusal: outcome.refusal }, job: null, variants: [] };
	}
}

/** For the trailer. */
export function stateWord(state: Pick<RequestState, "request" | "job">): string {
	if (state.request.refusal !== null) return "refused";
	return state.job?.state ?? "published";
}
