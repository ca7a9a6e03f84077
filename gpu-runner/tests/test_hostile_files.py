"""Files of a source that are made to harm whoever reads them: each ends as a refusal that says why, or does nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tiny_checkpoints import save_checkpoint

from yaqa_runner.evaluate.chat_process import render_apart
from yaqa_runner.model.load import load_tokenizer
from yaqa_runner.model.snapshot import inspect_snapshot, link_snapshot
from yaqa_runner.protocol.failures import SourceRefused, as_failure


@pytest.mark.parametrize("name", ["LICENSE", "README.md", "config.json", "additional_chat_templates/a.jinja"])
def test_a_link_out_of_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "llama")
    secret = tmp_path / "secret"
    shutil.copyfile(source / "config.json", secret)
    link = source / name
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(secret)
    with pytest.raises(SourceRefused, match=f"{name} is a link that leads out"):
        inspect_snapshot(source)


def test_a_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "llama")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a.jinja").write_text("secret")
    (source / "additional_chat_templates").symlink_to(elsewhere)
    with pytest.raises(SourceRefused, match="leads out"):
        inspect_snapshot(source)


def test_the_links_of_a_hub_cache_and_those_within_the_folder_are_read(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "llama")
    blobs = tmp_path / "models--o--m" / "blobs"
    snapshot = tmp_path / "models--o--m" / "snapshots" / ("a" * 40)
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for path in source.iterdir():
        shutil.copyfile(path, blobs / path.name)
        (snapshot / path.name).symlink_to(Path("../../blobs") / path.name)
    (snapshot / "LICENSE.txt").write_text("terms")
    (snapshot / "LICENSE").unlink(missing_ok=True)
    (snapshot / "LICENSE").symlink_to("LICENSE.txt")
    inspected = inspect_snapshot(snapshot)
    assert (link_snapshot(inspected, tmp_path / "linked") / "LICENSE").read_text() == "terms"


@pytest.mark.parametrize("front", ["[" * 20_000, "- " * 20_000, "a: " + "{b: " * 10_000, "x: &a [1]\n" * 200_000])
def test_front_matter_that_is_made_to_exhaust_its_reader_says_nothing(front: str, tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "llama")
    (source / "README.md").write_text(f"---\nlicense: mit\n{front}\n---\n")
    assert inspect_snapshot(source).license is None


@pytest.mark.parametrize("place", ["normalizer", "pre_tokenizer"])
def test_a_pattern_that_does_not_end_is_a_refusal(place: str, tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "llama")
    document = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    pattern = {"Regex": "(a+)+$"}
    document[place] = (
        {"type": "Replace", "pattern": pattern, "content": "x"}
        if place == "normalizer"
        else {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
    )
    (source / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    tokenizer = load_tokenizer(inspect_snapshot(source))
    assert tokenizer is not None
    # Rust's panics are no Exception: only as such are they caught.
    with pytest.raises(BaseException) as raised:
        tokenizer("a" * 40 + "! ")
    failure = as_failure(raised.value)
    assert (failure.code, "patterns cannot be carried out" in failure.message) == ("source-refused", True)


@pytest.mark.parametrize("pattern", ["((((", "(" * 6000 + ")" * 6000, "[z-a]"])
def test_a_pattern_that_cannot_be_read_is_a_refusal(pattern: str, tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "llama")
    document = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    document["pre_tokenizer"] = {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }
    (source / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(SourceRefused, match="cannot be loaded"):
        load_tokenizer(inspect_snapshot(source))


def _with_tokenizer(tmp_path: Path, **changes: object) -> Path:
    source = save_checkpoint(tmp_path / "tiny", "llama")
    document = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    (source / "tokenizer.json").write_text(json.dumps({**document, **changes}), encoding="utf-8")
    return source


def _replace(text: str, content: str) -> dict[str, object]:
    return {"type": "Replace", "pattern": {"String": text}, "content": content}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"normalizer": {"type": "Sequence", "normalizers": [_replace("e", "e" * 16)] * 3}}, "1024 times as long"),
        ({"decoder": {"type": "Sequence", "decoders": [_replace("e", "f")] * 1001}}, "more than 1000 steps"),
        (
            {"model": {"type": "BPE", "vocab": {f"t{at}": at for at in range(150_000)}, "merges": []}},
            "has 150000 tokens",
        ),
        ({"added_tokens": [{"id": 0, "content": "x" * 10_001}]}, "a token of 10001 characters"),
    ],
)
def test_steps_that_exhaust_whoever_carries_them_out_are_a_refusal(
    changes: dict[str, object], says: str, tmp_path: Path
) -> None:
    source = _with_tokenizer(tmp_path, **changes)
    with pytest.raises(SourceRefused, match=says):
        load_tokenizer(inspect_snapshot(source))


def test_the_replacements_of_known_tokenizers_are_taken(tmp_path: Path) -> None:
    steps = [_replace(" ", "\u2581"), _replace("``", '"'), _replace("''", '"'), _replace("x", "yyyy")]
    source = _with_tokenizer(tmp_path, normalizer={"type": "Sequence", "normalizers": steps})
    assert load_tokenizer(inspect_snapshot(source)) is not None


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3,
        "{% set a = 'xxxxxxxx' %}" + "{% set a = a ~ a %}" * 60 + "{{ a }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    ],
)
def test_a_chat_template_that_is_made_to_exhaust_its_reader_is_none(template: str) -> None:
    assert render_apart(template, [{"role": "user", "content": "Hi"}], {}, 1000) is None


def test_a_chat_template_renders_with_the_special_tokens() -> None:
    template = "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}"
    assert render_apart(template, [{"role": "user", "content": "Hi é"}], {"bos_token": "<s>"}, 1000) == "<s>user: Hi é"
    assert render_apart(template, [{"role": "user", "content": "Hi"}], {}, 3) is None
