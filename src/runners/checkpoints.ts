import { mkdir, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Log } from "../log.ts";
import { type Attempt, attemptHandle } from "../records/attempt.ts";

/** Of an output folder, what a later attempt starts from: a sketch, whole or in parts. */
const CHECKPOINTS = ["sketch", "sketch.partial"];

/** What earlier attempts at the job left: `JOB-FENCE.aside`, each with nothing but their checkpoints, newest first. */
async function asideOf(runsDirectory: string, job: string): Promise<readonly string[]> {
	const names = await readdir(runsDirectory).catch(() => []);
	return names
		.flatMap((name) => {
			const [, owner, fence] = /^(.{36})-(\d{1,9})\.aside$/.exec(name) ?? [];
			return owner === job ? [{ path: join(runsDirectory, name), fence: Number(fence) }] : [];
		})
		.toSorted((one, other) => other.fence - one.fence)
		.map(({ path }) => path);
}

/** Lets the run that writes to `staging` go on from where the newest earlier attempt was. */
export async function takeCheckpoint(runsDirectory: string, job: string, staging: string): Promise<void> {
	for (const path of await asideOf(runsDirectory, job)) {
		for (const name of CHECKPOINTS) {
			// One that is there already is newer, or was put there before a crash of this very step.
			await rename(join(path, name), join(staging, name)).catch(() => undefined);
		}
		await rm(path, { recursive: true, force: true });
	}
}

/** Puts what the attempt has in `staging` where the job's next one looks for it. */
export async function keepCheckpoint(request: {
	readonly runsDirectory: string;
	readonly attempt: Attempt;
	readonly staging: string;
	readonly log: Log;
}): Promise<void> {
	const { runsDirectory, attempt, staging, log } = request;
	const handle = attemptHandle(attempt);
	const aside = join(runsDirectory, `${handle}.aside`);
	for (const name of CHECKPOINTS) {
		try {
			await stat(join(staging, name));
		} catch {
			continue;
		}
		await mkdir(aside, { recursive: true });
		await rename(join(staging, name), join(aside, name)).catch((error: unknown) => {
			// Without it the next attempt begins anew, which is no reason to fail this one.
			log.warn("A checkpoint could not be kept", { handle, error });
		});
	}
}

export async function dropCheckpoints(runsDirectory: string, job: string): Promise<void> {
	for (const path of await asideOf(runsDirectory, job)) await rm(path, { recursive: true, force: true });
}
