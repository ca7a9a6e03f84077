import type { RunnerEvent, StageName } from "../protocol/events.ts";
import { formatSeconds } from "../publish/figures.ts";
import { printable, type Terminal } from "./terminal.ts";

const STAGES: Readonly<Record<StageName, string>> = {
	load: "load the model",
	calibrate: "calibration text",
	sketch: "sketch the curvature",
	round: "round the weights",
	tune: "tune the scales",
	export: "write the files",
	evaluate: "measure the files",
	gate: "choose the best",
	finish: "finish",
};
/** Stages that come once for each variant, whose recipe is their detail. */
const BY_VARIANT: ReadonlySet<StageName> = new Set(["export", "evaluate", "gate"]);

function labelOf(stage: StageName, detail: string | null): string {
	if (stage === "evaluate" && detail === "original") return "measure the original";
	return detail !== null && BY_VARIANT.has(stage) ? `${STAGES[stage]}, ${detail}` : STAGES[stage];
}

const FRAMES = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"] as const;
const FRAME_MILLISECONDS = 100;
/** On plain output one line for every tenth of a stage: a log, not a film. */
const PLAIN_SHARE = 0.1;

export type ProgressDisplay = {
	readonly event: (event: RunnerEvent) => void;
	/** A line of its own above the bar. */
	readonly say: (text: string) => void;
	/** What goes on outside the runner: inspect, fetch, verify. `null` when it is over. */
	readonly step: (text: string | null) => void;
	readonly close: () => void;
};

function bar(share: number, width: number): string {
	const filled = Math.round(Math.min(1, Math.max(0, share)) * width);
	return `${"━".repeat(filled)}${"─".repeat(width - filled)}`;
}

/** A spinner and a bar on a screen, plain lines elsewhere; never on stdout. Long, since all of it writes one line. */
export function createProgressDisplay(terminal: Terminal, now: () => Date): ProgressDisplay {
	let current: {
		readonly label: string;
		readonly done: number;
		readonly total: number;
		readonly eta: number | null;
	} | null = null;
	let frame = 0;
	let plainShare = 0;
	let begun: { readonly stage: StageName; readonly label: string } | null = null;
	const labelNow = (stage: StageName): string => (begun?.stage === stage ? begun.label : STAGES[stage]);
	let stepStarted = now();
	let drawn = false;

	function clear(): void {
		if (drawn) terminal.err("\r\u001B[2K");
		drawn = false;
	}
	function draw(): void {
		if (!terminal.isScreen || current === null) return;
		const width = Math.max(20, terminal.columns() - 1);
		const spinner = FRAMES[frame++ % FRAMES.length] ?? "";
		const share = current.total > 0 ? current.done / current.total : null;
		const right =
			share === null
				? formatSeconds((now().getTime() - stepStarted.getTime()) / 1000)
				: `${String(Math.floor(share * 100)).padStart(3)} %${current.eta === null ? "" : `  ${formatSeconds(current.eta)} left`}`;
		const left = current.label.padEnd(22);
		const room = width - left.length - right.length - 6;
		const middle = share === null || room < 8 ? "" : `${bar(share, Math.min(40, room))}  `;
		clear();
		terminal.err(`${spinner} ${left}  ${middle}${right}`.slice(0, width));
		drawn = true;
	}
	function line(text: string): void {
		clear();
		terminal.err(`${printable(text)}\n`);
		draw();
	}
	const timer = terminal.isScreen ? setInterval(draw, FRAME_MILLISECONDS) : null;
	timer?.unref();
	if (terminal.isScreen) terminal.err("\u001B[?25l");

	return {
		say: line,
		step(text) {
			stepStarted = now();
			current = text === null ? null : { label: text, done: 0, total: 0, eta: null };
			if (text !== null && !terminal.isScreen) line(`${text} …`);
			else if (text === null) clear();
		},
		event(event) {
			switch (event.event) {
				case "stage":
					if (event.status === "started") {
						stepStarted = now();
						plainShare = 0;
						begun = { stage: event.stage, label: labelOf(event.stage, event.detail ?? null) };
						current = { label: begun.label, done: 0, total: 0, eta: null };
						if (!terminal.isScreen) line(`${begun.label} …`);
					} else {
						current = null;
						const how = event.status === "skipped" ? (event.detail ?? "skipped") : formatSeconds(event.seconds ?? 0);
						const ended = event.status === "skipped" ? STAGES[event.stage] : labelNow(event.stage);
						line(`${event.status === "skipped" ? "–" : "✓"} ${ended.padEnd(22)}  ${how}`);
					}
					return;
				case "progress": {
					const label = labelNow(event.stage);
					current = { label, done: event.done, total: event.total, eta: event.etaSeconds };
					const share = event.total > 0 ? event.done / event.total : 0;
					if (!terminal.isScreen && share >= plainShare + PLAIN_SHARE) {
						plainShare = share;
						const eta = event.etaSeconds === null ? "" : `, ${formatSeconds(event.etaSeconds)} left`;
						line(`  ${label}: ${Math.floor(event.done)} of ${event.total} ${event.unit}${eta}`);
					}
					return;
				}
				case "warning":
					line(`! ${event.message}`);
					return;
				case "metric":
				case "layer":
				case "result":
					return;
			}
		},
		close() {
			if (timer !== null) clearInterval(timer);
			current = null;
			clear();
			if (terminal.isScreen) terminal.err("\u001B[?25h");
		},
	};
}
