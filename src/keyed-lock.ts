export type KeyedLock = <Result>(key: string, work: () => Promise<Result>) => Promise<Result>;

/** Runs work of the same key one after the other within this process. */
export function createKeyedLock(): KeyedLock {
	const tails = new Map<string, Promise<unknown>>();
	return async (key, work) => {
		const before = tails.get(key) ?? Promise.resolve();
		const mine = before.then(work, work);
		const settled = mine.catch(() => undefined);
		tails.set(key, settled);
		try {
			return await mine;
		} finally {
			if (tails.get(key) === settled) tails.delete(key);
		}
	};
}
