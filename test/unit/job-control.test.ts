import assert from "node:assert/strict";
import { test } from "node:test";
import { type Asker, createJobControl, type JobAction } from "../../src/commands/job-control.ts";
import type { JobChange } from "../../src/jobs/job-change.ts";
import type { JobRecord } from "../../src/records/job.ts";
import { makeJob, NOW } from "../support/web-fixtures.ts";

function controlOf(requesters: readonly (string | null)[] = [null]) {
	const done: string[] = [];
	const change =
		(action: JobAction) =>
		async (id: string): Promise<JobChange> => {
			done.push(action);
			return { ok: true, job: makeJob({ id }) };
		};
	const control = createJobControl({
		allow: ["Helper", "good-bot"],
		ignore: ["noisy"],
		requestersOf: async () => requesters,
		cancelJob: change("cancel"),
		retryJob: change("retry"),
		approveJob: change("approve"),
		clock: { now: () => NOW },
	});
	return { ...control, done };
}

const person = (name: string, more: Partial<Asker> = {}): Asker => ({
	subject: "0".repeat(24),
	name,
	organizations: [],
	isOperator: false,
	...more,
});
const running = makeJob({ sourceRepo: "acme/model" });
const failed = makeJob({ sourceRepo: "acme/model", state: "failed", finishedAt: NOW });

test("rights on a job's page are those of comments: owner, members, who is allowed by name; no programs", async () => {
	const may = async (asker: Asker, job: JobRecord) => await controlOf().actionsFor(job, asker);
	assert.deepEqual(await may(person("acme"), running), ["cancel"]);
	assert.deepEqual(await may(person("ann", { organizations: ["acme"] }), running), ["cancel"]);
	assert.deepEqual(await may(person("ann", { organizations: ["acme"] }), failed), ["retry"]);
	assert.deepEqual(await may(person("helper"), running), ["cancel"], "by the operator's list, whatever the capitals");
	assert.deepEqual(await may(person("ann", { organizations: ["Acme"] }), running), [], "another organisation");
	assert.deepEqual(await may(person("ann"), running), []);
	assert.deepEqual(await may(person("some-bot", { organizations: ["acme"] }), running), []);
	assert.deepEqual(await may(person("good-bot"), running), ["cancel"]);
	assert.deepEqual(await may(person("noisy", { organizations: ["acme"] }), running), []);
	assert.deepEqual(await may(person("carol", { isOperator: true }), failed), ["retry"]);
});

test("who asked for a job cancels it as long as nobody else wants it, and does not try it again", async () => {
	const own = controlOf(["ann"]);
	assert.deepEqual(await own.actionsFor(running, person("Ann")), ["cancel"]);
	assert.deepEqual(await own.actionsFor(failed, person("ann")), []);
	assert.equal(await own.act(failed, "retry", person("ann")), null);
	for (const requesters of [["ann", "bob"], ["ann", null], ["github:ann"], []]) {
		assert.equal(await controlOf(requesters).act(running, "cancel", person("ann")), null, String(requesters));
	}
	assert.deepEqual(own.done, []);
});

test("what costs more than jobs may is the operator's alone, as long as the job is held", async () => {
	const held = makeJob({ sourceRepo: "acme/model", state: "waiting", heldUntil: new Date(NOW.getTime() + 1000) });
	const member = person("ann", { organizations: ["acme"] });
	const control = controlOf();
	assert.deepEqual(await control.actionsFor(held, member), ["cancel"]);
	assert.equal(await control.act(held, "approve", member), null);
	const carol = person("carol", { isOperator: true });
	assert.deepEqual(await control.actionsFor(held, carol), ["cancel", "approve"]);
	assert.deepEqual(await control.actionsFor({ ...held, heldUntil: null }, carol), ["cancel"]);
	assert.equal((await control.act(held, "approve", carol))?.ok, true);
	assert.deepEqual(control.done, ["approve"]);
});
