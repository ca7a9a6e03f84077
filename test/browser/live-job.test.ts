import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import type { Browser, Page } from "playwright-core";
import { waitFor } from "../../demo/follow-job.ts";
import { venvPython } from "../../demo/stack.ts";
import {
	axeFaults,
	consoleErrors,
	contextFor,
	findChromium,
	keepPicture,
	launchChromium,
	NO_CHROMIUM,
	overflow,
} from "../support/chromium.ts";
import { startTinyStack, type TinyStack } from "../support/tiny-stack.ts";

const skip =
	findChromium() === null
		? NO_CHROMIUM
		: existsSync(venvPython)
			? false
			: "skipped: no gpu-runner/.venv (npm run setup)";
const REPO = "demo/live-model";
const MINUTES = 60_000;

describe("a push in Chromium", { skip }, () => {
	let tiny: TinyStack;
	let browser: Browser;
	before(async () => {
		tiny = await startTinyStack({
			configuration: { watch: { namespaces: ["demo"], recipes: ["gguf:q4_0", "onnx:q4"] } },
		});
		browser = await launchChromium();
		await tiny.stack.startBot();
		await tiny.stack.webhookIsSetUp();
	});
	after(async () => {
		await browser.close();
		await tiny.close();
	});

	/** The job's page as it is reached from the list, once the push has made one. */
	async function openJob(page: Page): Promise<void> {
		const link = page.getByRole("link", { name: REPO });
		const look = async (): Promise<true | null> => {
			await page.goto(`${tiny.stack.botUrl}/jobs`);
			return (await link.count()) > 0 ? true : null;
		};
		await waitFor("A job in the list", look, { seconds: 120 });
		await link.first().click();
		await page.waitForURL(/\/jobs\/[0-9a-f-]{36}$/);
	}

	test("from the push to the published files, without a reload, on a phone, and without script", async () => {
		const wide = await (await contextFor(browser, { width: 1280, scheme: "light" })).newPage();
		const phone = await (await contextFor(browser, { width: 390, scheme: "dark" })).newPage();
		const bare = await (
			await contextFor(browser, { width: 390, scheme: "light" }, { javaScriptEnabled: false })
		).newPage();
		const errors = [consoleErrors(wide), consoleErrors(phone)];
		await tiny.push(REPO, await tiny.modelFiles());

		await openJob(wide);
		const address = wide.url();
		await phone.goto(address);
		await bare.goto(address);
		let loads = 0;
		wide.on("load", () => void loads++);
		await wide.getByText("This page follows the job.").waitFor();
		await keepPicture(wide, "live-under-way-1280");
		await wide.getByText("The job has ended.").waitFor({ timeout: 8 * MINUTES });

		assert.match(await wide.title(), new RegExp(`^Done: ${REPO}`));
		assert.equal(loads, 0, "the page followed the job without being loaded again");
		for (const page of [wide, phone]) {
			await page.locator("#part-timeline").getByText("Done").waitFor();
			assert.equal(await page.locator("#part-variants").getByText("Published").count(), 2);
			assert.deepEqual(await axeFaults(page), []);
			assert.equal(await overflow(page), 0);
		}
		// Without script the page is loaded anew by itself.
		await bare.locator("#part-timeline").getByText("Done").waitFor({ timeout: MINUTES });
		await keepPicture(wide, "live-done-1280");
		await keepPicture(phone, "live-done-390");
		assert.deepEqual(errors.flat(), []);
	});

	test("from the front page to the command that runs what was published, in four actions", async () => {
		const page = await (await contextFor(browser, { width: 390, scheme: "light" })).newPage();
		await page.goto(tiny.stack.botUrl);
		await page.getByRole("link", { name: REPO }).click();
		await page.getByLabel("Memory or hardware").fill("8 GB at 8k");
		await page.getByLabel("Runs in").selectOption("gguf");
		await page.getByRole("button", { name: "Which fits?" }).click();
		const command = (await page.locator(".answer pre code").textContent()) ?? "";
		const [, file = ""] = /-hf (\S+):Q4_0 /.exec(command) ?? [];
		assert.equal((await fetch(`${tiny.stack.hub.url}/api/models/${file}`)).status, 200, command);
		assert.deepEqual(await axeFaults(page), []);
		await keepPicture(page, "live-model-390");
	});

	test("an ONNX file is run by the browser of whoever asks, on a phone too, and what is written stays there", async () => {
		const page = await (await contextFor(browser, { width: 390, scheme: "light" })).newPage();
		const errors = consoleErrors(page);
		await page.goto(`${tiny.stack.botUrl}/variants?container=onnx`);
		await page.getByRole("link", { name: "onnx:q4" }).click();
		await page.getByRole("link", { name: "Try it in this browser" }).click();
		const sent: string[] = [];
		page.on("request", (request) => sent.push(`${request.method()} ${request.url()} ${request.postData() ?? ""}`));
		await page.getByLabel("Text to go on with").fill("secretly");
		await page.getByRole("button", { name: "Write on" }).click();
		await page.getByText(/tokens in [\d.]+ s/).waitFor({ timeout: MINUTES });
		const first = (await page.locator("#try-output").textContent()) ?? "";
		assert.ok(first.trim().length > 0);
		// The same files, greedily: the second time nothing is fetched, and the same is written.
		const fetched = sent.length;
		await page.getByRole("button", { name: "Write on" }).click();
		await page.getByText("Writing…").waitFor();
		await page.getByText(/tokens in [\d.]+ s/).waitFor({ timeout: MINUTES });
		assert.equal(await page.locator("#try-output").textContent(), first);
		assert.equal(sent.length, fetched);
		assert.ok(sent.some((request) => request.includes(".onnx")));
		assert.ok(!sent.some((request) => request.includes("secretly")));
		assert.deepEqual(await axeFaults(page), []);
		assert.equal(await overflow(page), 0);
		await keepPicture(page, "try-390");
		// A file that is gone is told of.
		await page.route("**/*.onnx", (route) => route.fulfill({ status: 404 }));
		await page.reload();
		await page.getByRole("button", { name: "Write on" }).click();
		await page.getByText("It did not work: The Hub answered 404").waitFor({ timeout: MINUTES });
		assert.deepEqual(
			errors.filter((error) => !error.includes("status of 404")),
			[],
		);
	});
});
