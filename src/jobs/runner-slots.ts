import type { JobsContext } from "./context.ts";

/** How many runs this process's runner takes at the same time. */
export function runnerSlots(context: Pick<JobsContext, "configuration" | "runner">): number {
	return context.configuration.runner.concurrency ?? context.runner.slots ?? 1;
}
