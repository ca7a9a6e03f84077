import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, describe, test } from "node:test";
import { sql } from "kysely";
import type { Database } from "../../src/db/database.ts";
import { insertDelivery, leaseDelivery, listDeliveries, settleDelivery } from "../../src/db/deliveries.ts";
import { DirectoryLockedError, takeDirectoryLock } from "../../src/db/directory-lock.ts";
import {
	appendRunnerEvents,
	getJob,
	insertJob,
	leaseJob,
	listDueJobs,
	listJobEvents,
	moveJob,
	releaseLease,
	renewLease,
} from "../../src/db/jobs.ts";
import { MIGRATIONS, migrate } from "../../src/db/migrate.ts";
import { claimSweepSlot } from "../../src/db/sweeps.ts";
import { onEveryDatabase } from "../support/databases.ts";

const NOW = new Date("2026-01-01T00:00:00Z");
const LATER = new Date("2026-01-01T00:01:00Z");

await onEveryDatabase((databases, name) => {
	describe(`database on ${name}`, { concurrency: false }, () => {
		let database: Database;
		const id = randomUUID();

		before(async () => {
			database = await (await databases()).open();
		});
		after(async () => {
			await database.close();
		});

		test("migrations run once, however many start them, and a newer database is refused", async () => {
			const again = await Promise.all([1, 2, 3].map(() => migrate(database.handle, NOW)));
			assert.deepEqual(again, [[], [], []]);
			await assert.rejects(migrate(database.handle, NOW, []), /Start the newer version/);
			assert.deepEqual(
				MIGRATIONS.map((migration) => migration.version),
				MIGRATIONS.map((_, index) => index + 1),
			);
		});

		test("a transaction that throws leaves nothing, and those that run beside it keep theirs", async () => {
			const failing = database.transaction(async (tx) => {
				await claimSweepSlot(tx, "rolled back", NOW);
				throw new Error("on purpose");
			});
			const others = Array.from({ length: 5 }, (_, index) =>
				database.transaction(async (tx) => await claimSweepSlot(tx, `kept ${index}`, NOW)),
			);
			const plain = claimSweepSlot(database.handle, "plain", NOW);
			await assert.rejects(failing, /on purpose/);
			await Promise.all([...others, plain]);
			const { rows } = await sql<{ slot: string }>`select slot from sweep_slots order by slot`.execute(database.handle);
			assert.deepEqual(
				rows.map((row) => row.slot),
				["kept 0", "kept 1", "kept 2", "kept 3", "kept 4", "plain"],
			);
		});

		test("a query on the main handle inside a transaction fails at once instead of hanging", {
			skip: name === "PGlite" ? false : "skipped: PostgreSQL has more than one connection",
		}, async () => {
			await database.transaction(async (tx) => {
				await assert.rejects(sql`select 1`.execute(database.handle), /main handle inside a transaction/);
				await assert.rejects(
					database.transaction(async () => {}),
					/main handle inside a transaction/,
				);
				await sql`select 1`.execute(tx);
			});
			await sql`select 1`.execute(database.handle);
		});

		test("one of many callers wins a sweep slot", async () => {
			const won = await Promise.all(Array.from({ length: 8 }, () => claimSweepSlot(database.handle, "slot", NOW)));
			assert.equal(won.filter(Boolean).length, 1);
		});

		test("a delivery is stored once, leased once, and keeps whatever text it has", async () => {
			const body = { text: "\u0000 \ud800 \\u0000 ✓", list: [1, [2]], nothing: null };
			const delivery = { source: "hub" as const, dedupeKey: "k", receivedAt: NOW, body };
			const stored = await Promise.all(
				Array.from({ length: 6 }, () => insertDelivery(database.handle, { ...delivery, id: randomUUID() })),
			);
			assert.equal(stored.filter((one) => one.stored).length, 1);
			const request = { id: stored[0]?.id ?? "", now: NOW, until: LATER };
			const leases = await Promise.all(
				["a", "b", "c"].map((owner) => leaseDelivery(database.handle, { ...request, owner })),
			);
			assert.equal(leases.filter((one) => one !== null).length, 1);
			const held = leases.findIndex((one) => one !== null);
			await settleDelivery(database.handle, {
				id: request.id,
				owner: ["a", "b", "c"][(held + 1) % 3] ?? "",
				outcome: "failed",
				detail: "not the owner",
				nextAttemptAt: NOW,
			});
			const [found] = (await listDeliveries(database.handle)).items;
			assert.equal(found?.outcome, "pending");
			assert.deepEqual(found?.body, { ...body, text: "\ufffd \ufffd \\u0000 ✓" });
		});

		test("a lease has one holder, and passes on when it ran out", async () => {
			await insertJob(database.handle, {
				id,
				sourceRepo: "acme/model",
				sourceSha: "a".repeat(40),
				state: "planned",
				statusText: "Planned.",
				refusal: null,
				facts: null,
				now: NOW,
			});
			const request = { id, states: ["planned"] as const, now: NOW, until: LATER };
			const taken = await Promise.all(
				["one", "two", "three"].map((owner) => leaseJob(database.handle, { ...request, owner })),
			);
			assert.equal(taken.filter((work) => work !== null).length, 1);
			assert.deepEqual(await listDueJobs(database.handle, NOW, 10), []);
			const afterwards = new Date(LATER.getTime() + 1);
			assert.equal((await listDueJobs(database.handle, afterwards, 10)).length, 1);
			const next = await leaseJob(database.handle, {
				...request,
				owner: "next",
				now: afterwards,
				until: new Date(afterwards.getTime() + 60_000),
			});
			assert.notEqual(next, null);
			for (const owner of ["one", "two", "three"]) {
				assert.equal((await renewLease(database.handle, { id, owner, until: LATER })).held, false);
			}
			await releaseLease(database.handle, { id, owner: "one", nextStepAt: LATER, stepFailures: 0, statusText: null });
			assert.equal((await renewLease(database.handle, { id, owner: "next", until: LATER })).held, true);
		});

		test("a move needs the right state, fence and owner; a stale one changes nothing", async () => {
			const move = {
				id,
				from: "planned" as const,
				fence: 0,
				owner: "next",
				to: "dispatching" as const,
				statusText: "Fetching.",
				now: NOW,
				keepLease: true,
				set: { fence: 1 },
			};
			const stale = [
				{ ...move, owner: "one" },
				{ ...move, fence: 7 },
				{ ...move, from: "running" as const },
			];
			for (const one of stale) assert.equal(await database.transaction((tx) => moveJob(tx, one)), null);
			const before = await listJobEvents(database.handle, id, 0, 100);
			assert.equal(before.length, 1);
			const moved = await database.transaction((tx) => moveJob(tx, move));
			assert.equal(moved?.fence, 1);
			assert.equal(await database.transaction((tx) => moveJob(tx, move)), null, "the same move again");
		});

		test("runner events are taken over once, and never those of an older attempt", async () => {
			const event = {
				event: "warning" as const,
				job: id,
				fence: 1,
				at: NOW.toISOString(),
				code: "c",
				message: "m \u0000",
			};
			const append = { jobId: id, fence: 1, owner: "next", after: 0, last: 2, statusText: null, now: NOW };
			const taken = await Promise.all(
				[1, 2].map(() => database.transaction((tx) => appendRunnerEvents(tx, { ...append, events: [event, event] }))),
			);
			assert.deepEqual(taken.toSorted(), [false, true]);
			const old = { ...append, fence: 0, after: 2, last: 3, events: [event] };
			assert.equal(await database.transaction((tx) => appendRunnerEvents(tx, old)), false);
			const events = await listJobEvents(database.handle, id, 0, 100);
			assert.deepEqual(
				events.map((one) => one.sequence),
				[1, 2, 3, 4],
			);
			assert.equal((await getJob(database.handle, id))?.state, "dispatching");
		});
	});
});

