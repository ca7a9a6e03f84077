import type { JobAction } from "../../commands/job-control.ts";
import type { QueuePlace } from "../../db/admission.ts";
import { assertNever } from "../../errors.ts";
import type { StageName } from "../../protocol/events.ts";
import type { Quantizer } from "../../protocol/manifest.ts";
import {
	formatChange,
	formatCount,
	formatEstimate,
	formatPassing,
	formatSeconds,
	shortSha,
} from "../../publish/figures.ts";
import type { VariantSummary } from "../../publish/variant-summary.ts";
import { isFinished, JOB_STATES, type JobRecord, type JobState } from "../../records/job.ts";
import { type Html, html } from "../html.ts";
import type { JobProgress, StageProgress } from "../job-progress.ts";
import { jobActions } from "./job-actions.ts";
import { type PageContext, renderPage } from "./layout.ts";
import { jobBadge, jobStateWord, jobWord } from "./state-badge.ts";
import { timeElement } from "./time-element.ts";
import { variantTable } from "./variant-table.ts";

export type JobView = {
	readonly job: JobRecord;
	readonly variants: readonly VariantSummary[];
	readonly progress: JobProgress;
	/** In line for a runner; `null`: it is not. */
	readonly place: QueuePlace | null;
	readonly now: Date;
};

const STAGE_NAMES: Readonly<Record<StageName, string>> = {
	load: "Load the model",
	calibrate: "Calibration text",
	sketch: "Sketch the curvature",
	round: "Round the weights",
	tune: "Tune the scales",
	export: "Write the files",
	evaluate: "Measure the files",
	gate: "Choose the best",
	finish: "Finish",
};

const QUANTIZER_NAMES: Readonly<Record<Quantizer, string>> = {
	"two-sided-tuned": "YAQA, tuned",
	"two-sided": "YAQA",
	"two-sided-cautious": "YAQA, cautious",
	"one-sided": "GPTQ",
	rtn: "Round to nearest",
};

/** From the best to the simplest. */
const METRIC_COLUMNS: readonly Quantizer[] = ["two-sided-tuned", "two-sided", "two-sided-cautious", "one-sided", "rtn"];

function stateOf(text: string): JobState | null {
	return JOB_STATES.find((state) => state === text) ?? null;
}

function secondsBetween(from: Date, to: Date): number {
	return (to.getTime() - from.getTime()) / 1000;
}

/** Whose turn comes before, with a link where it may be seen. */
function placeText({ ahead, front }: QueuePlace): Html {
	const jobs = ahead === 0 ? "next" : ahead === 1 ? "one job is ahead" : `${formatCount(ahead)} jobs are ahead`;
	if (front === null) return html`${jobs}`;
	const link = html`<a href="/jobs/${front.id}">${front.sourceRepo}</a>`;
	return front.isRunning ? html`${jobs}, after ${link}, which runs` : html`${jobs}; in front of it: ${link}`;
}

/**
 * What is left of the run by its plan, and no less than the stage under way says of itself. `null` where the run is not
 * under way, or nobody knows.
 */
function timeLeft({ job, progress, now }: JobView): string | null {
	if (job.state !== "running" || progress.attemptAt === null) return null;
	const stage = progress.stages.find((one) => one.status === "started")?.etaSeconds ?? null;
	const planned = job.plannedSeconds ?? null;
	const least = stage === null ? null : `at least ${formatSeconds(stage)}`;
	if (planned === null) return least;
	const left = planned - secondsBetween(progress.attemptAt, now);
	const plan = `of ${formatPassing(planned)} planned`;
	if (left >= (stage ?? 0)) return `${left < 60 ? "" : "about "}${formatPassing(left)} ${plan}`;
	return `${least ?? "not known"}; longer than the ${formatPassing(planned)} planned`;
}

