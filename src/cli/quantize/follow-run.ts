import { setTimeout as sleep } from "node:timers/promises";
import { assertNever } from "../../errors.ts";
import type { ResultEvent } from "../../protocol/events.ts";
import type { Runner } from "../../runners/runner.ts";
import type { ProgressDisplay } from "../progress-display.ts";
import { exitOf } from "./exit-of-refusal.ts";
import { interrupted, Stopped } from "./stopped.ts";

const EVENT_POLL_MILLISECONDS = 200;

/** Follows a run to its end, showing its events. */
export async function followRun(
	runner: Runner,
	handle: string,
	display: ProgressDisplay,
	signal: AbortSignal,
): Promise<ResultEvent & { readonly ok: true }> {
	let seen = 0;
	async function show(): Promise<void> {
		for (;;) {
			const events = await runner.events(handle, seen);
			if (events.length === 0) return;
			for (const { number, event } of events) {
				seen = number;
				display.event(event);
			}
		}
	}
	for (;;) {
		if (signal.aborted) {
			display.step("stop the run");
			await runner.cancel(handle);
			throw interrupted();
		}
		const observation = await runner.observe(handle);
		await show();
		switch (observation.status) {
			case "running":
				await sleep(EVENT_POLL_MILLISECONDS);
				break;
			case "finished": {
				const { result } = observation;
				if (result.ok) return result;
				const { code, message, remedy } = result.error;
				throw new Stopped(exitOf({ code, message, remedy }), { code, message, remedy });
			}
			case "lost":
				throw new Stopped(exitOf(observation.refusal), observation.refusal);
			default:
				assertNever(observation);
		}
	}
}
