"""Writes a tiny image-text model as it is released, processor and all: ``python make_image_text_model.py KIND OUT``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "gpu-runner/tests"))

import torch  # noqa: E402
from tiny_architectures import save_tiny_model  # noqa: E402

QWEN: dict[str, Any] = {
    "image_processor_type": "Qwen2VLImageProcessor",
    "size": {"shortest_edge": 1024, "longest_edge": 1024},
    "patch_size": 8,
    "temporal_patch_size": 2,
    "merge_size": 2,
}
PROCESSORS: dict[str, dict[str, Any]] = {
    "gemma3": {"image_processor_type": "Gemma3ImageProcessor", "size": {"height": 32, "width": 32}},
    "qwen3_5": QWEN,
    "qwen3_vl": QWEN,
}


def main(kind: str, out: Path) -> None:
    save_tiny_model(kind, out, dtype=torch.bfloat16)
    (out / "preprocessor_config.json").write_text(json.dumps(PROCESSORS[kind]), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
