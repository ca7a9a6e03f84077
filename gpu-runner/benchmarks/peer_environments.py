"""Environments of the quantizers that we are compared with, each beside the runner's own.

An environment borrows torch, transformers and everything else that the runner has from the runner's environment, so
that the same torch computes on both sides, and adds what its quantizer needs besides. Nothing is fetched but by
``python peer_environments.py NAME…``, which makes them in ``gpu-runner/.peers``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ENVIRONMENTS = Path(__file__).resolve().parents[1] / ".peers"


@dataclass(frozen=True)
class PeerEnvironment:
    """What an environment holds.

    Attributes:
        packages: Exact requirements, installed without what they depend on; torch is never among them.
        built: Requirements without wheels, built with ``variables`` set once ``packages`` are there.
        imports: A module that opens only in a whole environment.
    """

    packages: tuple[str, ...]
    built: tuple[str, ...]
    variables: dict[str, str]
    imports: str


_DATASETS = (
    *("datasets==5.2.0", "pyarrow==26.0.1", "dill==0.4.1", "xxhash==4.1.0", "multiprocess==0.70.19", "pandas==3.1.1"),
    *("aiohttp==3.14.5", "aiohappyeyeballs", "aiosignal", "attrs", "frozenlist", "multidict", "propcache", "yarl"),
    *("python-dateutil", "pytz", "six", "tzdata", "requests", "charset-normalizer", "urllib3"),
)

PEER_ENVIRONMENTS: dict[str, PeerEnvironment] = {
    "gptqmodel": PeerEnvironment(
        packages=(
            *("setuptools>=77", "wheel==0.48.0", "ninja==1.13.2", "maturin==1.16.0"),
            *("device-smi==0.5.7", "pypcre==0.6.4", "tokenicer==0.0.14", "logbar==0.4.15", "threadpoolctl==3.8.0"),
            *("defuser==0.0.28", "torchao==0.18.0", *_DATASETS),
        ),
        built=("gptqmodel==7.7.0",),
        variables={"BUILD_CUDA_EXT": "0"},
        imports="gptqmodel.quantization.gptq",
    ),
    "llm-compressor": PeerEnvironment(
        packages=(
            *("llmcompressor==0.14.0.1", "compressed-tensors==0.19.0", "transformers==5.17.0", "loguru==0.7.3"),
            *("auto-round==0.15.1", "accelerate==1.15.0", "py-cpuinfo", "nvidia-ml-py", "pillow", *_DATASETS),
            *("huggingface_hub==1.33.0", "httpx==0.28.1", "httpcore==1.0.9"),
        ),
        built=(),
        variables={},
        imports="llmcompressor",
    ),
    "auto-round": PeerEnvironment(
        packages=("auto-round==0.16.1", "accelerate==1.15.0", "py-cpuinfo", *_DATASETS),
        built=(),
        variables={},
        imports="auto_round",
    ),
    "mlx": PeerEnvironment(
        packages=("mlx==0.32.4", "mlx-cpu==0.32.4", "mlx-lm==0.32.2"),
        built=(),
        variables={},
        imports="mlx_lm",
    ),
}


def peer_python(name: str) -> Path | None:
    """The interpreter of the environment ``name``, or ``None`` where it was not made."""
    path = ENVIRONMENTS / name / "bin" / "python"
    return path if (ENVIRONMENTS / name / "whole").is_file() else None


def run_peer(name: str, script: Path, arguments: Sequence[str], limit_seconds: float | None = None) -> Any:
    """What ``script`` printed as JSON on its last line, run in the environment ``name``.

    Raises:
        RuntimeError: the environment was not made, the script was not finished after ``limit_seconds``, or it failed;
            with the end of what it wrote.
    """
    python = peer_python(name)
    if python is None:
        raise RuntimeError(f"{name} has no environment here: python gpu-runner/benchmarks/peer_environments.py {name}")
    command = [str(python), str(script), *arguments]
    try:
        finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit_seconds)
    except subprocess.TimeoutExpired as late:
        raise RuntimeError(f"{name} was not finished after {late.timeout:.0f} s") from late
    if finished.returncode != 0:
        raise RuntimeError(f"{name} failed: {finished.stderr.strip()[-500:]}")
    return json.loads(finished.stdout.strip().splitlines()[-1])


def make_environment(name: str) -> None:
    """Make the environment ``name`` anew.

    Raises:
        subprocess.CalledProcessError: pip could not install something; its output is on stderr.
    """
    wanted = PEER_ENVIRONMENTS[name]
    folder = ENVIRONMENTS / name
    venv.EnvBuilder(with_pip=True, clear=True).create(folder)
    own = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    (own / "runner.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, *wanted.packages], check=True)
    if wanted.built:
        environment = {**os.environ, **wanted.variables}
        subprocess.run([*pip, "--no-build-isolation", *wanted.built], check=True, env=environment)
    subprocess.run([str(folder / "bin" / "python"), "-c", f"import {wanted.imports}"], check=True, stdout=sys.stderr)
    (folder / "whole").write_text("", encoding="utf-8")


if __name__ == "__main__":
    for asked in sys.argv[1:] or PEER_ENVIRONMENTS:
        print(f"{asked}: {ENVIRONMENTS / asked}", file=sys.stderr)
        make_environment(asked)
