import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pythonClient, runProgram } from "./environments.ts";
import { type ClientFinding, failed, notApplicable, passed } from "./finding.ts";
import { hubEnvironment } from "./people.ts";

type Command = {
	readonly args: readonly string[];
	/** What it has to print. */
	readonly prints?: RegExp;
	/** It has to end otherwise than well. */
	readonly fails?: true;
};

/** What people type, in an order in which each finds what it needs. */
const COMMANDS: readonly Command[] = [
	{ args: ["auth", "whoami"], prints: /ann/ },
	{ args: ["repos", "create", "ann/cli"], prints: /ann\/cli/ },
	{ args: ["repos", "create", "ann/cli"], fails: true },
	{ args: ["repos", "create", "ann/cli", "--exist-ok"] },
	{ args: ["upload", "ann/cli", "in", ".", "--commit-message", "First"], prints: /commit/ },
	{ args: ["upload", "ann/cli", "in/a.txt", "copy.txt"] },
	{ args: ["upload", "ann/cli", "in", "proposed", "--create-pr"], prints: /Uploaded/ },
	{ args: ["download", "ann/cli", "a.txt", "--local-dir", "out"] },
	{ args: ["download", "ann/cli", "--include", "*.bin", "--local-dir", "out2"] },
	{ args: ["download", "ann/there-is-none"], fails: true },
	{ args: ["models", "info", "ann/cli"], prints: /ann\/cli/ },
	{ args: ["models", "list", "--author", "ann", "--search", "cli", "--quiet"], prints: /ann\/cli/ },
	{ args: ["models", "list", "ann/cli"], prints: /weights\.bin/ },
	{ args: ["repos", "list", "--quiet"], prints: /ann\/cli/ },
	{ args: ["repos", "branch", "create", "ann/cli", "side"] },
	{ args: ["repos", "tag", "create", "ann/cli", "v1"] },
	{ args: ["repos", "tag", "list", "ann/cli"], prints: /v1/ },
	{ args: ["repos", "tag", "delete", "ann/cli", "v1", "--yes"] },
	{ args: ["repos", "branch", "delete", "ann/cli", "side"] },
	{ args: ["repos", "settings", "ann/cli", "--gated", "manual"] },
	{ args: ["repos", "settings", "ann/cli", "--gated", "false"] },
	{ args: ["discussions", "create", "ann/cli", "--title", "Hello", "--body", "There"], prints: /2/ },
	{ args: ["discussions", "comment", "ann/cli", "2", "--body", "More"] },
	{ args: ["discussions", "list", "ann/cli"], prints: /Hello/ },
	{ args: ["discussions", "info", "ann/cli", "2"], prints: /Hello/ },
	{ args: ["discussions", "rename", "ann/cli", "2", "Renamed"] },
	{ args: ["discussions", "close", "ann/cli", "2", "--yes"] },
	{ args: ["discussions", "reopen", "ann/cli", "2", "--yes"] },
	{ args: ["discussions", "diff", "ann/cli", "1"] },
	{ args: ["repos", "delete-files", "ann/cli", "copy.txt"] },
	{ args: ["repos", "move", "ann/cli", "ann/cli-moved"] },
	{ args: ["models", "info", "ann/cli"], prints: /ann\/cli-moved/ },
	{ args: ["jobs", "hardware"], prints: /cpu-basic/ },
	{ args: ["jobs", "run", "--namespace", "ann", "--detach", "any", "echo", "hello"] },
	{ args: ["jobs", "ps", "--all", "--namespace", "ann"] },
	{ args: ["jobs", "scheduled", "run", "--namespace", "ann", "@daily", "any", "echo", "hello"] },
	{ args: ["jobs", "scheduled", "ps", "--namespace", "ann"], prints: /@daily/ },
	{ args: ["repos", "duplicate", "ann/cli", "ann/cli-copy"], prints: /cli-copy/ },
	{ args: ["buckets", "create", "ann/things"], prints: /things/ },
	{ args: ["buckets", "cp", "in/a.txt", "hf://buckets/ann/things/a.txt"] },
	{ args: ["buckets", "list", "ann/things"], prints: /a\.txt/ },
	{ args: ["buckets", "delete", "ann/things", "--yes"] },
	{ args: ["webhooks", "list"] },
	{ args: ["collections", "list", "--owner", "ann"] },
	{ args: ["repos", "delete", "ann/cli-moved", "--yes"] },
];
const NOT_CLAIMED: Readonly<Record<string, string>> = {
	endpoints: "there are no Inference Endpoints",
	papers: "there are no papers",
};

/** The `hf` command, as people type it. */
export async function hfCommands(hubUrl: string, home: string): Promise<readonly ClientFinding[]> {
	const hf = join(await pythonClient("2"), "hf");
	mkdirSync(join(home, "in"), { recursive: true });
	writeFileSync(join(home, "in", "a.txt"), "a\n");
	writeFileSync(join(home, "in", "weights.bin"), Buffer.alloc(200_000));
	const findings: ClientFinding[] = [];
	for (const { args, prints, fails } of COMMANDS) {
		const name = `hf ${args.join(" ")}`;
		const { code, out, err } = await runProgram(hf, args, {
			directory: home,
			environment: hubEnvironment(hubUrl, home),
			seconds: 180,
		});
		const said = `${out}\n${err}`;
		if ((code !== 0) !== (fails === true))
			findings.push(failed(name, `it ended with ${code}: ${said.trim().slice(-400)}`));
		else if (prints !== undefined && !prints.test(said))
			findings.push(failed(name, `it printed: ${said.slice(0, 400)}`));
		else findings.push(passed(name));
	}
	return [...findings, ...Object.entries(NOT_CLAIMED).map(([name, why]) => notApplicable(`hf ${name}`, why))];
}