const folder = mkdtempSync(join(tmpdir(), "yaqa-lock-"));
after(() => rmSync(folder, { recursive: true, force: true }));

test("a live holder keeps the lock; the refusal names its pid and the remedy", () => {
	const path = join(folder, "live.lock");
	const lock = takeDirectoryLock(path);
	assert.throws(
		() => takeDirectoryLock(path),
		(error) =>
			error instanceof DirectoryLockedError &&
			error.holderPid === process.pid &&
			error.message.includes(`kill ${process.pid}`) &&
			error.message.includes("DATABASE_URL"),
	);
	lock.release();
	takeDirectoryLock(path).release();
	assert.deepEqual(
		readdirSync(folder).filter((name) => name.startsWith("live.lock")),
		["live.lock.held"],
	);
});

test("a lock left by SIGKILL is taken over, also when its pid lives again as something else", async () => {
	const path = join(folder, "stale.lock");
	const module = new URL("../../src/db/directory-lock.ts", import.meta.url).href;
	const holder = spawn(process.execPath, [
		"--input-type=module",
		"-e",
		`import { takeDirectoryLock } from ${JSON.stringify(module)}; takeDirectoryLock(${JSON.stringify(path)}); console.log("held"); setInterval(() => {}, 1000);`,
	]);
	await new Promise((resolve) => holder.stdout.once("data", resolve));
	assert.throws(() => takeDirectoryLock(path), DirectoryLockedError);
	holder.kill("SIGKILL");
	await new Promise((resolve) => holder.once("exit", resolve));
	const left = JSON.parse(readFileSync(path, "utf8")) as Record<string, unknown>;
	takeDirectoryLock(path).release();
	writeFileSync(path, JSON.stringify({ ...left, pid: process.pid, startTicks: "1" }));
	takeDirectoryLock(path).release();
});

