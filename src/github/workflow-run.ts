import { z } from "zod";

/** What this project reads of a run. GitHub's own type allows any text as status and conclusion. */
export const WorkflowRun = z.object({
	id: z.int(),
	/** The text of the workflow's `run-name`. */
	display_title: z.string(),
	status: z.string().nullable(),
	conclusion: z.string().nullable(),
	run_attempt: z.int().optional(),
	html_url: z.string(),
	created_at: z.string(),
});
export type WorkflowRun = z.infer<typeof WorkflowRun>;
