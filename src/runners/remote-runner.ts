import { setTimeout as sleep } from "node:timers/promises";
import { type Refusal, RetryableError } from "../errors.ts";
import { type Log, redactText } from "../log.ts";
import type { JobSpec } from "../protocol/job-spec.ts";
import { type Attempt, attemptHandle, attemptOf } from "../records/attempt.ts";
import type { HubStaging } from "./hub-staging.ts";
import { type NumberedEvent, parseEventLine } from "./run-events.ts";
import type { Observation, Placement, Runner } from "./runner.ts";

/** What an engine says of one of its runs. */
export type RemoteRun = {
	readonly id: string;
	readonly createdAt: Date;
	readonly state:
		| { readonly kind: "queued" }
		| { readonly kind: "running" }
		/** It ended well, as the engine sees it. */
		| { readonly kind: "succeeded" }
		/** It ended otherwise: what that means, should it have left no result. */
		| { readonly kind: "ended"; readonly refusal: Refusal; readonly retryable: boolean };
};

type ReadLog = (id: string, onLine: (line: string) => void, signal: AbortSignal) => Promise<void>;

/** A service that runs jobs on machines of its own. */
export type RemoteEngine = {
	readonly name: string;
	/** What people call it. */
	readonly title: string;
	/** Every run of the attempt, by the mark that `start` puts on them. */
	list(attempt: Attempt): Promise<readonly RemoteRun[]>;
	get(id: string): Promise<RemoteRun | null>;
	/**
	 * Asks once for a run, marked with the attempt; its id where the answer names it. A `RetryableError` leaves open
	 * whether the run was accepted.
	 */
	start(spec: JobSpec, stagingRepo: string, placement: Placement): Promise<string | null>;
	/** Asks for the end of a run; that it has ended, or is gone, is fine. `force`: asking before was not enough. */
	cancel(id: string, force: boolean): Promise<void>;
	/** One connection to what the run prints, from its first line; resolves when the other side ends it. */
	readLog: ReadLog | null;
	/** What an ended run printed. */
	readonly readEndedLog: ReadLog;
};

/** How runs whose output nobody can read while they go on tell of themselves. */
export type ProgressChannel = {
	/** Where the attempt's run sends its events, and the token that lets it. */
	grant(attempt: Attempt): { readonly url: string; readonly token: string };
	/** Events that arrived, from the `after`th on. */
	read(attempt: Attempt, after: number): Promise<readonly NumberedEvent[]>;
	forget(attempt: Attempt): Promise<void>;
};

export type RemoteRunnerOptions = {
	readonly engine: RemoteEngine;
	/** `null` where the bot cannot be reached from outside. */
	readonly progress?: ProgressChannel | null;
	readonly staging: HubStaging;
	readonly log: Log;
	readonly now?: () => Date;
	/** An engine's answer is good for so long. */
	readonly pollMilliseconds: number;
	/** How long a run may take to show up after a start whose answer was lost. */
	readonly settleMilliseconds: number;
	/** A run that no machine has taken for so long is given up. */
	readonly queueMilliseconds: number;
	/** How long a cancelled run may take to end before it is forced, and then again before that is a failure. */
	readonly cancelMilliseconds: number;
};

const MOST_LOG_LINES = 8;
const TAIL_MILLISECONDS = 5000;
const LONGEST_RECONNECT_MILLISECONDS = 30_000;

function isOver(run: RemoteRun): boolean {
	return run.state.kind === "succeeded" || run.state.kind === "ended";
}

/** What one process remembers of a run. All of it can be found again. */
type Memory = {
	id: string | null;
	seen: { readonly run: RemoteRun | null; readonly at: number } | null;
	readonly events: Map<number, NumberedEvent>;
	/** The last lines that were no events: what a person looks for first. */
	readonly tail: string[];
	stream: AbortController | null;
	/** When the staged events were last read, and whether they were all there will be. */
	readAt: number;
	complete: boolean;
};

function newMemory(): Memory {
	return { id: null, seen: null, events: new Map(), tail: [], stream: null, readAt: 0, complete: false };
}

function keepLine(memory: Memory, line: string, attempt: Attempt): void {
	const event = parseEventLine(line, attempt);
	if (event === null) {
		memory.tail.push(redactText(line).slice(0, 500));
		if (memory.tail.length > MOST_LOG_LINES) memory.tail.shift();
	} else if (event.number !== undefined) {
		memory.events.set(event.number, { number: event.number, event });
	}
}

