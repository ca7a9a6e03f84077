// A reporter for `node --test`: nothing but the counts, as one JSON document.

/** @param {AsyncIterable<{ type: string, data: Record<string, unknown> }>} source */
// biome-ignore lint/style/noDefaultExport: node --test takes a reporter from the default export
export default async function* testCounts(source) {
	let counts = { passed: 0, failed: 0, cancelled: 0, skipped: 0, todo: 0 };
	for await (const event of source) {
		// The summary without a file is that of the whole run.
		if (event.type === "test:summary" && event.data.file === undefined) counts = event.data.counts;
	}
	yield JSON.stringify(counts);
}
