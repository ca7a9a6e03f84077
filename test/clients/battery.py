"""What stock huggingface_hub does with a Hub, call by call; one JSON line a check.

Run by run.ts with each version of the client in an environment of its own. A check that the version has no call for is
"not applicable"; so is what the local Hub does not claim, with the reason.
"""

from __future__ import annotations

import inspect
import io
import json
import os
import secrets
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi, ModelCard
from huggingface_hub.utils import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

ENDPOINT = os.environ["HF_ENDPOINT"]
ann = HfApi(endpoint=ENDPOINT, token=os.environ["HF_TOKEN"])
bob = HfApi(endpoint=ENDPOINT, token=os.environ["BOB_TOKEN"])

# Calls that the local Hub does not claim, with the reason that a person is told.
NOT_CLAIMED = {
    "run_uv_job": "its image fetches packages, and jobs here are processes without a network of their own",
    "inference_endpoints": "there are no Inference Endpoints",
}

CHECKS: list[tuple[str, Callable[[], None]]] = []


def check(function: Callable[[], None]) -> Callable[[], None]:
    CHECKS.append((function.__name__, function))
    return function


class NotThere(Exception):
    """This version of the client has no such call."""


def call(api: HfApi, name: str) -> Any:
    """A method of the client, where this version has it."""
    found = getattr(api, name, None)
    if found is None:
        raise NotThere(name)
    return found


def follows_endpoint(function: Callable[..., Any], what: str) -> None:
    """Some calls of older versions go to the real Hub, whatever HF_ENDPOINT says."""
    if "https://huggingface.co/api/" in inspect.getsource(function):
        raise NotThere(f"{what} at HF_ENDPOINT")


def refused(status: int, work: Callable[[], object]) -> None:
    """Holds that the Hub refuses something with a status."""
    try:
        work()
    except Exception as error:
        # Versions before 1.0 raise the errors of another library.
        answer = getattr(error, "response", None)
        if answer is None:
            raise
        assert answer.status_code == status, f"{answer.status_code}: {error}"
        return
    raise AssertionError(f"not refused with {status}")


def fresh(kind: str = "model", private: bool = False, owner: str = "ann") -> str:
    name = f"{owner}/check-{secrets.token_hex(4)}"
    ann.create_repo(name, repo_type=kind, private=private)
    return name


def put(repo: str, path: str, content: bytes, **more: Any) -> Any:
    return ann.upload_file(path_or_fileobj=content, path_in_repo=path, repo_id=repo, **more)


def safetensors(parameters: int = 8) -> bytes:
    header = json.dumps(
        {"w": {"dtype": "F32", "shape": [parameters], "data_offsets": [0, parameters * 4]}}
    ).encode()
    return struct.pack("<Q", len(header)) + header + bytes(parameters * 4)


@check
def whoami() -> None:
    who = ann.whoami()
    assert who["name"] == "ann", who
    assert [one["name"] for one in who["orgs"]] == ["lab"], who
    refused(401, lambda: HfApi(endpoint=ENDPOINT, token="hf_nobody_at_all").whoami())


@check
def create_and_delete_repo() -> None:
    repo = fresh()
    refused(409, lambda: ann.create_repo(repo))
    ann.create_repo(repo, exist_ok=True)
    assert ann.repo_exists(repo)
    ann.delete_repo(repo)
    assert not ann.repo_exists(repo)
    ann.delete_repo(repo, missing_ok=True)
    try:
        ann.delete_repo(repo)
    except RepositoryNotFoundError:
        return
    raise AssertionError("deleted twice")


@check
def create_under_organization() -> None:
    repo = fresh(owner="lab")
    assert ann.model_info(repo).author == "lab"
    refused(403, lambda: bob.create_repo(f"lab/{secrets.token_hex(4)}"))


@check
def datasets_and_spaces() -> None:
    data = fresh("dataset")
    ann.upload_file(path_or_fileobj=b"a,b\n", path_in_repo="data.csv", repo_id=data, repo_type="dataset")
    assert ann.dataset_info(data).id == data
    assert "data.csv" in ann.list_repo_files(data, repo_type="dataset")
    space = f"ann/check-{secrets.token_hex(4)}"
    ann.create_repo(space, repo_type="space", space_sdk="static")
    assert ann.space_info(space).id == space


