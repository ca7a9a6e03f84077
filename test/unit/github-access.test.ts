import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { test } from "node:test";
import { RetryableError } from "../../src/errors.ts";
import { createGitHubAccess, GitHubRequestError } from "../../src/github/github-access.ts";

const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });

const SETTINGS = {
	apiUrl: "https://github.example",
	repository: "acme/models",
	appId: "1",
	privateKey: privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
};

function pathOf(input: Parameters<typeof fetch>[0]): string {
	return new URL(input instanceof Request ? input.url : String(input)).pathname;
}

/** GitHub's answers where the app signs in; `null`: that is another path. */
function signIn(path: string): Response | null {
	if (path.endsWith("/installation")) return Response.json({ id: 1 });
	if (path.endsWith("/access_tokens")) {
		return Response.json({ token: "t", expires_at: "2100-01-01T00:00:00Z", permissions: {} }, { status: 201 });
	}
	return null;
}

/** What a call ends with when GitHub answers it so, the sign-in aside. */
async function outcomeOf(status: number, headers: Readonly<Record<string, string>>, message: string): Promise<unknown> {
	const github = createGitHubAccess({
		...SETTINGS,
		fetch: async (input) => signIn(pathOf(input)) ?? Response.json({ message }, { status, headers }),
	});
	try {
		return await github.request("GET /repos/{owner}/{repo}/issues", {}, { repeatable: false });
	} catch (error) {
		return error;
	}
}

test("a rate limit is waited out as long as GitHub asks, in each of its forms", async () => {
	const reset = String(Math.ceil(Date.now() / 1000) + 90);
	const cases: readonly (readonly [number, Readonly<Record<string, string>>, string, number | null])[] = [
		[429, { "retry-after": "7" }, "Slow down", 7],
		[403, { "retry-after": "60" }, "Forbidden", 60],
		[403, {}, "You have exceeded a secondary rate limit. Please wait.", null],
		[503, {}, "Unavailable", null],
	];
	for (const [status, headers, message, seconds] of cases) {
		const error = await outcomeOf(status, headers, message);
		assert.ok(error instanceof RetryableError, `${status} ${message}`);
		assert.equal(error.retryAfterSeconds, seconds);
	}
	const used = await outcomeOf(403, { "x-ratelimit-remaining": "0", "x-ratelimit-reset": reset }, "API rate limit");
	assert.ok(used instanceof RetryableError);
	const wait = used.retryAfterSeconds ?? 0;
	assert.ok(wait > 80 && wait <= 91, String(wait));
});

test("a refusal is no rate limit", async () => {
	const error = await outcomeOf(403, { "x-ratelimit-remaining": "4999" }, "Resource not accessible by integration");
	assert.ok(error instanceof GitHubRequestError);
	assert.equal(error.status, 403);
});

test("an answer that is a page or breaks off is asked for again, also the one with the token", async () => {
	const cutOff = () =>
		new Response(
			new ReadableStream({
				start(controller) {
					controller.enqueue(new TextEncoder().encode('{"token":'));
					controller.error(new Error("terminated"));
				},
			}),
			{ headers: { "content-type": "application/json" } },
		);
	const page = () => new Response("<html>Welcome</html>", { headers: { "content-type": "text/html" } });
	for (const spoilt of ["/installation", "/access_tokens", "/issues"]) {
		const bad = [cutOff, page];
		const seen: string[] = [];
		const github = createGitHubAccess({
			...SETTINGS,
			fetch: async (input, init) => {
				const path = pathOf(input);
				const next = path.endsWith(spoilt) ? bad.shift() : undefined;
				if (next !== undefined) return next();
				const known = signIn(path);
				if (known !== null) return known;
				seen.push(new Headers(init?.headers).get("authorization") ?? "");
				return Response.json([]);
			},
		});
		let data: unknown = null;
		for (let attempt = 0; attempt < 3 && data === null; attempt++) {
			try {
				({ data } = await github.request("GET /repos/{owner}/{repo}/issues", {}, { repeatable: false }));
			} catch (error) {
				assert.ok(error instanceof RetryableError, String(error));
			}
		}
		assert.deepEqual(data, [], spoilt);
		assert.deepEqual(seen, ["token t"], spoilt);
		assert.deepEqual(bad, []);
	}
});
