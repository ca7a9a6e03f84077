type Reading<T> = {
	/** Whoever asks before it has begun shares it. */
	hasBegun: boolean;
	readonly outcome: Promise<T>;
	/** Begins when this one has ended. */
	next: Promise<T> | null;
};

/**
 * The same read for many at once: who asks gets what a read tells that began after they asked, and all who wait for one
 * to begin share it.
 */
export function createSharedReads<T>(): (key: string, read: () => Promise<T>) => Promise<T> {
	const readings = new Map<string, Reading<T>>();

	function begin(key: string, read: () => Promise<T>): Promise<T> {
		// What has arrived by now is taken in first: of many who ask at once, the first does not read for itself alone.
		const outcome = new Promise<void>((resolve) => setImmediate(resolve)).then(() => {
			reading.hasBegun = true;
			return read();
		});
		const reading: Reading<T> = { hasBegun: false, outcome, next: null };
		readings.set(key, reading);
		const end = (): void => {
			if (reading.next === null && readings.get(key) === reading) readings.delete(key);
		};
		outcome.then(end, end);
		return outcome;
	}

	return (key, read) => {
		const reading = readings.get(key);
		if (reading === undefined) return begin(key, read);
		if (!reading.hasBegun) return reading.outcome;
		const start = (): Promise<T> => begin(key, read);
		reading.next ??= reading.outcome.then(start, start);
		return reading.next;
	};
}