test("a container made anew goes on where one that was killed was, whatever it was called", () => {
	const path = join(folder, "container.lock");
	writeFileSync(path, JSON.stringify({ pid: 1, startTicks: "1", host: "3f2a9c", boot: null, kernel: true }));
	const lock = takeDirectoryLock(path);
	assert.throws(() => takeDirectoryLock(path), new RegExp(`process ${process.pid}`));
	lock.release();
});

const STARTER = `
import { createInterface } from "node:readline";
import { takeDirectoryLock } from "MODULE";
let lock = null;
for await (const line of createInterface({ input: process.stdin })) {
	if (line === "release") {
		lock?.release();
		lock = null;
		console.log("free");
		continue;
	}
	try {
		lock = takeDirectoryLock(line);
		console.log("won");
	} catch {
		console.log("lost");
	}
}`;

test("of eight that start over a stale lock one wins, in every one of thirty rounds", async () => {
	const path = join(folder, "contended.lock");
	const module = new URL("../../src/db/directory-lock.ts", import.meta.url).href;
	const starters = Array.from({ length: 8 }, () => {
		const child = spawn(process.execPath, ["--input-type=module", "-e", STARTER.replace("MODULE", module)]);
		const answers = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
		const ask = async (line: string): Promise<unknown> => {
			child.stdin.write(`${line}\n`);
			return (await answers.next()).value;
		};
		return { child, ask };
	});
	const left = JSON.stringify({ pid: 999_999_999, startTicks: "1", host: hostname(), boot: null });
	try {
		for (let round = 0; round < 30; round++) {
			writeFileSync(path, left);
			const answers = await Promise.all(starters.map(({ ask }) => ask(path)));
			assert.equal(answers.filter((answer) => answer === "won").length, 1, `round ${round}: ${answers}`);
			await Promise.all(starters.map(({ ask }) => ask("release")));
		}
	} finally {
		for (const { child } of starters) child.kill("SIGKILL");
	}
});

test("a lock of another machine, or of nobody known, is never taken", () => {
	const path = join(folder, "foreign.lock");
	for (const [content, message] of [
		[JSON.stringify({ pid: 1, startTicks: null, host: `${hostname()}-other`, boot: null }), /on .*-other/],
		["", /not one of ours/],
	] as const) {
		writeFileSync(path, content);
		assert.throws(() => takeDirectoryLock(path), message);
		assert.equal(readFileSync(path, "utf8"), content);
	}
});
