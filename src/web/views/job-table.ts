import { formatPassing, formatSeconds, shortSha } from "../../publish/figures.ts";
import type { JobRecord } from "../../records/job.ts";
import { type Html, html } from "../html.ts";
import { jobBadge } from "./state-badge.ts";
import { timeElement } from "./time-element.ts";

function duration(job: JobRecord, now: Date): string {
	if (job.startedAt === null) return "–";
	if (job.finishedAt === null) return formatPassing((now.getTime() - job.startedAt.getTime()) / 1000);
	return formatSeconds((job.finishedAt.getTime() - job.startedAt.getTime()) / 1000);
}

export function jobTable(options: {
	readonly jobs: readonly JobRecord[];
	readonly caption: string;
	readonly now: Date;
}): Html {
	return html`<div class="scroll" tabindex="0"><table class="cards">
<caption>${options.caption}</caption>
<thead><tr><th scope="col">Model</th><th scope="col">State</th><th scope="col">What it does</th><th scope="col" class="number">Time</th><th scope="col">Asked for</th></tr></thead>
<tbody>
${options.jobs.map(
	(job) => html`<tr>
<th scope="row"><a href="/jobs/${job.id}">${job.sourceRepo}</a><small class="quiet">commit <code>${shortSha(job.sourceSha)}</code>, job <code>${job.id.slice(0, 8)}</code></small></th>
<td data-label="State">${jobBadge(job, options.now)}</td>
<td data-label="What it does"><span>${job.refusal?.message ?? job.statusText}</span></td>
<td data-label="Time" class="number">${duration(job, options.now)}</td>
<td data-label="Asked for">${timeElement(job.createdAt, options.now)}</td>
</tr>
`,
)}
</tbody></table></div>`;
}
