import { closeSync, readFileSync } from "node:fs";
import process from "node:process";
import { SECRET_VARIABLES } from "./secrets.ts";

/** Where the program finds its secrets once it has begun anew. */
const DESCRIPTOR_VARIABLE = "YAQA_BOT_SECRETS_FD";
const DESCRIPTOR = 3;
const HANDED_VARIABLE = "YAQA_BOT_HANDED_SECRETS";
/** The shell puts its variable into a pipe, forgets it, and becomes the program. */
const SCRIPT = `exec ${DESCRIPTOR}<<END_OF_SECRETS
$${HANDED_VARIABLE}
END_OF_SECRETS
unset ${HANDED_VARIABLE}
exec "$@"`;

const SECRETS: ReadonlySet<string> = new Set(Object.values(SECRET_VARIABLES).flat());

/**
 * Begins the program anew with its secrets in a pipe instead of the environment.
 *
 * The system shows a process's first environment to every process of the same account for as long as it lives, whatever
 * the program deletes of it. A pipe is read once and gone. Does nothing where there is no secret to hide, or where the
 * system has no way to become another program; never returns otherwise.
 */
export function handOverSecrets(): void {
	const { env } = process;
	const handed = Object.fromEntries(Object.entries(env).filter(([name, value]) => SECRETS.has(name) && value !== ""));
	if (Object.keys(handed).length === 0 || process.platform === "win32" || typeof process.execve !== "function") return;
	// A parent that talks over the descriptor needs it.
	if (env["NODE_CHANNEL_FD"] !== undefined) return;
	const kept = Object.fromEntries(
		Object.entries(env).flatMap(([name, value]) => (SECRETS.has(name) || value === undefined ? [] : [[name, value]])),
	);
	process.execve(
		"/bin/sh",
		["sh", "-c", SCRIPT, "sh", process.execPath, ...process.execArgv, ...process.argv.slice(1)],
		{
			...kept,
			[DESCRIPTOR_VARIABLE]: String(DESCRIPTOR),
			[HANDED_VARIABLE]: Buffer.from(JSON.stringify(handed)).toString("base64"),
		},
	);
}

let received: Readonly<Record<string, string>> | null = null;

/** The environment with what was handed over. */
export function environmentWithSecrets(): Readonly<Record<string, string | undefined>> {
	if (received === null) {
		received = process.env[DESCRIPTOR_VARIABLE] === String(DESCRIPTOR) ? readHanded() : {};
		delete process.env[DESCRIPTOR_VARIABLE];
	}
	return { ...process.env, ...received };
}

function readHanded(): Readonly<Record<string, string>> {
	const text = readFileSync(DESCRIPTOR, "utf8");
	closeSync(DESCRIPTOR);
	const parsed: unknown = JSON.parse(Buffer.from(text.trim(), "base64").toString("utf8"));
	if (typeof parsed !== "object" || parsed === null) return {};
	return Object.fromEntries(
		Object.entries(parsed).flatMap(([name, value]) => (typeof value === "string" ? [[name, value]] : [])),
	);
}
