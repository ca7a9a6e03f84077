import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { connect } from "node:net";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { Database } from "../../src/db/database.ts";
import { insertJob } from "../../src/db/jobs.ts";
import { databaseData } from "../../src/web/database-data.ts";
import { onEveryDatabase } from "../support/databases.ts";
import { NOW, startSite, type TestSite } from "../support/web-fixtures.ts";

const JOB = randomUUID();
const HOSTILE = [
	"%00",
	"%ED%A0%80",
	"%F0%9F%98%80",
	"%27%3B--",
	"%22%3E%3Cscript%3E",
	"..%2f..%2f",
	"a".repeat(700),
	"-1",
	"1e400",
];
const PARAMETERS = [
	"q",
	"container",
	"bits",
	"family",
	"license",
	"parameters",
	"size",
	"since",
	"sort",
	"cursor",
	"fits",
	"context",
	"cache",
	"after",
	"layers",
	"view",
];
const PAGES = [
	"/",
	"/variants",
	"/m/demo/small-llama",
	"/jobs",
	`/jobs/${JOB}`,
	`/jobs/${JOB}/log`,
	"/deliveries",
	"/help",
];

await onEveryDatabase((databases, name) => {
	describe(`addresses that nobody means, on ${name}`, { concurrency: false }, () => {
		let database: Database;
		let site: TestSite;
		before(async () => {
			database = await (await databases()).open();
			site = await startSite(databaseData({ database, clock: { now: () => NOW }, audience: "everybody" }));
			const of = { id: JOB, sourceRepo: "demo/small-llama", sourceSha: "a".repeat(40), now: NOW } as const;
			await insertJob(database.handle, { ...of, state: "planned", statusText: "Planned.", refusal: null, facts: null });
		});
		after(async () => {
			await site.close();
			await database.close();
		});

		test("every parameter takes every value: what does not parse counts as not given", async () => {
			for (const page of PAGES) {
				for (const value of HOSTILE) {
					const query = PARAMETERS.map((parameter) => `${parameter}=${value}`).join("&");
					const twice = `${page}?q=${value}&q=${value}&q[x]=${value}`;
					for (const address of [`${page}?${query}`, twice]) {
						const response = await fetch(`${site.url}${address}`, { headers: { Accept: "text/html" } });
						const text = await response.text();
						assert.equal(response.status, 200, address.slice(0, 200));
						assert.ok(!text.includes("<script>"), address.slice(0, 200));
					}
				}
			}
		});

		test("names that no repo has, and numbers that no job has, are answered by a page that helps", async () => {
			const paths = [
				"m/%00/x",
				"m/a/%00",
				"m/a/%2e%2e",
				`m/a/${"x".repeat(500)}`,
				"m/%3Cscript%3E/b",
				"m/nobody/deleted",
			];
			const pictures = ["m/%00/x/plot.png", "m/nobody/deleted/plot.png"];
			const numbers = [
				"jobs/1",
				"jobs/%00",
				"jobs/1/log",
				`jobs/${randomUUID()}/log`,
				"v/1",
				"v/%00",
				`v/${randomUUID()}`,
			];
			for (const path of [...paths, ...pictures, ...numbers]) {
				const response = await fetch(`${site.url}/${path}`, { headers: { Accept: "text/html" } });
				assert.equal(response.status, 404, path);
				assert.match(await response.text(), /<h1>Not found<\/h1>/, path);
			}
			for (const path of ["m/%E0%A4%A/x", "jobs/%ZZ"]) {
				const response = await fetch(`${site.url}/${path}`, { headers: { Accept: "text/html" } });
				assert.equal(response.status, 400, path);
				assert.match(await response.text(), /That address cannot be read/, path);
			}
			const badge = await fetch(`${site.url}/m/nobody/deleted/badge.svg`);
			assert.equal(badge.status, 200);
			assert.match(await badge.text(), /nothing published/);
		});

		test("who reads slowly, or says half of a request, keeps nobody else waiting", async () => {
			const { hostname, port } = new URL(site.url);
			const slow = Array.from({ length: 12 }, () => connect(Number(port), hostname));
			try {
				await Promise.all(slow.map((socket) => once(socket, "connect")));
				for (const [index, socket] of slow.entries()) {
					socket.on("error", () => {});
					socket.pause();
					socket.write(
						index % 2 === 0 ? "GET / HTTP/1.1\r\nHost: x" : "GET /variants HTTP/1.1\r\nHost: x\r\n\r\n".repeat(5),
					);
				}
				await sleep(50);
				for (let time = 0; time < 5; time++) assert.equal((await fetch(`${site.url}/help`)).status, 200);
			} finally {
				for (const socket of slow) socket.destroy();
			}
		});
	});
});
