import { assertNever } from "../errors.ts";
import type { JobState } from "../records/job.ts";

/** What can happen to a job. */
export type JobEvent =
	/** A runner slot is free: the run is being started. */
	| "dispatch"
	/** No runner slot is free. */
	| "wait"
	/** The runner took the run. */
	| "started"
	/** The run ended with a good result. */
	| "finished"
	/** The run's files were taken over and staged on the Hub. */
	| "staged"
	/** The staged files were downloaded back and hold what the manifests say. */
	| "verified"
	/** Every verified variant is public. */
	| "published"
	/** Nothing has to be computed: the weights are those of a commit whose variants are published. */
	| "reuse"
	/** What was to be taken over has vanished: a run makes it. */
	| "rebuild"
	/** Discussion and replies say so. */
	| "announced"
	/** The run vanished; another attempt may succeed. */
	| "lost"
	| "fail"
	| "cancel"
	/** A newer commit made the work pointless. */
	| "supersede"
	/** A person asks for another try. */
	| "retry";

const EVENTS: readonly JobEvent[] = [
	"dispatch",
	"wait",
	"started",
	"finished",
	"staged",
	"verified",
	"reuse",
	"published",
	"rebuild",
	"announced",
	"lost",
	"fail",
	"cancel",
	"supersede",
	"retry",
];

type Moves = Readonly<Partial<Record<JobEvent, JobState>>>;

const ENDINGS = { fail: "failed", cancel: "cancelled", supersede: "superseded" } as const satisfies Moves;

/**
 * The one table of what leads where. From `publishing` on something may be public already, so the job can no longer be
 * superseded, and a cancel is honoured only as long as nothing is.
 */
export const TRANSITIONS: Readonly<Record<JobState, Moves>> = {
	planned: { dispatch: "dispatching", wait: "waiting", reuse: "publishing", ...ENDINGS },
	waiting: { dispatch: "dispatching", reuse: "publishing", ...ENDINGS },
	dispatching: { started: "running", lost: "planned", ...ENDINGS },
	running: { finished: "ingesting", lost: "planned", ...ENDINGS },
	ingesting: { staged: "verifying", lost: "planned", ...ENDINGS },
	verifying: { verified: "publishing", ...ENDINGS },
	publishing: { published: "announcing", rebuild: "planned", fail: "failed", cancel: "cancelled" },
	announcing: { announced: "done" },
	done: {},
	failed: { retry: "planned" },
	cancelled: { retry: "planned" },
	superseded: { retry: "planned" },
};

/** Where an event leads, or `null` when it has no meaning in that state. */
export function transition(from: JobState, event: JobEvent): JobState | null {
	return TRANSITIONS[from][event] ?? null;
}

/** The step that works on a job in a state; `null` where nothing is left to do. */
export type StepName = "dispatch" | "poll" | "ingest" | "verify" | "publish" | "announce";

export function stepOf(state: JobState): StepName | null {
	switch (state) {
		case "planned":
		case "waiting":
		case "dispatching":
			return "dispatch";
		case "running":
			return "poll";
		case "ingesting":
			return "ingest";
		case "verifying":
			return "verify";
		case "publishing":
			return "publish";
		case "announcing":
			return "announce";
		case "done":
		case "failed":
		case "cancelled":
		case "superseded":
			return null;
		default:
			return assertNever(state);
	}
}

/** The table as a Mermaid state diagram, for `docs/how-it-works.md`. */
export function renderTransitions(): string {
	const lines = ["stateDiagram-v2", "    [*] --> planned"];
	for (const [from, moves] of Object.entries(TRANSITIONS)) {
		const byTarget = new Map<JobState, JobEvent[]>();
		for (const event of EVENTS) {
			const to = moves[event];
			if (to !== undefined) byTarget.set(to, [...(byTarget.get(to) ?? []), event]);
		}
		for (const [to, events] of byTarget) lines.push(`    ${from} --> ${to}: ${events.join(", ")}`);
	}
	lines.push("    done --> [*]");
	return lines.join("\n");
}