function headPart(view: JobView): Html {
	const { job, place, now } = view;
	const { startedAt, finishedAt } = job;
	const took =
		startedAt === null
			? "not yet"
			: finishedAt === null
				? formatPassing(secondsBetween(startedAt, now))
				: formatSeconds(secondsBetween(startedAt, finishedAt));
	const left = timeLeft(view);
	const word = jobStateWord(job.state).text;
	return html`<p class="lead">${jobBadge(job, now)}${job.statusText !== `${word}.` && html` <span>${job.statusText}</span>`}</p>${
		job.remark != null &&
		html`
<p>${job.remark}</p>`
	}
<dl class="facts">
<div><dt>Commit</dt><dd><code>${shortSha(job.sourceSha)}</code></dd></div>
<div><dt>Asked for</dt><dd>${timeElement(job.createdAt, now)}</dd></div>
<div><dt>${startedAt === null ? "Started" : finishedAt === null ? "Running for" : "Took"}</dt><dd>${took}</dd></div>
${left !== null && html`<div><dt>Time left</dt><dd>${left}</dd></div>\n`}${place !== null && html`<div><dt>In line</dt><dd>${placeText(place)}</dd></div>\n`}<div><dt>Runner</dt><dd>${job.runner === "" ? "not chosen yet" : `${job.runner}, attempt ${job.fence}`}</dd></div>
${job.planText != null && html`<div class="wide"><dt>Plan</dt><dd>${job.planText}</dd></div>`}
</dl>`;
}

function refusalPart({ job }: JobView): Html | null {
	if (job.refusal === null) return null;
	const word = jobStateWord(job.state);
	// That a job was ended is no fault, and its badge has said why.
	const isFault = job.state === "failed";
	return html`<section class="panel${isFault && " bad"}"><h2>${word.text}${isFault && `: ${job.refusal.code.replaceAll("-", " ")}`}</h2>
<p>${job.refusal.message}</p>
<p><strong>What to do:</strong> ${job.refusal.remedy}</p></section>`;
}

function timelinePart({ progress, job, now }: JobView): Html {
	if (progress.states.length === 0) return html`<p class="quiet">Nothing has happened yet.</p>`;
	return html`<ol class="timeline">${progress.states.map((entry, index) => {
		const state = stateOf(entry.state);
		const next = progress.states[index + 1];
		const current = next === undefined;
		const until = next?.at ?? null;
		return html`<li${current && html` aria-current="step"`}>${current && state !== null ? jobBadge(job, now) : html`<span class="past">${state === null ? entry.state : jobStateWord(state).text}</span>`}<small class="quiet">${
			until === null ? timeElement(entry.at, now) : formatSeconds(secondsBetween(entry.at, until))
		}</small></li>`;
	})}</ol>`;
}

function stageEnd(stage: StageProgress, state: JobState): string {
	const stopped = isFinished(state) && state !== "done";
	switch (stage.status) {
		case "pending":
			return state === "done" ? "not needed" : stopped ? "not reached" : "";
		case "skipped":
			return stage.detail ?? "skipped";
		case "finished":
			return stage.seconds === null ? "done" : formatSeconds(stage.seconds);
		case "started": {
			const counted =
				stage.done === null || stage.total === null
					? "started"
					: `${formatCount(stage.done)} of ${formatCount(stage.total)} ${stage.unit}`;
			if (stopped) return stage.done === null ? "stopped" : `stopped at ${counted}`;
			return stage.etaSeconds === null ? counted : `${counted}, ${formatSeconds(stage.etaSeconds)} left`;
		}
		default:
			return assertNever(stage.status);
	}
}

function stageBar(stage: StageProgress, name: string): Html {
	switch (stage.status) {
		case "finished":
			return html`<progress max="1" value="1" aria-label="${name}"></progress>`;
		case "started":
			return stage.done === null || stage.total === null || stage.total <= 0
				? html`<progress max="1" value="0.02" aria-label="${name}"></progress>`
				: html`<progress max="${stage.total}" value="${Math.min(stage.done, stage.total)}" aria-label="${name}"></progress>`;
		case "pending":
		case "skipped":
			return html`<progress max="1" value="0" aria-label="${name}"></progress>`;
		default:
			return assertNever(stage.status);
	}
}

