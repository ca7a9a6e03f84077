import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { Browser } from "playwright-core";
import { systemClock } from "../../src/clock.ts";
import { holdJob } from "../../src/db/admission.ts";
import type { Database } from "../../src/db/database.ts";
import { getDelivery } from "../../src/db/deliveries.ts";
import { getJob, moveJob } from "../../src/db/jobs.ts";
import { openDatabase } from "../../src/db/open-database.ts";
import { silentLog } from "../../src/log.ts";
import {
	consoleErrors,
	contextFor,
	findChromium,
	keepPicture,
	LOOKS,
	launchChromium,
	NO_CHROMIUM,
	pageFaults,
	signInAs,
} from "../support/chromium.ts";
import { createRepo } from "../support/local-hub-fixture.ts";
import { keepFailedDelivery, keepJob, keepVariant } from "../support/member-records.ts";
import { type MemberSite, memberSite } from "../support/member-site.ts";

/** What signed-in people see, in Chromium: signing in on the Hub's own page, their models, a job's buttons, the operator's. */
describe("signed in, in Chromium", { skip: findChromium() === null ? NO_CHROMIUM : false }, () => {
	const folder = mkdtempSync(join(tmpdir(), "yaqa-signed-in-"));
	let database: Database;
	let site: MemberSite;
	let browser: Browser;
	before(async () => {
		const reach = { databaseUrl: null, poolSize: 2 };
		database = await openDatabase({ dataDirectory: folder, ...reach, clock: systemClock, log: silentLog });
		site = await memberSite(database);
		browser = await launchChromium();
		await createRepo(site.hub, "acme/a-private-model-with-a-long-name-0.6B", "hf_alice_token", { private: true });
		const secret = await keepJob(database, "acme/a-private-model-with-a-long-name-0.6B", { isPrivate: true });
		await keepVariant(database, secret, "published");
		await keepVariant(database, await keepJob(database, "alice/open", { state: "failed" }), "published");
	});
	after(async () => {
		await browser.close();
		await site.close();
		await database.close();
		rmSync(folder, { recursive: true, force: true });
	});

	for (const shown of LOOKS) {
		test(`${shown.width} wide and ${shown.scheme}: no fault of accessibility, nothing beside the window`, async () => {
			const end = `${shown.width}-${shown.scheme}`;
			const held = await keepJob(database, "alice/open", { state: "waiting" });
			await holdJob(database.handle, held.id, new Date(Date.now() + 86_400_000));
			await keepFailedDelivery(database, "acme/open");
			const faults: string[] = [];
			for (const user of ["alice", "carol"]) {
				const context = await contextFor(browser, shown);
				const page = await context.newPage();
				const errors = consoleErrors(page);
				await signInAs(page, site.url, user);
				const paths = {
					models: "/",
					my: "/my",
					job: `/jobs/${held.id}`,
					...(user === "carol" ? { operator: "/operator" } : {}),
				};
				for (const [name, path] of Object.entries(paths)) {
					await page.goto(`${site.url}${path}`);
					faults.push(...(await pageFaults(page, `signed-in-${user}-${name}-${end}`)));
				}
				assert.deepEqual(errors, []);
				await context.close();
			}
			assert.deepEqual(faults, []);
		});
	}

	test("the buttons of a job's page follow its state without a reload", async () => {
		const context = await contextFor(browser, { width: 1280, scheme: "light" });
		const page = await context.newPage();
		const errors = consoleErrors(page);
		await signInAs(page, site.url, "alice");
		const job = await keepJob(database, "acme/open");
		await page.goto(`${site.url}/jobs/${job.id}`);
		const end = { id: job.id, from: "planned", to: "failed", fence: job.fence, owner: null, now: new Date() } as const;
		await page.getByRole("button", { name: "Cancel the job" }).waitFor();
		await moveJob(database.handle, { ...end, statusText: "It failed." });
		await page.getByRole("button", { name: "Try again" }).waitFor();
		assert.equal(await page.getByRole("button", { name: "Cancel the job" }).count(), 0);
		assert.deepEqual(errors, []);
		await context.close();
	});

	test("a job is cancelled, one let start and a delivery worked on anew with a click, with script and without", async () => {
		for (const javaScriptEnabled of [true, false]) {
			const context = await contextFor(browser, { width: 390, scheme: "light" }, { javaScriptEnabled });
			const page = await context.newPage();
			await signInAs(page, site.url, "carol");
			const job = await keepJob(database, "acme/open", { state: "waiting" });
			await holdJob(database.handle, job.id, new Date(Date.now() + 86_400_000));
			await page.goto(`${site.url}/jobs/${job.id}`);
			await page.getByRole("button", { name: "Let it start" }).click();
			await page.waitForLoadState();
			assert.equal((await getJob(database.handle, job.id))?.heldUntil, null);
			await page.getByRole("button", { name: "Cancel the job" }).click();
			await page.waitForLoadState();
			assert.equal((await getJob(database.handle, job.id))?.cancelRequested, true);
			assert.equal(await page.getByRole("button", { name: "Cancel the job" }).count(), 0);
			const id = await keepFailedDelivery(database, "acme/open");
			await page.goto(`${site.url}/operator`);
			await page.locator(`form[action="/operator/deliveries/${id}/replay"] button`).click();
			await page.waitForLoadState();
			assert.equal((await getDelivery(database.handle, id))?.outcome, "pending");
			await page.getByRole("button", { name: "Sign out" }).click();
			await page.waitForLoadState();
			assert.equal(await page.getByRole("link", { name: "Sign in" }).count(), 1);
			await context.close();
		}
	});

	test("a member sees what is private while signed in, cancels its job and signs out", async () => {
		const job = await keepJob(database, "acme/a-private-model-with-a-long-name-0.6B", { isPrivate: true });
		for (const javaScriptEnabled of [false, true]) {
			const look = { width: 390, scheme: "dark" } as const;
			const page = await (await contextFor(browser, look, { javaScriptEnabled })).newPage();
			assert.equal((await page.goto(`${site.url}/jobs/${job.id}`))?.status(), 404, "for nobody else");
			await signInAs(page, site.url, "alice");
			await page.goto(`${site.url}/jobs/${job.id}`);
			await keepPicture(page, `member-job-390-${javaScriptEnabled ? "script" : "bare"}`);
			if (!javaScriptEnabled) await page.getByRole("button", { name: "Cancel the job" }).click();
			assert.match((await page.locator("#part-head").textContent()) ?? "", /Being ended/);
			assert.equal((await getJob(database.handle, job.id))?.cancelRequested, true);
			await page.getByRole("button", { name: "Sign out" }).click();
			assert.equal((await page.goto(`${site.url}/jobs/${job.id}`))?.status(), 404);
		}
	});

	test("an operator has a failed delivery worked on anew", async () => {
		await keepFailedDelivery(database, "acme/other");
		const page = await (await contextFor(browser, { width: 1280, scheme: "light" })).newPage();
		await signInAs(page, site.url, "carol");
		await page.getByRole("link", { name: "Operator" }).click();
		const row = page.getByRole("row", { name: /acme\/other/ });
		assert.match((await row.textContent()) ?? "", /Failed/);
		const before = site.woken.length;
		await row.getByRole("button").click();
		await page.waitForURL(/\/operator/);
		assert.match((await page.getByRole("row", { name: /acme\/other/ }).textContent()) ?? "", /Pending/);
		assert.ok(site.woken.length > before, "the queue was told of it");
	});
});
