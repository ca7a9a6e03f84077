import { createProgressDisplay } from "../../src/cli/progress-display.ts";
import type { RunnerEvent } from "../../src/protocol/events.ts";

/** Shows a run's progress on this process's terminal: what `yaqa-bot quantize` shows, without the run. */

const envelope = { job: "00000000-0000-4000-8000-000000000000", fence: 1, at: "2026-01-01T00:00:00.000Z" };
const recipe = "gguf,bytes=4.25gb,embedding=q4,refine=10,tune=off";
const events: readonly RunnerEvent[] = [
	{ event: "stage", ...envelope, stage: "sketch", status: "started" },
	{ event: "progress", ...envelope, stage: "sketch", done: 1, total: 3, unit: "passes", etaSeconds: 7200 },
	{ event: "stage", ...envelope, stage: "sketch", status: "finished", seconds: 12 },
	{ event: "stage", ...envelope, stage: "evaluate", status: "started", detail: recipe },
	{ event: "progress", ...envelope, stage: "evaluate", done: 3, total: 4, unit: "sequences", etaSeconds: null },
	{ event: "stage", ...envelope, stage: "evaluate", status: "finished", seconds: 3, detail: recipe },
];
const display = createProgressDisplay(
	{
		out: (text) => process.stdout.write(text),
		err: (text) => process.stderr.write(text),
		isScreen: process.stderr.isTTY === true,
		columns: () => process.stderr.columns,
	},
	() => new Date(),
);
for (const event of events) {
	display.event(event);
	await new Promise((resolve) => setTimeout(resolve, 250));
}
display.close();
