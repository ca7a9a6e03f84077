import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { type InspectionRequest, isInspectionResult, isReadRequest } from "./inspect-apart-messages.ts";
import { type FilesInspection, inspectFiles, type ModelTerms } from "./inspect-files.ts";
import { refusal } from "./refusals.ts";
import type { SourceReader } from "./source-reader.ts";

export type ApartLimits = {
	/** Bytes of headers and JSON that are looked at in this process: what so few can be read into is bounded. */
	readonly bytesHere: number;
	/** Bytes that a source is looked at altogether. */
	readonly bytes: number;
	readonly heapMegabytes: number;
	/** What the child may take for itself, its waiting for bytes not counted. */
	readonly milliseconds: number;
};

/** Headers of the largest mixtures of experts have about 30 MB together. */
const LIMITS: ApartLimits = { bytesHere: 8 * 2 ** 20, bytes: 512 * 2 ** 20, heapMegabytes: 1024, milliseconds: 60_000 };

const CHILD = fileURLToPath(new URL("./inspect-apart-child.ts", import.meta.url));

class TooMuchHere extends Error {}

function tooMuch(what: string): FilesInspection {
	return {
		ok: false,
		refusal: refusal(
			"broken-safetensors",
			`The headers and configuration of this model ${what}; those of no known model do.`,
			"The owner of the repo can push weights with the tensors of the model alone; the bot looks again at every push.",
		),
	};
}

/** The same files; `before` is told of every read, and may throw. */
function watched(reader: SourceReader, before: (bytes: number) => void): SourceReader {
	return {
		files: reader.files,
		async read(path, start, end) {
			before(end - start);
			return await reader.read(path, start, end);
		},
	};
}

/**
 * As `inspectFiles`. A source with much to look at, which could be made to exhaust whoever parses it, is looked at by a
 * child process with a limit on its heap and its time: the child dies of it, and the source is refused.
 */
export async function inspectApart(
	reader: SourceReader,
	terms: ModelTerms,
	apart: ApartLimits = LIMITS,
): Promise<FilesInspection> {
	let bytes = 0;
	try {
		const guarded = watched(reader, (more) => {
			bytes += more;
			if (bytes > apart.bytesHere) throw new TooMuchHere();
		});
		return await inspectFiles(guarded, terms);
	} catch (error) {
		if (!(error instanceof TooMuchHere)) throw error;
	}
	return await inspectInChild(reader, terms, apart);
}

/** Long, since the child's messages, its clock and its end share what is known of it. */
function inspectInChild(reader: SourceReader, terms: ModelTerms, apart: ApartLimits): Promise<FilesInspection> {
	const sizes = new Map(reader.files.map((file) => [file.path, file.size]));
	return new Promise((resolve, reject) => {
		const child = fork(CHILD, [], {
			serialization: "advanced",
			env: {},
			stdio: ["ignore", "ignore", "pipe", "ipc"],
			execArgv: [
				`--max-old-space-size=${apart.heapMegabytes}`,
				"--permission",
				"--allow-fs-read=*",
				"--disable-warning=SecurityWarning",
				"--disable-warning=ExperimentalWarning",
			],
		});
		let complaints = "";
		let bytes = 0;
		let outcome: { readonly result: FilesInspection } | { readonly error: unknown } | null = null;
		const end = (how: NonNullable<typeof outcome>): void => {
			outcome ??= how;
			child.kill("SIGKILL");
		};
		let remaining = apart.milliseconds;
		let since = Date.now();
		let timer: NodeJS.Timeout | undefined;
		const startClock = (): void => {
			since = Date.now();
			timer = setTimeout(() => end({ result: tooMuch("take too long to look at") }), remaining);
		};
		const stopClock = (): void => {
			clearTimeout(timer);
			remaining -= Date.now() - since;
		};
		const answer = async (path: string, from: number, to: number, id: number): Promise<void> => {
			const size = sizes.get(path);
			if (size === undefined || from < 0 || to < from || to > size)
				throw new Error("The child asked for no such bytes.");
			bytes += to - from;
			if (bytes > apart.bytes) {
				end({ result: tooMuch("take more bytes than are looked at") });
				return;
			}
			const read = await reader.read(path, from, to);
			startClock();
			child.send({ kind: "bytes", id, bytes: read }, () => undefined);
		};
		child.stderr?.setEncoding("utf8").on("data", (text: string) => {
			complaints = (complaints + text).slice(-2000);
		});
		child.on("message", (message: unknown) => {
			stopClock();
			if (isInspectionResult(message)) end({ result: message.result });
			else if (isReadRequest(message)) {
				answer(message.path, message.start, message.end, message.id).catch((error: unknown) => end({ error }));
			}
		});
		child.on("error", (error) => end({ error }));
		child.on("close", (code, signal) => {
			stopClock();
			if (outcome === null) {
				// V8 ends a process whose heap is full by SIGABRT; the system one that takes too much by SIGKILL.
				if (signal !== null || code === 134) resolve(tooMuch("take more memory to look at than there is for it"));
				else
					reject(new Error(`The files could not be looked at (exit code ${code}). ${complaints.trim().slice(-500)}`));
			} else if ("result" in outcome) resolve(outcome.result);
			else reject(outcome.error);
		});
		startClock();
		const request: InspectionRequest = { kind: "inspect", files: reader.files, terms };
		child.send(request, () => undefined);
	});
}
