import assert from "node:assert/strict";
import { test } from "node:test";
import { stepOf, TRANSITIONS, transition } from "../../src/jobs/transitions.ts";
import { matchesGlob } from "../../src/jobs/watch-rules.ts";
import { isFinished, type JobState, TERMINAL_STATES } from "../../src/records/job.ts";

const STATES = Object.keys(TRANSITIONS) as JobState[];

test("every state is reached from planned, and leads to an end", () => {
	const reached = new Set<JobState>(["planned"]);
	for (const state of reached) for (const to of Object.values(TRANSITIONS[state])) reached.add(to);
	assert.deepEqual([...reached].toSorted(), STATES.toSorted());
	for (const state of STATES) {
		const ends = new Set<JobState>([state]);
		for (const one of ends) for (const to of Object.values(TRANSITIONS[one])) ends.add(to);
		assert.ok(
			TERMINAL_STATES.some((end) => ends.has(end)),
			state,
		);
	}
});

test("finished states have no step, all others one", () => {
	for (const state of STATES) assert.equal(stepOf(state) === null, isFinished(state), state);
});

test("done is for good, and the other ends can be retried", () => {
	assert.deepEqual(TRANSITIONS.done, {});
	for (const end of ["failed", "cancelled", "superseded"] as const) assert.equal(transition(end, "retry"), "planned");
	assert.equal(transition("announcing", "cancel"), null);
	assert.equal(transition("publishing", "supersede"), null);
});

test("globs match within a path part and never across the slash", () => {
	assert.ok(matchesGlob("acme/*", "acme/model"));
	assert.ok(matchesGlob("*-test", "acme/some-test"));
	assert.ok(matchesGlob("*/draft-*", "acme/draft-7"));
	assert.ok(matchesGlob("a*b*c", "x/aXbYbZc"));
	assert.ok(!matchesGlob("acme/*", "acme2/model"));
	assert.ok(!matchesGlob("a*/model", "acme/x/model"));
	assert.ok(!matchesGlob("*-test", "acme/some-test-2"));
	assert.ok(!matchesGlob("aa*aa", "x/aaa"));
	assert.ok(!matchesGlob("acme*model", "acme/model"));
});
