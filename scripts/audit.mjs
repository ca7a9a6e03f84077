// Asks npm's and PyPI's lists of known holes about every package that is installed: `npm run audit`, by a timer.
// Ends with 1 where a hole is known, with 2 where a list could not be asked.
import { join } from "node:path";
import process from "node:process";
import { run, withPythonTool } from "./throwaway-python.mjs";

/** `holes`: how many; `null`: the list could not be asked, and `why` tells. */
function npmHoles() {
	const asked = run("npm", ["audit", "--omit=dev", "--json"]);
	try {
		const { vulnerabilities, error, message } = JSON.parse(asked.stdout);
		if (vulnerabilities === undefined)
			return { holes: null, why: error?.summary || message || "its list does not answer" };
		const names = Object.entries(vulnerabilities).map(([name, one]) => `${name} (${one.severity})`);
		return { holes: names.length, names };
	} catch {
		return { holes: null, why: (asked.stderr || asked.stdout || String(asked.error)).trim().slice(0, 300) };
	}
}

function pythonHoles() {
	const { made: asked, why } = withPythonTool("pip-audit==2.9.0", (programs) =>
		["lock", "txt"].map((end) => {
			const file = join("gpu-runner", `requirements.${end}`);
			const args = ["-m", "pip_audit", "-r", file, "--no-deps", "--disable-pip", "--format", "json"];
			return run(join(programs, "python"), [...args, "--progress-spinner", "off"]);
		}),
	);
	if (asked === null) return { holes: null, why };
	const names = new Set();
	for (const { stdout, stderr, error } of asked) {
		try {
			for (const { name, version, vulns = [] } of JSON.parse(stdout).dependencies)
				if (vulns.length > 0) names.add(`${name} ${version} (${vulns.map(({ id }) => id).join(", ")})`);
		} catch {
			return { holes: null, why: (stderr || String(error)).trim().split("\n").at(-1)?.slice(0, 300) };
		}
	}
	return { holes: names.size, names: [...names] };
}

const results = { npm: npmHoles(), python: pythonHoles() };
for (const [list, { holes, names = [], why }] of Object.entries(results)) {
	process.stderr.write(
		holes === null ? `${list}: could not be asked: ${why}\n` : `${list}: ${holes} packages with known holes\n`,
	);
	for (const name of names) process.stderr.write(`  ${name}\n`);
}
process.stdout.write(`${JSON.stringify({ npm: results.npm.holes, python: results.python.holes })}\n`);
const found = Object.values(results).some(({ holes }) => holes !== null && holes > 0);
const unasked = Object.values(results).some(({ holes }) => holes === null);
process.exitCode = found ? 1 : unasked ? 2 : 0;
