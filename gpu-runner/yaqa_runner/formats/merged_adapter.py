"""An adapter (LoRA, by the peft library) merged onto its base: a checkpoint like any other."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from yaqa_runner.formats.output_folder import output_folder
from yaqa_runner.model.auto_class import auto_class
from yaqa_runner.model.load import load_config
from yaqa_runner.model.snapshot import Snapshot, read_json
from yaqa_runner.model.source_files import COMPANION_PATTERNS, PICKLE_SUFFIXES, listed_files
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
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if (directory / name).is_symlink() and not (directory / name).resolve().is_relative_to(_root(directory)):
            raise SourceRefused(
                f"{name} is a link that leads out of the adapter's folder.", "Put the file itself there."
            )
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
        from peft import PeftModel
    except ImportError as error:
        raise InvalidSpec(
            "The peft library is not installed.", "Install it: pip install 'yaqa-runner[adapters]'."
        ) from error
    config = load_config(base)
    loader = auto_class(config)
    assert loader is not None
    try:
        model = loader.from_pretrained(
            base.directory,
            config=config,
            dtype="auto",
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise SourceRefused(
            f"transformers cannot load the base: {error}", "Give weights that fit their config."
        ) from error
    _refuse_another_base(model, adapter)
    try:
        merged = PeftModel.from_pretrained(model, adapter, torch_device="cpu").merge_and_unload(safe_merge=True)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
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


def _root(directory: Path) -> Path:
    # In huggingface_hub's cache each file is a link to its content beside the snapshots.
    is_cached = directory.parent.name == "snapshots"
    return (directory.parent.parent / "blobs" if is_cached else directory).resolve()


def _refuse_another_base(model: nn.Module, adapter: Path) -> None:
    """Each pair of factors has a linear of the base, of its shape: peft leaves out what it does not find."""
    try:
        with safe_open(adapter / WEIGHTS_FILE, framework="pt", device="cpu") as handle:
            shapes = {name: tuple(handle.get_slice(name).get_shape()) for name in handle.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise SourceRefused(
            f"{WEIGHTS_FILE} is not a readable safetensors file: {error}", "Push a sound file."
        ) from error
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
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / path, target / path)
