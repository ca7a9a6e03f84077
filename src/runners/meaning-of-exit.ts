import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { diskFull } from "../disk-full.ts";
import type { Refusal } from "../errors.ts";
import { redactText } from "../log.ts";
import { RUNNER_EXIT_CODES } from "../protocol/runner-exit-codes.ts";
import type { RunExit, RunFiles } from "./run-files.ts";
import type { Observation } from "./runner.ts";

/** The end of the run's stderr: what a person looks for first. */
function logTail(files: RunFiles): string {
	let file: number;
	try {
		file = openSync(files.log, "r");
	} catch {
		return "";
	}
	try {
		const { size } = fstatSync(file);
		const buffer = Buffer.alloc(Math.min(size, 2000));
		readSync(file, buffer, 0, buffer.length, size - buffer.length);
		const lines = redactText(buffer.toString("utf8")).trim().split("\n");
		return lines.slice(-8).join("\n").slice(-1500);
	} finally {
		closeSync(file);
	}
}

function withTail(message: string, files: RunFiles): string {
	const tail = logTail(files);
	return tail === "" ? message : `${message} The end of its log:\n${tail}`;
}

export function lost(refusal: Refusal, retryable: boolean): Observation {
	return { status: "lost", refusal, retryable };
}

/** A run that has left neither a result nor how it ended. */
export function vanished(files: RunFiles): Observation {
	return lost(
		{
			code: "runner-lost",
			message: withTail("The run's process is gone without having said why.", files),
			remedy: "It was killed from outside or the machine was restarted. Retry the job.",
		},
		true,
	);
}

/** What a run that ended without a result line died of. */
export function meaningOfExit(exit: RunExit, files: RunFiles): Observation {
	if (exit.ended !== null) return meaningOfEnding(exit.ended, exit.detail, files);
	return exit.signal === null ? meaningOfCode(exit.code, files) : killed(exit.signal, files);
}

/** The supervisor ended it. */
function meaningOfEnding(ended: NonNullable<RunExit["ended"]>, detail: string | null, files: RunFiles): Observation {
	switch (ended) {
		case "timed-out":
			return lost(
				{
					code: "timed-out",
					message: withTail(detail ?? "It ran too long.", files),
					remedy: "Raise runner.timeoutSeconds, or ask for fewer variants at a time, then retry the job.",
				},
				false,
			);
		case "memory":
			return lost(
				{
					code: "out-of-memory",
					message: detail ?? "It held too much memory.",
					remedy: "Raise runner.memoryBytes or use a machine with more memory, then retry the job.",
				},
				false,
			);
		case "events":
			return lost(
				{
					code: "internal",
					message: detail ?? "It wrote too many events.",
					remedy: "Report this with the run's log.",
				},
				false,
			);
		case "cancelled":
			return lost(
				{ code: "cancelled", message: "The run was stopped.", remedy: "Retry the job when it is wanted again." },
				true,
			);
		case "spawn":
			return lost(
				{
					code: "internal",
					message: `The runner could not be started: ${detail ?? "unknown reason"}.`,
					remedy: "Run `npm run setup`, or set runner.python to a Python that has yaqa-runner; then retry the job.",
				},
				false,
			);
	}
}

function killed(signal: string, files: RunFiles): Observation {
	return lost(
		{
			code: "runner-lost",
			message: withTail(`The run was killed by ${signal}.`, files),
			remedy:
				signal === "SIGKILL"
					? "The system kills programs when memory runs out: free some, or set runner.memoryBytes; then retry the job."
					: "Retry the job.",
		},
		true,
	);
}

/** The exit codes of `yaqa-runner run`. */
function meaningOfCode(code: number | null, files: RunFiles): Observation {
	switch (code) {
		case RUNNER_EXIT_CODES["invalid-spec"]:
			return lost(
				{
					code: "invalid-spec",
					message: withTail("The runner did not accept its job.", files),
					remedy: "Make sure that yaqa-bot and yaqa-runner are of the same version (`npm run setup`).",
				},
				false,
			);
		case RUNNER_EXIT_CODES["source-refused"]:
			return lost(
				{
					code: "source-refused",
					message: withTail("The runner refused the model.", files),
					remedy: "See the job's log for the reason.",
				},
				false,
			);
		case RUNNER_EXIT_CODES["out-of-memory"]:
			return lost(
				{
					code: "out-of-memory",
					message: withTail("The runner ran out of memory.", files),
					remedy: "Use a machine with more memory, or a smaller calibration; then retry the job.",
				},
				false,
			);
		case RUNNER_EXIT_CODES["disk-full"]:
			return lost(diskFull(files.folder), false);
		case RUNNER_EXIT_CODES.interrupted:
			return lost(
				{ code: "interrupted", message: "The run was interrupted by a signal.", remedy: "Retry the job." },
				true,
			);
		default:
			return lost(
				{
					code: "internal",
					message: withTail(`The runner ended with exit code ${code} and no result.`, files),
					remedy: "This is a bug in the runner, or its Python environment is broken (`yaqa-bot doctor`).",
				},
				false,
			);
	}
}
