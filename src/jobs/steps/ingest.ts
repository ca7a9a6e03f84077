import { lstat } from "node:fs/promises";
import { join } from "node:path";
import { appendNotes } from "../../db/jobs.ts";
import { keepSketch } from "../../db/sketches.ts";
import { listVariantsOfJob, setVariantState, stageVariant } from "../../db/variants.ts";
import { PermanentError, type Refusal } from "../../errors.ts";
import type { ResultEvent } from "../../protocol/events.ts";
import { type Manifest, publishedPath } from "../../protocol/manifest.ts";
import { readManifest } from "../../protocol/read-manifest.ts";
import { recipeDirectory } from "../../protocol/recipe.ts";
import type { JobWork } from "../../records/job.ts";
import { isOpen, type VariantFiles, type VariantRecord } from "../../records/variant.ts";
import { copyTree } from "../../runners/copy-tree.ts";
import { sketchFingerprint } from "../sketch-fingerprint.ts";
import { workFolders } from "../work-folders.ts";
import { runLost } from "./poll.ts";
import { advanceIn, StaleJobError, type Step, type StepContext } from "./step-context.ts";

function contradiction(message: string): PermanentError {
	return new PermanentError({
		code: "verification-failed",
		message: `The runner's result contradicts itself: ${message}`,
		remedy: "Report this with the job's log; nothing was published.",
	});
}

async function exists(path: string): Promise<boolean> {
	try {
		await lstat(path);
		return true;
	} catch {
		return false;
	}
}

async function manifestOf({ job, facts }: JobWork, variant: VariantRecord, directory: string): Promise<Manifest> {
	const read = await readManifest(directory);
	if (!read.ok) throw contradiction(`the manifest of ${variant.recipe} ${read.problem}.`);
	const { manifest } = read;
	if (manifest.job !== job.id || manifest.fence !== job.fence) {
		throw contradiction(`the manifest of ${variant.recipe} is of another attempt.`);
	}
	if (manifest.variant !== variant.id || manifest.recipe !== variant.recipe) {
		throw contradiction(`the manifest in the folder of ${variant.recipe} is of ${manifest.recipe}.`);
	}
	if (manifest.source.repo !== job.sourceRepo || manifest.source.revision !== job.sourceSha) {
		throw contradiction(`the manifest of ${variant.recipe} names another source.`);
	}
	// Whose files may see what an adapter was merged into is read from here on.
	const [base, settled] = [manifest.source.base ?? null, facts?.base ?? null];
	if (base?.repo !== settled?.repo || base?.revision !== settled?.sha) {
		throw contradiction(`the manifest of ${variant.recipe} names another base.`);
	}
	return manifest;
}

function relative(path: string, what: string): string {
	const parsed = publishedPath.safeParse(path);
	if (!parsed.success) throw contradiction(`${what} is not a plain relative path.`);
	return parsed.data;
}

async function takeSketch(
	context: StepContext,
	{ job, facts }: JobWork,
	collected: string,
	sketch: Extract<ResultEvent, { ok: true }>["sketch"],
): Promise<void> {
	const { configuration, database, clock, ports } = context;
	const from = join(collected, relative(sketch.directory, "the sketch's folder"));
	if (!(await exists(from))) return;
	const directory = workFolders(configuration.database.dataDirectory).sketch(sketch.key);
	await copyTree(from, directory);
	// What few may see of the model, all must not see of its sketch.
	const isOpen = facts !== null && !facts.private && !facts.gated;
	const isStored = ports.sketchStore != null && (configuration.sketches.visibility === "private" || isOpen);
	const identity = { repo: job.sourceRepo, sha: job.sourceSha, fingerprint: sketchFingerprint(configuration) };
	const now = clock.now();
	await keepSketch(database.handle, {
		...identity,
		key: sketch.key,
		directory,
		license: facts?.license ?? null,
		storeAt: isStored ? now : null,
		now,
	});
	if (isStored) await context.wake({ kind: "sketch", ...identity }, now);
}

/** ingesting → verifying: the run's files are taken over, checked by their manifests and staged on the Hub. */
export const ingestStep: Step = async (context, work) => {
	const { database, runner, ports, configuration, clock, owner, signal } = context;
	const { job } = work;
	const handle = job.runnerHandle;
	if (handle === null) throw new Error("A run that ended has no handle.");
	const observation = await runner.observe(handle);
	if (observation.status !== "finished" || !observation.result.ok) {
		return await runLost(
			context,
			work,
			{ code: "runner-lost", message: "The run's files are gone.", remedy: "Retry the job." },
			true,
		);
	}
	const { result } = observation;
	const collected = workFolders(configuration.database.dataDirectory).collected(job.id, job.fence);
	// Copies appear whole, so that one that is there was finished.
	if (!(await exists(collected))) await runner.collect(handle, collected);

	const variants = (await listVariantsOfJob(database.handle, job.id)).filter(isOpen);
	const files: VariantFiles[] = [];
	const refused: { readonly variant: VariantRecord; readonly refusal: Refusal }[] = [];
	for (const variant of variants) {
		const refusal = result.refused.find((candidate) => candidate.id === variant.id);
		if (refusal !== undefined) {
			const { message, remedy } = refusal;
			refused.push({ variant, refusal: { code: "unsupported-model", message, remedy } });
			continue;
		}
		const reported = result.variants.find((candidate) => candidate.id === variant.id);
		if (reported === undefined) throw contradiction(`${variant.recipe} is missing.`);
		if (reported.directory !== recipeDirectory(variant.recipe)) {
			throw contradiction(`${variant.recipe} lies in an unexpected folder.`);
		}
		const directory = join(collected, reported.directory);
		files.push({ variant, manifest: await manifestOf(work, variant, directory), directory });
	}
	const [first] = refused;
	if (files.length === 0 && first !== undefined) return { kind: "fail", refusal: first.refusal };
	const verificationPath = join(collected, relative(result.verification, "the verification file"));
	if (!(await exists(verificationPath))) throw contradiction("the verification file is missing.");
	await takeSketch(context, work, collected, result.sketch);
	signal.throwIfAborted();

	const staged = await ports.stage({ job, variants: files, verificationPath });
	if (!staged.ok) return { kind: "fail", refusal: staged.refusal };
	const moved = await database.transaction(async (tx) => {
		const notes = refused.map(({ variant, refusal }) => `${variant.recipe}: refused. ${refusal.message}`);
		const held = await appendNotes(tx, { job, owner, notes, now: clock.now() });
		if (!held) throw new StaleJobError(`Job ${job.id} moved on while its files were taken over.`);
		for (const { variant, refusal } of refused) {
			await setVariantState(tx, { id: variant.id, state: "failed", refusal });
		}
		for (const { variant, manifest } of files) await stageVariant(tx, { id: variant.id, manifest });
		return await advanceIn(tx, context, job, "staged", { statusText: "Verifying the staged files." });
	});
	return { kind: "moved", job: moved };
};