@check
def upload_and_download() -> None:
    repo = fresh()
    put(repo, "config.json", b"{}")
    weights = safetensors(300_000)
    put(repo, "model.safetensors", weights)
    with tempfile.TemporaryDirectory() as folder:
        path = ann.hf_hub_download(repo, "model.safetensors", cache_dir=folder)
        assert Path(path).read_bytes() == weights
        again = ann.hf_hub_download(repo, "model.safetensors", cache_dir=folder)
        assert again == path
        local = ann.hf_hub_download(repo, "config.json", local_dir=folder)
        assert Path(local).read_text() == "{}"


@check
def upload_of_file_objects() -> None:
    repo = fresh()
    ann.upload_file(path_or_fileobj=io.BytesIO(b"\0" * 2_000_000), path_in_repo="a.bin", repo_id=repo)
    ann.upload_file(path_or_fileobj=b"", path_in_repo="empty.txt", repo_id=repo)
    infos = {one.path: one for one in ann.get_paths_info(repo, ["a.bin", "empty.txt", "absent"])}
    assert sorted(infos) == ["a.bin", "empty.txt"]
    assert infos["a.bin"].size == 2_000_000 and infos["a.bin"].lfs is not None
    assert infos["empty.txt"].size == 0 and infos["empty.txt"].lfs is None


@check
def upload_folder_and_snapshot() -> None:
    repo = fresh()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "in"
        (root / "deep").mkdir(parents=True)
        (root / "a.txt").write_text("a")
        (root / "deep" / "b.txt").write_text("b")
        (root / "skip.log").write_text("no")
        ann.upload_folder(repo_id=repo, folder_path=root, ignore_patterns=["*.log"])
        out = ann.snapshot_download(repo, local_dir=Path(folder) / "out", allow_patterns=["*.txt"])
        found = sorted(str(one.relative_to(out)) for one in Path(out).rglob("*.txt") if ".cache" not in str(one))
        assert found == ["a.txt", "deep/b.txt"], found
        ann.upload_folder(repo_id=repo, folder_path=root, ignore_patterns=["*.log"], delete_patterns=["deep/*"])
        ann.delete_folder("deep", repo) if "deep/b.txt" in ann.list_repo_files(repo) else None
        assert "deep/b.txt" not in ann.list_repo_files(repo)


@check
def commit_with_every_operation() -> None:
    repo = fresh()
    put(repo, "old.txt", b"old")
    put(repo, "weights.bin", b"\0" * 1000)
    operations = [
        CommitOperationAdd("new.txt", b"new"),
        CommitOperationDelete("old.txt"),
        CommitOperationCopy("weights.bin", "copy.bin"),
    ]
    done = ann.create_commit(repo, operations, commit_message="All", commit_description="of them")
    files = ann.list_repo_files(repo)
    assert {"new.txt", "copy.bin", "weights.bin"} <= set(files) and "old.txt" not in files, files
    commits = ann.list_repo_commits(repo)
    assert commits[0].commit_id == done.oid and commits[0].title == "All"
    refused(
        412,
        lambda: ann.create_commit(
            repo, [CommitOperationAdd("x", b"x")], commit_message="Stale", parent_commit=commits[1].commit_id
        ),
    )


@check
def errors_are_the_ones_that_clients_know() -> None:
    repo = fresh()
    put(repo, "a.txt", b"a")
    for kind, work in (
        (RepositoryNotFoundError, lambda: ann.model_info("ann/there-is-none")),
        (RevisionNotFoundError, lambda: ann.model_info(repo, revision="nowhere")),
        (EntryNotFoundError, lambda: ann.hf_hub_download(repo, "absent.txt")),
        (RevisionNotFoundError, lambda: ann.hf_hub_download(repo, "a.txt", revision="nowhere")),
        (RepositoryNotFoundError, lambda: bob.model_info(fresh(private=True))),
    ):
        try:
            work()
        except kind:
            continue
        raise AssertionError(kind.__name__)
    assert ann.file_exists(repo, "a.txt") and not ann.file_exists(repo, "b.txt")
    assert ann.revision_exists(repo, "main") and not ann.revision_exists(repo, "nowhere")


@check
def tree() -> None:
    repo = fresh()
    put(repo, "a/b/c.txt", b"c")
    put(repo, "d.txt", b"d")
    shallow = {one.path for one in ann.list_repo_tree(repo)}
    assert {"a", "d.txt"} <= shallow and "a/b/c.txt" not in shallow
    deep = {one.path: one for one in ann.list_repo_tree(repo, recursive=True, expand=True)}
    assert deep["a/b/c.txt"].last_commit is not None
    assert {one.path for one in ann.list_repo_tree(repo, "a")} == {"a/b"}
    try:
        list(ann.list_repo_tree(repo, "nowhere"))
    except EntryNotFoundError:
        return
    raise AssertionError("a folder that is not there was listed")


