import assert from "node:assert/strict";
import { test } from "node:test";
import { createAnswer, createKeptAnswers } from "../../src/web/kept-answers.ts";
import { createSharedReads } from "../../src/web/shared-reads.ts";

const answerOf = (body: string) => async () => createAnswer("html", body);

test("an answer is kept for one version and a while, never longer, never for another key", async () => {
	let now = 0;
	const answers = createKeptAnswers(() => now);
	const get = async (key: string, version: string, body: string) =>
		(await answers.get({ key, version, make: answerOf(body) }))?.body;
	assert.equal(await get("a", "1", "first"), "first");
	assert.equal(await get("a", "1", "second"), "first");
	assert.equal(await get("b", "1", "other"), "other");
	assert.equal(await get("a", "2", "changed"), "changed");
	assert.equal(await get("a", "1", "went back"), "went back");
	now += 60_000;
	assert.equal(await get("a", "1", "later"), "later");
});

test("what failed or is not there is not kept", async () => {
	const answers = createKeptAnswers(() => 0);
	const fault = async () => Promise.reject(new Error("A fault."));
	await assert.rejects(answers.get({ key: "a", version: "1", make: fault }), /A fault/);
	assert.equal(await answers.get({ key: "a", version: "1", make: async () => null }), null);
	assert.equal((await answers.get({ key: "a", version: "1", make: answerOf("there") }))?.body, "there");
});

test("kept answers have a bound, and the ones that were asked for last stay", async () => {
	const answers = createKeptAnswers(() => 0);
	let made = 0;
	const get = async (key: string) =>
		await answers.get({
			key,
			version: "1",
			make: async () => {
				made += 1;
				return createAnswer("html", "x".repeat(5_000_000));
			},
		});
	for (const key of ["a", "b", "c"]) await get(key);
	await get("a");
	assert.equal(made, 3);
	await get("d");
	await get("a");
	assert.equal(made, 4, "the one that was asked for just now");
	await get("b");
	assert.equal(made, 5, "the one that was not");
});

test("who asks during a read waits for one that begins after, with all who ask then", async () => {
	const shared = createSharedReads<number>();
	const gates: PromiseWithResolvers<number>[] = [];
	const read = async (): Promise<number> => {
		const gate = Promise.withResolvers<number>();
		gates.push(gate);
		return await gate.promise;
	};
	const turn = () => new Promise((resolve) => setImmediate(resolve));
	const [first, atOnce] = [shared("a", read), shared("a", read)];
	await turn();
	const others = [shared("a", read), shared("a", read)];
	await turn();
	assert.equal(gates.length, 1);
	gates[0]?.resolve(1);
	assert.deepEqual(await Promise.all([first, atOnce]), [1, 1]);
	await turn();
	assert.equal(gates.length, 2);
	const later = shared("a", read);
	gates[1]?.reject(new Error("A fault."));
	for (const one of others) await assert.rejects(one, /A fault/);
	await turn();
	assert.equal(gates.length, 3);
	gates[2]?.resolve(3);
	assert.equal(await later, 3);
});
