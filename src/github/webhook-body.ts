import { z } from "zod";

const Author = z.object({ type: z.string().max(40) });

/**
 * What is read of the payload that GitHub signs. Every event has other parts, and one of another shape than expected
 * counts as left out.
 */
export const GitHubPayload = z.looseObject({
	action: z.string().max(64).optional().catch(undefined),
	repository: z
		.object({ full_name: z.string().max(200) })
		.optional()
		.catch(undefined),
	/** With `issues` and `issue_comment`. */
	issue: z
		.object({ number: z.int().min(1) })
		.optional()
		.catch(undefined),
	comment: z
		.object({ id: z.int().min(1), user: Author.nullish() })
		.optional()
		.catch(undefined),
	/** With `workflow_run`: the title, which the workflow makes the run's name. */
	workflow_run: z
		.object({ display_title: z.string().max(400) })
		.optional()
		.catch(undefined),
	/** With `workflow_job`: the job's name, which the workflow makes the run's name. */
	workflow_job: z
		.object({ name: z.string().max(400) })
		.optional()
		.catch(undefined),
});

/** A delivery as it is stored: the event's name, which GitHub sends in a header, and the payload. */
export const GitHubWebhookBody = z.object({ event: z.string(), payload: GitHubPayload });
