import { type GitHubAccess, GitHubRequestError } from "./github-access.ts";

/** Asks for the end of a run; one that has ended, or is gone, is left alone. `force`: steps that run always, too. */
export async function cancelWorkflowRun(params: {
	readonly github: GitHubAccess;
	readonly id: number;
	readonly force: boolean;
}): Promise<void> {
	const route = params.force
		? "POST /repos/{owner}/{repo}/actions/runs/{run_id}/force-cancel"
		: "POST /repos/{owner}/{repo}/actions/runs/{run_id}/cancel";
	try {
		await params.github.request(route, { run_id: params.id }, { repeatable: true });
	} catch (error) {
		const isOver = error instanceof GitHubRequestError && !error.signIn && [404, 409].includes(error.status);
		if (!isOver) throw error;
	}
}
