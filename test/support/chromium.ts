import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { type Browser, type BrowserContext, type BrowserContextOptions, chromium, type Page } from "playwright-core";
import { z } from "zod";

/** Where what was seen is kept, for people to look at: an ignored folder. */
const PICTURES = join(import.meta.dirname, "../../.cache/pictures");
const CANDIDATES = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

export const NO_CHROMIUM = "skipped: no chromium (apt-get install chromium, or name it: CHROMIUM=/path/to/chromium)";

/** The Chromium of this machine; `null`: there is none. */
export function findChromium(): string | null {
	const named = process.env["CHROMIUM"];
	const candidates = named === undefined || named === "" ? CANDIDATES : [named];
	return candidates.find((path) => existsSync(path)) ?? null;
}

export async function launchChromium(): Promise<Browser> {
	const executablePath = findChromium();
	assert.ok(executablePath !== null, NO_CHROMIUM);
	// Tests run as root in containers, where Chromium's own sandbox cannot be set up; it sees this repo's pages alone.
	return await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"] });
}

export type Look = { readonly width: 390 | 1280; readonly scheme: "light" | "dark" };
export const LOOKS: readonly Look[] = [
	{ width: 390, scheme: "light" },
	{ width: 390, scheme: "dark" },
	{ width: 1280, scheme: "light" },
	{ width: 1280, scheme: "dark" },
];

export function contextFor(
	browser: Browser,
	{ width, scheme }: Look,
	more: BrowserContextOptions = {},
): Promise<BrowserContext> {
	return browser.newContext({
		viewport: { width, height: width === 390 ? 844 : 900 },
		colorScheme: scheme,
		reducedMotion: "reduce",
		...(width === 390 ? { hasTouch: true, isMobile: true } : {}),
		...more,
	});
}

const Violations = z.array(
	z.object({ id: z.string(), help: z.string(), nodes: z.array(z.object({ target: z.unknown(), html: z.string() })) }),
);

/** What axe finds wrong with the page as it is shown, one line a violation. */
export async function axeFaults(page: Page): Promise<readonly string[]> {
	await page.evaluate(AXE);
	const found = Violations.parse(await page.evaluate("axe.run(document).then((result) => result.violations)"));
	return found.flatMap(({ id, help, nodes }) =>
		nodes.map(({ target, html }) => `${id}: ${help}: ${JSON.stringify(target)} ${html.slice(0, 200)}`),
	);
}

/** How many pixels the page is wider than the window. */
export async function overflow(page: Page): Promise<number> {
	return z
		.number()
		.parse(await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"));
}

export async function keepPicture(page: Page, name: string): Promise<void> {
	mkdirSync(PICTURES, { recursive: true });
	await page.screenshot({ path: join(PICTURES, `${name}.png`), fullPage: true });
}

/** What is wrong with the page as it is shown, one line each; its picture is kept under `name`. */
export async function pageFaults(page: Page, name: string): Promise<readonly string[]> {
	const faults = [...(await axeFaults(page))];
	const beside = await overflow(page);
	if (beside > 0) faults.push(`${beside} pixels too wide`);
	await keepPicture(page, name);
	return faults.map((fault) => `${name} ${fault}`);
}

/** Signs in through the Hub's own page, as a person does it. */
export async function signInAs(page: Page, siteUrl: string, user: string): Promise<void> {
	await page.goto(siteUrl);
	await page.getByRole("link", { name: "Sign in" }).click();
	await page.getByRole("button", { name: `Authorize as ${user}` }).click();
	await page.waitForURL(`${siteUrl}/**`);
	assert.equal(await page.locator("form.account span").textContent(), user);
}

/** Errors that the page's console tells of, from now on: a script that failed, a file that the policy kept out. */
export function consoleErrors(page: Page): readonly string[] {
	const errors: string[] = [];
	page.on("console", (message) => {
		if (message.type() === "error") errors.push(`${page.url()}: ${message.text()}`);
	});
	page.on("pageerror", (error) => void errors.push(`${page.url()}: ${error.message}`));
	return errors;
}
