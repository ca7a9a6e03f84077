"""An adapter (LoRA, by the peft library) merged onto its base: a checkpoint like any other."""

from __future__ import annotations

import filecmp
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
    ADAPTER_CONFIG_FILE,
    ADAPTER_PATTERNS,
    ADAPTER_WEIGHTS_FILE,
    COMPANION_PATTERNS,
    LICENCE_PATTERNS,
    MAXIMUM_COPIED_BYTES,
    PICKLE_SUFFIXES,
    TOKENIZER_PATTERNS,
    VOCABULARY_FILES,
    is_listed,
    listed_files,
)
from yaqa_runner.protocol.failures import InvalidSpec, RunnerFailure, SourceRefused, UnsupportedModel

_PREFIX = "base_model.model."
ANOTHER_BASE = "Give the base that the adapter was trained on, at its commit."


def inspect_adapter(directory: Path) -> dict[str, Any]:
    """``adapter_config.json`` of an adapter that may be loaded.

    Raises:
        SourceRefused: no adapter, code of its own, pickled weights, a link out of the folder.
        UnsupportedModel: another kind than LoRA.
    """
    if not (directory / ADAPTER_CONFIG_FILE).is_file():
        raise SourceRefused(
            f"{directory.name} holds no {ADAPTER_CONFIG_FILE}.", "Give a folder that PEFT's save_pretrained wrote."
        )
    refuse_links_elsewhere(directory, ADAPTER_PATTERNS, "adapter")
    config = read_json(directory / ADAPTER_CONFIG_FILE)
    if config.get("auto_map") or not _is_of_transformers(config.get("auto_mapping")):
        raise SourceRefused(
            f"{ADAPTER_CONFIG_FILE} asks for a class of its own (auto_mapping), whose code is never run.",
            "Merge it where that code is trusted, and push the result.",
        )
    if config.get("megatron_config"):
        # peft would import whatever module megatron_core names.
        raise SourceRefused(
            f"{ADAPTER_CONFIG_FILE} asks for Megatron's layers (megatron_config), which are not loaded.",
            "Train it on transformers' layers, or merge it yourself, and push the result.",
        )
    kind = config.get("peft_type")
    if kind != "LORA":
        raise UnsupportedModel(
            f"The adapter is of the kind {str(kind)[:40]!r}; LORA is merged.", "Merge it by PEFT, and push the result."
        )
    if not (directory / ADAPTER_WEIGHTS_FILE).is_file():
        pickles = sorted(path.name for path in directory.iterdir() if path.suffix in PICKLE_SUFFIXES)
        cause = f"only as pickles ({', '.join(pickles[:3])}), which are never loaded" if pickles else "not there"
        raise SourceRefused(
            f"The adapter's weights are {cause}: there is no {ADAPTER_WEIGHTS_FILE}.",
            "Save it as safetensors, PEFT's default.",
        )
    return config


def merged_adapter(base: Snapshot, adapter: Path, output: Path) -> Path:
    """Merge the adapter in ``adapter`` onto ``base``, whose weights are plain, and write the result to ``output``.

    The whole model is in memory, in the checkpoint's own type. Of the files beside the weights the adapter's go before
    the base's; both licences are there, the base's as ``BASE-LICENSE`` where the adapter has another one.

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
    except Exception as error:
        if isinstance(error, RunnerFailure) or is_out_of_memory(error):
            raise
        raise SourceRefused(f"peft cannot merge the adapter onto this base: {error}", ANOTHER_BASE) from error
    with output_folder(output) as scratch:
        merged.save_pretrained(scratch)
        _copy_companions(base.directory, adapter, scratch)
    return output


def _is_of_transformers(mapping: object) -> bool:
    """Whether peft's note of the base's class, where there is one, names one that transformers has built in."""
    if not mapping:
        return True
    library = mapping.get("parent_library") if isinstance(mapping, dict) else None
    return isinstance(library, str) and library.startswith("transformers.models.")


def _stored_shapes(adapter: Path) -> dict[str, tuple[int, ...]]:
    try:
        with safe_open(adapter / ADAPTER_WEIGHTS_FILE, framework="pt", device="cpu") as handle:
            return {name: tuple(handle.get_slice(name).get_shape()) for name in handle.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise SourceRefused(
            f"{ADAPTER_WEIGHTS_FILE} is not a readable safetensors file: {error}", "Push a sound file."
        ) from error


def _refuse_left_out(taken: set[str], adapter: Path) -> None:
    """peft takes of the file what its settings name, and says nothing of the rest."""
    left_out = sorted(set(_stored_shapes(adapter)) - taken)
    if left_out:
        raise SourceRefused(
            f"{ADAPTER_WEIGHTS_FILE} holds {left_out[0][:200]}, which {ADAPTER_CONFIG_FILE} says nothing of "
            f"({len(left_out)} in all).",
            "Give settings and weights that belong together.",
        )


def _refuse_another_base(model: nn.Module, adapter: Path) -> None:
    """Each pair of factors has a linear of the base, of its shape: peft leaves out what it does not find."""
    shapes = _stored_shapes(adapter)
    pairs = {name.removesuffix(".lora_A.weight") for name in shapes if name.endswith(".lora_A.weight")}
    if not pairs:
        raise SourceRefused(f"{ADAPTER_WEIGHTS_FILE} holds no LoRA factors.", "Give the adapter's own weights.")
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


def _copy_companions(base: Path, adapter: Path, target: Path) -> None:
    """What lies beside the weights of both.

    A tokenizer is taken whole from one of them: parts of two, such as the template in a file and the one within the
    settings, contradict each other.
    """
    own = listed_files(adapter, COMPANION_PATTERNS)
    has_tokenizer = any(path in VOCABULARY_FILES for path in own)
    for path in listed_files(base, COMPANION_PATTERNS):
        if has_tokenizer and is_listed(path, TOKENIZER_PATTERNS):
            continue
        differs = path in own and not filecmp.cmp(base / path, adapter / path, shallow=False)
        kept_as = f"BASE-{path}"
        _copy(base, path, target / (kept_as if differs and kept_as in LICENCE_PATTERNS else path))
    for path in own:
        _copy(adapter, path, target / path)


def _copy(folder: Path, path: str, target: Path) -> None:
    if (folder / path).stat().st_size > MAXIMUM_COPIED_BYTES:
        raise SourceRefused(f"{path} is larger than {MAXIMUM_COPIED_BYTES} bytes.", "Push a smaller one, or none.")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / path, target)
