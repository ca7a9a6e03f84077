import { fitVariants } from "../../publish/fitting.ts";
import { newestCommitOf } from "../../publish/newest-commit.ts";
import { renderFit } from "../replies/render-fit.ts";
import type { CommandRun } from "./effect.ts";

/** Which published file to take for a memory and a context. */
export async function which({ command, options, source, context }: CommandRun<"which">): Promise<string> {
	const { jobs, variants } = await options.statusOf(source);
	const fit = fitVariants(variants, {
		hubUrl: context.hubUrl,
		newestSha: newestCommitOf(jobs, variants),
		question: command.question,
		container: command.container,
	});
	return renderFit(context, source, fit);
}
