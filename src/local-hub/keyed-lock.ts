/** Runs the works of one key one after the other, of different keys side by side. */
type KeyedLock = <T>(key: string, work: () => Promise<T>) => Promise<T>;

export function createKeyedLock(): KeyedLock {
	const tails = new Map<string, Promise<unknown>>();
	return async (key, work) => {
		const before = tails.get(key) ?? Promise.resolve();
		const mine = before.then(work, work);
		const settled = mine.then(
			() => undefined,
			() => undefined,
		);
		tails.set(key, settled);
		try {
			return await mine;
		} finally {
			if (tails.get(key) === settled) tails.delete(key);
		}
	};
}
