import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { Browser } from "playwright-core";
import {
	consoleErrors,
	contextFor,
	findChromium,
	LOOKS,
	launchChromium,
	NO_CHROMIUM,
	pageFaults,
} from "../support/chromium.ts";
import { siteContent } from "../support/site-content.ts";
import { startSite, type TestSite } from "../support/web-fixtures.ts";

const { data, pages } = siteContent();

describe("the pages in Chromium", { skip: findChromium() === null ? NO_CHROMIUM : false }, () => {
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

	for (const look of LOOKS) {
		test(`${look.width} wide and ${look.scheme}: no fault of accessibility, nothing beside the window`, async () => {
			const context = await contextFor(browser, look);
			const page = await context.newPage();
			const errors = consoleErrors(page);
			const faults: string[] = [];
			for (const [name, address] of Object.entries(pages)) {
				await page.goto(`${site.url}${address}`);
				faults.push(...(await pageFaults(page, `${name}-${look.width}-${look.scheme}`)));
			}
			await context.close();
			assert.deepEqual(faults, []);
			assert.deepEqual(
				errors.filter((error) => !error.includes("status of 404")),
				[],
			);
		});
	}

	test("from a question to a pasted command in four actions", async () => {
		for (const javaScriptEnabled of [true, false]) {
			const context = await contextFor(browser, { width: 1280, scheme: "light" }, { javaScriptEnabled });
			const page = await context.newPage();
			await page.goto(site.url);
			await page.getByRole("link", { name: "lab/Example-8B-Instruct" }).click();
			await page.getByLabel("Memory or hardware").fill("8 GB at 8k");
			await page.getByLabel("Runs in").selectOption("gguf");
			await page.getByRole("button", { name: "Which fits?" }).click();
			const answer = page.locator(".answer");
			assert.match((await answer.textContent()) ?? "", /gguf:q6_k/);
			const command = (await answer.locator("pre code").first().textContent()) ?? "";
			assert.match(command, /^llama-cli -hf yaqa-bot\/Example-8B-Instruct-YAQA-GGUF:Q6_K/);
			await context.close();
		}
	});
});
