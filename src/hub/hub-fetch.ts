import { setImmediate, setTimeout as sleepFor } from "node:timers/promises";
import { PermanentError, RetryableError } from "../errors.ts";
import { redactText } from "../log.ts";
import { isAllowedUrl } from "./allowed-url.ts";

export type HubFetchOptions = {
	readonly hubUrl: string;
	/** Hosts that files may be sent to and fetched from besides. */
	readonly transferHosts?: readonly string[];
	/** Tries of a call that may be repeated. */
	readonly attempts?: number;
	/** From the last byte sent until the headers are there. */
	readonly timeoutMilliseconds?: number;
	/** What is added for a body: an upload is given up only when it runs slower than this. */
	readonly slowestUploadBytesPerSecond?: number;
	/** What a body of unknown length may take. */
	readonly uploadMilliseconds?: number;
	/** A transfer that brings no byte for this long is broken off. */
	readonly idleMilliseconds?: number;
	/** Cap on the body of an API answer. File downloads have none: their callers know what they expect. */
	readonly apiBodyBytes?: number;
	readonly fetch?: typeof fetch;
	readonly sleep?: (milliseconds: number) => Promise<void>;
	readonly random?: () => number;
};

const RETRYABLE_STATUS: ReadonlySet<number> = new Set([408, 429, 500, 502, 503, 504]);
const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);
/** POSTs that change nothing, or the same thing again: asking twice is asking once. */
const REPEATABLE_POST =
	/\/(preupload\/|paths-info\/|info\/lfs\/objects\/batch$|validate-yaml$|v1\/xorbs\/[^/]+\/[0-9a-f]{64}$|v1\/shards$)/;
/** Header that marks a POST as repeatable; taken off before it is sent. */
export const REPEATABLE_HEADER = "x-yaqa-repeatable";

const MAXIMUM_REDIRECTS = 5;
const FIRST_PAUSE_MILLISECONDS = 500;
const LONGEST_PAUSE_MILLISECONDS = 30_000;

/** Seconds the server wants us to wait: `Retry-After`, or `t` of `RateLimit: "api";r=0;t=55`. */
export function retryAfterSeconds(headers: Headers, now: Date): number | null {
	const retryAfter = headers.get("retry-after");
	if (retryAfter !== null) {
		const seconds = Number(retryAfter);
		if (Number.isFinite(seconds) && seconds >= 0) return seconds;
		const date = Date.parse(retryAfter);
		if (!Number.isNaN(date)) return Math.max(0, (date - now.getTime()) / 1000);
	}
	const window = /;\s*t=(\d{1,6})/.exec(headers.get("ratelimit") ?? "");
	return window === null ? null : Number(window[1]);
}

/**
 * A `fetch` for the Hub, to hand to every function here and in `@huggingface/hub` (which retries nothing itself).
 * Calls that may be repeated are, with jitter and as the server's headers ask; what still fails then is a
 * `RetryableError`, whichever function made the call. Addresses outside the allow-list are refused, redirects included.
 *
 * Long, since two functions share the settings: `once` makes a call and follows its redirects, `send` repeats it.
 */
