/** One attempt at a job. */
export type Attempt = { readonly job: string; readonly fence: number };

const HANDLE = /^([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})-(\d{1,9})$/;

/** The handle of an attempt's run, on every runner: engines and folders name the run by it, so it can always be found. */
export function attemptHandle({ job, fence }: Attempt): string {
	return `${job}-${fence}`;
}

/** `null`: no attempt of a job has this handle. */
export function parseAttempt(handle: string): Attempt | null {
	const [, job, fence] = HANDLE.exec(handle) ?? [];
	return job === undefined || fence === undefined ? null : { job, fence: Number(fence) };
}

/** As `parseAttempt`, for a handle that a runner gave. */
export function attemptOf(handle: string): Attempt {
	const attempt = parseAttempt(handle);
	if (attempt === null) throw new Error(`"${handle}" is not a handle of an attempt at a job.`);
	return attempt;
}
