import { assertNever, type Refusal } from "../../errors.ts";
import { EXIT_CODES, type ExitCode } from "../exit-codes.ts";

/** How an end without a result is reported to a script. */
export function exitOf(refusal: Refusal): ExitCode {
	switch (refusal.code) {
		case "cancelled":
		case "interrupted":
			return EXIT_CODES.interrupted.code;
		case "invalid-spec":
		case "unknown-recipe":
			return EXIT_CODES.usage.code;
		case "verification-failed":
			return EXIT_CODES.unverified.code;
		case "out-of-memory":
		case "disk-full":
		case "runner-lost":
		case "runner-unavailable":
		case "timed-out":
		case "internal":
		case "target-taken":
			return EXIT_CODES.failed.code;
		case "repo-not-found":
		case "gated-without-access":
		case "empty-repo":
		case "pickle-only":
		case "remote-code":
		case "broken-safetensors":
		case "unsafe-path":
		case "broken-config":
		case "absurd-config":
		case "unknown-architecture":
		case "already-quantized":
		case "too-large":
		case "licence-forbids":
		case "opted-out":
		case "bad-settings":
		case "not-permitted":
		case "source-refused":
		case "unsupported-model":
			return EXIT_CODES.refused.code;
		default:
			return assertNever(refusal.code);
	}
}
