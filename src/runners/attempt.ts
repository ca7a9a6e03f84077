/** One attempt at a job. */
export type Attempt = { readonly job: string; readonly fence: number };

const HANDLE = /^([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})-(\d{1,9})$/;

/** What the database keeps of a remote run: the attempt itself, since engines find its run by that. */
export function attemptHandle(attempt: Attempt): string {
	return `${attempt.job}-${attempt.fence}`;
}

export function parseAttempt(handle: string): Attempt {
	const [, job, fence] = HANDLE.exec(handle) ?? [];
	if (job === undefined || fence === undefined) throw new Error(`"${handle}" is not a handle of a remote run.`);
	return { job, fence: Number(fence) };
}