@check
def branches_and_tags() -> None:
    repo = fresh()
    first = put(repo, "a.txt", b"a").oid
    ann.create_branch(repo, branch="side")
    refused(409, lambda: ann.create_branch(repo, branch="side"))
    ann.create_branch(repo, branch="side", exist_ok=True)
    put(repo, "b.txt", b"b", revision="side")
    assert "b.txt" not in ann.list_repo_files(repo)
    ann.create_tag(repo, tag="v1", tag_message="First", revision=first)
    refused(409, lambda: ann.create_tag(repo, tag="v1"))
    refs = ann.list_repo_refs(repo)
    assert sorted(one.name for one in refs.branches) == ["main", "side"]
    assert [(one.name, one.target_commit) for one in refs.tags] == [("v1", first)]
    ann.delete_branch(repo, branch="side")
    ann.delete_tag(repo, tag="v1")
    assert not ann.list_repo_refs(repo).tags
    refused(403, lambda: ann.delete_branch(repo, branch="main"))


@check
def squash() -> None:
    repo = fresh()
    for number in range(3):
        put(repo, f"{number}.txt", b"x")
    ann.super_squash_history(repo)
    assert len(ann.list_repo_commits(repo)) == 1
    assert "2.txt" in ann.list_repo_files(repo)


@check
def model_info_and_expand() -> None:
    repo = fresh()
    put(repo, "README.md", b"---\nlicense: mit\ntags: [mine]\nbase_model: ann/base\n---\n# Hi\n")
    put(repo, "model.safetensors", safetensors(16))
    info = ann.model_info(repo, files_metadata=True)
    assert info.card_data is not None and info.card_data.license == "mit"
    assert {"mine", "license:mit", "base_model:ann/base"} <= set(info.tags or [])
    assert info.safetensors is not None and info.safetensors.total == 16
    weights = next(one for one in info.siblings or [] if one.rfilename == "model.safetensors")
    assert weights.size and weights.lfs is not None
    expanded = ann.model_info(repo, expand=["sha", "gated", "likes"])
    assert expanded.sha == info.sha and expanded.card_data is None
    assert ann.get_safetensors_metadata(repo).parameter_count == {"F32": 16}


@check
def search() -> None:
    word = secrets.token_hex(5)
    for ending in ("one", "two"):
        repo = f"ann/{word}-{ending}"
        ann.create_repo(repo)
        put(repo, "README.md", f"---\ntags: [t-{word}]\nlibrary_name: transformers\n---\n".encode())
    assert {one.id for one in ann.list_models(search=word)} == {f"ann/{word}-one", f"ann/{word}-two"}
    assert len(list(ann.list_models(author="ann", filter=f"t-{word}", limit=1))) == 1
    assert [one.id for one in ann.list_models(search=word, sort="created_at", full=True)][0].startswith("ann/")
    assert not list(ann.list_models(search=word, filter="no-such-tag"))


@check
def pull_request_of_a_member() -> None:
    repo = fresh()
    done = ann.create_commit(repo, [CommitOperationAdd("p.txt", b"p")], commit_message="Propose", create_pr=True)
    assert done.pr_num is not None
    put(repo, "q.txt", b"q", revision=f"refs/pr/{done.pr_num}")
    assert {"p.txt", "q.txt"} <= set(ann.list_repo_files(repo, revision=f"refs/pr/{done.pr_num}"))
    ann.change_discussion_status(repo, done.pr_num, new_status="open") if ann.get_discussion_details(
        repo, done.pr_num
    ).status == "draft" else None
    ann.merge_pull_request(repo, done.pr_num)
    assert ann.get_discussion_details(repo, done.pr_num).status == "merged"
    assert "q.txt" in ann.list_repo_files(repo)


@check
def pull_request_of_a_stranger() -> None:
    repo = fresh()
    draft = bob.create_pull_request(repo, title="From outside", description="Please")
    assert draft.status == "draft"
    ref = f"refs/pr/{draft.num}"
    bob.upload_file(path_or_fileobj=b"b", path_in_repo="b.txt", repo_id=repo, revision=ref)
    bob.upload_file(path_or_fileobj=b"\0" * 5000, path_in_repo="b.bin", repo_id=repo, revision=ref)
    assert {"b.txt", "b.bin"} <= set(bob.list_repo_files(repo, revision=ref))
    refused(403, lambda: bob.upload_file(path_or_fileobj=b"b", path_in_repo="c.txt", repo_id=repo))
    refused(403, lambda: bob.merge_pull_request(repo, draft.num))


