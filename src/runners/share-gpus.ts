import { RetryableError } from "../errors.ts";

/** GPUs that runs share out, by the number or UUID that CUDA_VISIBLE_DEVICES takes. */
export type Gpus = { readonly devices: readonly string[]; readonly perRun: number };

/**
 * Gives every run GPUs of its own. `devicesOfRuns`: those of the runs that go on, as written into their folders;
 * `reserve` holds what it gave until `release`, by when the run's folder names it.
 */
export function shareGpus(gpus: Gpus | null, devicesOfRuns: () => Promise<readonly string[]>) {
	const reserved = new Map<string, readonly string[]>();
	let reserving: Promise<void> = Promise.resolve();

	async function choose(handle: string, { devices, perRun }: Gpus): Promise<readonly string[]> {
		const taken = new Set([...(await devicesOfRuns()), ...[...reserved.values()].flat()]);
		const free = devices.filter((device) => !taken.has(device)).slice(0, perRun);
		if (free.length < perRun) {
			throw new RetryableError(`${perRun === 1 ? "No GPU is" : `Fewer than ${perRun} GPUs are`} free on this machine.`);
		}
		reserved.set(handle, free);
		return free;
	}

	return {
		/** `null`: runs see all there are. */
		async reserve(handle: string): Promise<readonly string[] | null> {
			if (gpus === null) return null;
			// One after the other: two that look at once would find the same ones free.
			const mine = reserving.then(() => choose(handle, gpus));
			reserving = mine.then(
				() => undefined,
				() => undefined,
			);
			return await mine;
		},
		release(handle: string): void {
			reserved.delete(handle);
		},
	};
}
