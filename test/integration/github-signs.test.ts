import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { gitHubForum } from "../../src/commands/github-forum.ts";
import { createGitHubAccess, type GitHubAccess } from "../../src/github/github-access.ts";
import { type FakeGitHub, startFakeGitHub } from "../fake-github/fake-github.ts";

let folder: string;
let github: FakeGitHub;
before(async () => {
	folder = mkdtempSync(join(tmpdir(), "yaqa-signs-"));
	github = await startFakeGitHub({
		folder,
		workflowPath: fileURLToPath(new URL("../../workflows/quantize.yml", import.meta.url)),
		path: process.env["PATH"] ?? "",
		variables: {},
		secrets: {},
	});
});
after(async () => {
	await github.close();
	rmSync(folder, { recursive: true, force: true });
});

function access(): GitHubAccess {
	const { repository } = github.issues;
	return createGitHubAccess({ apiUrl: github.url, repository, appId: github.appId, privateKey: github.privateKey });
}

function forumOf(seen: GitHubAccess) {
	return gitHubForum({ appId: github.appId, access: () => seen });
}

/** A comment, and its place. */
function written(): { readonly place: { readonly repo: string; readonly thread: number }; readonly comment: number } {
	const { issues } = github;
	const thread = issues.open("octo", "Variants", "@yaqa-bot quantize");
	return { place: { repo: issues.repository, thread }, comment: issues.comment("octo", thread, "@yaqa-bot status") };
}

test("the eyes go when the end is told; what others wrote stays", async () => {
	const { issues } = github;
	const { place, comment } = written();
	const forum = forumOf(access());
	issues.react("octo", comment, "eyes");
	await forum.acknowledge(place, String(comment), "seen");
	assert.deepEqual(issues.reactionsOf(place.thread, comment), ["eyes"]);
	await forum.acknowledge(place, String(comment), "refused");
	assert.deepEqual(issues.reactionsOf(place.thread, comment), ["confused"]);
	await forum.acknowledge(place, String(comment), "done");
	await forum.acknowledge(place, String(comment), "done");
	assert.deepEqual(issues.reactionsOf(place.thread, comment), ["rocket"], "a retry that went well");
	const listed = await access().request(
		"GET /repos/{owner}/{repo}/issues/comments/{comment_id}/reactions",
		{ comment_id: comment, content: "eyes" },
		{ repeatable: true },
	);
	assert.equal((listed.data as unknown[]).length, 1);

	await forum.acknowledge(place, "issue", "seen");
	assert.deepEqual(issues.reactionsOf(place.thread, null), ["eyes"]);
	await forum.acknowledge(place, "issue", "done");
	assert.deepEqual(issues.reactionsOf(place.thread, null), ["rocket"]);
	assert.deepEqual(github.breaches, []);
});

test("eyes that somebody else takes off first, and a comment that is gone, stop nothing", async () => {
	const { issues } = github;
	const { place, comment } = written();
	const real = access();
	const methods: string[] = [];
	const raced: GitHubAccess = {
		...real,
		async request(route, parameters, options) {
			methods.push(route.split(" ")[0] ?? "");
			const isDelete = route.startsWith("DELETE");
			if (isDelete) await real.request(route, parameters, options);
			return await real.request(route, parameters, options);
		},
	};
	const forum = forumOf(raced);
	await forum.acknowledge(place, String(comment), "seen");
	await forum.acknowledge(place, String(comment), "done");
	assert.deepEqual(methods, ["POST", "POST", "GET", "DELETE"]);
	assert.deepEqual(issues.reactionsOf(place.thread, comment), ["rocket"]);

	issues.delete(place.thread);
	await forum.acknowledge(place, String(comment), "done");
	assert.deepEqual(github.breaches, []);
});
