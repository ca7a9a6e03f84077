import type { Page } from "../../db/cursor.ts";
import type { DeliveryRecord } from "../../records/delivery.ts";
import { html } from "../html.ts";
import { type PageContext, renderPage } from "./layout.ts";
import { deliveryBadge } from "./state-badge.ts";
import { timeElement } from "./time-element.ts";

/** What of a delivery is shown: the event's kind and repo. The text of comments stays out. */
export type DeliverySummary = {
	readonly id: string;
	readonly receivedAt: string;
	readonly outcome: DeliveryRecord["outcome"];
	readonly detail: string | null;
	readonly event: string;
	readonly repo: string | null;
};

export function deliveriesPage(context: PageContext, page: Page<DeliverySummary>, cursor: string | null): string {
	const main = html`<h1>Deliveries</h1>
<p class="lead">What the Hub's webhook reported to this bot, and what became of it.</p>
${
	page.items.length === 0
		? html`<div class="panel empty"><h2>No webhook has arrived</h2><p class="quiet">Where none can reach this server, the periodic sweep still finds new pushes. <code>yaqa-bot doctor</code> says what is set up.</p></div>`
		: html`<div class="scroll" tabindex="0"><table class="cards"><caption>Newest first</caption>
<thead><tr><th scope="col">Repo</th><th scope="col">Event</th><th scope="col">Outcome</th><th scope="col">Why</th><th scope="col">Received</th></tr></thead>
<tbody>
${page.items.map(
	(delivery) => html`<tr><th scope="row">${delivery.repo ?? "–"}</th>
<td data-label="Event"><code>${delivery.event}</code></td>
<td data-label="Outcome">${deliveryBadge(delivery.outcome)}</td>
<td data-label="Why">${delivery.detail ?? "–"}</td>
<td data-label="Received">${timeElement(new Date(delivery.receivedAt), context.now)}</td></tr>
`,
)}
</tbody></table></div>`
}
<nav class="pager" aria-label="Pages">
${cursor !== null && html`<a href="/deliveries">Back to the newest</a>`}
${page.next !== null && html`<a rel="next" href="/deliveries?${new URLSearchParams({ cursor: page.next }).toString()}">Older deliveries</a>`}
</nav>`;
	return renderPage(context, { title: "Deliveries", section: "deliveries", main });
}