function stagesPart({ progress, job }: JobView): Html {
	if (progress.attempt === null) {
		return html`<p class="quiet">${isFinished(job.state) ? "The runner was not started." : "The runner has not started yet."}</p>`;
	}
	return html`<ol class="stages">${progress.stages.map((stage) => {
		const name = STAGE_NAMES[stage.stage];
		return html`<li class="${stage.status}"><span>${name}</span>${stageBar(stage, name)}<span class="end">${stageEnd(stage, job.state)}</span></li>`;
	})}</ol>`;
}

function layersPart({ progress }: JobView): Html {
	if (progress.layerCount === 0) return html`<p class="quiet">None is rounded yet.</p>`;
	const cell = (value: number | null): string => (value === null ? "–" : `${(value * 100).toFixed(0)} %`);
	return html`<div class="scroll" tabindex="0"><table class="cards"><caption>The last of ${formatCount(progress.layerCount)}: error of the rounding as a share of round to nearest's, lower is better</caption>
<thead><tr><th scope="col">Layer</th><th scope="col">Recipe</th><th scope="col" class="number">YAQA</th><th scope="col" class="number">GPTQ</th></tr></thead>
<tbody>${progress.layers
		.toReversed()
		.map(
			(layer) =>
				html`<tr><th scope="row"><code>${layer.name}</code></th><td data-label="Recipe"><span class="tag">${layer.recipe}</span></td><td data-label="YAQA" class="number">${cell(layer.twoSided)}</td><td data-label="GPTQ" class="number">${cell(layer.oneSided)}</td></tr>`,
		)}</tbody></table></div>`;
}

function metricsPart({ progress, variants }: JobView): Html {
	if (progress.metrics.length === 0) return html`<p class="quiet">No file is measured yet.</p>`;
	const recipes = [...new Set(progress.metrics.map((row) => row.recipe))];
	const optional: readonly Quantizer[] = ["two-sided-tuned", "two-sided-cautious"];
	const columns = METRIC_COLUMNS.filter(
		(quantizer) => !optional.includes(quantizer) || progress.metrics.some((row) => row.quantizer === quantizer),
	);
	return html`<div class="scroll" tabindex="0"><table class="cards"><caption>KL to the original on the report texts, nats a token, by quantizer at equal bytes</caption>
<thead><tr><th scope="col">Recipe</th>${columns.map((quantizer) => html`<th scope="col">${QUANTIZER_NAMES[quantizer]}</th>`)}<th scope="col" class="number">Published against GPTQ</th></tr></thead><tbody>
${recipes.map((recipe) => {
	const of = (quantizer: Quantizer) =>
		progress.metrics.find((row) => row.recipe === recipe && row.quantizer === quantizer)?.klNats;
	// What is published, once that is known: the gate may have chosen another one.
	const chosen = variants.find((variant) => variant.recipe === recipe)?.quantizer ?? null;
	const ours = chosen === null ? (of("two-sided-tuned") ?? of("two-sided")) : of(chosen);
	const change = ours === undefined ? null : formatChange(ours.mean, of("one-sided")?.mean ?? null);
	return html`<tr><th scope="row"><span class="tag">${recipe}</span></th>${columns.map((quantizer) => {
		const estimate = of(quantizer);
		return html`<td data-label="${QUANTIZER_NAMES[quantizer]}" class="estimate">${estimate === undefined ? "–" : formatEstimate(estimate)}</td>`;
	})}<td data-label="Published against GPTQ" class="number">${change ?? "–"}</td></tr>`;
})}
</tbody></table></div>`;
}

function variantsPart({ variants, now }: JobView): Html {
	if (variants.length === 0) return html`<p class="quiet">None.</p>`;
	return variantTable({
		variants,
		caption: "What this job makes",
		withSource: false,
		withJob: false,
		newestSha: null,
		now,
	});
}

