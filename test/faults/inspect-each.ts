import { readFileSync } from "node:fs";
import { z } from "zod";
import { folderSourceReader } from "../../src/verify/folder-source-reader.ts";
import { inspectApart } from "../../src/verify/inspect-apart.ts";

/**
 * Looks at each folder as the bot does at a push. `inspect-each.ts CASES.json`; one JSON object a line. Seconds
 * are of the processor; memory is this process's growth: what a child may take of both has its own bound.
 */
const Cases = z.array(z.object({ name: z.string(), folder: z.string() }));

for (const { name, folder } of Cases.parse(JSON.parse(readFileSync(process.argv[2] ?? "", "utf8")))) {
	const started = process.cpuUsage();
	const before = process.memoryUsage().rss;
	let said: Readonly<Record<string, string>>;
	try {
		const result = await inspectApart(await folderSourceReader(folder), { maximumWeightBytes: 1e9 });
		said = result.ok
			? { outcome: "accepted", message: "" }
			: { outcome: "refused", code: result.refusal.code, message: result.refusal.message.slice(0, 300) };
	} catch (error) {
		said = { outcome: "threw", message: String(error).slice(0, 300) };
	}
	const { user, system } = process.cpuUsage(started);
	const seconds = (user + system) / 1e6;
	const mebibytes = Math.max(0, Math.round((process.memoryUsage().rss - before) / 2 ** 20));
	process.stdout.write(`${JSON.stringify({ name, ...said, seconds: Number(seconds.toFixed(2)), mebibytes })}\n`);
}
