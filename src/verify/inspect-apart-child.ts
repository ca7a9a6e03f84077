import process from "node:process";
import { type InspectionRequest, isInspectionRequest, isReadAnswer } from "./inspect-apart-messages.ts";
import { inspectFiles } from "./inspect-files.ts";
import type { SourceReader } from "./source-reader.ts";

/** The child process of `inspect-apart.ts`: looks at files that its parent reads for it. It has no network and no token. */

const waiting = new Map<number, (bytes: Uint8Array) => void>();
let reads = 0;

function readerOf(files: InspectionRequest["files"]): SourceReader {
	return {
		files,
		read(path, start, end) {
			const id = reads++;
			process.send?.({ kind: "read", id, path, start, end });
			return new Promise((resolve) => waiting.set(id, resolve));
		},
	};
}

process.on("message", (message: unknown) => {
	if (isReadAnswer(message)) {
		waiting.get(message.id)?.(message.bytes);
		waiting.delete(message.id);
		return;
	}
	if (!isInspectionRequest(message)) return;
	inspectFiles(readerOf(message.files), message.terms).then(
		(result) => process.send?.({ kind: "result", result }),
		(error: unknown) => {
			process.stderr.write(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
			process.exit(70);
		},
	);
});
