import type { Configuration } from "../config/schema.ts";
import type { Admission } from "../db/admission.ts";
import { formatUsd } from "../publish/figures.ts";

/** Why a job may not start yet, for the people who wait, and when to look again. */
type Hold = { readonly statusText: string; readonly until: Date };

const DAY_MS = 24 * 3600 * 1000;

export function monthStart(now: Date): Date {
	return new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth(), 1));
}

function nextMonth(now: Date): Date {
	return new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + 1, 1));
}

function microUsd(dollars: number): number {
	return Math.round(dollars * 1e6);
}

/** Checks a job against the ceilings and quotas; `null`: it may start. */
export function holdOf(id: string, state: Admission, budget: Configuration["budget"], now: Date): Hold | null {
	const { estimateMicroUsd, spentMicroUsd } = state;
	if (budget.approvalUsd !== null && estimateMicroUsd > microUsd(budget.approvalUsd) && !state.approved) {
		return {
			statusText: `Waits for approval: it may cost ${formatUsd(estimateMicroUsd)}, and jobs above ${formatUsd(microUsd(budget.approvalUsd))} do not start by themselves. Whoever runs the bot approves it with \`yaqa-bot approve ${id}\`.`,
			until: new Date(now.getTime() + DAY_MS),
		};
	}
	if (
		budget.perMonthUsd !== null &&
		spentMicroUsd + estimateMicroUsd > microUsd(budget.perMonthUsd) &&
		estimateMicroUsd > 0
	) {
		const month = nextMonth(now);
		return {
			statusText: `Waits for money: jobs of this month took ${formatUsd(spentMicroUsd)} of ${formatUsd(microUsd(budget.perMonthUsd))}, and this one may cost ${formatUsd(estimateMicroUsd)}. It goes on on ${month.toISOString().slice(0, 10)}, or when whoever runs the bot raises budget.perMonthUsd.`,
			until: month,
		};
	}
	const quota = budget.runsPerNamespacePerDay;
	if (quota !== null && state.namespaceRuns >= quota) {
		const until = new Date((state.oldestRunAt ?? now).getTime() + DAY_MS);
		return {
			statusText: `Waits for its turn: ${state.namespace} had ${state.namespaceRuns} runs in 24 hours, which is its share. It goes on at ${until.toISOString().slice(0, 16).replace("T", " ")} UTC, or when whoever runs the bot raises budget.runsPerNamespacePerDay.`,
			until,
		};
	}
	return null;
}

/** What a job in line is told. */
export function lineText(ahead: number): string {
	if (ahead === 0) return "Waits for a free runner; it is next.";
	return `Waits for a free runner; ${ahead === 1 ? "one job is" : `${ahead} jobs are`} ahead of it.`;
}
