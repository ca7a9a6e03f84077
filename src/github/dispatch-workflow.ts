import { z } from "zod";
import type { GitHubAccess } from "./github-access.ts";

const Answer = z.object({ workflow_run_id: z.int() });

/**
 * Starts a workflow. Asked once only: after a failure, look with `listWorkflowRuns`. The id of the run, or `null` where
 * the server does not name it, as older GitHub Enterprise Servers do not.
 */
export async function dispatchWorkflow(
	params: { readonly github: GitHubAccess } & {
		readonly workflow: string;
		readonly ref: string;
		readonly inputs: Readonly<Record<string, string>>;
	},
): Promise<number | null> {
	const { github, workflow, ref, inputs } = params;
	const { data } = await github.request(
		"POST /repos/{owner}/{repo}/actions/workflows/{workflow_id}/dispatches",
		{ workflow_id: workflow, ref, inputs, return_run_details: true },
		{ repeatable: false },
	);
	return Answer.safeParse(data).data?.workflow_run_id ?? null;
}
