import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { parseJson } from "../parse-json.ts";
import { type ResultEvent, RunnerEvent } from "../protocol/events.ts";

const READ_BYTES = 1024 * 1024;
/** No event comes near; a longer line is not one. */
const MAXIMUM_LINE_BYTES = 1024 * 1024;

export type EventPosition = { readonly number: number; readonly offset: number };
export type NumberedEvent = { readonly number: number; readonly event: RunnerEvent };

function open(path: string): number | null {
	try {
		return openSync(path, "r");
	} catch (error) {
		if (error instanceof Error && "code" in error && error.code === "ENOENT") return null;
		throw error;
	}
}

/** `null` for a line that is no event of this attempt: a stray print of some library, or another attempt's output. */
export function parseEventLine(line: string, attempt: { job: string; fence: number }): RunnerEvent | null {
	const parsed = RunnerEvent.safeParse(parseJson(line));
	if (!parsed.success) return null;
	return parsed.data.job === attempt.job && parsed.data.fence === attempt.fence ? parsed.data : null;
}

/**
 * The whole lines after `from`, at most about 1 MiB of them. Every line has a number, also those that are skipped, so
 * that numbers do not depend on what this version understands.
 */
export function readEvents(
	path: string,
	from: EventPosition,
	attempt: { job: string; fence: number },
): { readonly events: readonly NumberedEvent[]; readonly position: EventPosition } {
	const file = open(path);
	if (file === null) return { events: [], position: from };
	try {
		const buffer = Buffer.alloc(READ_BYTES);
		let { number, offset } = from;
		const events: NumberedEvent[] = [];
		let skipping = false;
		for (;;) {
			const bytes = readSync(file, buffer, 0, READ_BYTES, offset);
			const end = buffer.subarray(0, bytes).lastIndexOf(0x0a);
			if (end < 0) {
				if (bytes < MAXIMUM_LINE_BYTES) break;
				skipping = true;
				offset += bytes;
				continue;
			}
			const lines = buffer.subarray(0, end).toString("utf8").split("\n");
			for (const line of lines) {
				number++;
				const event = skipping ? null : parseEventLine(line, attempt);
				skipping = false;
				if (event !== null) events.push({ number, event });
			}
			offset += end + 1;
			break;
		}
		return { events, position: skipping ? from : { number, offset } };
	} finally {
		closeSync(file);
	}
}

/** The result, when the file's last whole line is one. */
export function readResult(path: string, attempt: { job: string; fence: number }): ResultEvent | null {
	const file = open(path);
	if (file === null) return null;
	try {
		const { size } = fstatSync(file);
		const length = Math.min(size, MAXIMUM_LINE_BYTES + 1);
		const buffer = Buffer.alloc(length);
		readSync(file, buffer, 0, length, size - length);
		const text = buffer.toString("utf8");
		// What follows the last newline was cut off while it was written.
		const lines = text
			.slice(0, text.lastIndexOf("\n") + 1)
			.trimEnd()
			.split("\n");
		const event = parseEventLine(lines.at(-1) ?? "", attempt);
		return event?.event === "result" ? event : null;
	} finally {
		closeSync(file);
	}
}
