import type { JobRecord } from "../records/job.ts";
export type JobChange =
	| { readonly ok: true; readonly job: JobRecord }
	| { readonly ok: false; readonly reason: string };
