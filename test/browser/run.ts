import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { findChromium } from "../support/chromium.ts";

/** `npm run test:browser`: the site in Chromium. Pictures of every page are kept in `.cache/pictures`. */
if (findChromium() === null) {
	process.stderr.write(
		"There is no Chromium here. Install the system's package (Debian: apt-get install chromium), or name one: CHROMIUM=/path/to/chromium npm run test:browser\n",
	);
	process.exit(1);
}
const files = readdirSync(import.meta.dirname)
	.filter((name) => name.endsWith(".test.ts"))
	.map((name) => join(import.meta.dirname, name));
const child = spawn(process.execPath, ["--test", "--test-concurrency=1", ...process.argv.slice(2), ...files], {
	stdio: "inherit",
});
const [code] = (await once(child, "close")) as [number | null];
process.exitCode = code ?? 1;
