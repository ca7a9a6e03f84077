import type { Configuration } from "../../config/schema.ts";
import type { LinePlace } from "../../db/admission.ts";
import type { Counts } from "../../db/metrics.ts";
import { assertNever } from "../../errors.ts";
import { formatBytes, formatCount, formatPassing } from "../../publish/figures.ts";
import type { IsolationLevel } from "../../runners/isolation.ts";
import { type Html, html } from "../html.ts";
import type { KeptThings } from "../metrics.ts";
import { formTokenField } from "./account-part.ts";
import type { DeliverySummary } from "./deliveries-page.ts";
import { type PageContext, renderPage } from "./layout.ts";
import { deliveryBadge } from "./state-badge.ts";
import { timeElement } from "./time-element.ts";

export type OperatorView = {
	readonly counts: Counts;
	readonly line: readonly LinePlace[];
	readonly budget: Configuration["budget"] & { readonly spentThisMonthUsd: number };
	readonly retention: { readonly settings: Configuration["retention"]; readonly kept: KeptThings | null };
	readonly isolation: {
		readonly runner: Configuration["runner"]["kind"];
		readonly required: Configuration["runner"]["isolation"];
		readonly now: { readonly level: IsolationLevel; readonly reason: string | null } | null;
	};
	readonly deliveries: readonly DeliverySummary[];
	readonly nextCursor: string | null;
};

function fact(term: string, text: Html | string): Html {
	return html`<div><dt>${term}</dt><dd>${text}</dd></div>\n`;
}

function countsText(counts: Readonly<Partial<Record<string, number>>>): string {
	const parts = Object.entries(counts).map(([state, count]) => `${state} ${formatCount(count ?? 0)}`);
	return parts.length === 0 ? "none" : parts.join(", ");
}

function queuePart({ counts, line }: OperatorView): Html {
	return html`<h2>Queue</h2>
<dl class="facts">
${fact("Jobs", countsText(counts.jobsByState))}${fact("Variants", countsText(counts.variantsByState))}${fact("Oldest work that is due", counts.oldestDueSeconds < 1 ? "none waits" : `waits for ${formatPassing(counts.oldestDueSeconds)}`)}</dl>
${
	line.length === 0
		? html`<p class="quiet">No job is in line for a runner.</p>`
		: html`<div class="scroll" tabindex="0"><table class="cards"><caption>In line for a runner</caption>
<thead><tr><th scope="col">Model</th><th scope="col" class="number">Place</th></tr></thead><tbody>
${line.map((place) => html`<tr><th scope="row"><a href="/jobs/${place.id}">${place.sourceRepo}</a></th><td data-label="Place" class="number">${place.position}</td></tr>\n`)}</tbody></table></div>`
}`;
}

function dollars(value: number | null, none: string): string {
	return value === null ? none : `$${value.toFixed(2)}`;
}

function budgetPart({ budget }: OperatorView): Html {
	return html`<h2>Budget</h2>
<dl class="facts">
${fact("Spent this month, by estimate", dollars(budget.spentThisMonthUsd, "–"))}${fact("A month at most", dollars(budget.perMonthUsd, "no ceiling"))}${fact("A job at most", dollars(budget.perJobUsd, "no ceiling"))}${fact("Starts by itself up to", dollars(budget.approvalUsd, "any price"))}${fact("Runs a namespace a day", budget.runsPerNamespacePerDay === null ? "no limit" : formatCount(budget.runsPerNamespacePerDay))}</dl>`;
}

const KEPT_NAMES: Readonly<Record<string, string>> = {
	sources: "Snapshots of models",
	sketches: "Sketches",
	logs: "Logs of runs",
	work: "Files of runs",
	deliveries: "Deliveries",
	events: "Events of runs",
};

function keptLimit(what: string, settings: Configuration["retention"]): string {
	switch (what) {
		case "sources":
		case "sketches":
		case "logs": {
			const { days, gigabytes } = settings[what];
			return `${days} days, ${gigabytes} GB`;
		}
		case "deliveries":
		case "events": {
			const { days, rows } = settings[what];
			return `${days} days, ${formatCount(rows)} rows`;
		}
		default:
			return "as long as their job";
	}
}