/** Keeps what a run's log says, over any number of connections. Numbers tell repeated events from new ones. */
function followLog(
	readLog: ReadLog,
	id: string,
	attempt: Attempt,
	memory: Memory,
	options: { readonly pollMilliseconds: number; readonly log: Log },
): void {
	const controller = new AbortController();
	memory.stream = controller;
	const { signal } = controller;
	const follow = async (): Promise<void> => {
		for (let failures = 0; !signal.aborted; ) {
			const before = memory.events.size;
			try {
				memory.tail.length = 0;
				await readLog(id, (line) => keepLine(memory, line, attempt), signal);
			} catch (error) {
				if (signal.aborted) return;
				options.log.debug("A run's log broke off", { run: id, error });
			}
			// Streams close early; the run's end shows in its state, not by this.
			failures = memory.events.size > before ? 0 : failures + 1;
			const pause = Math.min(LONGEST_RECONNECT_MILLISECONDS, options.pollMilliseconds * 2 ** Math.min(failures, 10));
			await sleep(pause, undefined, { signal, ref: false }).catch(() => undefined);
		}
	};
	void follow();
}

/** The end of an ended run's log. Without it the refusal is still reported. */
async function readTail(
	id: string,
	attempt: Attempt,
	memory: Memory,
	{ engine, log }: Pick<RemoteRunnerOptions, "engine" | "log">,
): Promise<void> {
	try {
		await engine.readEndedLog(id, (line) => keepLine(memory, line, attempt), AbortSignal.timeout(TAIL_MILLISECONDS));
	} catch (error) {
		log.debug("A run's log could not be read", { run: id, error });
	}
}

function newer(memory: Memory, after: number): readonly NumberedEvent[] {
	return [...memory.events.values()]
		.filter((event) => event.number > after)
		.sort((one, other) => one.number - other.number);
}

function lost(memory: Memory, refusal: Refusal, retryable: boolean): Observation {
	const tail = memory.tail.join("\n").slice(-1500);
	const message = tail === "" ? refusal.message : `${refusal.message} The end of its log:\n${tail}`;
	return { status: "lost", refusal: { ...refusal, message }, retryable };
}

/** What a run that left no result has come to. `title`: what people call the engine. */
function outcomeOf(run: RemoteRun | null, memory: Memory, title: string): Observation {
	if (run === null) {
		return lost(
			memory,
			{
				code: "runner-lost",
				message: `${title} no longer knows the run.`,
				remedy: "Somebody deleted it there. Retry the job.",
			},
			true,
		);
	}
	switch (run.state.kind) {
		case "queued":
		case "running":
			return { status: "running" };
		case "succeeded":
			return lost(
				memory,
				{
					code: "runner-lost",
					message: `${title} calls the run a success, but it delivered no result.`,
					remedy: "The operator checks that its runner is yaqa-runner of this version, then retries the job.",
				},
				false,
			);
		case "ended":
			return lost(memory, run.state.refusal, run.state.retryable);
	}
}

/** Returns when the run has ended, forced if need be. */
async function endRun(id: string, options: RemoteRunnerOptions): Promise<void> {
	const { engine, cancelMilliseconds, pollMilliseconds } = options;
	for (const force of [false, true]) {
		try {
			await engine.cancel(id, force);
		} catch (error) {
			// Whether it was heard shows in the run's state.
			if (!(error instanceof RetryableError)) throw error;
		}
		const deadline = Date.now() + cancelMilliseconds;
		for (;;) {
			const run = await engine.get(id);
			if (run === null || isOver(run)) return;
			if (Date.now() > deadline) break;
			await sleep(Math.min(pollMilliseconds, 1000));
		}
	}
	throw new RetryableError(`${engine.title} has not ended the run ${id} yet.`);
}

/**
 * A runner over an engine elsewhere. The engine's list of runs and the staging repo are the truth; this only asks. Long,
 * since its operations share what was last seen of each run.
 */