export function createHubFetch(options: HubFetchOptions): typeof fetch {
	const {
		hubUrl,
		transferHosts = [],
		attempts = 5,
		timeoutMilliseconds = 30_000,
		slowestUploadBytesPerSecond = 100_000,
		uploadMilliseconds = 3_600_000,
		idleMilliseconds = 60_000,
		apiBodyBytes = 32 * 2 ** 20,
		fetch: fetchOnce = fetch,
		sleep = async (milliseconds) => void (await sleepFor(milliseconds)),
		random = Math.random,
	} = options;

	async function once(request: PlannedRequest): Promise<Response> {
		const controller = new AbortController();
		const signal = request.signal === null ? controller.signal : AbortSignal.any([controller.signal, request.signal]);
		const bytes = bodyBytes(request.body);
		const sendingMilliseconds = bytes === null ? uploadMilliseconds : (bytes / slowestUploadBytesPerSecond) * 1000;
		const headerLimit = timeoutMilliseconds + sendingMilliseconds;
		const timer = setTimeout(
			() =>
				controller.abort(
					new RetryableError(`The Hub did not answer within ${Number((headerLimit / 1000).toFixed(2))} s.`),
				),
			headerLimit,
		);
		try {
			let { url, method, body } = request;
			const headers = new Headers(request.headers);
			for (let redirects = 0; ; redirects++) {
				assertAllowed(url, hubUrl, transferHosts);
				const response = await fetchOnce(url, {
					method,
					headers,
					redirect: "manual",
					signal,
					...(body === undefined ? {} : { body }),
					...(body instanceof ReadableStream ? { duplex: "half" } : {}),
				});
				const location = response.headers.get("location");
				if (!REDIRECTS.has(response.status) || location === null) {
					return limited(response, {
						url: url.href,
						bodyBytes: url.pathname.startsWith("/api/") ? apiBodyBytes : Number.POSITIVE_INFINITY,
						idleMilliseconds,
						abort: (reason) => controller.abort(reason),
					});
				}
				await response.body?.cancel();
				if (redirects === MAXIMUM_REDIRECTS) throw refusedAddress("The Hub redirected too often.");
				const next = new URL(location, url);
				if (next.origin !== url.origin) {
					headers.delete("authorization");
					headers.delete("cookie");
				}
				if (response.status === 303 || (response.status < 307 && method === "POST")) {
					method = "GET";
					body = undefined;
				}
				url = next;
			}
		} finally {
			clearTimeout(timer);
		}
	}

	return async function hubFetch(input, init) {
		try {
			return await send(plan(input, init));
		} catch (error) {
			// `@huggingface/hub` starts parallel uploads before it listens to them: a failure in the same turn of the event
			// loop would be an unhandled rejection there, and the end of the process.
			await setImmediate();
			throw error;
		}
	};

	async function send(request: PlannedRequest): Promise<Response> {
		let tries = request.repeatable ? attempts : 1;
		for (let attempt = 1; ; attempt++) {
			let pause: number | null = null;
			let failure: RetryableError;
			try {
				const response = await once(request);
				const isPage = isPageInstead(response, request.url);
				if (!RETRYABLE_STATUS.has(response.status) && !isPage) return response;
				pause = retryAfterSeconds(response.headers, new Date());
				const said = redactText((await response.text().catch(() => "")).slice(0, 300));
				failure = new RetryableError(
					`The Hub answered ${response.status}${isPage ? " and a page instead of data" : ""} to ${request.method} ${request.url.pathname}: ${said}`,
					{ retryAfterSeconds: pause },
				);
				// Turned away by a rate limit means not acted on: every call may be repeated.
				if (response.status === 429) tries = request.resendable ? attempts : 1;
			} catch (error) {
				if (request.signal?.aborted === true) throw error;
				if (error instanceof PermanentError) throw error;
				failure =
					error instanceof RetryableError
						? error
						: new RetryableError(
								`The Hub could not be reached for ${request.method} ${request.url.pathname}: ${describe(error)}`,
								{ cause: error },
							);
			}
			// A server that wants a longer pause than we hold a step for gets it from the queue's own delay.
			if (attempt >= tries || (pause !== null && pause * 1000 > LONGEST_PAUSE_MILLISECONDS)) throw failure;
			await sleep(pauseMilliseconds(attempt, pause, random));
		}
	}
}

/**
 * A page with a success: what a proxy says in a Hub's place. The Hub's API speaks JSON, and it gives files out as plain
 * text or bytes; read as data the page would be taken for a broken model.
 */
function isPageInstead(response: Response, url: URL): boolean {
	const type = response.headers.get("content-type") ?? "";
	return response.ok && type.startsWith("text/html") && !/\.html?$/i.test(url.pathname);
}

type PlannedRequest = {
	readonly url: URL;
	readonly method: string;
	readonly headers: Headers;
	readonly body: RequestInit["body"] | undefined;
	readonly signal: AbortSignal | null;
	readonly resendable: boolean;
	readonly repeatable: boolean;
};

/** How much is sent before an answer can come; `null` where only sending it tells. */
function bodyBytes(body: PlannedRequest["body"]): number | null {
	if (body === undefined || body === null) return 0;
	if (typeof body === "string") return Buffer.byteLength(body);
	if (body instanceof Blob) return body.size;
	if (body instanceof ArrayBuffer || ArrayBuffer.isView(body)) return body.byteLength;
	if (body instanceof URLSearchParams) return Buffer.byteLength(body.toString());
	return null;
}

