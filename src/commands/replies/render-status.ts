import { newestCommitOf } from "../../publish/newest-commit.ts";
import type { JobRecord } from "../../records/job.ts";
import type { VariantRecord } from "../../records/variant.ts";
import { isSaid } from "./is-said.ts";
import { sentence } from "./render-refusal.ts";
import { jobLink, nextStep, type ReplyContext } from "./reply-context.ts";
import { variantRows } from "./variant-rows.ts";

export function renderStatus(
	context: ReplyContext,
	source: {
		readonly repo: string;
		readonly jobs: readonly JobRecord[];
		readonly variants: readonly VariantRecord[];
	},
): string {
	const parts: string[] = [];
	const shown = source.variants.slice(0, 30);
	if (shown.length === 0) parts.push(`**Nothing was made of ${context.subject} yet.**`);
	else
		parts.push(
			`**Variants of ${context.subject}**`,
			variantRows(context, shown, false, newestCommitOf(source.jobs, source.variants)),
		);
	const newest = source.jobs[0];
	if (newest !== undefined) {
		const why = newest.refusal === null ? newest.statusText : newest.refusal.message;
		const reason = isSaid(newest.state, why) ? "" : ` ${sentence(why)}`;
		parts.push(`Newest job: ${newest.state}.${reason} ${jobLink(context, newest, "The job")}.`);
	}
	const site =
		context.siteUrl === null || shown.length === 0 ? "" : `[All of it](${context.siteUrl}/m/${source.repo}). `;
	const another = shown.length === 0 ? "To ask for a variant" : "To ask for another";
	parts.push(`${site}${nextStep(context, "quantize 8bit gguf", another)}`);
	return parts.join("\n\n");
}
