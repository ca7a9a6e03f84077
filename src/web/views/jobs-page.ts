import type { Page } from "../../db/cursor.ts";
import type { JobRecord } from "../../records/job.ts";
import { html } from "../html.ts";
import { jobTable } from "./job-table.ts";
import { type PageContext, renderPage } from "./layout.ts";

export function jobsPage(context: PageContext, page: Page<JobRecord>, cursor: string | null): string {
	const main = html`<h1>Jobs</h1>
<p class="lead">One job is one run over one commit of a model, for one or more variants.</p>
${
	page.items.length === 0
		? html`<div class="panel empty"><h2>No jobs yet</h2><p class="quiet">A push to a watched repo, or <code>@${context.botName} quantize</code> in one of its discussions, starts one.</p></div>`
		: jobTable({ jobs: page.items, caption: "Newest first", now: context.now })
}
<nav class="pager" aria-label="Pages">
${cursor !== null && html`<a href="/jobs">Back to the newest</a>`}
${page.next !== null && html`<a rel="next" href="/jobs?${new URLSearchParams({ cursor: page.next }).toString()}">Older jobs</a>`}
</nav>`;
	return renderPage(context, { title: "Jobs", section: "jobs", main });
}