function plan(input: Parameters<typeof fetch>[0], init: RequestInit | undefined): PlannedRequest {
	if (input instanceof Request) throw new TypeError("hubFetch takes an address, not a Request.");
	const url = new URL(input);
	const method = (init?.method ?? "GET").toUpperCase();
	const headers = new Headers(init?.headers);
	const marked = headers.has(REPEATABLE_HEADER);
	headers.delete(REPEATABLE_HEADER);
	const body = init?.body ?? undefined;
	const resendable = !(body instanceof ReadableStream);
	// Everything addressed by its content or its full new state may be sent again; a POST only when it is known to be safe.
	const idempotent = ["GET", "HEAD", "PUT"].includes(method);
	const repeatable =
		resendable && (idempotent || (method === "POST" && (marked || REPEATABLE_POST.test(url.pathname))));
	return { url, method, headers, body, signal: init?.signal ?? null, resendable, repeatable };
}

function pauseMilliseconds(attempt: number, wantedSeconds: number | null, random: () => number): number {
	if (wantedSeconds !== null) {
		return Math.min(wantedSeconds * 1000, LONGEST_PAUSE_MILLISECONDS) + random() * FIRST_PAUSE_MILLISECONDS;
	}
	const ceiling = Math.min(LONGEST_PAUSE_MILLISECONDS, FIRST_PAUSE_MILLISECONDS * 2 ** (attempt - 1));
	return ceiling / 2 + (random() * ceiling) / 2;
}

function assertAllowed(url: URL, hubUrl: string, transferHosts: readonly string[]): void {
	if (!isAllowedUrl(url, hubUrl, transferHosts))
		throw refusedAddress(`The bot does not send requests to ${url.origin}.`);
}

function refusedAddress(message: string): PermanentError {
	return new PermanentError({
		code: "internal",
		message,
		remedy:
			"The operator checks hub.url in the configuration, and adds the host to hub.transferHosts if that Hub keeps its files there.",
	});
}

function describe(error: unknown): string {
	if (!(error instanceof Error)) return String(error);
	return redactText(error.cause instanceof Error ? `${error.message} (${error.cause.message})` : error.message);
}

/** What is read of an answer that breaks off half-way is no bug of whoever reads it: another try may bring the whole. */
async function* wholeOrRetryable(body: ReadableStream<Uint8Array>, url: string): AsyncGenerator<Uint8Array> {
	try {
		yield* body;
	} catch (error) {
		if (!(error instanceof TypeError)) throw error;
		throw new RetryableError(`The Hub's answer to ${new URL(url).pathname} broke off: ${describe(error)}`, {
			cause: error,
		});
	}
}

/** The response with its body counted and watched; `url` is kept, which `@huggingface/hub` reads. */
function limited(
	response: Response,
	limits: { url: string; bodyBytes: number; idleMilliseconds: number; abort: (reason: Error) => void },
): Response {
	if (response.body === null) return response;
	let received = 0;
	const stalled = (): void =>
		limits.abort(new RetryableError(`A transfer from the Hub stood still for ${limits.idleMilliseconds / 1000} s.`));
	let timer = setTimeout(stalled, limits.idleMilliseconds);
	timer.unref();
	const watched = ReadableStream.from(wholeOrRetryable(response.body, limits.url)).pipeThrough(
		new TransformStream<Uint8Array, Uint8Array>({
			transform(chunk, controller) {
				clearTimeout(timer);
				received += chunk.byteLength;
				if (received > limits.bodyBytes) {
					controller.error(
						new PermanentError({
							code: "internal",
							message: `The Hub's answer is longer than ${limits.bodyBytes} bytes.`,
							remedy: "The operator looks at what the configured Hub answers.",
						}),
					);
					return;
				}
				timer = setTimeout(stalled, limits.idleMilliseconds);
				timer.unref();
				controller.enqueue(chunk);
			},
			flush() {
				clearTimeout(timer);
			},
		}),
	);
	const copy = new Response(watched, {
		status: response.status,
		statusText: response.statusText,
		headers: response.headers,
	});
	Object.defineProperty(copy, "url", { value: limits.url });
	return copy;
}
