import { join } from "node:path";
import { z } from "zod";
import { type PythonVersion, pythonClient, runProgram } from "./environments.ts";
import { type ClientFinding, failed } from "./finding.ts";
import { hubEnvironment } from "./people.ts";

const Line = z.object({
	check: z.string(),
	state: z.enum(["passed", "failed", "not applicable"]),
	why: z.string(),
});

/** Every check of battery.py with one version of the Python client. */
export async function pythonBattery(
	hubUrl: string,
	home: string,
	version: PythonVersion,
): Promise<readonly ClientFinding[]> {
	const bin = await pythonClient(version);
	const script = join(import.meta.dirname, "battery.py");
	const { code, out, err } = await runProgram(join(bin, "python"), [script], {
		directory: home,
		environment: hubEnvironment(hubUrl, home),
	});
	const findings = out
		.split("\n")
		.filter((line) => line.startsWith("{"))
		.map((line) => Line.parse(JSON.parse(line)));
	return code === 0 && findings.length > 0
		? findings
		: [...findings, failed("battery", `it ended with ${code}: ${err.slice(-500)}`)];
}
