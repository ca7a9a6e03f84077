"""What is bridged between llama.cpp's converter and transformers 5, and whether it still has to be."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_checkpoints import save_checkpoint

from yaqa_runner.cli.main import main
from yaqa_runner.formats import ExportError
from yaqa_runner.formats.gguf.container import GgufContainer
from yaqa_runner.formats.gguf.converter_package import converter_folder, converter_name, use_checkout
from yaqa_runner.formats.gguf.upstream import CLASS_NAMES, bridge_settings
from yaqa_runner.protocol.failures import EXIT_CODES

# Each fails when the converter no longer needs what is done for it: the bridge can go then.
MISSING = """
import json, sys
from pathlib import Path
from yaqa_runner.formats.gguf.upstream import missing_constants
sys.path.insert(0, sys.argv[1])
import gguf
print(json.dumps({kind: sorted(names) for kind, names in missing_constants(Path(sys.argv[1]), gguf).items()}))
"""


def test_the_converters_gguf_still_lacks_constants_that_it_names() -> None:
    folder = str(converter_folder())
    done = subprocess.run([sys.executable, "-c", MISSING, folder], capture_output=True, text=True, check=True)
    missing = json.loads(done.stdout)
    assert missing["MODEL_ARCH"] == ["HY_V3", "LAGUNA", "MINIMAXM3", "NANBEIGE", "QWEN3TTS"]
    assert "DSPARK_MARKOV_W1" in missing["MODEL_TENSOR"]


@pytest.mark.parametrize(
    ("module", "expression"),
    [
        ("gpt2.py", r'hparams\["n_ctx"\]'),
        ("command_r.py", r'hparams\["rotary_pct"\]'),
        ("gptneox.py", r'hparams\["rotary_pct"\]'),
        ("falcon_h1.py", r'hparams\["head_dim"\]'),
        ("gemma.py", r'hparams\["global_head_dim"\]'),
        ("mimo.py", r'hparams\["swa_head_dim"\]'),
        ("granite.py", r'== "attention"'),
        ("gemma.py", r'tokenizer_json\["added_tokens"\]'),
    ],
)
def test_the_converter_still_reads_what_transformers_no_longer_writes(module: str, expression: str) -> None:
    text = (converter_folder() / "conversion" / module).read_text(encoding="utf-8")
    assert re.search(expression, text) is not None, f"{module} has caught up: take the bridge away"


def test_the_converter_still_does_not_know_the_classes_by_their_names() -> None:
    text = (converter_folder() / "conversion" / "__init__.py").read_text(encoding="utf-8")
    for ours, theirs in CLASS_NAMES.items():
        assert f'"{ours}"' not in text, f"{ours} is known now: take it out of CLASS_NAMES"
        assert f'"{theirs}"' in text


def test_older_keys_follow_from_those_of_today() -> None:
    settings = {
        "model_type": "gpt_neox",
        "hidden_size": 64,
        "num_attention_heads": 4,
        "rope_parameters": {"rope_theta": 500.0, "partial_rotary_factor": 0.25},
    }
    bridged = bridge_settings(settings, {"own": 1, "hidden_size": 1})
    assert bridged["rotary_pct"] == 0.25
    assert bridged["rope_theta"] == 500.0
    assert bridged["own"] == 1
    assert bridged["hidden_size"] == 64
    hybrid = {"model_type": "granitemoehybrid", "layer_types": ["linear_attention", "full_attention"]}
    assert bridge_settings(hybrid, {})["layer_types"] == ["mamba", "attention"]


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no checkout of llama"):
        use_checkout(tmp_path)


def test_a_checkout_of_llama_cpp_takes_the_place_of_the_package(tmp_path: Path) -> None:
    package = converter_folder()
    checkout = tmp_path / "llama.cpp"
    (checkout / "gguf-py").mkdir(parents=True)
    (checkout / "conversion").symlink_to(package / "conversion")
    (checkout / "gguf-py" / "gguf").symlink_to(package / "gguf")
    source = save_checkpoint(tmp_path / "tiny", "llama", num_hidden_layers=1)
    use_checkout(checkout)
    try:
        assert converter_folder() == checkout
        assert converter_name() == "llama.cpp checkout llama.cpp"
        name = "model.layers.0.mlp.up_proj"
        assert set(GgufContainer("q4_0").storable(source, {name})) == {name}
    finally:
        use_checkout(None)
    assert converter_folder() == package


def test_the_command_line_refuses_a_folder_that_is_no_checkout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["quantize", str(tmp_path), "--recipe", "gguf:q4_0", "--output", str(tmp_path / "out")]
    assert main([*options, "--llama-cpp", str(tmp_path)]) == EXIT_CODES["invalid-spec"]
    assert "no checkout of llama.cpp" in capsys.readouterr().err
