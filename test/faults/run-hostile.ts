import { parseArgs } from "node:util";
import { HOSTILE_SOURCES } from "./hostile-sources.ts";
import { lookOver, type Verdict } from "./look-over.ts";

/** `npm run test:hostile -- [--json] [--only TEXT]`: every hostile source in both languages. The last line is JSON. */
const { values } = parseArgs({ options: { json: { type: "boolean", default: false }, only: { type: "string" } } });
const wanted = HOSTILE_SOURCES.filter(({ name }) => values.only === undefined || name.includes(values.only));
const verdicts = await lookOver(wanted);

function shown(look: Verdict["bot"]): string {
	if (look === null) return "not looked at";
	const said = look.outcome === "refused" ? `refused (${look.code}: ${look.message})` : look.outcome;
	return `${said}, ${look.seconds} s, ${look.mebibytes} MiB`;
}
for (const { name, bot, runner, problem } of verdicts) {
	if (values.json && problem === null) continue;
	process.stdout.write(`${problem === null ? "✓" : "✗"} ${name}${problem === null ? "" : `: ${problem}`}\n`);
	process.stdout.write(`    bot: ${shown(bot)}\n    runner: ${shown(runner)}\n`);
}
const ended = (outcome: string, of: "bot" | "runner"): number =>
	verdicts.filter((verdict) => verdict[of]?.outcome === outcome).length;
const most = (of: (look: NonNullable<Verdict["bot"]>) => number): number =>
	Math.max(...verdicts.flatMap(({ bot, runner }) => [bot, runner]).map((look) => (look === null ? 0 : of(look))));
const problems = verdicts.filter(({ problem }) => problem !== null).length;
process.stdout.write(
	`${JSON.stringify({
		sources: verdicts.length,
		refusedByTheBot: ended("refused", "bot"),
		refusedByTheRunner: ended("refused", "runner"),
		mostSeconds: most(({ seconds }) => seconds),
		mostMebibytes: most(({ mebibytes }) => mebibytes),
		problems,
	})}\n`,
);
process.exitCode = problems > 0 ? 1 : 0;