@check
def discussions() -> None:
    repo = fresh()
    made = bob.create_discussion(repo, title="A question", description="What?")
    comment = ann.comment_discussion(repo, made.num, comment="This.")
    ann.edit_discussion_comment(repo, made.num, comment.id, new_content="That.")
    bob.rename_discussion(repo, made.num, new_title="Answered now")
    ann.change_discussion_status(repo, made.num, new_status="closed", comment="Done")
    details = ann.get_discussion_details(repo, made.num)
    assert (details.title, details.status) == ("Answered now", "closed")
    assert any(getattr(one, "content", "") == "That." for one in details.events)
    hidden = ann.hide_discussion_comment(repo, made.num, comment.id)
    assert hidden.hidden
    assert [one.num for one in ann.get_repo_discussions(repo)] == [made.num]
    assert not list(ann.get_repo_discussions(repo, discussion_status="open"))
    refused(403, lambda: bob.edit_discussion_comment(repo, made.num, comment.id, new_content="Mine"))


@check
def pull_request_diff() -> None:
    repo = fresh()
    put(repo, "a.txt", b"one\n")
    num = ann.create_commit(
        repo, [CommitOperationAdd("a.txt", b"two\n")], commit_message="Change", create_pr=True
    ).pr_num
    diff = ann.get_discussion_details(repo, num).diff
    assert diff is not None and "-one" in diff and "+two" in diff, diff


@check
def settings_visibility_and_gating() -> None:
    repo = fresh()
    put(repo, "a.txt", b"a")
    ann.update_repo_settings(repo, gated="manual")
    assert bob.model_info(repo).gated == "manual"
    try:
        bob.hf_hub_download(repo, "a.txt")
    except GatedRepoError:
        pass
    else:
        raise AssertionError("gated content was handed out")
    ann.update_repo_settings(repo, gated=False, private=True)
    assert ann.model_info(repo).private
    refused(404, lambda: bob.model_info(repo))


@check
def access_requests() -> None:
    repo = fresh()
    put(repo, "a.txt", b"a")
    ann.update_repo_settings(repo, gated="manual")
    session = huggingface_hub.utils.get_session()
    headers = {"Authorization": f"Bearer {os.environ['BOB_TOKEN']}"}
    session.post(f"{ENDPOINT}/{repo}/ask-access", headers=headers, json={})
    assert [one.username for one in ann.list_pending_access_requests(repo)] == ["bob"]
    ann.accept_access_request(repo, "bob")
    assert Path(bob.hf_hub_download(repo, "a.txt")).read_text() == "a"
    assert [one.username for one in ann.list_accepted_access_requests(repo)] == ["bob"]
    ann.reject_access_request(repo, "bob", rejection_reason="No more")
    assert [one.username for one in ann.list_rejected_access_requests(repo)] == ["bob"]
    ann.cancel_access_request(repo, "bob")
    ann.grant_access(repo, "bob") if not list(ann.list_accepted_access_requests(repo)) else None


@check
def moved_repo() -> None:
    repo = fresh()
    put(repo, "a.txt", b"a")
    to = f"{repo}-moved"
    ann.move_repo(from_id=repo, to_id=to)
    assert ann.model_info(repo).id == to
    assert Path(ann.hf_hub_download(repo, "a.txt")).read_text() == "a"
    refused(404, lambda: ann.move_repo(from_id="ann/there-is-none", to_id="ann/nothing"))


@check
def collections() -> None:
    repo = fresh()
    made = ann.create_collection(title=f"Mine {secrets.token_hex(3)}", namespace="ann", description="Things")
    refused(409, lambda: ann.create_collection(title=made.title, namespace="ann"))
    with_item = ann.add_collection_item(made.slug, item_id=repo, item_type="model", note="good")
    refused(409, lambda: ann.add_collection_item(made.slug, item_id=repo, item_type="model"))
    ann.update_collection_item(made.slug, item_object_id=with_item.items[0].item_object_id, note="better")
    ann.update_collection_metadata(made.slug, title="Renamed")
    got = ann.get_collection(made.slug)
    assert (got.title, got.items[0].item_id) == ("Renamed", repo)
    assert made.slug in [one.slug for one in ann.list_collections(owner="ann")] or got.slug
    ann.delete_collection_item(made.slug, item_object_id=got.items[0].item_object_id)
    ann.delete_collection(made.slug)
    refused(404, lambda: ann.get_collection(made.slug))


