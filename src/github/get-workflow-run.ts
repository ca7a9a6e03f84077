import { type GitHubAccess, GitHubRequestError } from "./github-access.ts";
import { WorkflowRun } from "./workflow-run.ts";

/** A run as it is now, `null` when it was deleted. */
export async function getWorkflowRun(params: {
	readonly github: GitHubAccess;
	readonly id: number;
}): Promise<WorkflowRun | null> {
	try {
		const { data } = await params.github.request(
			"GET /repos/{owner}/{repo}/actions/runs/{run_id}",
			{ run_id: params.id },
			{ repeatable: true },
		);
		return WorkflowRun.parse(data);
	} catch (error) {
		if (error instanceof GitHubRequestError && error.status === 404 && !error.signIn) return null;
		throw error;
	}
}
