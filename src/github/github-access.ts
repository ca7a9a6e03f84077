import { App, Octokit } from "octokit";
import { z } from "zod";
import { RetryableError } from "../errors.ts";

type GitHubOptions = {
	/** `https://api.github.com`, or a GitHub Enterprise Server's. */
	readonly apiUrl: string;
	/** `owner/name` of the repo that holds the workflow. */
	readonly repository: string;
	readonly appId: string;
	/** The App's private key, PEM. */
	readonly privateKey: string;
	readonly timeoutMilliseconds?: number;
	readonly fetch?: typeof fetch;
};

/** One call of GitHub's API as the App's installation on the repo; the body of the answer. */
export type GitHubAccess = {
	readonly apiUrl: string;
	readonly repository: string;
	request(
		route: string,
		parameters: Readonly<Record<string, unknown>>,
		options: { readonly repeatable: boolean },
	): Promise<{
		readonly status: number;
		readonly data: unknown;
		/** Where an answer points to instead of giving the thing itself; not followed. */
		readonly location: string | null;
	}>;
};

/** GitHub said no, in a way that asking again does not change. */
export class GitHubRequestError extends Error {
	override readonly name = "GitHubRequestError";
	readonly status: number;
	/** Whether it was the App's own sign-in that was refused, not what it asked for. */
	readonly signIn: boolean;
	constructor(message: string, details: { status: number; signIn: boolean; cause: unknown }) {
		super(message, { cause: details.cause });
		this.status = details.status;
		this.signIn = details.signIn;
	}
}

/** Sent with every call, so that a later default cannot change what answers look like. */
const API_VERSION = "2022-11-28";
/** All that is a refusal: GitHub would say the same again, or wants a wait that the job's step makes. */
const REFUSALS = Array.from({ length: 100 }, (_, index) => 400 + index);
/** A moved repo's; storage that holds logs is pointed to by 302. */
const MOVED: ReadonlySet<number> = new Set([301, 307, 308]);
const MAXIMUM_MOVES = 3;

const Failure = z.object({
	status: z.number(),
	message: z.string(),
	request: z.object({ url: z.string() }).optional(),
	response: z.object({ headers: z.record(z.string(), z.unknown()) }).optional(),
});
type Call = {
	readonly method: string;
	readonly url: string;
	readonly headers: Readonly<Record<string, string | number | undefined>>;
	readonly body?: unknown;
};

/**
 * The whole answer, or an error. Octokit takes an answer that breaks off, or a page for people that a proxy gives with 200,
 * for text; of the answer with a token it would keep an `undefined` for an hour.
 */
async function wholeAnswer(response: Response): Promise<Response> {
	if (!response.ok) return response;
	const text = await response.text();
	if (text === "") return new Response(null, response);
	try {
		JSON.parse(text);
	} catch (error) {
		throw new Error("GitHub answered with something else than JSON.", { cause: error });
	}
	return new Response(text, response);
}

const Installation = z.object({ id: z.int() });

/** Until the hour's quota is full again; `NaN`: it is not used up, or the server does not say. */
function secondsUntilReset(headers: Readonly<Record<string, unknown>>): number {
	if (headers["x-ratelimit-remaining"] !== "0") return Number.NaN;
	return Math.max(1, Math.ceil(Number(headers["x-ratelimit-reset"]) - Date.now() / 1000));
}

/** What an exception of octokit means: a plain refusal, or something that another try may get past. */
function meaningOf(error: unknown, basePath: string): Error {
	const parsed = Failure.safeParse(error);
	if (!parsed.success) {
		return new RetryableError("GitHub could not be reached.", { cause: error });
	}
	const { status, message, request, response } = parsed.data;
	const headers = response?.headers ?? {};
	const retryAfter = headers["retry-after"] === undefined ? secondsUntilReset(headers) : Number(headers["retry-after"]);
	// A secondary limit is a 403 that names a time, or says so in words only.
	const isLimited =
		status === 429 ||
		(status === 403 &&
			(headers["x-ratelimit-remaining"] === "0" ||
				headers["retry-after"] !== undefined ||
				/secondary rate limit/i.test(message)));
	const said = message.slice(0, 300);
	if (isLimited || status >= 500 || status === 408) {
		return new RetryableError(`GitHub answered ${status}: ${said}`, {
			cause: error,
			retryAfterSeconds: Number.isFinite(retryAfter) && retryAfter >= 0 ? retryAfter : null,
		});
	}
	const path = request === undefined ? "" : new URL(request.url).pathname.slice(basePath.length);
	return new GitHubRequestError(`GitHub answered ${status}: ${said}`, {
		status,
		signIn: status === 401 || path.startsWith("/app") || path.endsWith("/installation"),
		cause: error,
	});
}