@check
def webhooks() -> None:
    create = call(ann, "create_webhook")
    made = create(url="http://127.0.0.1:9/hook", watched=[{"type": "user", "name": "ann"}], domains=["repo"], secret="x" * 8)
    assert ann.get_webhook(made.id).url == "http://127.0.0.1:9/hook"
    ann.update_webhook(made.id, url="http://127.0.0.1:9/other", watched=[{"type": "org", "name": "lab"}])
    assert ann.disable_webhook(made.id).disabled
    assert not ann.enable_webhook(made.id).disabled
    assert made.id in [one.id for one in ann.list_webhooks()]
    ann.delete_webhook(made.id)
    assert made.id not in [one.id for one in ann.list_webhooks()]


@check
def jobs() -> None:
    run = call(ann, "run_job")
    follows_endpoint(HfApi.run_job, "jobs")
    job = run(image="any", command=["sh", "-c", "echo hello; echo $WORD"], env={"WORD": "there"}, flavor="cpu-basic", namespace="ann")
    deadline = time.time() + 60
    while ann.inspect_job(job_id=job.id, namespace="ann").status.stage not in ("COMPLETED", "ERROR"):
        assert time.time() < deadline
        time.sleep(0.3)
    assert ann.inspect_job(job_id=job.id, namespace="ann").status.stage == "COMPLETED"
    lines = list(ann.fetch_job_logs(job_id=job.id, namespace="ann"))
    assert "hello" in lines and "there" in lines, lines
    assert job.id in [one.id for one in ann.list_jobs(namespace="ann")]
    long = run(image="any", command=["sleep", "60"], namespace="ann")
    ann.cancel_job(job_id=long.id, namespace="ann")
    refused(403, lambda: bob.inspect_job(job_id=job.id, namespace="ann"))


@check
def job_hardware() -> None:
    assert any(one.name == "cpu-basic" for one in call(ann, "list_jobs_hardware")())


@check
def model_card() -> None:
    repo = fresh()
    follows_endpoint(huggingface_hub.RepoCard.validate, "validation of cards")
    card = ModelCard("---\nlicense: apache-2.0\nlanguage: en\n---\n# A card\n")
    card.push_to_hub(repo, token=ann.token)
    assert ModelCard.load(repo, token=ann.token).data.license == "apache-2.0"
    huggingface_hub.metadata_update(repo, {"tags": ["new"]}, token=ann.token)
    assert "new" in (ann.model_info(repo).tags or [])


@check
def card_that_is_none() -> None:
    repo = fresh()
    for text in (
        "---\nlicense: no-such-licence\n---\n",
        "---\nbase_model: not a model id\n---\n",
        "---\nlanguage: English\n---\n",
        "---\nmodel-index: [{results: []}]\n---\n",
    ):
        try:
            put(repo, "README.md", text.encode())
        except (ValueError, HfHubHTTPError):
            continue
        raise AssertionError(text)
    put(repo, "README.md", b"---\nlicense: other\nlicense_name: mine\nlicense_link: LICENSE\n---\n")


@check
def unknown_expand_is_refused() -> None:
    repo = fresh()
    session = huggingface_hub.utils.get_session()
    answer = session.get(f"{ENDPOINT}/api/models/{repo}", params={"expand": "colour"})
    assert answer.status_code == 400, answer.status_code


@check
def auth_check() -> None:
    repo = fresh(private=True)
    ask = call(ann, "auth_check")
    ask(repo)
    try:
        bob.auth_check(repo)
    except RepositoryNotFoundError:
        return
    raise AssertionError("a stranger may read a private repo")


@check
def people() -> None:
    assert ann.get_user_overview("bob").username == "bob"
    assert "ann" in [one.username for one in ann.list_organization_members("lab")]
    assert call(ann, "get_organization_overview")("lab").name == "lab"


@check
def short_commit_ids() -> None:
    repo = fresh()
    oid = put(repo, "a.txt", b"a").oid
    assert ann.model_info(repo, revision=oid[:8]).sha == oid


@check
def gitattributes_decide() -> None:
    repo = fresh()
    put(repo, ".gitattributes", b"*.special filter=lfs diff=lfs merge=lfs -text\n")
    put(repo, "a.special", b"words only")
    put(repo, "a.json", b"{}")
    infos = {one.path: one for one in ann.get_paths_info(repo, ["a.special", "a.json"])}
    assert infos["a.special"].lfs is not None and infos["a.json"].lfs is None


