import { cpSync, globSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { z } from "zod";
import { javascriptClient, runProgram } from "./environments.ts";
import { type ClientFinding, failed, notApplicable, passed } from "./finding.ts";

/** Specs about what the local Hub does not claim, or about the account that they have on the Hub they are written for. */
const NOT_CLAIMED: Readonly<Record<string, string>> = {
	"oauth-handle-redirect.spec.ts": "it compares with the account of the authors' own Hub",
	"who-am-i.spec.ts": "it compares with the account of the authors' own Hub",
};
const ELSEWHERE = "NEEDS ANOTHER HOST";

/** Whatever a spec asks of another host than the local Hub is told as such. */
const SETUP = `
const real = globalThis.fetch;
globalThis.fetch = async (input, init) => {
	const url = new URL(input instanceof Request ? input.url : String(input));
	if (url.protocol.startsWith("http") && !["127.0.0.1", "localhost"].includes(url.hostname)) throw new TypeError("${ELSEWHERE}: " + url.hostname);
	return real(input, init);
};
`;

const Report = z.object({
	testResults: z.array(
		z.object({
			name: z.string(),
			message: z.string().optional(),
			assertionResults: z.array(
				z.object({ fullName: z.string(), status: z.string(), failureMessages: z.array(z.string()).nullish() }),
			),
		}),
	),
});

/** The JavaScript client's own specs, out of its npm package, with the local Hub in place of its authors' own. */
export async function javascriptSpecs(hubUrl: string, home: string): Promise<readonly ClientFinding[]> {
	const folder = await javascriptClient();
	const specs = join(folder, "specs");
	rmSync(specs, { recursive: true, force: true });
	cpSync(join(folder, "node_modules", "@huggingface", "hub", "src"), join(specs, "src"), { recursive: true });
	const constants = join(specs, "src", "test", "consts.ts");
	writeFileSync(constants, readFileSync(constants, "utf8").replace(/(TEST_HUB_URL = )"[^"]*"/, `$1"${hubUrl}"`));
	writeFileSync(join(specs, "setup.ts"), SETUP);
	writeFileSync(
		join(specs, "vitest.config.mjs"),
		'export default { test: { setupFiles: ["./setup.ts"], testTimeout: 60000, fileParallelism: false } };\n',
	);
	const files = globSync("src/**/*.spec.ts", { cwd: specs });
	const applicable = files.filter((file) => readFileSync(join(specs, file), "utf8").includes("TEST_HUB_URL"));
	const { err } = await runProgram(
		process.execPath,
		[
			join(folder, "node_modules", "vitest", "vitest.mjs"),
			"run",
			"--reporter=json",
			"--outputFile=report.json",
			...applicable,
		],
		{ directory: specs, environment: { HOME: home } },
	);
	const report = Report.safeParse(JSON.parse(readFileSync(join(specs, "report.json"), "utf8")));
	if (!report.success) return [failed("vitest", err.slice(-500))];
	const others = files.length - applicable.length;
	return [
		...report.data.testResults.flatMap(({ name, message, assertionResults }) => {
			const file = basename(name);
			if (assertionResults.length === 0) return [failed(file, message ?? "it did not run")];
			return assertionResults.map(({ fullName, status, failureMessages }) => {
				const check = `${file}: ${fullName}`;
				const why = (failureMessages ?? []).join("\n");
				if (status === "passed") return passed(check);
				const reason = NOT_CLAIMED[file];
				if (reason !== undefined) return notApplicable(check, reason);
				if (why.includes(ELSEWHERE)) return notApplicable(check, "it needs repos of the real Hub");
				return status === "failed" ? failed(check, why) : notApplicable(check, status);
			});
		}),
		notApplicable(`${others} other spec files`, "they are about the real Hub's own repos, or about no Hub"),
	];
}