function retentionPart({ retention: { kept, settings } }: OperatorView): Html {
	const note = `It is looked over every ${settings.everyMinutes} minutes, and cleared below ${settings.freeGigabytes} GB of free space.`;
	if (kept === null)
		return html`<h2>What is kept</h2>\n<p class="quiet">${note} It was not yet since this bot started.</p>`;
	return html`<h2>What is kept</h2>
<p class="quiet">${note}</p>
<div class="scroll" tabindex="0"><table class="cards"><caption>By the last look over it</caption>
<thead><tr><th scope="col">What</th><th scope="col" class="number">Entries</th><th scope="col" class="number">Size</th><th scope="col" class="number">Went then</th><th scope="col">At most</th></tr></thead><tbody>
${Object.entries(kept).map(
	([what, one]) =>
		html`<tr><th scope="row">${KEPT_NAMES[what] ?? what}</th><td data-label="Entries" class="number">${formatCount(one.entries)}</td><td data-label="Size" class="number">${one.bytes === undefined ? "–" : formatBytes(one.bytes)}</td><td data-label="Went then" class="number">${formatCount(one.removed)}</td><td data-label="At most">${keptLimit(what, settings)}</td></tr>\n`,
)}</tbody></table></div>`;
}

function isolationText(level: IsolationLevel): string {
	switch (level) {
		case "own-account":
			return "An account and namespaces of their own: no network, no other process, no files but theirs.";
		case "namespaces":
			return "Namespaces of their own under the bot's account: no network, no other process, no files but theirs.";
		case "none":
			return "None: runs share the bot's account. Its tokens are in no environment and no file.";
		default:
			return assertNever(level);
	}
}

function isolationPart({ isolation }: OperatorView): Html {
	if (isolation.now === null) {
		return html`<h2>Isolation of runs</h2>\n<p>Runs are elsewhere: <code>runner.kind: ${isolation.runner}</code>.</p>`;
	}
	const { level, reason } = isolation.now;
	return html`<h2>Isolation of runs</h2>
<p>${isolationText(level)}${reason !== null && ` ${reason}`} ${isolation.required === "required" ? "Without it no model is run." : html`With <code>runner.isolation: required</code> no model is run where the system allows less.`}</p>`;
}

function deliveriesPart(context: PageContext, view: OperatorView, cursor: string | null): Html {
	const { viewer } = context;
	const rows = view.deliveries.map(
		(
			delivery,
		) => html`<tr><th scope="row">${delivery.repo ?? "–"}<small class="quiet"><code>${delivery.event}</code></small></th>
<td data-label="Outcome">${deliveryBadge(delivery.outcome)}</td>
<td data-label="Why">${delivery.detail ?? "–"}</td>
<td data-label="Received">${timeElement(new Date(delivery.receivedAt), context.now)}</td>
<td data-label="Again">${
			viewer !== null && delivery.outcome !== "pending"
				? html`<form method="post" action="/operator/deliveries/${delivery.id}/replay">${formTokenField(viewer)}<button class="plain" type="submit" aria-label="Replay the delivery about ${delivery.repo ?? "no repo"}">Replay</button></form>`
				: "–"
		}</td></tr>
`,
	);
	return html`<h2 id="deliveries">Deliveries</h2>
<p class="quiet">By outcome: ${countsText(view.counts.deliveriesByOutcome)}. A replay works on it anew, as though it had just come: what was done stays done, and is not done twice.</p>
${
	rows.length === 0
		? html`<p class="quiet">No webhook has arrived.</p>`
		: html`<div class="scroll" tabindex="0"><table class="cards"><caption>Newest first</caption>
<thead><tr><th scope="col">Repo and event</th><th scope="col">Outcome</th><th scope="col">Why</th><th scope="col">Received</th><th scope="col">Again</th></tr></thead><tbody>
${rows}</tbody></table></div>`
}
<nav class="pager" aria-label="Pages">
${cursor !== null && html`<a href="/operator#deliveries">Back to the newest</a>`}
${view.nextCursor !== null && html`<a rel="next" href="/operator?${new URLSearchParams({ cursor: view.nextCursor }).toString()}#deliveries">Older deliveries</a>`}
</nav>`;
}

/** `GET /operator`: what whoever runs the bot looks after. */
export function operatorPage(context: PageContext, view: OperatorView, cursor: string | null): string {
	const main = html`<h1>Operator</h1>
<p class="lead">What this bot has to do, what it spends and keeps, and what came in. <a href="/metrics">Metrics</a>, <a href="/readyz">health</a>.</p>
${queuePart(view)}
${budgetPart(view)}
${deliveriesPart(context, view, cursor)}
${retentionPart(view)}
${isolationPart(view)}`;
	return renderPage(context, { title: "Operator", section: "operator", main });
}
