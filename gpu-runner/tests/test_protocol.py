"""Messages, recipes and failures are the ones of the control plane's own definitions."""

from __future__ import annotations

import errno
import io
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from tiny_jobs import JOB, schema, spec_document

from yaqa_runner.protocol.events import ResultRefusal, ResultSketch, ResultVariant
from yaqa_runner.protocol.failures import (
    EXIT_CODES,
    Interrupted,
    InvalidSpec,
    RunnerFailure,
    SourceRefused,
    as_failure,
)
from yaqa_runner.protocol.job_spec import JobSpec, parse_job_spec, read_job_spec
from yaqa_runner.protocol.manifest import Estimate, ProxyError
from yaqa_runner.protocol.recipes import RECIPE_NAMES, Recipe, parse_recipe, recipe_directory, recipe_hash
from yaqa_runner.protocol.reporter import Reporter, json_line_sink


def test_the_recipe_table_is_the_control_planes() -> None:
    ours = {
        name.name: {
            "name": name.name,
            "container": name.container,
            "bits": name.bits,
            "defaultGroup": name.default_group,
            "groups": list(name.groups),
            "bitsPerWeight": name.bits_per_weight,
            "zeroPoints": name.zero_points,
            "embeddingBits": list(name.embedding_bits),
            "types": list(name.types),
        }
        for name in RECIPE_NAMES
    }
    assert ours == {entry["name"]: entry for entry in schema("recipes.json")["names"]}


@pytest.mark.parametrize(
    ("written", "canonical", "directory"),
    [
        ("gguf:q4_0", "gguf:q4_0", "gguf-q4-0"),
        ("  W4A16 ", "w4a16", "w4a16"),
        ("w4a16,group=128", "w4a16", "w4a16"),
        ("w4a16, block=32 ,refine=0", "w4a16,group=32,refine=0", "w4a16-group-32-refine-0"),
        ("onnx:q4,refine=2,tune=on", "onnx:q4", "onnx-q4"),
        ("w4a16,refine=0,zero=on", "w4a16,zero=on,refine=0", "w4a16-zero-on-refine-0"),
        ("gptq:3", "gptq:3", "gptq-3"),
        ("onnx:q4,tune=off", "onnx:q4,tune=off", "onnx-q4-tune-off"),
        ("onnx:q4f16,refine=0,Embedding=Q8", "onnx:q4f16,embedding=q8,refine=0", "onnx-q4f16-embedding-q8-refine-0"),
        ("onnx:q4,embedding=float", "onnx:q4", "onnx-q4"),
        ("gguf,bytes=4.5GB", "gguf,bytes=4.5gb", "gguf-bytes-4.5gb"),
        ("gguf,tune=off,bytes=4500MB", "gguf,bytes=4.5gb,tune=off", "gguf-bytes-4.5gb-tune-off"),
        ("gguf,bytes=4.5GiB", "gguf,bytes=4.5gib", "gguf-bytes-4.5gib"),
        ("gguf,bytes=4500000000", "gguf,bytes=4.5gb", "gguf-bytes-4.5gb"),
        ("gguf,bytes=4500000001", "gguf,bytes=4500000001", "gguf-bytes-4500000001"),
        ("gguf,refine=0,bpw=3.50", "gguf,bpw=3.5,refine=0", "gguf-bpw-3.5-refine-0"),
    ],
)
def test_recipes_have_one_canonical_form(written: str, canonical: str, directory: str) -> None:
    recipe = parse_recipe(written)
    assert recipe.canonical == canonical
    assert recipe_directory(recipe.canonical) == directory
    assert parse_recipe(recipe.canonical) == recipe
    assert Recipe.model_validate(recipe.to_wire()) == recipe
    assert len(recipe_hash(recipe)) == 16


