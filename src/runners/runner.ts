import type { Refusal } from "../errors.ts";
import type { ResultEvent, RunnerEvent } from "../protocol/events.ts";
import type { JobSpec } from "../protocol/job-spec.ts";

/** What a runner says of a run that it was given. */
export type Observation =
	| { readonly status: "running" }
	/** The run ended with a result line that was read whole. */
	| { readonly status: "finished"; readonly result: ResultEvent }
	/** The run ended, or is gone, without a result. `retryable`: another attempt may succeed. */
	| { readonly status: "lost"; readonly refusal: Refusal; readonly retryable: boolean };

/** What the estimate chose for the job. */
export type Placement = { readonly flavor: string | null };

/**
 * An engine that executes GPU work. Every method is safe to call again after a crash of the caller:
 * `dispatch` with the same job and fence finds the run that it started before instead of starting a second one.
 */
export type Runner = {
	readonly name: string;
	/** Its runs are elsewhere: what the spec names on the Hub they fetch themselves. */
	readonly isRemote: boolean;
	/** Starts the run for `spec.job` at `spec.fence`, or finds it. The handle is what the database keeps. */
	dispatch(spec: JobSpec, placement?: Placement): Promise<{ readonly handle: string }>;
	/** The handle of the run that `dispatch` started for this attempt, if it did: for a caller that died before it kept it. */
	find(job: string, fence: number): Promise<string | null>;
	/** `notBefore`: what was learned of the run before then is too old, since somebody said that it has news. */
	observe(handle: string, notBefore?: Date | null): Promise<Observation>;
	/** Events from the `after`th on (0 gives all); call again with the last one's number to go on. */
	events(handle: string, after: number): Promise<readonly { readonly number: number; readonly event: RunnerEvent }[]>;
	/** Ends the run and everything it started; returns when nothing of it is left. */
	cancel(handle: string): Promise<void>;
	/** Brings the staged files into `directory`, byte for byte as the runner wrote them. */
	collect(handle: string, directory: string): Promise<void>;
	/** Frees what an ended run left behind, but for what the job's next attempt can go on from. */
	setAside(handle: string): Promise<void>;
	/** Frees what the run, and earlier ones of its job, left behind. */
	discard(handle: string): Promise<void>;
	/** Handles of the runs that this machine holds; none where an engine elsewhere does. */
	listHeld(): Promise<readonly string[]>;
};
