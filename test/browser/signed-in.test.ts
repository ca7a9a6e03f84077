import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { Browser, Page } from "playwright-core";
import { systemClock } from "../../src/clock.ts";
import { holdJob } from "../../src/db/admission.ts";
import type { Database } from "../../src/db/database.ts";
import { getDelivery, insertDelivery, leaseDelivery, settleDelivery } from "../../src/db/deliveries.ts";
import { getJob, moveJob } from "../../src/db/jobs.ts";
import { openDatabase } from "../../src/db/open-database.ts";
import { silentLog } from "../../src/log.ts";
import {
	axeFaults,
	consoleErrors,
	contextFor,
	findChromium,
	keepPicture,
	LOOKS,
	launchChromium,
	NO_CHROMIUM,
	overflow,
} from "../support/chromium.ts";
import { createRepo } from "../support/local-hub-fixture.ts";
import { keepJob, keepVariant } from "../support/member-records.ts";
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

	async function failedDelivery(): Promise<string> {
		const id = randomUUID();
		const now = new Date();
		const body = { event: { action: "update", scope: "repo.content" }, repo: { type: "model", name: "acme/open" } };
		await insertDelivery(database.handle, { id, source: "hub", dedupeKey: id, receivedAt: now, body });
		await leaseDelivery(database.handle, { id, owner: "x", now, until: new Date(now.getTime() + 1000) });
		const detail = "The Hub did not answer.";
		await settleDelivery(database.handle, { id, owner: "x", outcome: "failed", detail, nextAttemptAt: now });
		return id;
	}
	async function signIn(page: Page, user: string): Promise<void> {
		await page.goto(site.url);
		await page.getByRole("link", { name: "Sign in" }).click();
		await page.getByRole("button", { name: `Authorize as ${user}` }).click();
		await page.waitForURL(`${site.url}/**`);
	}
	async function look(page: Page, name: string): Promise<readonly string[]> {
		const faults = [...(await axeFaults(page))];
		const beside = await overflow(page);
		if (beside > 0) faults.push(`${beside} pixels too wide`);
		await keepPicture(page, name);
		return faults.map((fault) => `${name} ${fault}`);
	}

	for (const shown of LOOKS) {
		test(`${shown.width} wide and ${shown.scheme}: no fault of accessibility, nothing beside the window`, async () => {
			const end = `${shown.width}-${shown.scheme}`;
			const held = await keepJob(database, "alice/open", { state: "waiting" });
			await holdJob(database.handle, held.id, new Date(Date.now() + 86_400_000));
			await failedDelivery();
			const faults: string[] = [];
			for (const user of ["alice", "carol"]) {
				const context = await contextFor(browser, shown);
				const page = await context.newPage();
				const errors = consoleErrors(page);
				await signIn(page, user);
				const paths = {
					models: "/",
					my: "/my",
					job: `/jobs/${held.id}`,
					...(user === "carol" ? { operator: "/operator" } : {}),
				};
				for (const [name, path] of Object.entries(paths)) {
					await page.goto(`${site.url}${path}`);
					faults.push(...(await look(page, `signed-in-${user}-${name}-${end}`)));
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
		await signIn(page, "alice");
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
			await signIn(page, "carol");
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
			const id = await failedDelivery();
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
});
