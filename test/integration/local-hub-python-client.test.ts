import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { cp, mkdir, open, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import {
	call,
	createRepo,
	hfCommand,
	OWNER,
	python,
	pythonEnvironment,
	root,
	run,
	STRANGER,
	temporaryFolder,
	testHub,
	withoutPython,
} from "../support/local-hub-fixture.ts";

const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

async function runPython(script: string, environment: Record<string, string>, ...args: string[]): Promise<string> {
	const { code, stdout, stderr } = await run(python, ["-c", script, ...args], environment);
	assert.equal(code, 0, stderr.slice(-4000));
	return stdout;
}

test("hf uploads a 100 MB model folder over Xet and downloads the same bytes", {
	skip: withoutPython,
}, async (context) => {
	const requests: string[] = [];
	const hub = await testHub(context, { onRequest: ({ method, path }) => requests.push(`${method} ${path}`) });
	const home = await temporaryFolder(context);
	const environment = pythonEnvironment(hub, home, OWNER);
	const folder = join(await temporaryFolder(context), "model");
	await cp(join(root, "demo", "model"), folder, { recursive: true });
	await mkdir(join(folder, "sub"));
	// one file a chunk codec: noise is stored as it is, text as LZ4, floats as byte-grouped LZ4
	const floats = new Float32Array(5_000_000).map((_value, index) => 1 + index / 5_000_000);
	await writeFile(join(folder, "sub", "floats.bin"), Buffer.from(floats.buffer));
	await writeFile(join(folder, "numbers.bin"), Array.from({ length: 1_500_000 }, (_value, index) => index).join("\n"));
	const noise = await open(join(folder, "noise.bin"), "w");
	for (let block = 0; block < 15; block++) await noise.write(randomBytes(4_000_000));
	await noise.close();

	const who = await run(hfCommand, ["auth", "whoami"], environment);
	assert.match(who.stdout, /owner/);
	const uploaded = await run(hfCommand, ["upload", "owner/big", folder], environment);
	assert.equal(uploaded.code, 0, uploaded.stderr.slice(-4000));
	assert.ok(
		requests.some((request) => /^POST \/cas-.*\/v1\/shards$/.test(request)),
		"hf_xet was not active",
	);
	assert.ok(!requests.some((request) => request.startsWith("PUT /lfs/")), "the files went over plain LFS");

	const target = join(await temporaryFolder(context), "copy");
	const downloaded = await run(hfCommand, ["download", "owner/big", "--local-dir", target], environment);
	assert.equal(downloaded.code, 0, downloaded.stderr.slice(-4000));
	let total = 0;
	for (const path of [
		"sub/floats.bin",
		"numbers.bin",
		"noise.bin",
		"model.safetensors",
		"config.json",
		"tokenizer.json",
	]) {
		const [a, b] = [await readFile(join(folder, path)), await readFile(join(target, path))];
		total += b.byteLength;
		assert.equal(sha256(b), sha256(a), path);
	}
	assert.ok(total > 100_000_000, String(total));

	// the same folder again, with one file changed: what has not changed is not committed
	await writeFile(join(folder, "config.json"), '{"model_type":"llama"}');
	const again = await run(hfCommand, ["upload", "owner/big", folder], environment);
	assert.equal(again.code, 0, again.stderr.slice(-4000));
	// another repo, which the client has no xorbs for
	const other = await run(
		hfCommand,
		["upload", "owner/other", join(folder, "numbers.bin"), "numbers.bin"],
		environment,
	);
	assert.equal(other.code, 0, other.stderr.slice(-4000));
	const kept = await fetch(`${hub.url}/owner/other/resolve/main/numbers.bin`);
	assert.equal(sha256(Buffer.from(await kept.arrayBuffer())), sha256(await readFile(join(folder, "numbers.bin"))));
});

test("the Python client uploads over plain LFS, in parts and whole", { skip: withoutPython }, async (context) => {
	const hub = await testHub(context, { multipartThresholdBytes: 300_000, multipartChunkBytes: 131_072 });
	const environment = { ...pythonEnvironment(hub, await temporaryFolder(context), OWNER), HF_HUB_DISABLE_XET: "1" };
	const out = await runPython(
		`
import io, os, hashlib
from huggingface_hub import HfApi
api = HfApi()
api.create_repo("owner/lfs")
for size in (1000, 300_000, 1_000_003):
    data = os.urandom(size)
    api.upload_file(path_or_fileobj=io.BytesIO(data), path_in_repo=f"{size}.bin", repo_id="owner/lfs")
    path = api.hf_hub_download("owner/lfs", f"{size}.bin")
    assert open(path, "rb").read() == data
info = api.get_paths_info("owner/lfs", ["1000003.bin"], expand=True)[0]
assert info.lfs.sha256 == hashlib.sha256(data).hexdigest() and info.last_commit.title
print("done")
`,
		environment,
	);
	assert.match(out, /done/);
});

test("the Python client's repos, discussions, webhooks, collections and errors", {
	skip: withoutPython,
}, async (context) => {
	const hub = await testHub(context);
	const home = await temporaryFolder(context);
	await createRepo(hub, "owner/secret", OWNER, { private: true });
	await createRepo(hub, "owner/gated");
	await call(`${hub.url}/api/models/owner/gated/settings`, { method: "PUT", token: OWNER, body: { gated: "manual" } });
	const out = await runPython(
		`
import sys
from huggingface_hub import HfApi, CommitOperationAdd, CommitOperationDelete, CommitOperationCopy
from huggingface_hub.errors import *
stranger_token = sys.argv[1]
api = HfApi()
stranger = HfApi(token=stranger_token)

def raises(kind, work):
    try:
        work()
    except kind:
        return
    raise AssertionError(f"{kind.__name__} was not raised")

me = api.whoami()
assert me["name"] == "owner" and me["orgs"][0]["roleInOrg"] == "admin"
url = api.create_repo("lab/model")
assert url.repo_id == "lab/model"
api.create_repo("lab/model", exist_ok=True)
raises(HfHubHTTPError, lambda: api.create_repo("lab/model"))
assert api.repo_exists("lab/model") and not api.repo_exists("lab/nothing")

first = api.create_commit("lab/model", [
    CommitOperationAdd("README.md", b"---\\nlicense: apache-2.0\\nbase_model: owner/base\\nbase_model_relation: quantized\\n---\\nHello"),
    CommitOperationAdd("dir/a.txt", b"a"), CommitOperationAdd("dir/b.txt", b"b"), CommitOperationAdd("c.txt", b"c"),
], commit_message="One")
second = api.create_commit("lab/model", [CommitOperationDelete("dir/", is_folder=True)], commit_message="Two", parent_commit=first.oid)
raises(HfHubHTTPError, lambda: api.create_commit("lab/model", [CommitOperationAdd("x", b"x")], commit_message="Late", parent_commit=first.oid))
assert set(api.list_repo_files("lab/model")) == {".gitattributes", "README.md", "c.txt"}
assert set(api.list_repo_files("lab/model", revision=first.oid)) == {".gitattributes", "README.md", "c.txt", "dir/a.txt", "dir/b.txt"}
raises(ValueError, lambda: api.upload_file(path_or_fileobj=b"---\\nlicense: [\\n---\\n", path_in_repo="README.md", repo_id="lab/model"))
assert [c.title for c in api.list_repo_commits("lab/model")] == ["Two", "One", "initial commit"]

info = api.model_info("lab/model", files_metadata=True)
assert info.card_data.license == "apache-2.0" and "base_model:quantized:owner/base" in info.tags and info.siblings[0].blob_id
assert [m.id for m in api.list_models(filter="base_model:quantized:owner/base")] == ["lab/model"]
assert [m.id for m in api.list_models(author="lab", search="MOD", limit=1, full=True)] == ["lab/model"]

api.create_branch("lab/model", branch="dev"); api.create_tag("lab/model", tag="v1", tag_message="one")
raises(HfHubHTTPError, lambda: api.create_branch("lab/model", branch="dev"))
api.create_branch("lab/model", branch="dev", exist_ok=True)
refs = api.list_repo_refs("lab/model", include_pull_requests=True)
assert {b.name for b in refs.branches} == {"main", "dev"} and refs.tags[0].target_commit == second.oid
api.delete_branch("lab/model", branch="dev"); api.delete_tag("lab/model", tag="v1")

raises(RepositoryNotFoundError, lambda: api.model_info("lab/nothing"))
raises(RepositoryNotFoundError, lambda: HfApi(token=False).model_info("owner/secret"))
raises(RepositoryNotFoundError, lambda: stranger.model_info("owner/secret"))
raises(RevisionNotFoundError, lambda: api.model_info("lab/model", revision="never"))
raises(EntryNotFoundError, lambda: api.hf_hub_download("lab/model", "never.txt"))
raises(RevisionNotFoundError, lambda: api.hf_hub_download("lab/model", "c.txt", revision="never"))
raises(EntryNotFoundError, lambda: list(api.list_repo_tree("lab/model", "never")))
raises(GatedRepoError, lambda: stranger.hf_hub_download("owner/gated", ".gitattributes"))
api.grant_access("owner/gated", "stranger")
stranger.hf_hub_download("owner/gated", ".gitattributes")
raises(HfHubHTTPError, lambda: HfApi(token="hf_nobody_has_this").whoami())
raises(HfHubHTTPError, lambda: stranger.create_commit("lab/model", [CommitOperationAdd("x", b"x")], commit_message="No"))

d = stranger.create_discussion("lab/model", title="Please quantize", description="**4 bit** <script>alert(1)</script>")
assert d.num == 1 and d.status == "open" and not d.is_pull_request
c = api.comment_discussion("lab/model", 1, comment="Soon")
api.edit_discussion_comment("lab/model", 1, c.id, new_content="Now")
api.rename_discussion("lab/model", 1, new_title="Quantize, please")
api.change_discussion_status("lab/model", 1, new_status="closed", comment="Done")
details = api.get_discussion_details("lab/model", 1)
assert details.title == "Quantize, please" and details.status == "closed"
assert [e.type for e in details.events] == ["comment", "comment", "title-change", "comment", "status-change"]
assert details.events[1].content == "Now" and details.events[1].edited
assert details.events[0]._event["author"]["isOrgMember"] is False and details.events[1]._event["author"]["isOrgMember"] is True
hidden = api.hide_discussion_comment("lab/model", 1, c.id)
assert hidden.hidden
raises(HfHubHTTPError, lambda: stranger.merge_pull_request("lab/model", 1))
pr = stranger.create_commit("lab/model", [CommitOperationAdd("pr.txt", b"pr")], commit_message="Propose", create_pr=True)
assert pr.pr_num == 2 and pr.pr_revision == "refs/pr/2"
api.create_commit("lab/model", [CommitOperationAdd("more.txt", b"more")], commit_message="More", revision="refs/pr/2")
api.merge_pull_request("lab/model", 2)
assert api.get_discussion_details("lab/model", 2).status == "merged"
assert {"pr.txt", "more.txt"} <= set(api.list_repo_files("lab/model"))
empty = api.create_pull_request("lab/model", title="An empty one")
assert empty.status == "draft"
for i in range(12): api.create_discussion("lab/model", title=f"Number {i}")
assert len(list(api.get_repo_discussions("lab/model"))) == 15
assert [x.num for x in api.get_repo_discussions("lab/model", discussion_status="closed")] == [2, 1]

hook = api.create_webhook(url="http://127.0.0.1:9/none", watched=[{"type": "org", "name": "lab"}], domains=["repo", "discussion"], secret="s3cret")
assert [w.id for w in api.list_webhooks()] == [hook.id] and not hook.disabled
assert api.disable_webhook(hook.id).disabled and not api.enable_webhook(hook.id).disabled
changed = api.update_webhook(hook.id, url="http://127.0.0.1:9/other", watched=[{"type": "model", "name": "lab/model"}], domains=["repo"])
assert changed.domains == ["repo"] and changed.watched[0].name == "lab/model"
assert stranger.list_webhooks() == []
raises(HfHubHTTPError, lambda: stranger.delete_webhook(hook.id))
api.delete_webhook(hook.id); assert api.list_webhooks() == []

col = api.create_collection("Variants", namespace="lab", description="All of them")
api.create_collection("Variants", namespace="lab", exists_ok=True)
api.add_collection_item(col.slug, "lab/model", "model", note="The base")
raises(HfHubHTTPError, lambda: api.add_collection_item(col.slug, "lab/model", "model"))
api.add_collection_item(col.slug, "lab/model", "model", exists_ok=True)
col = api.get_collection(col.slug)
assert col.items[0].item_id == "lab/model" and col.items[0].note == "The base"
api.update_collection_item(col.slug, col.items[0].item_object_id, note="Renamed")
assert api.get_collection(col.slug).items[0].note == "Renamed"
api.update_collection_metadata(col.slug, title="All variants")
assert [x.title for x in api.list_collections(owner="lab")] == ["All variants"]
api.delete_collection_item(col.slug, api.get_collection(col.slug).items[0].item_object_id)
api.delete_collection(col.slug)

api.update_repo_settings("lab/model", visibility="private")
raises(RepositoryNotFoundError, lambda: stranger.model_info("lab/model"))
api.move_repo("lab/model", "lab/renamed")
assert api.model_info("lab/renamed").id == "lab/renamed" and api.model_info("lab/model").id == "lab/renamed"
api.super_squash_history("lab/renamed")
assert len(api.list_repo_commits("lab/renamed")) == 1
api.delete_repo("lab/renamed"); api.delete_repo("lab/renamed", missing_ok=True)
assert not api.repo_exists("lab/renamed")
print("done")
`,
		pythonEnvironment(hub, home, OWNER),
		STRANGER,
	);
	assert.match(out, /done/);
});

test("transformers loads the demo model from the local Hub", { skip: withoutPython }, async (context) => {
	const hub = await testHub(context);
	const environment = pythonEnvironment(hub, await temporaryFolder(context), OWNER);
	const uploaded = await run(hfCommand, ["upload", "owner/demo", join(root, "demo", "model")], environment);
	assert.equal(uploaded.code, 0, uploaded.stderr.slice(-4000));
	const out = await runPython(
		`
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained("owner/demo")
model = AutoModelForCausalLM.from_pretrained("owner/demo")
out = model(**tokenizer("Once upon a time", return_tensors="pt"))
print("finite", bool(out.logits.isfinite().all()))
`,
		{ ...environment, HF_TOKEN: "" },
	);
	assert.match(out, /finite True/);
});
