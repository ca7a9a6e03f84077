import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { cleanEnvironment, root } from "../../demo/stack.ts";
import { rehearsalSteps } from "../support/rehearsal-steps.ts";

/**
 * `npm run test:rehearsal`: types the rehearsal of docs/operating.md, and holds that every step ends well and that the
 * findings are those the text promises. The last line is one JSON document.
 */

const LIMIT_SECONDS = 3600;

async function freePort(): Promise<string> {
	const server = createServer().listen(0, "127.0.0.1");
	await once(server, "listening");
	const address = server.address();
	server.close();
	if (address === null || typeof address === "string") throw new Error("No port is free.");
	return String(address.port);
}

/** What the steps have to have said, besides having ended well. */
const EXPECTED: Readonly<Record<string, readonly RegExp[]>> = {
	Doctor: [
		/✓ HF Jobs .*may list and start jobs of staging/,
		/✓ Publisher token .*made, wrote and deleted a private repo in quants/,
		/✓ Staging is apart .*was refused in quants/,
		/! Watch rules .*nothing is watched/,
		/! Webhook .*not registered yet/,
		/The bot can work\./,
	],
	Watch: [/no user or organisation "labb"/, /refused, as it should be/, /Webhook: active, for lab/],
	"The end": [/Nothing is watched\./, /Webhook: not registered/],
};

const place = mkdtempSync(join(tmpdir(), "yaqa-rehearsal-"));
const steps = rehearsalSteps();
const script = [
	"set -eo pipefail",
	...steps.flatMap(({ title, commands }) => [`echo "=== ${title}"`, commands]),
	'echo "=== ended"',
].join("\n");
const began = performance.now();
const child = spawn("bash", ["-c", script], {
	cwd: root,
	// A group of its own, so that what it leaves in the background can be ended.
	detached: true,
	stdio: ["ignore", "pipe", "pipe"],
	env: cleanEnvironment({ PLACE: place, HUB_PORT: await freePort(), BOT_PORT: await freePort(), NO_COLOR: "1" }),
});
let output = "";
for (const stream of [child.stdout, child.stderr]) {
	stream.setEncoding("utf8");
	stream.on("data", (text: string) => {
		output += text;
		process.stderr.write(text);
	});
}
function endGroup(signal: NodeJS.Signals): void {
	try {
		if (child.pid !== undefined) process.kill(-child.pid, signal);
	} catch {
		// Nothing is left of it.
	}
}
const timer = setTimeout(() => endGroup("SIGKILL"), LIMIT_SECONDS * 1000);
const [code] = (await once(child, "close")) as [number | null];
clearTimeout(timer);
endGroup("SIGKILL");

const parts = new Map(
	output
		.split(/^=== /m)
		.slice(1)
		.map((part) => [part.slice(0, part.indexOf("\n")), part] as const),
);
const missing = Object.entries(EXPECTED).flatMap(([title, expressions]) =>
	expressions.filter((one) => !one.test(parts.get(title) ?? "")).map((one) => `${title}: ${one}`),
);
const ok = code === 0 && missing.length === 0 && parts.has("ended");
if (!ok) {
	for (const name of ["hub.log", "bot.log", "waits.log"]) {
		const path = join(place, name);
		if (existsSync(path)) process.stderr.write(`--- ${name}\n${readFileSync(path, "utf8").slice(-4000)}\n`);
	}
} else rmSync(place, { recursive: true, force: true });
const seconds = Math.round((performance.now() - began) / 1000);
process.stdout.write(
	`${JSON.stringify({ ok, steps: steps.length, seconds, code, missing, ...(ok ? {} : { place }) })}\n`,
);
process.exitCode = ok ? 0 : 1;
