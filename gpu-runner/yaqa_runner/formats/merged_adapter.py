"""An adapter (LoRA, by the peft library) merged onto its base: a checkpoint like any other."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from yaqa_runner.formats.output_folder import output_folder
from yaqa_runner.machine.exhaustion import is_out_of_memory
from yaqa_runner.model.load import load_config, whole_model
from yaqa_runner.model.snapshot import Snapshot, read_json, refuse_links_elsewhere
from yaqa_runner.model.source_files import (
    COMPANION_PATTERNS,
    MAXIMUM_COPIED_BYTES,
    PICKLE_SUFFIXES,
    listed_files,
)
from yaqa_runner.protocol.failures import InvalidSpec, SourceRefused, UnsupportedModel

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
ANOTHER_BASE = "Give the base that the adapter was trained on, at its commit."


def inspect_adapter(directory: Path) -> dict[str, Any]:
    """``adapter_config.json`` of an adapter that may be loaded.

    Raises:
        SourceRefused: no adapter, code of its own, pickled weights, a link out of the folder.
        UnsupportedModel: another kind than LoRA.
    """
    if not (directory / CONFIG_FILE).is_file():
        raise SourceRefused(
            f"{directory.name} holds no {CONFIG_FILE}.", "Give a folder that PEFT's save_pretrained wrote."
        )
    refuse_links_elsewhere(directory, (CONFIG_FILE, WEIGHTS_FILE, *COMPANION_PATTERNS), "adapter")
    config = read_json(directory / CONFIG_FILE)
    if config.get("auto_map") or not _is_of_transformers(config.get("auto_mapping")):
        raise SourceRefused(
            f"{CONFIG_FILE} asks for a class of its own (auto_mapping), whose code is never run.",
            "Merge it where that code is trusted, and push the result.",
        )
    kind = config.get("peft_type")
    if kind != "LORA":
        raise UnsupportedModel(
            f"The adapter is of the kind {str(kind)[:40]!r}; LORA is merged.", "Merge it by PEFT, and push the result."
        )
    if not (directory / WEIGHTS_FILE).is_file():
        pickles = sorted(path.name for path in directory.iterdir() if path.suffix in PICKLE_SUFFIXES)
        cause = f"only as pickles ({', '.join(pickles[:3])}), which are never loaded" if pickles else "not there"
        raise SourceRefused(
            f"The adapter's weights are {cause}: there is no {WEIGHTS_FILE}.", "Save it as safetensors, PEFT's default."
        )
    return config


def merged_adapter(base: Snapshot, adapter: Path, output: Path) -> Path:
    """Merge the adapter in ``adapter`` onto ``base``, whose weights are plain, and write the result to ``output``.

    The whole model is in memory, in the checkpoint's own type. The adapter's tokenizer, card and licence go before the
    base's.

    Raises:
        InvalidSpec: peft is not installed.
        SourceRefused: the adapter is unsafe or broken, or of another base.
        UnsupportedModel: it is no LoRA, or transformers does not know the base.
    """
    inspect_adapter(adapter)
    try:
        from peft import PeftModel, get_peft_model_state_dict
    except ImportError as error:
        raise InvalidSpec(
            "The peft library is not installed.", "Install it: pip install 'yaqa-runner[adapters]'."
        ) from error
    model = whole_model(base, load_config(base), torch.device("cpu"), "auto")
    _refuse_another_base(model, adapter)
    try:
        adapted = PeftModel.from_pretrained(model, adapter, torch_device="cpu")
        _refuse_left_out(set(get_peft_model_state_dict(adapted, save_embedding_layers=True)), adapter)
        merged = adapted.merge_and_unload(safe_merge=True)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        raise SourceRefused(f"peft cannot merge the adapter onto this base: {error}", ANOTHER_BASE) from error
    with output_folder(output) as scratch:
        merged.save_pretrained(scratch)
        for folder in (base.directory, adapter):
            _copy_companions(folder, scratch)
    return output


def _is_of_transformers(mapping: object) -> bool:
    """Whether peft's note of the base's class, where there is one, names one that transformers has built in."""
    if not mapping:
        return True
    library = mapping.get("parent_library") if isinstance(mapping, dict) else None
    return isinstance(library, str) and library.startswith("transformers.models.")


def _stored_shapes(adapter: Path) -> dict[str, tuple[int, ...]]:
    try:
        with safe_open(adapter / WEIGHTS_FILE, framework="pt", device="cpu") as handle:
            return {name: tuple(handle.get_slice(name).get_shape()) for name in handle.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise SourceRefused(
            f"{WEIGHTS_FILE} is not a readable safetensors file: {error}", "Push a sound file."
        ) from error


def _refuse_left_out(taken: set[str], adapter: Path) -> None:
    """peft takes of the file what its settings name, and says nothing of the rest."""
    left_out = sorted(set(_stored_shapes(adapter)) - taken)
    if left_out:
        raise SourceRefused(
            f"{WEIGHTS_FILE} holds {left_out[0][:200]}, which {CONFIG_FILE} says nothing of ({len(left_out)} in all).",
            "Give settings and weights that belong together.",
        )


def _refuse_another_base(model: nn.Module, adapter: Path) -> None:
    """Each pair of factors has a linear of the base, of its shape: peft leaves out what it does not find."""
    shapes = _stored_shapes(adapter)
    pairs = {name.removesuffix(".lora_A.weight") for name in shapes if name.endswith(".lora_A.weight")}
    if not pairs:
        raise SourceRefused(f"{WEIGHTS_FILE} holds no LoRA factors.", "Give the adapter's own weights.")
    modules = dict(model.named_modules())
    for name in sorted(pairs):
        path = name.removeprefix(_PREFIX)
        module = modules.get(path)
        weight = getattr(module, "weight", None)
        if weight is None:
            raise SourceRefused(f"The base has no linear {path[:200]}, which the adapter changes.", ANOTHER_BASE)
        wanted = (shapes[f"{name}.lora_A.weight"][-1], shapes.get(f"{name}.lora_B.weight", (0,))[0])
        # Conv1D stores inputs by outputs.
        stored = tuple(weight.shape) if isinstance(module, nn.Linear) else tuple(weight.shape[::-1])
        if wanted != stored[::-1]:
            raise SourceRefused(
                f"The adapter changes {path[:200]} as one of {wanted[1]} × {wanted[0]}; the base's is "
                f"{stored[0]} × {stored[1]}.",
                ANOTHER_BASE,
            )


def _copy_companions(folder: Path, target: Path) -> None:
    for path in listed_files(folder, COMPANION_PATTERNS):
        if (folder / path).stat().st_size > MAXIMUM_COPIED_BYTES:
            raise SourceRefused(f"{path} is larger than {MAXIMUM_COPIED_BYTES} bytes.", "Push a smaller one, or none.")
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / path, target / path)