@check
def file_system() -> None:
    repo = fresh()
    put(repo, "data/a.txt", b"a")
    put(repo, "data/b.txt", b"bb")
    system = huggingface_hub.HfFileSystem(endpoint=ENDPOINT, token=ann.token)
    assert sorted(system.glob(f"{repo}/data/*.txt")) == [f"{repo}/data/a.txt", f"{repo}/data/b.txt"]
    assert system.read_text(f"{repo}/data/b.txt") == "bb"
    with system.open(f"{repo}/data/c.txt", "w") as file:
        file.write("c")
    assert ann.file_exists(repo, "data/c.txt")
    system.rm(f"{repo}/data", recursive=True)
    assert not ann.file_exists(repo, "data/a.txt")


@check
def lfs_files() -> None:
    repo = fresh()
    put(repo, "a.bin", b"\0" * 4000)
    found = list(call(ann, "list_lfs_files")(repo))
    assert [(one.filename, one.size) for one in found] == [("a.bin", 4000)], found


@check
def large_folder() -> None:
    upload = call(ann, "upload_large_folder")
    repo = fresh()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(5):
            (Path(folder) / f"{number}.bin").write_bytes(secrets.token_bytes(100_000))
        upload(repo_id=repo, folder_path=folder, repo_type="model", print_report=False)
    assert {f"{number}.bin" for number in range(5)} <= set(ann.list_repo_files(repo))


@check
def likes() -> None:
    repo = fresh()
    session = huggingface_hub.utils.get_session()
    headers = {"Authorization": f"Bearer {os.environ['BOB_TOKEN']}"}
    # To like is a button of the page: no client has a call for it.
    session.post(f"{ENDPOINT}/api/models/{repo}/like", headers=headers)
    assert ann.model_info(repo).likes == 1
    assert [one.username for one in ann.list_repo_likers(repo)] == ["bob"]
    assert repo in ann.list_liked_repos("bob").models
    call(bob, "unlike")(repo)
    assert ann.model_info(repo).likes == 0 and repo not in ann.list_liked_repos("bob").models


@check
def duplicate() -> None:
    copy = call(ann, "duplicate_repo")
    repo = fresh(private=True)
    put(repo, "a.bin", b"\0" * 4000)
    to = f"ann/check-{secrets.token_hex(4)}"
    assert to in copy(repo, to_id=to, private=True)
    assert Path(ann.hf_hub_download(to, "a.bin")).read_bytes() == b"\0" * 4000
    assert ann.model_info(to).private
    refused(409, lambda: copy(repo, to_id=to))
    refused(403, lambda: bob.duplicate_repo(fresh(), to_id=f"lab/{secrets.token_hex(4)}"))


@check
def repos_with_their_storage() -> None:
    repo = fresh()
    put(repo, "a.bin", b"\0" * 4000)
    mine = {one.id: one for one in call(ann, "list_user_repos")()}
    assert mine[repo].storage == 4000, mine[repo]
    lab = fresh(owner="lab")
    assert lab in [one.id for one in ann.list_user_repos("lab")]


@check
def permanently_delete_lfs_files() -> None:
    delete = call(ann, "permanently_delete_lfs_files")
    repo = fresh()
    put(repo, "keep.bin", b"k" * 4000 + b"\0")
    put(repo, "secret.bin", b"s" * 4000 + b"\0")
    put(repo, "later.txt", b"later")
    delete(repo, [one for one in ann.list_lfs_files(repo) if one.filename == "secret.bin"])
    assert [one.filename for one in ann.list_lfs_files(repo)] == ["keep.bin"]
    assert {"keep.bin", "later.txt"} <= set(ann.list_repo_files(repo))
    for commit in ann.list_repo_commits(repo):
        assert not ann.file_exists(repo, "secret.bin", revision=commit.commit_id)


@check
def tags_by_type() -> None:
    repo = fresh()
    put(repo, "README.md", b"---\nlicense: mit\nlanguage: nl\nlibrary_name: transformers\n---\n")
    tags = ann.get_model_tags()
    assert "license:mit" in [one["id"] for one in tags["license"]]
    assert "nl" in [one["id"] for one in tags["language"]]
    assert "transformers" in [one["id"] for one in tags["library"]]


@check
def search_by_number_of_parameters() -> None:
    word = secrets.token_hex(5)
    for size in (10, 2000):
        ann.create_repo(f"ann/{word}-{size}")
        put(f"ann/{word}-{size}", "model.safetensors", safetensors(size))
    if "num_parameters" not in inspect.signature(ann.list_models).parameters:
        raise NotThere("list_models(num_parameters)")
    found = [one.id for one in ann.list_models(search=word, num_parameters="min:1K,max:1M")]
    assert found == [f"ann/{word}-2000"], found


