import type { Refusal } from "../../errors.ts";
import { EXIT_CODES, type ExitCode } from "../exit-codes.ts";

/** The command ends here, without a result. */
export class Stopped extends Error {
	readonly exit: ExitCode;
	readonly refusal: Refusal;
	constructor(exit: ExitCode, refusal: Refusal) {
		super(refusal.message);
		this.exit = exit;
		this.refusal = refusal;
	}
}

export function usage(message: string, remedy = "See `yaqa-bot help quantize`."): Stopped {
	return new Stopped(EXIT_CODES.usage.code, { code: "invalid-spec", message, remedy });
}

export function interrupted(): Stopped {
	return new Stopped(EXIT_CODES.interrupted.code, {
		code: "interrupted",
		message: "Interrupted.",
		remedy: "Run the same command again.",
	});
}
