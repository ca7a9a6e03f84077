import { lstat, mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Refusal } from "../../errors.ts";
import { recipeDirectory } from "../../protocol/recipe.ts";
import type { JobRecord } from "../../records/job.ts";
import type { VariantRecord } from "../../records/variant.ts";
import { workFolders } from "../work-folders.ts";
import type { StepContext } from "./step-context.ts";

type StagedFiles =
	| { readonly ok: true; directoryOf(variant: VariantRecord): string; readonly verificationPath: string }
	| { readonly ok: false; readonly refusal: Refusal };

/** Downloads what was staged, or finds the download of an earlier step on this machine. */
export async function stagedFiles(
	context: StepContext,
	job: JobRecord,
	variants: readonly VariantRecord[],
): Promise<StagedFiles> {
	const directory = workFolders(context.configuration.database.dataDirectory).staged(job.id, job.fence);
	const marker = `${directory}.complete`;
	const isComplete = await lstat(marker).then(
		() => true,
		() => false,
	);
	if (!isComplete) {
		await rm(directory, { recursive: true, force: true });
		await mkdir(directory, { recursive: true });
		const fetched = await context.ports.fetchStaged({ job, variants, directory });
		if (!fetched.ok) return fetched;
		await writeFile(marker, "");
	}
	return {
		ok: true,
		directoryOf: (variant) => join(directory, recipeDirectory(variant.recipe)),
		verificationPath: join(directory, "verification.safetensors"),
	};
}
