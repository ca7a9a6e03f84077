import type { StepName } from "../jobs/transitions.ts";

/** Steps that only the process with the run's files can do have a queue for each runner. */
export function queueOfStep(step: StepName, runner: string): string {
	switch (step) {
		case "poll":
		case "ingest":
			return `${step}.${runner}`;
		case "dispatch":
		case "verify":
		case "publish":
		case "announce":
			return step;
	}
}