function warningsPart({ progress }: JobView): Html | null {
	if (progress.warnings.length === 0) return null;
	return html`<h2>Notes of the runner</h2><ul class="plain">${progress.warnings.map(
		(warning) => html`<li><code>${warning.code}</code> ${warning.message}</li>`,
	)}</ul>`;
}

function notesPart({ progress }: JobView): Html | null {
	if (progress.notes.length === 0) return null;
	return html`<h2>How it was checked</h2><ul class="plain">${progress.notes.map((note) => html`<li>${note}</li>`)}</ul>`;
}

/** One sentence for assistive technology: bars are not read out by themselves. */
function announcement({ job, progress, now }: JobView): string {
	const running = progress.stages.find((stage) => stage.status === "started");
	if (job.state !== "running" || running === undefined) return `${jobWord(job, now).text}. ${job.statusText}`;
	const percent =
		running.done === null || running.total === null || running.total <= 0
			? ""
			: `, ${Math.floor((running.done / running.total) * 10) * 10} percent`;
	return `${STAGE_NAMES[running.stage]}${percent}.`;
}

function titleOf({ job, now }: JobView): string {
	return `${jobWord(job, now).text}: ${job.sourceRepo}`;
}

/** The parts of the page that change while the job goes on, by the id of their element. */
export function jobParts(view: JobView): Readonly<Record<string, string>> {
	const none: Html = { markup: "" };
	return {
		"part-title": html`${titleOf(view)}`.markup,
		"part-head": headPart(view).markup,
		"part-refusal": (refusalPart(view) ?? none).markup,
		"part-timeline": timelinePart(view).markup,
		"part-stages": stagesPart(view).markup,
		"part-layers": layersPart(view).markup,
		"part-metrics": metricsPart(view).markup,
		"part-variants": variantsPart(view).markup,
		"part-notes": (notesPart(view) ?? none).markup,
		"part-warnings": (warningsPart(view) ?? none).markup,
		"part-announcement": html`${announcement(view)}`.markup,
	};
}

export function jobPage(context: PageContext, view: JobView, actions: readonly JobAction[]): string {
	const { job } = view;
	const parts = jobParts(view);
	const part = (id: string): Html => ({ markup: parts[id] ?? "" });
	const live = !isFinished(job.state);
	const stream = `/jobs/${job.id}/events?view=parts`;
	const main = html`<div${live && html` data-live="${stream}"`}>
<p id="part-title" hidden>${part("part-title")}</p>
<h1><a href="/m/${job.sourceRepo}">${job.sourceRepo}</a></h1>
<div id="part-head">${part("part-head")}</div>
<div id="part-refusal">${part("part-refusal")}</div>
${jobActions(context.viewer, job, actions)}<p id="part-announcement" class="skip" role="status">${part("part-announcement")}</p>
<h2>States</h2>
<div id="part-timeline">${part("part-timeline")}</div>
<section class="panel"><h2>Progress</h2>
<div id="part-stages">${part("part-stages")}</div>
<details><summary>Layers</summary><div id="part-layers">${part("part-layers")}</div></details></section>
<h2>${live ? "Measured so far" : "Measured"}</h2>
<div id="part-metrics">${part("part-metrics")}</div>
<h2>Variants</h2>
<div id="part-variants">${part("part-variants")}</div>
<div id="part-notes">${part("part-notes")}</div>
<div id="part-warnings">${part("part-warnings")}</div>
<p><a href="/jobs/${job.id}/log">The log, with every line's address</a></p>
<p class="quiet"><small>Job <code>${job.id}</code>. <span id="live-note">${live ? "Reload to see how it goes on." : ""}</span></small></p>
</div>`;
	return renderPage(context, {
		title: titleOf(view),
		section: "jobs",
		main,
		live,
	});
}
