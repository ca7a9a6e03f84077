import type { Attempt } from "../records/attempt.ts";

const RUN_NAME = /^quant ([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}) #([1-9]\d{0,8})$/;

/** As `run-name`, and the name of the job, in `workflows/quantize.yml` write it. */
export function runName(attempt: Attempt): string {
	return `quant ${attempt.job} #${attempt.fence}`;
}

/** `null` for a run of something else. */
export function parseRunName(name: string): Attempt | null {
	const [, job, fence] = RUN_NAME.exec(name) ?? [];
	return job === undefined || fence === undefined ? null : { job, fence: Number(fence) };
}