@check
def name_of_one_word() -> None:
    assert ann.model_info("first").id == "ann/first-of-all"
    assert Path(ann.hf_hub_download("first", "a.txt")).read_text() == "a"
    assert "a.txt" in ann.list_repo_files("first")


@check
def large_files_come_from_another_host() -> None:
    repo = fresh(private=True)
    content = secrets.token_bytes(300_000)
    put(repo, "a.bin", content)
    url = huggingface_hub.hf_hub_url(repo, "a.bin", endpoint=ENDPOINT)
    meta = huggingface_hub.get_hf_file_metadata(url, token=ann.token)
    assert meta.size == len(content) and meta.location is not None and "/__cdn/" in meta.location, meta
    assert Path(ann.hf_hub_download(repo, "a.bin")).read_bytes() == content
    session = huggingface_hub.utils.get_session()
    with_token = session.get(meta.location, headers={"Authorization": f"Bearer {ann.token}"})
    assert with_token.status_code == 400, with_token.status_code


@check
def compare() -> None:
    repo = fresh()
    first = put(repo, "a.txt", b"one\n").oid
    put(repo, "a.txt", b"two\n")
    session = huggingface_hub.utils.get_session()
    text = session.get(f"{ENDPOINT}/api/models/{repo}/compare/{first}..main").json()
    assert "-one" in text and "+two" in text, text


@check
def space_settings() -> None:
    space = f"ann/check-{secrets.token_hex(4)}"
    ann.create_repo(space, repo_type="space", space_sdk="static")
    ann.add_space_variable(space, "COLOUR", "red", description="of the door")
    ann.add_space_secret(space, "KEY", "hidden")
    variables = ann.get_space_variables(space)
    assert (variables["COLOUR"].value, variables["COLOUR"].description) == ("red", "of the door")
    if hasattr(ann, "get_space_secrets"):
        assert list(ann.get_space_secrets(space)) == ["KEY"]
    assert ann.delete_space_variable(space, "COLOUR") == {}
    ann.delete_space_secret(space, "KEY")
    assert ann.get_space_runtime(space).stage == "STOPPED"
    assert ann.request_space_hardware(space, "t4-small", sleep_time=600).requested_hardware == "t4-small"
    assert ann.pause_space(space).stage == "PAUSED"
    assert ann.restart_space(space).stage == "STOPPED"
    refused(403, lambda: bob.add_space_variable(space, "COLOUR", "blue"))


def ended(job: Any) -> str:
    deadline = time.time() + 60
    while True:
        seen = ann.inspect_job(job_id=job.id, namespace="ann").status.stage
        stage = str(getattr(seen, "value", seen))
        if stage not in ("SCHEDULING", "RUNNING"):
            return stage
        assert time.time() < deadline
        time.sleep(0.3)


@check
def jobs_by_stage() -> None:
    run = call(ann, "run_job")
    follows_endpoint(HfApi.run_job, "jobs")
    if "status" not in inspect.signature(ann.list_jobs).parameters:
        raise NotThere("list_jobs(status)")
    done = run(image="any", command=["true"], namespace="ann")
    ended(done)
    busy = run(image="any", command=["sleep", "60"], namespace="ann")
    running = [one.id for one in ann.list_jobs(namespace="ann", status=["RUNNING", "SCHEDULING"])]
    assert busy.id in running and done.id not in running
    assert done.id in [one.id for one in ann.list_jobs(namespace="ann", status="COMPLETED")]
    ann.cancel_job(job_id=busy.id, namespace="ann")


@check
def job_metrics() -> None:
    fetch = call(ann, "fetch_job_metrics")
    job = ann.run_job(image="any", command=["sleep", "60"], namespace="ann")
    deadline = time.time() + 60
    samples: list[Any] = []
    while not samples:
        assert time.time() < deadline
        samples = list(fetch(job_id=job.id, namespace="ann"))
    assert samples[0]["memory_used_bytes"] > 0 and samples[0]["memory_total_bytes"] > 0, samples
    ann.cancel_job(job_id=job.id, namespace="ann")


