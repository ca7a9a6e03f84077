import { z } from "zod";
import type { GitHubAccess } from "./github-access.ts";
import { WorkflowRun } from "./workflow-run.ts";

const PAGE = 100;
const MOST_PAGES = 10;
const Page = z.object({ workflow_runs: z.array(WorkflowRun) });

/** Runs of a workflow that were dispatched under this name, newest first; looks back over a thousand runs. */
export async function listWorkflowRuns(params: {
	readonly github: GitHubAccess;
	readonly workflow: string;
	readonly name: string;
}): Promise<readonly WorkflowRun[]> {
	const { github, workflow, name } = params;
	const found: WorkflowRun[] = [];
	for (let page = 1; page <= MOST_PAGES; page++) {
		const { data } = await github.request(
			"GET /repos/{owner}/{repo}/actions/workflows/{workflow_id}/runs",
			{ workflow_id: workflow, event: "workflow_dispatch", per_page: PAGE, page },
			{ repeatable: true },
		);
		const { workflow_runs: runs } = Page.parse(data);
		const matching = runs.filter((run) => run.display_title === name);
		found.push(...matching);
		// Runs of one name lie close together.
		if (runs.length < PAGE || (found.length > 0 && matching.length === 0)) break;
	}
	return found;
}
