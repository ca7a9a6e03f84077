import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { z } from "zod";
import { cleanEnvironment, root, venvPython } from "../../demo/stack.ts";
import { type HostileSource, makeHostileSources } from "./hostile-sources.ts";

const Look = z.object({
	name: z.string(),
	outcome: z.enum(["accepted", "refused", "time", "memory", "died", "threw"]),
	code: z.string().default(""),
	message: z.string().default(""),
	seconds: z.number(),
	mebibytes: z.number(),
});
type Look = z.infer<typeof Look>;

/** What both languages made of one source; `null`: it did not come so far. `problem`: what is wrong with that. */
export type Verdict = {
	readonly name: string;
	readonly bot: Look | null;
	readonly runner: Look | null;
	readonly problem: string | null;
};

async function looksOf(program: string, args: readonly string[]): Promise<ReadonlyMap<string, Look>> {
	const child = spawn(program, args, { cwd: root, env: cleanEnvironment({}), stdio: ["ignore", "pipe", "pipe"] });
	let log = "";
	child.stderr.setEncoding("utf8").on("data", (text: string) => {
		log = `${log}${text}`.slice(-4000);
	});
	const ended = new Promise<number | null>((resolve) => child.on("close", resolve));
	const looks = new Map<string, Look>();
	for await (const line of createInterface({ input: child.stdout })) {
		const look = Look.parse(JSON.parse(line));
		looks.set(look.name, look);
	}
	const code = await ended;
	if (code !== 0) throw new Error(`${program} ended with ${code}: ${log}`);
	return looks;
}

function problemOf(source: HostileSource, looks: readonly (Look | null)[]): string | null {
	for (const look of looks) {
		if (look === null) return "it was not looked at by one of the languages";
		if (look.outcome !== "accepted" && look.outcome !== "refused") return `${look.outcome}: ${look.message}`;
		if (look.code === "internal") return `passes for a bug: ${look.message}`;
		if (look.seconds > source.seconds) return `took ${look.seconds} s of ${source.seconds}`;
		if (look.mebibytes > source.mebibytes) return `took ${look.mebibytes} MiB of ${source.mebibytes}`;
	}
	const refused = looks.some((look) => look?.outcome === "refused");
	if (source.ends === "refused" && !refused) return "nobody refused it";
	if (source.ends === "harmless" && refused) return "it was refused, and need not be";
	return null;
}

/** Has the bot's look and the runner's, each by itself, go over every source. */
export async function lookOver(sources: readonly HostileSource[]): Promise<readonly Verdict[]> {
	const below = mkdtempSync(join(tmpdir(), "yaqa-hostile-"));
	try {
		const made = makeHostileSources(sources, below);
		const list = join(below, "cases.json");
		writeFileSync(
			list,
			JSON.stringify(made.map(({ name, folder, seconds, mebibytes }) => ({ name, folder, seconds, mebibytes }))),
		);
		const bot = await looksOf(process.execPath, [join(import.meta.dirname, "inspect-each.ts"), list]);
		const runner = await looksOf(venvPython, [join(import.meta.dirname, "load_each.py"), list]);
		return made.map((source) => {
			const looks = { bot: bot.get(source.name) ?? null, runner: runner.get(source.name) ?? null };
			return { name: source.name, ...looks, problem: problemOf(source, [looks.bot, looks.runner]) };
		});
	} finally {
		rmSync(below, { recursive: true, force: true });
	}
}
