import { assertNever } from "../../errors.ts";
import { VARIANT_STATE_WORDS } from "../../publish/variant-state-words.ts";
import type { VariantSummary } from "../../publish/variant-summary.ts";
import type { DeliveryOutcome } from "../../records/delivery.ts";
import { isFinished, isHeld, type JobRecord, type JobState } from "../../records/job.ts";
import type { VariantState } from "../../records/variant.ts";
import { type Html, html } from "../html.ts";

type Tone = "good" | "busy" | "wait" | "bad" | "quiet";

const SHAPES: Readonly<Record<Tone, Html>> = {
	good: html`<path d="M2 6.5 5 9.5 10.5 3" fill="none" stroke="currentColor" stroke-width="2"/>`,
	busy: html`<circle cx="6" cy="6" r="4" fill="none" stroke="currentColor" stroke-width="2" stroke-dasharray="17 9"/>`,
	wait: html`<path d="M3.5 2.5v7M8.5 2.5v7" stroke="currentColor" stroke-width="2.4"/>`,
	bad: html`<path d="M2.5 2.5l7 7m0-7-7 7" stroke="currentColor" stroke-width="2"/>`,
	quiet: html`<circle cx="6" cy="6" r="3"  fill="currentColor"/>`,
};

/** A state as a sign and a word: never by colour alone. */
export function stateBadge(tone: Tone, text: string): Html {
	return html`<span class="state ${tone}"><svg viewBox="0 0 12 12" width="12" height="12" aria-hidden="true">${SHAPES[tone]}</svg>${text}</span>`;
}

export function jobStateWord(state: JobState): { readonly tone: Tone; readonly text: string } {
	switch (state) {
		case "planned":
			return { tone: "wait", text: "Planned" };
		case "waiting":
			return { tone: "wait", text: "Waiting" };
		case "dispatching":
			return { tone: "busy", text: "Starting" };
		case "running":
			return { tone: "busy", text: "Running" };
		case "ingesting":
			return { tone: "busy", text: "Collecting" };
		case "verifying":
			return { tone: "busy", text: "Verifying" };
		case "publishing":
			return { tone: "busy", text: "Publishing" };
		case "announcing":
			return { tone: "busy", text: "Announcing" };
		case "done":
			return { tone: "good", text: "Done" };
		case "failed":
			return { tone: "bad", text: "Failed" };
		case "cancelled":
			return { tone: "quiet", text: "Cancelled" };
		case "superseded":
			return { tone: "quiet", text: "Superseded" };
		default:
			return assertNever(state);
	}
}

/** A job in words, with what its state alone does not tell: that it is in line, or being ended. */
export function jobWord(job: JobRecord, now: Date): { readonly tone: Tone; readonly text: string } {
	if (job.cancelRequested && !isFinished(job.state)) return { tone: "quiet", text: "Being ended" };
	if (job.state === "waiting" && !isHeld(job, now)) return { tone: "wait", text: "Queued" };
	return jobStateWord(job.state);
}

export function jobBadge(job: JobRecord, now: Date): Html {
	const word = jobWord(job, now);
	return stateBadge(word.tone, word.text);
}

const VARIANT_TONES: Readonly<Record<VariantState, Tone>> = {
	wanted: "wait",
	staged: "busy",
	verified: "busy",
	published: "good",
	failed: "bad",
};

export function variantBadge({ state, cancelled }: Pick<VariantSummary, "state" | "cancelled">): Html {
	if (cancelled) return stateBadge("quiet", "Cancelled");
	return stateBadge(VARIANT_TONES[state], VARIANT_STATE_WORDS[state].label);
}

export function deliveryBadge(outcome: DeliveryOutcome): Html {
	switch (outcome) {
		case "pending":
			return stateBadge("wait", "Pending");
		case "accepted":
			return stateBadge("good", "Accepted");
		case "ignored":
			return stateBadge("quiet", "Ignored");
		case "failed":
			return stateBadge("bad", "Failed");
		default:
			return assertNever(outcome);
	}
}
