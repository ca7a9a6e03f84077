import type { JobAction } from "../../commands/job-control.ts";
import type { JobRecord } from "../../records/job.ts";
import { type Html, html } from "../html.ts";
import type { Viewer } from "../sign-in/viewer.ts";
import { formTokenField } from "./account-part.ts";

const LABELS: Readonly<Record<JobAction, string>> = {
	cancel: "Cancel the job",
	retry: "Try again",
	approve: "Let it start",
};

/** What who is signed in may do to the job: a form each, so that it works without script; with it they follow the state. */
export function jobActions(viewer: Viewer | null, job: JobRecord, actions: readonly JobAction[]): Html | null {
	if (viewer === null) return null;
	return html`<div id="part-actions" class="actions">${actions.map(
		(action) =>
			html`<form method="post" action="/jobs/${job.id}/${action}">${formTokenField(viewer)}<button type="submit"${action === "cancel" && html` class="danger"`}>${LABELS[action]}</button></form>`,
	)}</div>
`;
}
