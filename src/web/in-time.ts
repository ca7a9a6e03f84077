/** The work's outcome, or the error when it takes longer; the work itself goes on. */
export function inTime<T>(work: Promise<T>, milliseconds: number, error: () => Error): Promise<T> {
	return new Promise((resolve, reject) => {
		const timer = setTimeout(() => reject(error()), milliseconds);
		timer.unref();
		work.then(resolve, reject).finally(() => clearTimeout(timer));
	});
}
