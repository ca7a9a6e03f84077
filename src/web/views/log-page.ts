import { z } from "zod";
import type { JobEventRecord, JobRecord } from "../../records/job.ts";
import { type Html, html } from "../html.ts";
import { type PageContext, renderPage } from "./layout.ts";
import { timeElement } from "./time-element.ts";

export type LogQuery = { readonly q: string; readonly after: number; readonly layers: boolean };

const State = z.object({ to: z.string(), statusText: z.string().catch("") });
const Named = z.looseObject({ event: z.string() });

/** An event as one line; what it holds besides its name stands as it came. */
function lineOf(event: JobEventRecord): string {
	if (event.kind === "state") {
		const state = State.safeParse(event.body);
		if (state.success) return `${state.data.to}: ${state.data.statusText}`;
	}
	const named = Named.safeParse(event.body);
	if (!named.success) return JSON.stringify(event.body);
	const { event: name, job: _job, fence: _fence, at: _at, ...rest } = named.data;
	return `${name} ${Object.entries(rest)
		.map(([key, value]) => `${key}=${typeof value === "string" ? value : JSON.stringify(value)}`)
		.join(" ")}`;
}

export function logAddress(jobId: string, query: LogQuery): string {
	const parameters = new URLSearchParams();
	if (query.q !== "") parameters.set("q", query.q);
	if (query.layers) parameters.set("layers", "1");
	if (query.after > 0) parameters.set("after", String(query.after));
	const text = parameters.toString();
	return `/jobs/${jobId}/log${text === "" ? "" : `?${text}`}`;
}

function row(event: JobEventRecord, job: JobRecord, now: Date): Html {
	// The line itself, whatever was searched for: whoever follows the link sees what came before and after it.
	const line = `${logAddress(job.id, { q: "", after: Math.max(0, event.sequence - 20), layers: true })}#e${event.sequence}`;
	return html`<tr id="e${event.sequence}"><th scope="row" class="number"><a href="${line}" aria-label="${`Link to line ${event.sequence}`}">${event.sequence}</a></th><td data-label="When"><span>${timeElement(event.at, now)}</span></td><td data-label="What"><code>${lineOf(event)}</code></td></tr>
`;
}

/** `GET /jobs/ID/log`: every event of a job as a line that can be searched and linked to. */
export function logPage(
	context: PageContext,
	job: JobRecord,
	query: LogQuery,
	found: { readonly events: readonly JobEventRecord[]; readonly next: number | null },
): string {
	const main = html`<h1>Log of <a href="/jobs/${job.id}">job <code>${job.id.slice(0, 8)}</code></a></h1>
<p class="lead">What happened to <a href="/m/${job.sourceRepo}">${job.sourceRepo}</a>, in order. The number of a line is its address.</p>
<form class="filters" method="get" action="/jobs/${job.id}/log" role="search">
<label class="grow">Search <input type="search" name="q" value="${query.q}" maxlength="200" placeholder="warning, round, a layer's name"></label>
<label>Layers <select name="layers"><option value="">Without</option><option value="1"${query.layers && html` selected`}>With each layer</option></select></label>
<button type="submit">Show</button>
</form>
${
	found.events.length === 0
		? html`<div class="panel empty"><p class="quiet">${query.q === "" ? "Nothing has happened yet." : "No line has that."}</p></div>`
		: html`<div class="scroll" tabindex="0"><table class="cards log"><caption>${query.q === "" ? "Events" : `Events with “${query.q}”`}</caption>
<thead><tr><th scope="col" class="number">Line</th><th scope="col">When</th><th scope="col">What</th></tr></thead><tbody>
${found.events.map((event) => row(event, job, context.now))}</tbody></table></div>`
}
<nav class="pager" aria-label="Pages">
${query.after > 0 && html`<a href="${logAddress(job.id, { ...query, after: 0 })}">From the beginning</a>`}
${found.next !== null && html`<a rel="next" href="${logAddress(job.id, { ...query, after: found.next })}">Later lines</a>`}
</nav>`;
	return renderPage(context, { title: `Log: ${job.sourceRepo}`, section: "jobs", main });
}
