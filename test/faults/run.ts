import { randomInt } from "node:crypto";
import { parseArgs } from "node:util";
import { runStorm, type StormReport } from "./storm.ts";

/**
 * `npm run test:faults -- [--events N] [--kills N] [--seed N] [--database PGlite|PostgreSQL] [--keep]`: pushes to a Hub of
 * this machine while everything fails, on each database; see CONTRIBUTING.md. The last line is JSON.
 */
const { values } = parseArgs({
	options: {
		events: { type: "string", default: "1000" },
		kills: { type: "string", default: "100" },
		seed: { type: "string" },
		database: { type: "string" },
		keep: { type: "boolean", default: false },
	},
});
function whole(text: string, name: string): number {
	const value = Number(text);
	if (!Number.isInteger(value) || value < 0) throw new Error(`--${name} takes a whole number.`);
	return value;
}
const seed = values.seed === undefined ? randomInt(1_000_000_000) : whole(values.seed, "seed");
const wanted = (["PGlite", "PostgreSQL"] as const).filter(
	(name) => values.database === undefined || values.database === name,
);
if (wanted.length === 0) throw new Error("--database takes PGlite or PostgreSQL.");

const reports: StormReport[] = [];
for (const database of wanted) {
	const say = (line: string): void => void process.stdout.write(`${database}: ${line}\n`);
	say(`seed ${seed}`);
	const report = await runStorm({
		database,
		seed,
		events: whole(values.events, "events"),
		kills: whole(values.kills, "kills"),
		say,
		keep: values.keep,
	});
	for (const kind of ["lost", "duplicates", "leaks"] as const) {
		for (const line of report[kind]) say(`${kind}: ${line}`);
	}
	const { jobs, accepted, kills, faults, seconds } = report;
	say(`${accepted} deliveries, ${jobs} jobs, ${kills} kills, ${faults} faults in ${seconds} s`);
	reports.push(report);
}
const sum = (of: (report: StormReport) => number): number => reports.reduce((total, report) => total + of(report), 0);
const result = {
	seed,
	events: sum((report) => report.events),
	kills: sum((report) => report.kills),
	faults: sum((report) => report.faults),
	lost: sum((report) => report.lost.length),
	duplicates: sum((report) => report.duplicates.length),
	leaks: sum((report) => report.leaks.length),
};
process.stdout.write(`${JSON.stringify(result)}\n`);
process.exitCode = result.lost + result.duplicates + result.leaks > 0 ? 1 : 0;
