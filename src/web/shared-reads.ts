type Reading<T> = {
	readonly running: Promise<T>;
	/** Begins when the other one has ended. */
	next: Promise<T> | null;
};

/**
 * The same read for many at once: who asks gets what a read tells that began after they asked, and all who wait for one
 * to begin share it.
 */
export function createSharedReads<T>(): (key: string, read: () => Promise<T>) => Promise<T> {
	const readings = new Map<string, Reading<T>>();

	function begin(key: string, read: () => Promise<T>): Promise<T> {
		const running = read();
		const reading: Reading<T> = { running, next: null };
		readings.set(key, reading);
		const end = (): void => {
			if (reading.next === null && readings.get(key) === reading) readings.delete(key);
		};
		running.then(end, end);
		return running;
	}

	return (key, read) => {
		const reading = readings.get(key);
		if (reading === undefined) return begin(key, read);
		const start = (): Promise<T> => begin(key, read);
		reading.next ??= reading.running.then(start, start);
		return reading.next;
	};
}
