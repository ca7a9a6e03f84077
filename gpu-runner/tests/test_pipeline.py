"""Jobs from spec to variants: files, manifests, events, resuming, refusals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from tiny_checkpoints import save_checkpoint
from tiny_jobs import document, run, schema

from yaqa_runner.formats import ExportError
from yaqa_runner.formats.gguf.container import GgufContainer
from yaqa_runner.pipeline import run_job as run_job_module
from yaqa_runner.pipeline.finish import JobOutcome
from yaqa_runner.pipeline.run_context import RunContext
from yaqa_runner.protocol.failures import Interrupted, InvalidSpec, RunnerFailure, UnsupportedModel, as_failure
from yaqa_runner.protocol.interrupt import InterruptFlag


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("models") / "llama", "llama", intermediate_size=128)


def hashes(outcome: JobOutcome) -> list[list[tuple[str, str]]]:
    return [[(file.path, file.sha256) for file in manifest.files] for manifest in outcome.manifests]


@pytest.fixture(scope="module")
def finished(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, JobOutcome, list[dict[str, Any]]]:
    output = tmp_path_factory.mktemp("finished") / "out"
    outcome, events = run(document(model, output, "gguf:q4_0", "onnx:q4", "w4a16,group=32"), output)
    return output, outcome, events


def test_a_job_leaves_whole_variants_and_nothing_else(finished: tuple[Path, JobOutcome, list[dict[str, Any]]]) -> None:
    output, outcome, _ = finished
    assert {path.name for path in output.iterdir()} == {
        "gguf-q4-0",
        "onnx-q4",
        "w4a16-group-32",
        "sketch",
        "verification.safetensors",
    }
    validator = jsonschema.Draft202012Validator(schema("manifest.schema.json"))
    for (_, directory), manifest in zip(outcome.variants, outcome.manifests, strict=True):
        written = json.loads((output / directory / "manifest.json").read_text(encoding="utf-8"))
        validator.validate(written)
        files = {
            path.relative_to(output / directory).as_posix()
            for path in (output / directory).rglob("*")
            if path.is_file()
        }
        assert files == {file.path for file in manifest.files} | {"manifest.json"}
        assert len({row.bytes for row in manifest.evaluation.measured}) == 1
        beside = [file for file in manifest.files if file.path.startswith("imatrix/")]
        assert len(beside) == (1 if directory == "gguf-q4-0" else 0)
        own = sum(file.size for file in manifest.files if file not in beside)
        assert {row.bytes for row in manifest.evaluation.measured} == {own}
        assert {row.quantizer for row in manifest.evaluation.measured} == {
            "two-sided-tuned",
            "two-sided",
            "two-sided-cautious",
            "one-sided",
            "rtn",
        }
        assert manifest.quantizer == manifest.gate.winner
        assert len(manifest.layers) == 14
        for layer in manifest.layers:
            assert layer.proxy_error.two_sided <= layer.proxy_error.one_sided * 1.001 <= layer.proxy_error.rtn * 1.1
        assert {weight.name for weight in manifest.unquantized} >= {"model.embed_tokens.weight"}


def test_equal_grids_are_rounded_once(finished: tuple[Path, JobOutcome, list[dict[str, Any]]]) -> None:
    _, outcome, _ = finished
    onnx, packed = outcome.manifests[1], outcome.manifests[2]
    assert [layer.proxy_error for layer in onnx.layers] == [layer.proxy_error for layer in packed.layers]


def test_events_fit_the_schema_and_end_with_the_result(
    finished: tuple[Path, JobOutcome, list[dict[str, Any]]],
) -> None:
    _, outcome, events = finished
    validator = jsonschema.Draft202012Validator(schema("events.schema.json"))
    for event in events:
        validator.validate(event)
    assert events[-1]["event"] == "result" and events[-1]["ok"]
    assert [variant["directory"] for variant in events[-1]["variants"]] == ["gguf-q4-0", "onnx-q4", "w4a16-group-32"]
    assert events[-1]["sketch"]["key"] == outcome.sketch.key
    started = [event["stage"] for event in events if event["event"] == "stage" and event["status"] == "started"]
    assert started[:5] == ["load", "calibrate", "sketch", "round", "tune"]
    assert sum(event["event"] == "metric" for event in events) == 3 * 5 * 2
    assert sum(event["event"] == "layer" for event in events) == 3 * 14


def test_a_second_run_gives_the_same_bytes_and_reuses_the_sketch(
    finished: tuple[Path, JobOutcome, list[dict[str, Any]]], model: Path, tmp_path: Path
) -> None:
    output, outcome, _ = finished
    spec = document(model, tmp_path / "out", "gguf:q4_0", "w4a16,group=32")
    again, _ = run(spec, tmp_path / "out")
    assert hashes(again) == [hashes(outcome)[0], hashes(outcome)[2]]
    assert again.sketch.record == outcome.sketch.record
    spec["sketch"]["reuse"] = str(output / "sketch")
    reused, events = run(spec, tmp_path / "reused")
    assert hashes(reused) == hashes(again)
    assert all(manifest.sketch.reused for manifest in reused.manifests)
    assert any(event.get("stage") == "sketch" and event.get("status") == "skipped" for event in events)


def test_tuned_scales_are_a_contender_of_their_own(
    finished: tuple[Path, JobOutcome, list[dict[str, Any]]], model: Path, tmp_path: Path
) -> None:
    output, outcome, events = finished
    for manifest in outcome.manifests:
        selection = {row.quantizer: row.kl_nats.mean for row in manifest.gate.selection}
        assert list(selection) == ["rtn", "one-sided", "two-sided-cautious", "two-sided", "two-sided-tuned"]
        assert selection[manifest.gate.winner] == min(selection.values())
        measured = {row.quantizer: row for row in manifest.evaluation.measured}
        assert measured["two-sided-tuned"].report != measured["two-sided"].report
        assert "tuning" in manifest.seeds and manifest.seconds["tune"] > 0
    # Equal codes on equal scales are tuned once, for all containers that store them.
    steps = [event for event in events if event["event"] == "progress" and event["stage"] == "tune"]
    assert steps[-1]["done"] == steps[-1]["total"] == 4
    spec = document(model, tmp_path / "out", "gguf:q4_0,tune=off")
    spec["sketch"]["reuse"] = str(output / "sketch")
    untuned, events = run(spec, tmp_path / "out")
    assert {row.quantizer for row in untuned.manifests[0].gate.selection} == {
        "rtn",
        "one-sided",
        "two-sided-cautious",
        "two-sided",
    }
    assert not any(event.get("stage") == "tune" for event in events)


@pytest.mark.parametrize("failure", [MemoryError(), FloatingPointError("the KL became nan")])
def test_a_tuning_that_fails_leaves_the_other_contenders(
    finished: tuple[Path, JobOutcome, list[dict[str, Any]]],
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: Exception,
) -> None:
    def fail(*rest: object, **named: object) -> None:
        raise failure

    monkeypatch.setattr("yaqa_runner.pipeline.tune.tune_scales", fail)
    spec = document(model, tmp_path / "out", "gguf:q4_0")
    spec["sketch"]["reuse"] = str(finished[0] / "sketch")
    outcome, events = run(spec, tmp_path / "out")
    assert len(outcome.manifests[0].gate.selection) == 4
    assert any(event.get("code") == "not-tuned" for event in events)


def test_a_sketch_of_something_else_is_told_of_and_taken_anew(
    finished: tuple[Path, JobOutcome, list[dict[str, Any]]], model: Path, tmp_path: Path
) -> None:
    output, _, _ = finished
    spec = document(model, tmp_path / "out", "gguf:q8_0")
    spec["sketch"] |= {"reuse": str(output), "iterations": 1}
    outcome, events = run(spec, tmp_path / "out")
    assert not outcome.manifests[0].sketch.reused
    assert any(event.get("code") == "sketch-not-reused" for event in events)


def test_another_template_keeps_the_sketch_and_another_tokenizer_does_not(model: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("Some Words of a Text, and Some More.\n" * 8, encoding="utf-8")
    calibration = {"kind": "text", "files": [str(text)], "sequences": 4, "length": 16, "seed": 1}
    first, _ = run(document(model, tmp_path / "first", "gguf:q4_0", calibration=calibration), tmp_path / "first")
    newer = tmp_path / "newer" / "llama"
    shutil.copytree(model, newer)
    settings = json.loads((newer / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings |= {"chat_template": "{{ messages[0]['content'] }}", "pad_token": "<tool>"}
    (newer / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    spec = document(newer, tmp_path / "out", "gguf:q4_0", calibration=calibration)
    spec["sketch"]["reuse"] = str(tmp_path / "first" / "sketch")
    reused, _ = run(spec, tmp_path / "out")
    assert reused.sketch.key == first.sketch.key and reused.manifests[0].sketch.reused
    assert hashes(reused) != hashes(first), "the file holds the new template"

    tokenizer = json.loads((newer / "tokenizer.json").read_text(encoding="utf-8"))
    # Not what llama.cpp has no form for: composed accents are told of, and the text has none.
    tokenizer["normalizer"] = {"type": "NFC"}
    tokenizer["model"]["merges"].pop()
    (newer / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    other, events = run(spec, tmp_path / "other")
    assert other.sketch.key != first.sketch.key and not other.manifests[0].sketch.reused
    assert any(event.get("code") == "sketch-not-reused" for event in events)


def test_an_interrupted_job_goes_on_and_gives_the_same_bytes(
    finished: tuple[Path, JobOutcome, list[dict[str, Any]]],
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, outcome, _ = finished
    spec = document(model, tmp_path / "out", "gguf:q4_0", "w4a16,group=32")
    flag = InterruptFlag()
    real = run_job_module.make_variant

    def stop_after_first(*, context: RunContext, **rest: Any) -> Any:
        flag.set()
        monkeypatch.setattr(run_job_module, "make_variant", real)
        unset = replace(context.monitor, interrupt=InterruptFlag())
        return real(context=replace(context, monitor=unset), **rest)

    monkeypatch.setattr(run_job_module, "make_variant", stop_after_first)
    with pytest.raises(Interrupted):
        run(spec, tmp_path / "out", flag)
    assert (tmp_path / "out" / "gguf-q4-0" / "manifest.json").is_file()
    assert not (tmp_path / "out" / "w4a16-group-32").exists()
    resumed, events = run(spec, tmp_path / "out")
    assert hashes(resumed) == [hashes(outcome)[0], hashes(outcome)[2]]
    assert not any(event.get("recipe") == "gguf:q4_0" for event in events if event["event"] == "metric")


@pytest.mark.parametrize(
    ("recipes", "kind"),
    [
        (("gguf:q4_0", "gguf:q4_0,refine=2"), InvalidSpec),
        (("nonsense",), InvalidSpec),
    ],
)
def test_bad_recipes_are_refused_before_anything_is_computed(
    model: Path, tmp_path: Path, recipes: tuple[str, ...], kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        run(document(model, tmp_path / "out", *recipes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_too_narrow_for_its_recipe_is_refused_before_the_sketch(tmp_path: Path) -> None:
    narrow = save_checkpoint(
        tmp_path / "narrow", "llama", hidden_size=24, num_attention_heads=2, num_key_value_heads=2, intermediate_size=40
    )
    with pytest.raises(UnsupportedModel):
        run(document(narrow, tmp_path / "out", "gguf:q4_0"), tmp_path / "out")
    assert not (tmp_path / "out" / "sketch").exists()


def test_a_recipe_that_cannot_hold_the_model_leaves_the_others_alone(tmp_path: Path) -> None:
    # Its linears are Conv1D, which compressed-tensors has no name for.
    gpt2 = save_checkpoint(tmp_path / "gpt2", "gpt2", num_hidden_layers=1, n_embd=64, n_head=4)
    spec = document(gpt2, tmp_path / "out", "w4a16,group=32", "gguf:q8_0,refine=0,tune=off")
    outcome, events = run(spec, tmp_path / "out")
    assert [manifest.recipe for manifest in outcome.manifests] == ["gguf:q8_0,refine=0,tune=off"]
    assert [item.request.recipe.canonical for item in outcome.refused] == ["w4a16,group=32"]
    result = events[-1]
    assert [one["recipe"] for one in result["variants"]] == ["gguf:q8_0,refine=0,tune=off"]
    (refused,) = result["refused"]
    assert (refused["id"], refused["recipe"]) == (spec["variants"][0]["id"], "w4a16,group=32")
    assert "cannot be written" in refused["message"] and refused["remedy"]
    jsonschema.Draft202012Validator(schema("events.schema.json")).validate(result)
    warned = [event["message"] for event in events if event.get("code") == "variant-refused"]
    assert warned == [refused["message"]]


def test_a_recipe_that_fails_while_it_is_written_leaves_nothing_and_the_others_go_on(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = GgufContainer.write

    def failing(self: GgufContainer, *rest: Any, **named: Any) -> Any:
        if self.type == "q4_0":
            raise ExportError("a scale is not finite.")
        return real(self, *rest, **named)

    monkeypatch.setattr(GgufContainer, "write", failing)
    recipes = ("gguf:q4_0,refine=0,tune=off", "gguf:q8_0,refine=0,tune=off")
    outcome, events = run(document(model, tmp_path / "out", *recipes), tmp_path / "out")
    assert [one["recipe"] for one in events[-1]["variants"]] == [recipes[1]]
    assert [one["recipe"] for one in events[-1]["refused"]] == [recipes[0]]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        outcome.variants[0][1],
        "sketch",
        "verification.safetensors",
    ]
    with pytest.raises(UnsupportedModel, match="not finite"):
        run(document(model, tmp_path / "none", recipes[0]), tmp_path / "none")


def test_files_of_unequal_size_are_a_bug(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter([1, 2, 3, 4, 5])
    monkeypatch.setattr("yaqa_runner.pipeline.write.published_bytes", lambda directory: next(sizes))
    with pytest.raises(RunnerFailure, match="differ in size"):
        run(document(model, tmp_path / "out", "gguf:q8_0"), tmp_path / "out")
    assert not (tmp_path / "out" / "gguf-q8-0").exists()


def test_a_full_disk_is_told_as_such(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*rest: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("yaqa_runner.sketches.store.save_file", full)
    with pytest.raises(OSError) as caught:
        run(document(model, tmp_path / "out", "gguf:q8_0"), tmp_path / "out")
    assert as_failure(caught.value).exit_code == 5


def start(arguments: list[str], **settings: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "yaqa_runner", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[1],
        **settings,
    )


def test_the_command_line_ends_with_a_result_line_and_its_exit_code(model: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{}", encoding="utf-8")
    spec = document(tmp_path / "empty", tmp_path / "out", "gguf:q8_0")
    (tmp_path / "refused.json").write_text(json.dumps(spec), encoding="utf-8")
    broken = start(["run", str(tmp_path / "broken.json"), "--out", str(tmp_path / "out")])
    refused = start(["run", str(tmp_path / "refused.json"), "--out", str(tmp_path / "out")])
    unknown = start(["quantize", str(model), "--recipe", "gguf:q9", "--json", "--output", str(tmp_path / "q")])
    for process, code, word in ((broken, 2, "invalid-spec"), (refused, 3, "source-refused")):
        stdout, _ = process.communicate(timeout=240)
        assert process.returncode == code
        last = json.loads(stdout.splitlines()[-1])
        assert (last["event"], last["ok"], last["error"]["code"]) == ("result", False, word)
    stdout, _ = unknown.communicate(timeout=240)
    assert unknown.returncode == 2
    assert "gguf:q" in json.loads(stdout)["error"]["remedy"]


def test_sigterm_ends_with_75_and_the_same_command_resumes(model: Path, tmp_path: Path) -> None:
    spec = document(model, tmp_path / "out", "gguf:q8_0,refine=0,tune=off")
    spec["calibration"] |= {"sequences": 48, "length": 32}
    # Little memory makes the sketch keep what it has after every half step.
    spec["limits"] |= {"memoryBytes": 1}
    (tmp_path / "job.json").write_text(json.dumps(spec), encoding="utf-8")
    process = start(["run", str(tmp_path / "job.json"), "--out", str(tmp_path / "out")])
    assert process.stdout is not None
    for line in process.stdout:
        if '"progress"' in line:
            process.send_signal(signal.SIGTERM)
            break
    stdout, stderr = process.communicate(timeout=240)
    assert process.returncode == 75, stderr
    last = json.loads(stdout.splitlines()[-1])
    assert last["error"]["code"] == "interrupted" and "resume" in last["error"]["remedy"]
    folder = tmp_path / "out" / "gguf-q8-0-refine-0-tune-off"
    assert not folder.exists()
    again = start(["run", str(tmp_path / "job.json"), "--out", str(tmp_path / "out")])
    stdout, stderr = again.communicate(timeout=240)
    assert again.returncode == 0, stderr
    assert json.loads(stdout.splitlines()[-1])["ok"] and (folder / "manifest.json").is_file()


def test_quantize_works_alone_and_prints_one_json_document(model: Path, tmp_path: Path) -> None:
    arguments = ["quantize", str(model), "--recipe", "gguf:q8_0", "--sequences", "4", "--length", "16"]
    arguments += ["--evaluation-sequences", "2", "--iterations", "2", "--output", str(tmp_path / "out"), "--json"]
    process = start([*arguments, "--plots"])
    stdout, stderr = process.communicate(timeout=240)
    assert process.returncode == 0, stderr
    pictures = {path.name: path.read_bytes() for path in (tmp_path / "out" / "plots").iterdir()}
    assert set(pictures) == {"kl-by-layer-00.png", "kl-by-size.png", "spectrum-of-h-o.png"}
    assert all(content.startswith(b"\x89PNG") for content in pictures.values())
    result = json.loads(stdout)
    assert result["ok"] and result["variants"][0]["directory"] == "gguf-q8-0"
    jsonschema.Draft202012Validator(schema("manifest.schema.json")).validate(result["variants"][0]["manifest"])
    assert (tmp_path / "out" / "gguf-q8-0" / "manifest.json").is_file()