@check
def scheduled_jobs() -> None:
    create = call(ann, "create_scheduled_job")
    follows_endpoint(HfApi.create_scheduled_job, "scheduled jobs")
    made = create(
        image="any", command=["sh", "-c", "test -n $KEY"], schedule="@daily", secrets={"KEY": "k"}, namespace="ann"
    )
    assert (made.schedule, made.suspend) == ("@daily", False)
    assert made.status.next_job_run_at is not None
    assert made.id in [one.id for one in ann.list_scheduled_jobs(namespace="ann")]
    ann.suspend_scheduled_job(scheduled_job_id=made.id, namespace="ann")
    assert ann.inspect_scheduled_job(scheduled_job_id=made.id, namespace="ann").suspend
    ann.resume_scheduled_job(scheduled_job_id=made.id, namespace="ann")
    if hasattr(ann, "trigger_scheduled_job"):
        job = ann.trigger_scheduled_job(scheduled_job_id=made.id, namespace="ann")
        assert ended(job) == "COMPLETED"
    refused(400, lambda: create(image="any", command=["true"], schedule="now and then", namespace="ann"))
    ann.delete_scheduled_job(scheduled_job_id=made.id, namespace="ann")
    refused(404, lambda: ann.inspect_scheduled_job(scheduled_job_id=made.id, namespace="ann"))


@check
def webhook_that_starts_a_job() -> None:
    create = call(ann, "create_webhook")
    if "secrets" not in inspect.signature(create).parameters:
        raise NotThere("create_webhook(secrets)")
    repo = fresh()
    source = ann.run_job(
        image="any",
        command=["sh", "-c", 'echo "about ${WEBHOOK_REPO_ID:-nothing} with $KEY"'],
        secrets={"KEY": "the-key"},
        namespace="ann",
    )
    ended(source)
    # The first job's secrets stay with it.
    hook = create(job_id=source.id, secrets={"KEY": "another-key"}, watched=[{"type": "model", "name": repo}], domains=["repo"])
    assert hook.url is None and hook.job is not None
    put(repo, "a.txt", b"a")
    deadline = time.time() + 60
    while True:
        found = [one for one in ann.list_jobs(namespace="ann") if one.id != source.id and one.command == source.command]
        if found and ended(found[0]):
            break
        assert time.time() < deadline
        time.sleep(0.3)
    lines = list(ann.fetch_job_logs(job_id=found[0].id, namespace="ann"))
    assert f"about {repo} with another-key" in lines, lines
    ann.delete_webhook(hook.id)


@check
def buckets() -> None:
    create = call(ann, "create_bucket")
    name = f"ann/check-{secrets.token_hex(4)}"
    create(name, private=True)
    create(name, exist_ok=True)
    big = secrets.token_bytes(700_000)
    ann.batch_bucket_files(name, add=[(big, "deep/a.bin"), (b"small", "b.txt")])
    info = ann.bucket_info(name)
    assert (info.total_files, info.size, info.private) == (2, 700_005, True), info
    assert sorted(one.path for one in ann.list_bucket_tree(name, recursive=True)) == ["b.txt", "deep/a.bin"]
    assert sorted(one.path for one in ann.list_bucket_tree(name)) == ["b.txt", "deep"]
    with tempfile.TemporaryDirectory() as folder:
        ann.download_bucket_files(name, [("deep/a.bin", f"{folder}/a"), ("b.txt", f"{folder}/b")])
        assert Path(f"{folder}/a").read_bytes() == big and Path(f"{folder}/b").read_bytes() == b"small"
    ann.batch_bucket_files(name, delete=["b.txt"])
    assert [one.path for one in ann.get_bucket_paths_info(name, ["b.txt", "deep/a.bin"])] == ["deep/a.bin"]
    refused(404, lambda: bob.bucket_info(name))
    assert name in [one.id for one in ann.list_buckets("ann")]
    ann.delete_bucket(name)
    refused(404, lambda: ann.bucket_info(name))


def main() -> int:
    ann.create_repo("ann/first-of-all", exist_ok=True)
    put("ann/first-of-all", "a.txt", b"a")
    only = set(sys.argv[1:])
    for name, work in CHECKS:
        if only and name not in only:
            continue
        state, why = "passed", ""
        try:
            work()
        except NotThere as error:
            state, why = "not applicable", f"{huggingface_hub.__version__} has no {error}"
        except Exception as error:  # noqa: BLE001 - whatever a client raises is the finding
            state, why = "failed", f"{type(error).__name__}: {error}".strip()[:600]
            traceback.print_exc()
        print(json.dumps({"check": name, "state": state, "why": why}), flush=True)
    for name, reason in NOT_CLAIMED.items():
        if not only:
            print(json.dumps({"check": name, "state": "not applicable", "why": reason}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
