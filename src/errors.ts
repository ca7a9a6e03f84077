/**
 * Why a source, a request or a job is refused. Expected outcomes, so they travel as values:
 * the reply, the job page and the exit message all print `message` and `remedy`.
 */
export type RefusalCode =
	| "repo-not-found"
	| "gated-without-access"
	| "empty-repo"
	| "pickle-only"
	| "remote-code"
	| "broken-safetensors"
	| "unsafe-path"
	| "broken-config"
	| "absurd-config"
	| "unknown-architecture"
	| "already-quantized"
	| "too-large"
	| "licence-forbids"
	| "opted-out"
	| "bad-settings"
	| "unknown-recipe"
	| "not-permitted"
	| "target-taken"
	| "verification-failed"
	| "invalid-spec"
	| "source-refused"
	| "unsupported-model"
	| "out-of-memory"
	| "disk-full"
	| "interrupted"
	| "runner-lost"
	/** The engine that runs go to does not take this one: no credits, no rights, no machine. */
	| "runner-unavailable"
	| "timed-out"
	| "cancelled"
	| "internal";

export type Refusal = {
	readonly code: RefusalCode;
	/** What happened and why, in one or two sentences for the person who asked. */
	readonly message: string;
	/** What to do about it, and who can. */
	readonly remedy: string;
};

/** A fault that another attempt may get past: the network, a busy Hub. `retryAfterSeconds` when the other side said. */
export class RetryableError extends Error {
	override readonly name = "RetryableError";
	readonly retryAfterSeconds: number | null;
	constructor(message: string, options: { retryAfterSeconds?: number | null; cause?: unknown } = {}) {
		super(message, { cause: options.cause });
		this.retryAfterSeconds = options.retryAfterSeconds ?? null;
	}
}

/** A fault that no retry gets past. The job fails with this refusal. */
export class PermanentError extends Error {
	override readonly name = "PermanentError";
	readonly refusal: Refusal;
	constructor(refusal: Refusal, options: { cause?: unknown } = {}) {
		super(refusal.message, options);
		this.refusal = refusal;
	}
}

/** The exhaustive end of a switch over a closed union. */
export function assertNever(value: never): never {
	throw new Error(`Unhandled case: ${JSON.stringify(value)}. This is a bug in yaqa-bot.`);
}
