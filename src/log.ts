import { AsyncLocalStorage } from "node:async_hooks";

type LogLevel = "debug" | "info" | "warn" | "error";
type LogFields = Readonly<Record<string, unknown>>;

/** Structured log. WARN and ERROR keep a fixed message, so that they group; the particulars go into the fields. */
export type Log = {
	debug(message: string, fields?: LogFields): void;
	info(message: string, fields?: LogFields): void;
	warn(message: string, fields?: LogFields): void;
	error(message: string, fields?: LogFields): void;
	with(fields: LogFields): Log;
};

const SEVERITY: Readonly<Record<LogLevel, number>> = { debug: 10, info: 20, warn: 30, error: 40 };
const SECRET_FIELD = /token|secret|authorization|password|cookie/i;
/** A token of somebody who signed in is a JSON Web Token, with dots and hyphens. */
const SECRET_VALUE = /\bhf_oauth_[A-Za-z0-9_.-]{8,}|\b(hf|ghp|ghs|gho|github_pat)_[A-Za-z0-9_]{8,}/g;

function redact(key: string, value: unknown): unknown {
	if (SECRET_FIELD.test(key) && (typeof value === "string" || typeof value === "object")) return "[redacted]";
	if (value instanceof Error)
		return { name: value.name, message: redactText(value.message), stack: redactText(value.stack ?? "") };
	if (typeof value === "string") return redactText(value);
	return value;
}

/** Text with everything that looks like an access token blotted out. */
export function redactText(text: string): string {
	return text.replaceAll(SECRET_VALUE, "[redacted]");
}

/**
 * The one id that every line is written with which comes of the same cause: of a webhook, say, from its arrival to the
 * published repo, over all steps and restarts. It follows the work by itself, since whoever writes a line seldom knows.
 */
const traces = new AsyncLocalStorage<string>();

export function inTrace<T>(trace: string, work: () => T): T {
	return traces.run(trace, work);
}

export function currentTrace(): string | null {
	return traces.getStore() ?? null;
}

/** One JSON object a line, written by `write`. */
export function createLog(options: {
	level: LogLevel;
	write: (line: string) => void;
	now: () => Date;
	fields?: LogFields;
}): Log {
	const { level, write, now, fields = {} } = options;
	function emit(at: LogLevel, message: string, more: LogFields = {}): void {
		if (SEVERITY[at] < SEVERITY[level]) return;
		const trace = currentTrace();
		const line = {
			at: now().toISOString(),
			level: at,
			message: redactText(message),
			...(trace === null ? {} : { trace }),
			...fields,
			...more,
		};
		write(JSON.stringify(line, redact));
	}
	return {
		debug: (message, more) => emit("debug", message, more),
		info: (message, more) => emit("info", message, more),
		warn: (message, more) => emit("warn", message, more),
		error: (message, more) => emit("error", message, more),
		with: (more) => createLog({ level, write, now, fields: { ...fields, ...more } }),
	};
}

export const silentLog: Log = {
	debug: () => {},
	info: () => {},
	warn: () => {},
	error: () => {},
	with: () => silentLog,
};
