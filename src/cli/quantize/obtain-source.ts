import { existsSync, statSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import type { Refusal } from "../../errors.ts";
import { repoName } from "../../protocol/job-spec.ts";
import type { SourceBase } from "../../records/source.ts";
import { readAccess } from "../../server/hub-access.ts";
import { fetchSource } from "../../verify/fetch-source.ts";
import { folderSourceReader } from "../../verify/folder-source-reader.ts";
import { inspectFiles, type SourceLimits } from "../../verify/inspect-files.ts";
import { inspectSource } from "../../verify/inspect-source.ts";
import type { ProgressDisplay } from "../progress-display.ts";
import { exitOf } from "./exit-of-refusal.ts";
import { folderRevision } from "./folder-revision.ts";
import type { QuantizeOptions, Task } from "./quantize-options.ts";
import { Stopped, usage } from "./stopped.ts";

export type Source = {
	readonly repo: string;
	readonly revision: string;
	readonly directory: string;
	/** Of an adapter. */
	readonly base: (SourceBase & { readonly directory: string }) | null;
};

/** Finds out what MODEL is, refuses it with the reason, or has it whole in a folder. */
export async function obtainSource(
	options: Pick<QuantizeOptions, "model" | "revision"> & {
		/** Of an adapter: its base's commit, where it is settled. */
		readonly baseSha?: string | null;
	},
	context: Pick<Task, "configuration" | "secrets"> & {
		readonly work: string;
		readonly display: ProgressDisplay;
		readonly signal: AbortSignal;
	},
): Promise<Source> {
	const { configuration, secrets, work, display, signal } = context;
	const limits: SourceLimits = { maximumWeightBytes: 4 * configuration.watch.maxParameters };
	const { model } = options;
	const refuse = (refusal: Refusal): Stopped => new Stopped(exitOf(refusal), refusal);
	if (existsSync(model) && statSync(model).isDirectory()) {
		if (options.revision !== null) throw usage("--revision belongs to a Hub repo; this is a folder.");
		display.step("look at the model");
		const directory = resolve(model);
		const files = await inspectFiles(await folderSourceReader(directory), limits);
		if (!files.ok) throw refuse(files.refusal);
		const name = basename(directory)
			.replaceAll(/[^A-Za-z0-9._-]/g, "-")
			.replace(/^[^A-Za-z0-9]+/, "")
			.slice(0, 96);
		const revision = await folderRevision(directory, files.inspected.files);
		return { repo: `local/${name === "" ? "model" : name}`, revision, directory, base: null };
	}
	const repo = repoName.safeParse(model);
	if (!repo.success) {
		throw usage(`"${model.slice(0, 200)}" is neither a folder here nor a repo name such as owner/model.`);
	}
	display.step("look at the model");
	const hub = readAccess(configuration, secrets);
	const { baseSha = null } = options;
	const inspection = await inspectSource({
		...hub,
		repo: repo.data,
		revision: options.revision ?? "main",
		baseSha,
		limits,
	});
	if (!inspection.ok) throw refuse(inspection.refusal);
	const { sha, base: found } = inspection.facts;
	const directory = join(work, "source");
	const base = found === null ? null : { repo: found.repo, sha: found.sha, directory: join(work, "base") };
	display.step(base === null ? "fetch the model" : `fetch the adapter and its base, ${base.repo}`);
	const fetched = await fetchSource({ ...hub, repo: repo.data, sha, directory, base, limits, signal });
	if (!fetched.ok) throw refuse(fetched.refusal);
	return { repo: repo.data, revision: sha, directory, base };
}