export function createRemoteRunner(options: RemoteRunnerOptions): Runner {
	const { engine, staging, log, pollMilliseconds } = options;
	// Where the output can be read, that is enough.
	const progress = engine.readLog === null ? (options.progress ?? null) : null;
	const now = options.now ?? (() => new Date());
	const memories = new Map<string, Memory>();

	function memoryOf(handle: string): Memory {
		const known = memories.get(handle);
		if (known !== undefined) return known;
		const made = newMemory();
		memories.set(handle, made);
		return made;
	}

	/** The run that carries the attempt out: of several, which only a lost answer can cause, the first. */
	async function find(attempt: Attempt): Promise<RemoteRun | null> {
		const runs = [...(await engine.list(attempt))].sort(
			(one, other) => one.createdAt.getTime() - other.createdAt.getTime() || (one.id < other.id ? -1 : 1),
		);
		const [first = null, ...others] = runs;
		for (const other of others) {
			if (isOver(other)) continue;
			log.warn("An attempt was started twice; the second run is ended", { run: other.id, ...attempt });
			await engine.cancel(other.id, false);
		}
		return first;
	}

	/** As the engine sees it, asked anew when the last answer is too old. */
	async function look(handle: string, notBefore: Date | null = null): Promise<RemoteRun | null> {
		const memory = memoryOf(handle);
		const { seen } = memory;
		const isFresh = seen !== null && now().getTime() - seen.at < pollMilliseconds;
		if (seen !== null && isFresh && seen.at >= (notBefore?.getTime() ?? 0)) return seen.run;
		const run = memory.id === null ? await find(attemptOf(handle)) : await engine.get(memory.id);
		if (run !== null) memory.id = run.id;
		memory.seen = { run, at: now().getTime() };
		return run;
	}

	async function waitForStart(attempt: Attempt): Promise<RemoteRun | null> {
		const deadline = Date.now() + options.settleMilliseconds;
		for (;;) {
			const run = await find(attempt);
			if (run !== null || Date.now() > deadline) return run;
			await sleep(Math.min(pollMilliseconds, 2000));
		}
	}

	async function discard(handle: string): Promise<void> {
		memories.get(handle)?.stream?.abort();
		memories.delete(handle);
		await progress?.forget(attemptOf(handle));
		await staging.discard(attemptOf(handle));
	}

	return {
		name: engine.name,
		isRemote: true,

		async dispatch(spec, placement = { flavor: null }) {
			const attempt = { job: spec.job, fence: spec.fence };
			const handle = attemptHandle(attempt);
			const memory = memoryOf(handle);
			let run = await find(attempt);
			if (run === null) {
				const granted = progress?.grant(attempt);
				await staging.prepare({ ...spec, ...(granted === undefined ? {} : { progress: granted }) });
				try {
					memory.id = await engine.start(spec, staging.repoOf(attempt), placement);
				} catch (error) {
					if (!(error instanceof RetryableError)) throw error;
					// Asked again, the engine would start a second run if it took the first.
					run = await waitForStart(attempt);
					if (run === null) throw error;
				}
				if (memory.id === null && run === null) {
					run = await waitForStart(attempt);
					if (run === null) throw new RetryableError(`${engine.title} does not show the run it was asked for.`);
				}
			}
			if (run !== null) memory.id = run.id;
			log.info("A remote run was started", { runner: engine.name, run: memory.id, ...attempt });
			return { handle };
		},

		async find(job, fence) {
			const attempt = { job, fence };
			if ((await find(attempt)) !== null || (await staging.exists(attempt))) return attemptHandle(attempt);
			return null;
		},

		async observe(handle, notBefore = null) {
			const attempt = attemptOf(handle);
			const memory = memoryOf(handle);
			const run = await look(handle, notBefore);
			if (run !== null && !isOver(run)) {
				const waited = now().getTime() - run.createdAt.getTime();
				if (run.state.kind !== "queued" || waited < options.queueMilliseconds) return { status: "running" };
				await endRun(run.id, options);
				return lost(
					memory,
					{
						code: "runner-unavailable",
						message: `No machine of ${engine.title} took the run within ${Math.round(options.queueMilliseconds / 60_000)} minutes.`,
						remedy:
							"Whoever keeps those machines starts one, or the operator chooses another runner; then retry the job.",
					},
					false,
				);
			}
			memory.stream?.abort();
			const result = await staging.result(attempt);
			if (result !== null) return { status: "finished", result };
			if (run !== null && memory.tail.length === 0) await readTail(run.id, attempt, memory, options);
			return outcomeOf(run, memory, engine.title);
		},

		async events(handle, after) {
			const attempt = attemptOf(handle);
			const memory = memoryOf(handle);
			const run = await look(handle);
			if (run !== null && !isOver(run) && engine.readLog !== null) {
				if (memory.stream === null) followLog(engine.readLog, run.id, attempt, memory, { pollMilliseconds, log });
			} else if (!memory.complete) {
				const ended = run === null || isOver(run);
				if (progress !== null) {
					const known = Math.max(after, ...memory.events.keys());
					for (const event of await progress.read(attempt, known)) memory.events.set(event.number, event);
				}
				if (!ended && now().getTime() - memory.readAt < pollMilliseconds) return newer(memory, after);
				memory.readAt = now().getTime();
				// What was delivered is whole; a log may have lost its last lines.
				for (const event of await staging.events(attempt)) memory.events.set(event.number, event);
				memory.complete = ended;
			}
			return newer(memory, after);
		},

		async cancel(handle) {
			const attempt = attemptOf(handle);
			memories.get(handle)?.stream?.abort();
			const ids = new Set((await engine.list(attempt)).filter((run) => !isOver(run)).map((run) => run.id));
			const known = memories.get(handle)?.id ?? null;
			if (known !== null) ids.add(known);
			for (const id of ids) {
				const run = await engine.get(id);
				if (run !== null && !isOver(run)) await endRun(id, options);
			}
			const memory = memories.get(handle);
			if (memory !== undefined) memory.seen = null;
		},

		async collect(handle, directory) {
			await staging.collect(attemptOf(handle), directory);
		},

		// Nothing of a run is anywhere but on its machine before it delivers.
		setAside: discard,
		discard,
		listHeld: async () => [],
	};
}
