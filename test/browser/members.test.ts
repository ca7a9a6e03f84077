import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, describe, test } from "node:test";
import { createRepo } from "@huggingface/hub";
import type { Browser, Page } from "playwright-core";
import type { Database } from "../../src/db/database.ts";
import { insertDelivery, leaseDelivery, settleDelivery } from "../../src/db/deliveries.ts";
import { getJob, insertJob } from "../../src/db/jobs.ts";
import { setSourceVisibility } from "../../src/db/visibility.ts";
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
import { onEveryDatabase } from "../support/databases.ts";
import { type MemberSite, memberSite } from "../support/member-site.ts";

const JOB = randomUUID();
const REPO = "acme/private-model";
const SHA = "a".repeat(40);

await onEveryDatabase((databases, name) => {
	// What is seen does not depend on the database.
	if (name !== "PGlite") return;
	describe("signed in, in Chromium", { skip: findChromium() === null ? NO_CHROMIUM : false }, () => {
		let database: Database;
		let site: MemberSite;
		let browser: Browser;
		const now = new Date();
		before(async () => {
			database = await (await databases()).open();
			site = await memberSite(database);
			browser = await launchChromium();
			const { handle } = database;
			site.world.setHead(REPO, SHA);
			// Whether a member sees it is asked of the Hub.
			await createRepo({ hubUrl: site.hub.url, accessToken: "hf_alice_token", repo: REPO, private: true });
			await setSourceVisibility(handle, { repo: REPO, private: true, gated: "no", now });
			await insertJob(handle, {
				id: JOB,
				sourceRepo: REPO,
				sourceSha: SHA,
				state: "planned",
				statusText: "Planned.",
				refusal: null,
				facts: null,
				now,
			});
			const of = { id: randomUUID(), source: "hub", dedupeKey: "lost", receivedAt: now } as const;
			const body = { event: { action: "update", scope: "repo.content" }, repo: { type: "model", name: "acme/other" } };
			const { id } = await insertDelivery(handle, { ...of, body });
			const until = new Date(now.getTime() + 1000);
			await leaseDelivery(handle, { id, owner: "test", now, until });
			const failed = { outcome: "failed", detail: "The Hub did not answer.", nextAttemptAt: now } as const;
			await settleDelivery(handle, { id, owner: "test", ...failed });
		});
		after(async () => {
			await browser.close();
			await site.close();
			await database.close();
		});

		/** Through the Hub's own page, as a person does it. */
		async function signIn(page: Page, user: string): Promise<void> {
			await page.goto(site.url);
			await page.getByRole("link", { name: "Sign in" }).click();
			await page.getByRole("button", { name: `Authorize as ${user}` }).click();
			await page.waitForURL(`${site.url}/**`);
			assert.equal(await page.locator("form.account span").textContent(), user);
		}

		test("a member signs in, sees what is private, cancels its job and signs out", async () => {
			for (const javaScriptEnabled of [false, true]) {
				const look = { width: 390, scheme: "dark" } as const;
				const page = await (await contextFor(browser, look, { javaScriptEnabled })).newPage();
				assert.equal((await page.goto(`${site.url}/jobs/${JOB}`))?.status(), 404, "for nobody else");
				await signIn(page, "alice");
				await page.goto(`${site.url}/jobs/${JOB}`);
				await keepPicture(page, `member-job-390-${javaScriptEnabled ? "script" : "bare"}`);
				if (javaScriptEnabled) {
					assert.match((await page.locator("#part-head").textContent()) ?? "", /Being ended/);
				} else {
					await page.getByRole("button", { name: "Cancel the job" }).click();
					assert.match((await page.locator("#part-head").textContent()) ?? "", /Being ended/);
					assert.equal((await getJob(database.handle, JOB))?.cancelRequested, true);
				}
				await page.getByRole("button", { name: "Sign out" }).click();
				assert.equal((await page.goto(`${site.url}/jobs/${JOB}`))?.status(), 404);
			}
		});

		test("an operator has a failed delivery worked on anew", async () => {
			const page = await (await contextFor(browser, { width: 1280, scheme: "light" })).newPage();
			await signIn(page, "carol");
			await page.getByRole("link", { name: "Operator" }).click();
			const row = page.getByRole("row", { name: /acme\/other/ });
			assert.match((await row.textContent()) ?? "", /Failed/);
			const before = site.woken.length;
			await row.getByRole("button").click();
			await page.waitForURL(/\/operator/);
			assert.match((await page.getByRole("row", { name: /acme\/other/ }).textContent()) ?? "", /Pending/);
			assert.ok(site.woken.length > before, "the queue was told of it");
		});

		for (const look of LOOKS) {
			test(`pages of who is signed in have no fault, ${look.width} wide and ${look.scheme}`, async () => {
				const context = await contextFor(browser, look);
				const page = await context.newPage();
				const errors = consoleErrors(page);
				await signIn(page, "carol");
				const faults: string[] = [];
				for (const address of ["/", "/my", "/operator", `/jobs/${JOB}`]) {
					await page.goto(site.url + address);
					faults.push(...(await axeFaults(page)).map((fault) => `${address} ${fault}`));
					const beside = await overflow(page);
					if (beside > 0) faults.push(`${address} is ${beside} pixels too wide`);
					await keepPicture(page, `carol${address.replaceAll("/", "-").slice(0, 12)}-${look.width}-${look.scheme}`);
				}
				await context.close();
				assert.deepEqual(faults, []);
				assert.deepEqual(errors, []);
			});
		}
	});
});
