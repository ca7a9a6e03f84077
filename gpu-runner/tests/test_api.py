"""The Python API: documented, and what the command line itself calls."""

from __future__ import annotations

import hashlib
import inspect
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from tiny_checkpoints import save_checkpoint

import yaqa_runner
from yaqa_runner.api.results import Quantized
from yaqa_runner.cli.main import main
from yaqa_runner.protocol.failures import Interrupted, InvalidSpec, RunnerFailure
from yaqa_runner.protocol.interrupt import InterruptFlag

SMALL: dict[str, Any] = {"sequences": 4, "length": 16, "device": "cpu"}
RECIPE = "gguf:q8_0,refine=0,tune=off"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("api") / "tiny", "llama", intermediate_size=128)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "Some Words.txt"
    path.write_text("".join(f"{number} words of a text, and {7 * number} more.\n" for number in range(200)))
    return path


@pytest.fixture(scope="module")
def made(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Quantized:
    output = tmp_path_factory.mktemp("made")
    return yaqa_runner.quantize(model, recipes=[RECIPE], output=output, evaluation_sequences=2, **SMALL)


@pytest.mark.parametrize(
    "function",
    [
        yaqa_runner.quantize,
        yaqa_runner.sketch,
        yaqa_runner.imatrix,
        yaqa_runner.measure,
        yaqa_runner.merge_adapter,
    ],
)
def test_every_argument_is_documented(function: Any) -> None:
    text = inspect.getdoc(function) or ""
    described = text[text.index("Args:") : text.index("Returns:")]
    for name in inspect.signature(function).parameters:
        assert f"\n    {name}: " in described, name
    assert "Raises:" in text and "Example::" in text


def test_quantize_gives_finished_folders_with_their_figures(made: Quantized) -> None:
    (variant,) = made.variants
    assert variant.recipe == RECIPE
    assert variant.folder == made.output / "gguf-q8-0-refine-0-tune-off"
    assert {path.suffix for path in variant.folder.iterdir()} >= {".gguf", ".json"}
    assert 0 <= variant.metrics.kl_nats.mean < 0.1
    assert set(made.sketch.layers) == {layer.name for layer in variant.manifest.layers}


def test_a_second_call_takes_up_what_the_first_left(made: Quantized, model: Path) -> None:
    stages: list[tuple[str, str]] = []
    again = yaqa_runner.quantize(
        model,
        RECIPE,
        output=made.output,
        evaluation_sequences=2,
        on_event=lambda event: stages.append((event.stage, event.status)) if event.event == "stage" else None,
        **SMALL,
    )
    assert ("sketch", "skipped") in stages and ("round", "started") not in stages
    assert again.variants[0].manifest == made.variants[0].manifest


def test_a_sketch_serves_quantize(made: Quantized, model: Path, tmp_path: Path) -> None:
    taken = yaqa_runner.sketch(model, output=tmp_path / "sketch", **SMALL)
    assert taken.key == made.sketch.key
    name = next(iter(taken.layers))
    rows, columns = taken.layers[name].shape
    factors = taken.factors(name)
    assert factors.output.whole().shape == (rows, rows) and factors.input.whole().shape == (columns, columns)
    reused = yaqa_runner.quantize(
        model, RECIPE, output=tmp_path / "out", sketch=tmp_path / "sketch", evaluation_sequences=2, **SMALL
    )
    assert reused.variants[0].manifest.sketch.reused
    assert reused.variants[0].manifest.files == made.variants[0].manifest.files


def test_measure_gives_the_figures_of_a_folder_and_the_command_line_the_same(
    made: Quantized, model: Path, text: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = made.variants[0].folder
    (found,) = yaqa_runner.measure(model, folder, texts=[text], sequences=4, length=16, device="cpu")
    assert found.recipe == RECIPE and list(found.by_domain) == ["some-words"]
    assert 0 < found.metrics.kl_nats.mean < 0.1 and found.metrics.sequences == 4
    arguments = ["measure", str(model), "--variant", str(folder), "--text", f"words={text}"]
    assert main([*arguments, "--sequences", "4", "--length", "16", "--device", "cpu", "--json"]) == 0
    (row,) = json.loads(capfd.readouterr().out.splitlines()[-1])["measured"]
    assert row["report"] == found.metrics.to_wire() and list(row["byDomain"]) == ["words"]


def test_a_sketch_gives_the_importance_matrix_that_llama_quantize_takes(
    made: Quantized, model: Path, tmp_path: Path
) -> None:
    taken = made.sketch
    path = yaqa_runner.imatrix(model, made.output / "sketch", output=tmp_path / "imatrix.gguf")
    # What lies beside the GGUF variant is the same.
    (beside,) = (made.variants[0].folder / "imatrix").iterdir()
    assert beside.read_bytes() == path.read_bytes()
    assert beside.name == f"imatrix-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.gguf"
    reader = gguf.GGUFReader(path)
    fields = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    calibration = taken.record.calibration
    assert fields == {
        "general.type": "imatrix",
        "imatrix.datasets": [f"sha256:{calibration.sha256}"],
        "imatrix.chunk_count": calibration.sequences,
        "imatrix.chunk_size": calibration.length,
    }
    tensors = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    names = {"self_attn.q_proj": "attn_q", "self_attn.o_proj": "attn_output", "mlp.down_proj": "ffn_down"}
    for ours, theirs in names.items():
        counts = tensors[f"blk.1.{theirs}.weight.counts"]
        assert counts.tolist() == [[float(taken.layers[f"model.layers.1.{ours}"].tokens)]]
        found = tensors[f"blk.1.{theirs}.weight.in_sum2"] / counts
        moment = taken.factors(f"model.layers.1.{ours}").second_moment.whole().diagonal().numpy()
        assert np.allclose(found[0], moment, rtol=1e-5)
    assert len(tensors) == 2 * len(taken.layers)
    other = save_checkpoint(tmp_path / "other", "llama", num_hidden_layers=1)
    with pytest.raises(InvalidSpec, match="of another model"):
        yaqa_runner.imatrix(other, made.output / "sketch", output=tmp_path / "none.gguf")
    assert not (tmp_path / "none.gguf").exists()


def test_a_matrix_that_another_sketch_left_is_not_taken(made: Quantized, model: Path, tmp_path: Path) -> None:
    work = tmp_path / "out" / ".work"
    work.mkdir(parents=True)
    for name in ("imatrix.gguf", f"imatrix-{'0' * 16}-{'0' * 8}.gguf"):
        (work / name).write_bytes(b"of an interrupted job")
    again = yaqa_runner.quantize(
        model, RECIPE, output=tmp_path / "out", sketch=made.output / "sketch", evaluation_sequences=2, **SMALL
    )
    contents = [next((job.variants[0].folder / "imatrix").iterdir()).read_bytes() for job in (made, again)]
    assert contents[0] == contents[1]


def test_measure_samples_from_the_original_where_no_text_is_given(made: Quantized, model: Path) -> None:
    folder = made.variants[0].folder
    (found,) = yaqa_runner.measure(model, [folder], sequences=2, length=16, device="cpu")
    assert list(found.by_domain) == ["self"]


def test_what_does_not_fit_is_refused_with_a_remedy(model: Path, tmp_path: Path) -> None:
    wrong: list[tuple[type[RunnerFailure], dict[str, Any]]] = [
        (InvalidSpec, {"model": tmp_path / "no model here", "recipes": RECIPE}),
        (InvalidSpec, {"model": model, "recipes": "nonsense"}),
        (InvalidSpec, {"model": model, "recipes": RECIPE, "label_samples": 0}),
        (InvalidSpec, {"model": model, "recipes": RECIPE, "sigma_input": -1.0}),
        (InvalidSpec, {"model": model, "recipes": []}),
    ]
    for kind, arguments in wrong:
        with pytest.raises(kind) as caught:
            yaqa_runner.quantize(**{**SMALL, **arguments}, output=tmp_path / "out")
        assert caught.value.remedy
    with pytest.raises(InvalidSpec, match="no readable config"):
        yaqa_runner.measure(model, tmp_path, device="cpu")
    assert not (tmp_path / "out").exists()


def test_a_call_ends_where_its_flag_is_set(model: Path, tmp_path: Path) -> None:
    flag = InterruptFlag()
    flag.set()
    with pytest.raises(Interrupted):
        yaqa_runner.sketch(model, output=tmp_path / "sketch", interrupt=flag, **SMALL)


def test_the_command_line_calls_the_api(
    monkeypatch: pytest.MonkeyPatch, made: Quantized, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    called: dict[str, Any] = {}

    def quantize(model: str, recipes: list[str], **arguments: Any) -> Quantized:
        called.update(arguments, model=model, recipes=recipes)
        return made

    monkeypatch.setattr(yaqa_runner, "quantize", quantize)
    arguments = ["quantize", "owner/model", "--recipe", "w4a16", "--recipe", "gguf:q4_0", "--calibration", "a.txt"]
    arguments += ["--report", "news=b.txt", "--report", "c.txt", "--output", str(tmp_path), "--seed", "5", "--json"]
    assert main(arguments) == 0
    assert called["model"] == "owner/model" and called["recipes"] == ["w4a16", "gguf:q4_0"]
    assert called["calibration"] == [Path("a.txt")] and called["report"] == [("news", "b.txt"), "c.txt"]
    assert called["seed"] == 5 and called["output"] == tmp_path
    (variant,) = json.loads(capfd.readouterr().out.splitlines()[-1])["variants"]
    assert variant["directory"] == made.variants[0].folder.name


def test_the_functions_stay_what_they_are_once_everything_is_imported(made: Quantized) -> None:
    assert all(map(inspect.isfunction, (yaqa_runner.quantize, yaqa_runner.sketch, yaqa_runner.measure)))
