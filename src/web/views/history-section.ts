import type { PublishedBefore } from "../../db/variants.ts";
import { formatNumber, shortSha } from "../../publish/figures.ts";
import { type Html, html } from "../html.ts";
import { timeElement } from "./time-element.ts";

const SHOWN_COMMITS = 20;

/** What each commit of the original gave, so that one sees what a new push changed. */
export function historySection(history: readonly PublishedBefore[], now: Date): Html | null {
	const commits = [...Map.groupBy(history, (one) => one.sourceSha)];
	if (commits.length < 2) return null;
	return html`<section id="history"><h2>By commit</h2>
<div class="scroll" tabindex="0"><table class="cards"><caption>Commits of the original that something was published of, the newest first, with the KL of each file${commits.length > SHOWN_COMMITS && html`; the newest ${SHOWN_COMMITS} of ${commits.length}`}</caption>
<thead><tr><th scope="col">Commit</th><th scope="col">Published</th><th scope="col">Files, KL in nats a token</th></tr></thead><tbody>
${commits.slice(0, SHOWN_COMMITS).map(([sha, variants]) => {
	const [newest] = variants;
	return html`<tr><th scope="row"><code>${shortSha(sha)}</code>${variants.every((one) => !one.isCurrent) && html`<small class="quiet">replaced</small>`}</th><td data-label="Published"><span>${newest !== undefined && timeElement(newest.publishedAt, now)}</span></td><td data-label="Files"><span>${variants.map(
		(one) =>
			html`<a class="tag" href="/v/${one.id}">${one.recipe}</a> ${one.klNats === null ? "–" : formatNumber(one.klNats)} `,
	)}</span></td></tr>
`;
})}</tbody></table></div></section>`;
}
