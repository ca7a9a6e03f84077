import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { systemClock } from "../../src/clock.ts";
import type { Database } from "../../src/db/database.ts";
import { listDeliveries } from "../../src/db/deliveries.ts";
import { listJobs } from "../../src/db/jobs.ts";
import { databaseData } from "../../src/web/database-data.ts";
import { onEveryDatabase } from "../support/databases.ts";
import { recipeOf } from "../support/recipe-of.ts";
import { push, type ScriptedBot, scriptedBot, until, untilState, worldFolder } from "../support/scripted-bot.ts";
import { type ScriptedWorld, scriptedWorld, shaOf } from "../support/scripted-ports.ts";
import { startSite, type TestSite } from "../support/web-fixtures.ts";

const OPERATOR = "the-operator-and-nobody-else";

await onEveryDatabase((databases, name) => {
	describe(`private sources, on ${name}`, { concurrency: false }, () => {
		let database: Database;
		let world: ScriptedWorld;
		let bot: ScriptedBot;
		let site: TestSite;
		let jobId = "";
		after(async () => {
			await site.close();
			await bot.engine.stop();
			await database.close();
		});

		const get = (path: string, options: { readonly operator?: boolean; readonly accept?: string } = {}) =>
			fetch(`${site.url}${path}`, {
				headers: {
					Accept: options.accept ?? "text/html",
					...(options.operator === true ? { Authorization: `Bearer ${OPERATOR}` } : {}),
				},
			});
		const PAGES = () => [
			"/",
			"/?q=secret",
			"/variants",
			"/jobs",
			"/m/acme/secret",
			`/jobs/${jobId}`,
			`/jobs/${jobId}/events`,
			"/deliveries",
		];
		async function whereNamed(operator: boolean): Promise<readonly string[]> {
			const named: string[] = [];
			for (const path of PAGES()) {
				for (const accept of ["text/html", "application/json"]) {
					const response = await get(path, { operator, accept });
					// What is not there does not say so by name, but for the name that was asked for.
					const answer = await response.text();
					const text = path === "/" ? answer : answer.replaceAll(path, "");
					if (/acme.secret|secret-YAQA/.test(text) && response.status === 200) named.push(`${path} ${accept}`);
					if (/^\/(m|jobs\/)/.test(path) && response.status === 200) named.push(`${path} answers`);
				}
			}
			return [...new Set(named)];
		}

		before(async () => {
			const own = await databases();
			database = await own.open();
			world = scriptedWorld(worldFolder(own.dataDirectory));
			bot = scriptedBot({ database, world, dataDirectory: own.dataDirectory });
			await bot.engine.start();
			const data = (audience: "everybody" | "operator") =>
				databaseData({
					audience,
					database,
					clock: systemClock,
				});
			site = await startSite(data("everybody"), { operatorData: data("operator"), operatorToken: OPERATOR });
			world.setHead("acme/secret", shaOf("secret"));
			world.setPrivate("acme/secret", true);
			world.setHead("acme/open", shaOf("open"));
			for (const repo of ["acme/secret", "acme/open"]) {
				await bot.engine.storeDelivery({ source: "hub", dedupeKey: repo, receivedAt: new Date(), body: push(repo) });
			}
			const jobs = await until("both jobs", async () => {
				const { items } = await listJobs(database.handle);
				return items.length === 2 ? items : null;
			});
			for (const job of jobs) await untilState(database, job.id, ["done"]);
			jobId = jobs.find((job) => job.sourceRepo === "acme/secret")?.id ?? "";
		});

		test("appear on no page, in no JSON twin and in no stream, but for the operator", async () => {
			assert.deepEqual(await whereNamed(false), []);
			assert.equal((await whereNamed(true)).filter((one) => one.endsWith("text/html")).length, PAGES().length);
			const shown = await (await get("/", { accept: "application/json" })).text();
			assert.match(shown, /acme\/open/);
			const cached = await get("/", { operator: true });
			assert.equal(cached.headers.get("cache-control"), "no-store");
			const wrong = await fetch(`${site.url}/jobs/${jobId}`, { headers: { Authorization: `Bearer ${OPERATOR}x` } });
			assert.equal(wrong.status, 404);
			const asked = await fetch(`${site.url}/jobs/${jobId}`, {
				headers: { Authorization: `Basic ${Buffer.from(`anybody:${OPERATOR}`).toString("base64")}` },
			});
			assert.equal(asked.status, 200);
		});

		test("a source that cannot be quantized is as private as one that can", async () => {
			world.setHead("acme/broken", shaOf("broken"));
			world.setPrivate("acme/broken", true);
			world.setRefusal("acme/broken", { code: "pickle-only", message: "Only pickles.", remedy: "Push others." });
			const asked = { kind: "api", sourceRepo: "acme/broken", requester: null, replyTo: null } as const;
			await bot.engine.recordRequest({ ...asked, recipes: [recipeOf("w4a16")], dedupeKey: "broken" });
			assert.doesNotMatch(await (await get("/jobs", { accept: "application/json" })).text(), /acme\/broken/);
			assert.match(await (await get("/jobs", { accept: "application/json", operator: true })).text(), /acme\/broken/);
		});

		test("a change of visibility is followed without a push, both ways, by an event and by the sweep", async () => {
			const tell = async (key: string) => {
				const body = {
					event: { action: "update", scope: "repo.config" },
					repo: { type: "model", name: "acme/open" },
					updatedConfig: { private: true },
				};
				await bot.engine.storeDelivery({ source: "hub", dedupeKey: key, receivedAt: new Date(), body });
				await until("the event to be settled", async () => {
					const { items } = await listDeliveries(database.handle);
					return items.find((one) => one.dedupeKey === key)?.outcome === "accepted" ? true : null;
				});
			};
			const followed = () =>
				world
					.calls()
					.filter(({ call }) => call === "tighten" || call === "loosen")
					.map(({ call, detail }) => `${call} ${detail.split("/")[1]}`)
					.filter((line) => line.includes("open-"))
					.toSorted();
			world.setPrivate("acme/open", true);
			await tell("closed");
			assert.deepEqual(followed(), ["tighten open-YAQA-GGUF", "tighten open-YAQA-w4a16"]);
			assert.doesNotMatch(await (await get("/", { accept: "application/json" })).text(), /acme\/open/);
			world.setPrivate("acme/open", false);
			await bot.engine.sweepNow();
			assert.deepEqual(followed().slice(0, 2), ["loosen open-YAQA-GGUF", "loosen open-YAQA-w4a16"]);
			assert.match(await (await get("/", { accept: "application/json" })).text(), /acme\/open/);
		});
	});
});