/** The App's installation on the repo. Tokens are made when needed, last an hour, and stay in octokit. */
export function createGitHubAccess(options: GitHubOptions): GitHubAccess {
	const { apiUrl, repository, timeoutMilliseconds = 30_000 } = options;
	const [owner = "", repo = ""] = repository.split("/");
	const send = options.fetch ?? fetch;
	// A GitHub Enterprise Server's API lies below /api/v3.
	const basePath = new URL(apiUrl).pathname.replace(/\/$/, "");
	const timedFetch: typeof fetch = async (input, init) =>
		await wholeAnswer(await send(input, { ...init, signal: AbortSignal.timeout(timeoutMilliseconds) }));
	const app = new App({
		appId: options.appId,
		privateKey: options.privateKey,
		Octokit: Octokit.defaults({
			baseUrl: apiUrl,
			request: { fetch: timedFetch },
			// Its own waits are for one process; here the job's step waits, and other jobs go on.
			throttle: { enabled: false },
			retry: { doNotRetry: REFUSALS },
			log: { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined },
		}),
	});
	let installation: Promise<Octokit> | null = null;

	async function signedIn(): Promise<Octokit> {
		installation ??= app.octokit
			.request("GET /repos/{owner}/{repo}/installation", { owner, repo })
			.then((answer) => app.getInstallationOctokit(Installation.parse(answer.data).id));
		try {
			return await installation;
		} catch (error) {
			// The App may be installed, or the key mended, before the next call.
			installation = null;
			throw error;
		}
	}

	/** Repeats what may be repeated, after a fault of the server or a lost line, with the client's growing pauses. */
	async function carryOut(octokit: Octokit, call: Call, repeatable: boolean): ReturnType<Octokit["request"]> {
		const { method, url, headers, body } = call;
		return octokit.request(`${method} ${url}`, {
			headers,
			...(body === undefined ? {} : { data: body }),
			// A call whose answer was lost may have been carried out: sent again, it would start a second run.
			request: { fetch: timedFetch, redirect: "manual", ...(repeatable ? {} : { retries: 0 }) },
		});
	}

	return {
		apiUrl,
		repository,
		async request(route, parameters, { repeatable }) {
			try {
				const octokit = await signedIn();
				let call: Call = octokit.request.endpoint(route, {
					...parameters,
					owner,
					repo,
					headers: { "x-github-api-version": API_VERSION },
				});
				for (let moves = 0; ; moves++) {
					const answer = await carryOut(octokit, call, repeatable);
					const location = answer.headers.location ?? null;
					if (!MOVED.has(answer.status) || location === null || moves === MAXIMUM_MOVES) {
						return { status: answer.status, data: answer.data, location };
					}
					call = { ...call, url: movedTo(call.url, location) };
				}
			} catch (error) {
				throw error instanceof GitHubRequestError ? error : meaningOf(error, basePath);
			}
		},
	};
}

/** Where a moved repo answers, on the same server: the token goes nowhere else. */
function movedTo(from: string, location: string): string {
	const [before, after] = [new URL(from), new URL(location, from)];
	if (after.origin !== before.origin) {
		throw new GitHubRequestError(`GitHub points to ${after.host}, where the bot does not go.`, {
			status: 301,
			signIn: false,
			cause: null,
		});
	}
	if (after.search === "") after.search = before.search;
	return after.href;
}
