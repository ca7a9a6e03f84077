import type { Clock } from "../clock.ts";
import { assertNever } from "../errors.ts";
import type { JobChange } from "../jobs/job-change.ts";
import { transition } from "../jobs/transitions.ts";
import { isFinished, isHeld, type JobRecord } from "../records/job.ts";
import type { Person } from "../records/person.ts";
import type { AnswerOptions } from "./answer-options.ts";
import { hasRights, isRobot, mayApprove, mayCancel, mayRetry, type NamedPeople } from "./rights.ts";

export const JOB_ACTIONS = ["cancel", "retry", "approve"] as const;
export type JobAction = (typeof JOB_ACTIONS)[number];

/** Who wants something of a job, outside of a thread. */
export type Asker = Person & { readonly isOperator: boolean };

export type JobControl = {
	/** What may be done now, by this person. */
	readonly actionsFor: (job: JobRecord, asker: Asker) => Promise<readonly JobAction[]>;
	/** `null`: the person has no right to it. */
	readonly act: (job: JobRecord, action: JobAction, asker: Asker) => Promise<JobChange | null>;
};

type JobControlOptions = NamedPeople &
	Pick<AnswerOptions, "requestersOf" | "cancelJob" | "retryJob"> & {
		readonly approveJob: (id: string) => Promise<JobChange>;
		readonly clock: Clock;
	};

function applies(job: JobRecord, action: JobAction, now: Date): boolean {
	switch (action) {
		case "cancel":
			return !isFinished(job.state) && !job.cancelRequested && transition(job.state, "cancel") !== null;
		case "retry":
			return transition(job.state, "retry") !== null;
		case "approve":
			return isHeld(job, now);
		default:
			return assertNever(action);
	}
}

/** What people may do to a job on its page: what the same person could do by a comment in the model's discussions. */
export function createJobControl(options: JobControlOptions): JobControl {
	async function may(job: JobRecord, action: JobAction, asker: Asker): Promise<boolean> {
		if (action === "approve") return mayApprove(asker.isOperator);
		if (asker.isOperator) return true;
		if (isRobot({ name: asker.name, robot: false }, options)) return false;
		const [namespace = ""] = job.sourceRepo.split("/");
		const belongs = namespace === asker.name || asker.organizations.includes(namespace);
		const trusted = hasRights(asker.name, belongs, options);
		if (action === "retry") return mayRetry(trusted);
		return mayCancel(trusted, asker.name, trusted ? [] : await options.requestersOf(job.id));
	}

	return {
		async actionsFor(job, asker) {
			const allowed: JobAction[] = [];
			for (const action of JOB_ACTIONS) {
				if (applies(job, action, options.clock.now()) && (await may(job, action, asker))) allowed.push(action);
			}
			return allowed;
		},
		async act(job, action, asker) {
			if (!(await may(job, action, asker))) return null;
			switch (action) {
				case "cancel":
					return await options.cancelJob(job.id);
				case "retry":
					return await options.retryJob(job.id);
				case "approve":
					return await options.approveJob(job.id);
				default:
					return assertNever(action);
			}
		},
	};
}
