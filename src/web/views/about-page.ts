import type { Configuration } from "../../config/schema.ts";
import { formatCount, formatPercent } from "../../publish/figures.ts";
import { type Html, html } from "../html.ts";
import { type PageContext, renderPage } from "./layout.ts";

/** Of the settings, what visitors should know of how this bot is run. */
export type About = Pick<Configuration["about"], "operator" | "contact" | "source"> & {
	/** The account that publishes, and where to. */
	readonly account: string;
	readonly namespace: string;
	readonly calibration: Pick<Configuration["quantization"]["calibration"], "kind" | "sequences" | "length">;
	readonly evaluation: {
		/** Names of the texts; none: the model's own samples. */
		readonly texts: readonly string[];
		readonly sequences: number;
		readonly length: number;
	};
	readonly floor: Configuration["verification"]["floor"];
	readonly unmeasured: Configuration["verification"]["unmeasured"];
	readonly runner: Configuration["runner"]["kind"];
	readonly isolation: Configuration["runner"]["isolation"];
	/** Whether manifests carry its signature. */
	readonly signed: boolean;
};

export function aboutOf(
	configuration: Pick<Configuration, "about" | "hub" | "quantization" | "verification" | "runner">,
	signed: boolean,
): About {
	const { about, hub, quantization, verification, runner } = configuration;
	const { calibration, evaluation } = quantization;
	return {
		operator: about.operator,
		contact: about.contact,
		source: about.source,
		account: hub.botUser,
		namespace: hub.namespace,
		calibration: { kind: calibration.kind, sequences: calibration.sequences, length: calibration.length },
		evaluation: {
			texts: evaluation.report.map((text) => text.domain),
			sequences: evaluation.sequences,
			length: evaluation.length,
		},
		floor: verification.floor,
		unmeasured: verification.unmeasured,
		runner: runner.kind,
		isolation: runner.isolation,
		signed,
	};
}

function contactText({ contact, namespace }: About, hubUrl: string): Html {
	if (contact === null) {
		return html`Open a discussion in any repo of <a href="${hubUrl}/${namespace}">${namespace}</a>.`;
	}
	const href = contact.includes("://") ? contact : `mailto:${contact}`;
	return html`<a href="${href}">${contact}</a>`;
}

const RUNNERS: Readonly<Record<About["runner"], string>> = {
	local: "on the operator's own machine",
	"hf-jobs": "on machines of Hugging Face Jobs",
	"github-actions": "on the operator's machines, through GitHub Actions",
};

function runText({ runner, isolation }: About): string {
	const where = `Models are run ${RUNNERS[runner]}, by a program that may not publish.`;
	if (runner !== "local") return `${where} What it brings back is checked like a stranger's files.`;
	return isolation === "required"
		? `${where} It has no network and no file but the job's; without that no model is run.`
		: `${where} It has no network and no file but the job's, as far as the machine allows.`;
}

/** `GET /about`: who runs this bot, what it measures and how, and what it relies on. */
export function aboutPage(context: PageContext, about: About): string {
	const { calibration, evaluation, floor } = about;
	const texts = evaluation.texts.length === 0 ? "samples of the original model" : evaluation.texts.join(", ");
	const main = html`<h1>About this bot</h1>
<p class="lead">It quantizes models that it watches or is asked for, publishes them under <a href="${context.hubUrl}/${about.namespace}">${about.namespace}</a>, and measures how far each file is from the original.</p>
<dl class="facts">
<div><dt>Operator</dt><dd>${about.operator ?? "not named"}</dd></div>
<div><dt>Contact</dt><dd>${contactText(about, context.hubUrl)}</dd></div>
<div><dt>Account</dt><dd><a href="${context.hubUrl}/${about.account}">${about.account}</a></dd></div>
<div><dt>Program</dt><dd>yaqa-bot ${context.version}, Apache-2.0${about.source !== null && html`, <a href="${about.source}">source</a>`}</dd></div>
</dl>
<h2>What is measured, and how</h2>
<p>KL is the divergence of the quantized model's next-token distribution from the original's, in nats a token, with its standard error: 0 is the same model. It is measured on ${texts}, ${formatCount(evaluation.sequences)} sequences of each text, of ${formatCount(evaluation.length)} tokens. Beside it stand the share of tokens whose most likely successor is the same, the change of perplexity, and what GPTQ and rounding to nearest reach in as many bytes.</p>
<p>Rounding is fitted on ${formatCount(calibration.sequences)} sequences of ${formatCount(calibration.length)} tokens, ${calibration.kind === "self" ? "sampled from the model itself" : "of the operator's texts"}.</p>
${
	floor.length === 0
		? html`<p>No file is held back for its KL.</p>`
		: html`<div class="scroll" tabindex="0"><table class="cards"><caption>What a file has to reach to be published</caption>
<thead><tr><th scope="col">Bits a weight</th><th scope="col" class="number">KL at most</th><th scope="col" class="number">Same top token at least</th></tr></thead><tbody>
${floor.map((row) => html`<tr><th scope="row">up to ${row.bitsPerWeight} bits</th><td data-label="KL at most" class="number">${row.maximumKlNats}</td><td data-label="Same top token at least" class="number">${formatPercent(row.minimumTopOneAgreement)}</td></tr>\n`)}</tbody></table></div>`
}
<p>${about.unmeasured === "refuse" ? "GGUF files are published only once llama.cpp itself has loaded and measured them." : "GGUF files that llama.cpp could not measure here are published with a card that says so."}</p>
<h2>What is trusted</h2>
<ul>
<li>Nothing in a model's repo is executed, unpickled or imported. ${runText(about)}</li>
<li>What is published is fetched back from the Hub first, and its hashes, structure and figures are checked by another program than the one that made it.</li>
<li>${about.signed ? "Manifests carry this bot's signature: yaqa-bot verify checks it by the operator's public key." : "Manifests are not signed: that a repo is this bot's rests on who may write to it."}</li>
<li>You rely on the Hub for who owns a repo, and on the operator for the machine and the texts.</li>
</ul>`;
	return renderPage(context, { title: "About", section: null, main });
}
