import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, describe, test } from "node:test";
import { RetryableError } from "../../src/errors.ts";
import { createIssueComment } from "../../src/github/create-issue-comment.ts";
import { getIssue } from "../../src/github/get-issue.ts";
import { createGitHubAccess, type GitHubAccess, GitHubRequestError } from "../../src/github/github-access.ts";
import { type FakeGitHub, type GitHubFault, startFakeGitHub } from "../fake-github/fake-github.ts";

let folder: string;

before(async () => {
	folder = await mkdtemp(join(tmpdir(), "yaqa-github-calls-"));
});

after(() => rm(folder, { recursive: true, force: true }));

for (const basePath of ["", "/api/v3"]) {
	describe(basePath === "" ? "github.com" : `GitHub Enterprise Server at ${basePath}`, () => {
		let server: FakeGitHub;
		let github: GitHubAccess;
		let issue: number;

		before(async () => {
			server = await startFakeGitHub({
				folder,
				workflowPath: join(import.meta.dirname, "../../workflows/quantize.yml"),
				path: process.env["PATH"] ?? "",
				variables: {},
				secrets: {},
				basePath,
			});
			const { url: apiUrl, appId, privateKey } = server;
			github = createGitHubAccess({ apiUrl, repository: "acme/models", appId, privateKey });
			issue = server.issues.open("ann", "Files", "@yaqa-bot help");
			await getIssue(github, issue);
		});

		after(() => server.close());
		afterEach(() => server.disarm());

		/** The calls that `use` makes, and what it ends with. */
		async function callsOf(fault: GitHubFault, times: number, use: () => Promise<unknown>) {
			const earlier = server.calls().length;
			server.arm(fault, times);
			const outcome = await use().catch((error: unknown) => error);
			return {
				outcome,
				calls: server
					.calls()
					.slice(earlier)
					.map((call) => call.slice(-3)),
			};
		}
		const read = (): Promise<unknown> => getIssue(github, issue);
		const write = (): Promise<unknown> => createIssueComment(github, issue, "Done.");

		test("a limit of any form is answered by one call and the wait it asks for", async () => {
			for (const [fault, status, seconds] of [
				["limited-by-403", "403", 60],
				["rate-limited", "429", 1],
				["quota-used-up", "403", 90],
			] as const) {
				for (const use of [read, write]) {
					const { outcome, calls } = await callsOf(fault, 5, use);
					assert.deepEqual(calls, [status], fault);
					assert.ok(outcome instanceof RetryableError, fault);
					const wait = outcome.retryAfterSeconds ?? 0;
					assert.ok(wait > seconds - 10 && wait <= seconds + 1, `${fault}: ${wait}`);
				}
			}
		});

		test("a refusal is asked for once", async () => {
			const { outcome, calls } = await callsOf("unavailable", 0, () => getIssue(github, 987_654));
			assert.deepEqual(calls, ["404"]);
			assert.ok(outcome === null || outcome instanceof GitHubRequestError);
		});

		test("a fault of the server is tried again for what only reads, and not for what writes", async () => {
			const reading = await callsOf("unavailable", 1, read);
			assert.deepEqual(reading.calls, ["503", "200"]);
			const writing = await callsOf("unavailable", 1, write);
			assert.deepEqual(writing.calls, ["503"]);
			assert.ok(writing.outcome instanceof RetryableError);
		});

		test("a moved repo is followed, with what was sent", async () => {
			const reading = await callsOf("moved", 1, read);
			assert.deepEqual(reading.calls, ["301", "200"]);
			const writing = await callsOf("moved", 1, write);
			assert.deepEqual(writing.calls, ["307", "201"]);
			assert.equal(server.issues.commentsOf(issue).at(-1)?.body, "Done.");
			assert.deepEqual(server.breaches, []);
		});

		test("a refused sign-in is known as one", async () => {
			const { url: apiUrl, appId, privateKey } = server;
			const fresh = createGitHubAccess({ apiUrl, repository: "acme/models", appId, privateKey });
			const { outcome } = await callsOf("revoked", 9, () => getIssue(fresh, issue));
			assert.ok(outcome instanceof GitHubRequestError);
			assert.equal(outcome.signIn, true);
		});
	});
}
