"""Shows an image to two folders of one model: ``python see_image.py ENGINE SOURCE FOLDER``.

``ENGINE`` is one of ``open_folder.py``'s that gives a model of transformers. The image goes through each folder's own
processor. The last line is JSON: at how many positions of two prompts, each with an image of its own, the original
prefers its first choice by ``DECIDED`` nats, whether the folder makes the same choice at all of them, the share of all
positions with the same choice, and by how much the folder's answer differs from the original's and between the images.
"""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "engines"))

import numpy as np  # noqa: E402
import open_folder  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from transformers import AutoImageProcessor  # noqa: E402

IMAGE_TOKEN, IMAGE_START, IMAGE_TOKENS = 300, 302, 4
# Random weights make near ties, which any rounding turns over.
DECIDED = 0.1


def pictures() -> list[Image.Image]:
    """Two unlike ones."""
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(2)]


@torch.no_grad()
def answer(model: Any, folder: Path, picture: Image.Image) -> torch.Tensor:
    """Logits ``[length, vocabulary]`` after a prompt with ``picture`` in it."""
    processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    seen = dict(processor(images=[picture], return_tensors="pt"))
    seen.pop("num_crops", None)
    ids = torch.randint(3, 256, (1, 16), generator=torch.Generator().manual_seed(0))
    ids[0, 3] = IMAGE_START
    ids[0, 4 : 4 + IMAGE_TOKENS] = IMAGE_TOKEN
    for name in ("token_type_ids", "mm_token_type_ids"):
        if name in inspect.signature(model.forward).parameters:
            seen[name] = (ids == IMAGE_TOKEN).long()
    return model(input_ids=ids, attention_mask=torch.ones_like(ids), **seen).logits[0].float()


def main(engine: str, source: Path, folder: Path) -> None:
    original_model, model = open_folder.MODELS["transformers"](source), open_folder.MODELS[engine](folder)
    original = torch.stack([answer(original_model, source, picture) for picture in pictures()])
    found = torch.stack([answer(model, folder, picture) for picture in pictures()])
    same = original.argmax(-1) == found.argmax(-1)
    best = original.topk(2, -1).values
    decided = best[..., 0] - best[..., 1] > DECIDED
    report = {
        "decided": int(decided.sum()),
        "topEqual": bool(same[decided].all()),
        "topShare": float(same.float().mean()),
        "differs": float((original - found).abs().max()),
        "byImage": float((found[0] - found[1]).abs().max()),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
