import { assertNever } from "../../errors.ts";
import { markdownCode } from "../../publish/escape.ts";
import { shortSha } from "../../publish/figures.ts";
import { isFinished, type JobRecord } from "../../records/job.ts";
import type { RequestRecord } from "../../records/request.ts";
import type { VariantRecord } from "../../records/variant.ts";
import { refusalText, renderRefusal, sentence } from "./render-refusal.ts";
import { jobLink, nextStep, ofModel, type ReplyContext, shortNumber } from "./reply-context.ts";
import { variantRows } from "./variant-rows.ts";

export type RequestState = {
	readonly request: RequestRecord;
	readonly job: JobRecord | null;
	readonly variants: readonly VariantRecord[];
};

/** The part of an answer that follows a request: planned, under way, published, failed. */
export function renderRequest(context: ReplyContext, state: RequestState): string {
	const { request, job } = state;
	// The job may make more than this person asked for.
	const variants =
		request.recipes.length === 0
			? state.variants
			: state.variants.filter((variant) => request.recipes.includes(variant.recipe));
	if (request.refusal !== null) return renderRefusal(request.refusal);
	const ended = job !== null && isFinished(job.state);
	const table = variants.length === 0 ? "" : `\n\n${variantRows(context, variants, ended)}`;
	// Before anything is measured a table would hold dashes.
	const isMeasured = variants.some((variant) => variant.manifest !== null);
	const made = ended ? variants : variants.filter(({ state }) => state !== "failed");
	const names = made.map((variant) => markdownCode(variant.recipe)).join(", ");
	const more = nextStep(context, "explain", "How these came about, and what they were compared with");
	if (job === null) return `**All of this is published already.**${table}\n\n${more}`;
	const commit = `${markdownCode(shortSha(job.sourceSha))}${ofModel(context)}`;
	const retry = nextStep(context, `retry ${shortNumber(job)}`, "To try again");
	const remark = job.remark == null ? "" : ` ${sentence(job.remark)}`;
	switch (job.state) {
		case "planned":
		case "waiting":
		case "dispatching":
		case "running":
		case "ingesting":
		case "verifying":
		case "publishing":
		case "announcing": {
			const verb = job.state === "planned" ? "Planned" : job.state === "waiting" ? "Waiting" : "Under way";
			const cancel = nextStep(context, `cancel ${shortNumber(job)}`, "To end it");
			const doing = job.statusText === "Planned." ? "" : `: ${sentence(job.statusText)}`;
			const what = isMeasured || names === "" ? `**${verb}**` : `**${verb}:** ${names}`;
			const begun = `${what} for commit ${commit}${doing}`;
			return `${/[.!?…]$/.test(begun) ? begun : `${begun}.`}${remark} ${jobLink(context, job, "Follow the job")}. This comment is brought up to date as it goes on.${isMeasured ? table : ""}${reasons(variants)}\n\n${cancel}`;
		}
		case "done":
			return `**Done** for commit ${commit}. Every figure was measured on the published files; each repo's card says how to load them.${remark} ${jobLink(context, job, "How it was made")}.${table}${reasons(variants)}\n\n${more}`;
		case "failed":
			return `**This failed**${names === "" ? "" : ` (${names})`} for commit ${commit}.${remark} ${job.refusal === null ? "" : refusalText(job.refusal)}\n\n${jobLink(context, job, "The job")}.${isMeasured ? table : ""}\n\n${retry}`;
		case "cancelled":
			return `**Cancelled${names === "" ? "**" : `:** ${names}`} for commit ${commit}. ${jobLink(context, job, "The job")}.${isMeasured ? table : ""}\n\n${retry}`;
		case "superseded":
			return `**Superseded**: a newer commit came before this one was finished. ${jobLink(context, job, "The job")}.${isMeasured ? table : ""}\n\n${retry}`;
		default:
			return assertNever(job.state);
	}
}

/** Why variants are not among what the job makes, or made. */
function reasons(variants: readonly VariantRecord[]): string {
	return variants
		.filter((variant) => variant.state === "failed")
		.map(({ recipe, refusal }) =>
			refusal === null ? "" : `\n\n${markdownCode(recipe)} was not made. ${refusalText(refusal)}`,
		)
		.join("");
}
