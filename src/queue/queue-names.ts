import type { StepName } from "../jobs/transitions.ts";

export const SHARED_QUEUES = [
	"deliver",
	"dispatch",
	"verify",
	"publish",
	"announce",
	"side",
	"sketch",
	"sweep",
] as const;

/** Steps that only the process with the run's files can do have a queue for each runner. */
export function pollQueue(runner: string): string {
	return `poll.${runner}`;
}
export function ingestQueue(runner: string): string {
	return `ingest.${runner}`;
}

export function queueOfStep(step: StepName, runner: string): string {
	switch (step) {
		case "poll":
			return pollQueue(runner);
		case "ingest":
			return ingestQueue(runner);
		case "dispatch":
		case "verify":
		case "publish":
		case "announce":
			return step;
	}
}
