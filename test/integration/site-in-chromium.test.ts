import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { Browser } from "playwright-core";
import {
	axeFaults,
	consoleErrors,
	contextFor,
	findChromium,
	launchChromium,
	NO_CHROMIUM,
	overflow,
} from "../support/chromium.ts";
import { siteContent } from "../support/site-content.ts";
import { startSite, type TestSite } from "../support/web-fixtures.ts";

/** The short form of `npm run test:browser`: the way that most people take, on a phone. */

const { data, pages } = siteContent();

describe("the site in Chromium", { skip: findChromium() === null ? NO_CHROMIUM : false }, () => {
	let site: TestSite;
	let browser: Browser;
	before(async () => {
		site = await startSite(data);
		browser = await launchChromium();
	});
	after(async () => {
		await browser.close();
		await site.close();
	});

	test("a model, the file that fits and a running job are read on a phone, by everybody", async () => {
		const page = await (await contextFor(browser, { width: 390, scheme: "dark" })).newPage();
		const errors = consoleErrors(page);
		for (const name of ["models", "model-fits", "job-running"]) {
			await page.goto(`${site.url}${pages[name]}`);
			assert.deepEqual(await axeFaults(page), [], name);
			assert.equal(await overflow(page), 0, name);
		}
		assert.deepEqual(errors, []);
	});
});
