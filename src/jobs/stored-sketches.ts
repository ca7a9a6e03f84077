import { stat } from "node:fs/promises";
import { acquireLease, releaseLease } from "../db/leases.ts";
import { findSketch, keepSketch, listSketchesOfWeights, type SketchRow, settleStoredSketch } from "../db/sketches.ts";
import { PermanentError } from "../errors.ts";
import type { StoredSketch } from "../protocol/job-spec.ts";
import type { JobWork } from "../records/job.ts";
import type { SketchIdentity } from "../records/sketch.ts";
import { type JobsContext, later } from "./context.ts";
import { keepLease, LEASE_SECONDS } from "./keep-lease.ts";
import { useFolder } from "./retention/kept-folder.ts";
import { sketchFingerprint } from "./sketch-fingerprint.ts";
import { workFolders } from "./work-folders.ts";

const MAXIMUM_FAILURES = 10;
const MAXIMUM_DELAY_SECONDS = 3600;

/** The sketch that a run may start from: a folder of this machine, or a place on the Hub that the run reads itself. */
export type EarlierSketch = { readonly directory: string | null; readonly stored: StoredSketch | null };

async function isFolder(path: string): Promise<boolean> {
	return await stat(path).then(
		(found) => found.isDirectory(),
		() => false,
	);
}

async function folderOnThisMachine(sketches: readonly SketchRow[]): Promise<string | null> {
	for (const { directory } of sketches) {
		// The job is unfinished by now: what is found under the lock stays for its run.
		if (await useFolder(directory, () => isFolder(directory))) return directory;
	}
	return null;
}

/**
 * Looks for a sketch of the job's source, or of another commit with the same weights, here and in the store. A store
 * that cannot be reached costs time, not the job.
 */
export async function findEarlierSketch(
	context: JobsContext,
	{ job, facts }: JobWork,
	signal: AbortSignal,
): Promise<EarlierSketch> {
	const { database, configuration, ports, runner, clock, log } = context;
	const { handle } = database;
	const own = { repo: job.sourceRepo, sha: job.sourceSha, fingerprint: sketchFingerprint(configuration) };
	const known = await listSketchesOfWeights(handle, { ...own, content: facts?.content ?? null });
	const directory = await folderOnThisMachine(known);
	const store = ports.sketchStore ?? null;
	if (store === null || (directory !== null && !runner.isRemote)) return { directory, stored: null };
	try {
		const kept = known.find((sketch) => sketch.stored?.repo === configuration.sketches.repo);
		const stored = kept?.stored == null ? await store.find(own) : store.placeOf(kept, kept.stored.revision);
		if (stored === null || runner.isRemote) return { directory, stored };
		const { repo, sha, fingerprint } = kept ?? own;
		const fetched = workFolders(configuration.database.dataDirectory).sketch(`${repo}@${sha}#${fingerprint}`);
		const { key } = await store.bring({ stored, directory: fetched, signal });
		await keepSketch(handle, {
			repo,
			sha,
			fingerprint,
			key,
			directory: fetched,
			license: kept?.license ?? null,
			storeAt: null,
			stored: { repo: stored.repo, revision: stored.revision },
			now: clock.now(),
		});
		return { directory: fetched, stored: null };
	} catch (error) {
		signal.throwIfAborted();
		log.warn("The sketch store could not be read; the run takes a sketch of its own", { job: job.id, error });
		return { directory, stored: null };
	}
}

/** Uploads a sketch that is due, if it is on this machine and nobody else does so. */
export async function storeDueSketch(context: JobsContext, identity: SketchIdentity): Promise<void> {
	const { database, ports, clock, log } = context;
	const { handle } = database;
	const store = ports.sketchStore ?? null;
	const row = await findSketch(handle, identity);
	if (store === null || row === null) return;
	const settled = { ...identity, key: row.key };
	const failures = row.storeFailures + 1;
	const storeAt =
		failures > MAXIMUM_FAILURES ? null : later(clock.now(), Math.min(MAXIMUM_DELAY_SECONDS, 2 ** failures));
	if (!(await isFolder(row.directory))) {
		// Another replica may have it: the next message may reach that one.
		await settleStoredSketch(handle, { ...settled, stored: null, storeAt, failures });
		return;
	}
	const name = `sketch ${identity.repo} ${identity.sha} ${identity.fingerprint}`;
	const owner = `${context.owner}:${context.newId()}`;
	const renew = async (): Promise<boolean> => {
		const now = clock.now();
		return await acquireLease(handle, { name, owner, now, until: later(now, LEASE_SECONDS) });
	};
	if (!(await renew())) return;
	const release = keepLease(async () => {
		await renew();
	}, log);
	try {
		const { repo, revision } = await store.keep({
			identity,
			key: row.key,
			license: row.license,
			directory: row.directory,
		});
		await settleStoredSketch(handle, { ...settled, stored: { repo, revision }, storeAt: null, failures: 0 });
		log.info("A sketch was stored", { source: identity.repo, repo });
	} catch (error) {
		const isFinal = error instanceof PermanentError;
		log.warn("A sketch could not be stored", { source: identity.repo, failures, error });
		await settleStoredSketch(handle, { ...settled, stored: null, storeAt: isFinal ? null : storeAt, failures });
	} finally {
		await release();
		await releaseLease(handle, { name, owner });
	}
}