@pytest.mark.parametrize(
    ("written", "remedy"),
    [
        ("ggfu:q4_0", "gguf:q4_0"),
        ("w4a17", "w4a16"),
        ("w4a16,grup=32", "group"),
        ("", "Known recipes"),
        ("w4a16,group=33", "Known recipes"),
        ("w4a16,group=32,block=32", "Known recipes"),
        ("gguf:q4_0,group=32", "Known recipes"),
        ("w4a16,refine=11", "Known recipes"),
        ("w4a16,refine=²", "Known recipes"),
        ("w4a16,tune=perhaps", "Known recipes"),
        ("gptq:4,zero=on", "Known recipes"),
        ("w4a16,zero=perhaps", "Known recipes"),
        ("onnx:q4,embedding=q2", "Known recipes"),
        ("onnx:q4,embeding=q8", "embedding"),
        ("gguf:q4_0,embedding=q8", "Known recipes"),
        ("gguf:q5_k_n", "gguf:q5_k_"),
        ("x" * 201, "Known recipes"),
    ],
)
def test_unknown_recipes_are_refused_with_the_nearest_word(written: str, remedy: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        parse_recipe(written)
    assert remedy in caught.value.remedy


def test_a_job_spec_reads_and_fits_the_schema() -> None:
    document = spec_document()
    jsonschema.Draft202012Validator(schema("job-spec.schema.json")).validate(document)
    spec = parse_job_spec(json.dumps(document))
    assert spec.evaluation.verification_sequences == 1
    assert spec.sketch.sigma_output == 0.1


@pytest.mark.parametrize(
    "changes",
    [
        {"protocol": 2},
        {"job": "not-a-uuid"},
        {"fence": 0},
        {"surprise": 1},
        {"source": {"repo": "../etc/passwd", "revision": "0" * 40}},
        {"source": {"repo": "demo/tiny", "revision": "main"}},
        {"calibration": {"kind": "pickle", "sequences": 4, "length": 16, "seed": 1}},
        {"calibration": {"kind": "text", "files": [], "sequences": 4, "length": 16, "seed": 1}},
        {"variants": []},
        {"sketch": {"kind": "a", "iterations": 99, "sigmaInput": 0.01, "sigmaOutput": 0.1}},
    ],
)
def test_a_bad_job_spec_is_refused_by_us_and_by_the_schema(changes: dict[str, Any]) -> None:
    document = spec_document(**changes)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema("job-spec.schema.json")).validate(document)
    with pytest.raises(InvalidSpec):
        parse_job_spec(json.dumps(document))


def test_specs_that_cannot_be_read_are_invalid(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    for name in ("missing.json", "broken.json", "binary.json"):
        with pytest.raises(InvalidSpec):
            read_job_spec(tmp_path / name)


def test_every_event_fits_the_schema_and_is_one_line() -> None:
    stream = io.StringIO()
    reporter = Reporter(json_line_sink(stream), JOB, 3)
    with reporter.stage("sketch", "a, 6 iterations"):
        reporter.progress("sketch", 1, 4, "sequences")
        reporter.progress("sketch", 4, 4, "sequences")
    reporter.skip("calibrate", "not needed")
    reporter.layer("model.layers.0.q", "w4a16", ProxyError(two_sided=1, one_sided=2, rtn=3))
    reporter.metric("w4a16", "rtn", "report", Estimate(mean=0.1, standard_error=0.01))
    reporter.warn("length-capped", "line one\nline two " + "x" * 5000)
    reporter.succeed(
        [ResultVariant(id=JOB, recipe="w4a16", directory="w4a16")],
        [ResultRefusal(id=JOB, recipe="onnx:q4", message="no graph", remedy="ask for another")],
        ResultSketch(key="ab", directory="sketch"),
        "verification.safetensors",
    )
    reporter.fail(SourceRefused("no", "push again"))
    validator = jsonschema.Draft202012Validator(schema("events.schema.json"))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 10
    for line in lines:
        validator.validate(json.loads(line))
    assert {json.loads(line)["fence"] for line in lines} == {3}


def test_progress_is_rate_limited_and_tells_the_time_left() -> None:
    now = [0.0]
    stream = io.StringIO()
    reporter = Reporter(json_line_sink(stream), JOB, 1, lambda: now[0])
    with reporter.stage("round"):
        for done in range(1, 101):
            now[0] += 0.01
            reporter.progress("round", done, 100, "layers")
    progress = [json.loads(line) for line in stream.getvalue().splitlines() if '"progress"' in line]
    assert 8 <= len(progress) <= 12
    middle = progress[4]
    assert middle["etaSeconds"] == pytest.approx(0.01 * (100 - middle["done"]), abs=0.06)
    assert progress[-1]["done"] == 100 and progress[-1]["etaSeconds"] == 0


def test_errors_become_failures_with_their_exit_codes() -> None:
    assert as_failure(MemoryError()).code == "out-of-memory"
    assert as_failure(RuntimeError("DefaultCPUAllocator: can't allocate memory")).code == "out-of-memory"
    assert as_failure(OSError(errno.ENOSPC, "No space left on device")).code == "disk-full"
    wrapped = ValueError("while writing")
    wrapped.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert as_failure(wrapped).code == "disk-full"
    assert as_failure(KeyError("x")).code == "internal"
    assert as_failure(Interrupted()).exit_code == 75
    assert [EXIT_CODES[code] for code in ("invalid-spec", "source-refused", "unsupported-model")] == [2, 3, 3]
    assert len(RunnerFailure("internal", "x" * 9000, "").message) == 4000


def test_the_spec_keeps_what_javascript_numbers_can_hold() -> None:
    document = spec_document(calibration={"kind": "self", "sequences": 4, "length": 16, "seed": 2**60})
    with pytest.raises(InvalidSpec):
        parse_job_spec(json.dumps(document))
    assert isinstance(JobSpec.model_validate(spec_document()), JobSpec)
