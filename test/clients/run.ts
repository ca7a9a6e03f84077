import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { startLocalHub } from "../../src/local-hub/start-local-hub.ts";
import { PYTHON_VERSIONS, type PythonVersion } from "./environments.ts";
import { type ClientFinding, countsOf, failed } from "./finding.ts";
import { gitClient } from "./git-client.ts";
import { hfCommands } from "./hf-commands.ts";
import { javascriptSpecs } from "./javascript-specs.ts";
import { PEOPLE } from "./people.ts";
import { pythonBattery } from "./python-battery.ts";

/**
 * `npm run test:clients`: what stock clients do, against the local Hub. Each is installed from its registry into an
 * environment of its own, at first use. With --json the last line is one document of passed, failed, not applicable.
 */

const { values, positionals } = parseArgs({
	allowPositionals: true,
	options: { json: { type: "boolean", default: false } },
});

type Suite = (hubUrl: string, home: string) => Promise<readonly ClientFinding[]>;

const SUITES: Readonly<Record<string, Suite>> = {
	...Object.fromEntries(
		(Object.keys(PYTHON_VERSIONS) as PythonVersion[]).map((version) => [
			`huggingface_hub ${version}`,
			(hubUrl: string, home: string) => pythonBattery(hubUrl, home, version),
		]),
	),
	hf: hfCommands,
	"@huggingface/hub": javascriptSpecs,
	git: gitClient,
};

const folder = mkdtempSync(join(tmpdir(), "yaqa-clients-"));
const hub = await startLocalHub({
	dataDirectory: join(folder, "hub"),
	users: PEOPLE,
	cdn: true,
	legacyNames: { first: "ann/first-of-all" },
	jobs: { programFolders: ["/usr/bin"].filter((path) => existsSync(path)) },
});
const results: Record<string, ReturnType<typeof countsOf>> = {};
try {
	for (const [name, suite] of Object.entries(SUITES)) {
		if (positionals.length > 0 && !positionals.some((one) => name.includes(one))) continue;
		const home = join(folder, name.replaceAll(/[^a-z0-9.]+/gi, "-"));
		mkdirSync(home, { recursive: true });
		const findings = await suite(hub.url, home).catch((error: unknown) => [
			failed(name, error instanceof Error ? error.message : String(error)),
		]);
		const counts = countsOf(findings);
		results[name] = counts;
		process.stderr.write(
			`${name}: ${counts.passed} passed, ${counts.failed} failed, ${counts.notApplicable} not applicable\n`,
		);
		for (const { check, state, why } of findings) {
			if (state !== "passed") process.stderr.write(`  ${state}: ${check}: ${why.split("\n", 1)[0]}\n`);
		}
	}
} finally {
	await hub.close();
	rmSync(folder, { recursive: true, force: true });
}
const ok = Object.keys(results).length > 0 && Object.values(results).every(({ failed: count }) => count === 0);
if (values.json) process.stdout.write(`${JSON.stringify({ ok, clients: results })}\n`);
process.exitCode = ok ? 0 : 1;
