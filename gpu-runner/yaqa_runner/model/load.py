"""Loading the original model with transformers, in a process that trusts nothing in the repo."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import nn
from transformers import AutoConfig, AutoTokenizer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from yaqa_runner.config import read_list
from yaqa_runner.machine.exhaustion import is_disk_full, is_out_of_memory
from yaqa_runner.machine.host_memory import host_memory
from yaqa_runner.model.auto_class import auto_class
from yaqa_runner.model.block_weights import BlockWeights, ResidentWeights
from yaqa_runner.model.blocks import BlocksEntangled, BlockwiseModel
from yaqa_runner.model.experts import SeparateExperts, fused_experts, separate_experts
from yaqa_runner.model.left_linears import unreached_linears
from yaqa_runner.model.left_out import reason_left_out
from yaqa_runner.model.linears import LinearLayer, discover_linears, repeated_blocks
from yaqa_runner.model.mapped_weights import MappedWeights, empty_model, empty_parameters
from yaqa_runner.model.snapshot import Snapshot
from yaqa_runner.model.source_files import VOCABULARY_FILES
from yaqa_runner.model.stored_names import stored_names
from yaqa_runner.model.stored_tensors import SafetensorsFiles
from yaqa_runner.model.swept_logits import SweptLogits
from yaqa_runner.model.tokenizer_steps import refuse_exhausting_steps
from yaqa_runner.protocol.failures import SourceRefused, UnsupportedModel, is_native_panic
from yaqa_runner.protocol.manifest import UnquantizedWeight
from yaqa_runner.rounding.linalg.finite import all_finite

logger = logging.getLogger(__name__)

# Of a device's memory, for the whole model; the rest is for what is done with it.
RESIDENT_SHARE: float = read_list("memory.json")["residentShare"]


@dataclass(frozen=True)
class SourceModel:
    """The original model, ready to compute.

    Attributes:
        model: The causal LM in eval mode, parameters without gradients.
        tokenizer: Its tokenizer, or ``None`` when the repo has none.
        linears: What will be quantized.
        unquantized: What stays.
        device: Where the model is.
        vocabulary: Size of the output distribution.
        maximum_length: Longest sequence it was made for, where its config says.
        weights: Where those of its blocks are.
    """

    model: nn.Module
    tokenizer: Any | None
    linears: list[LinearLayer]
    unquantized: list[UnquantizedWeight]
    device: torch.device
    vocabulary: int
    maximum_length: int | None
    weights: BlockWeights = field(default_factory=ResidentWeights)

    @property
    def parameter_bytes(self) -> int:
        """What the parameters take that are there at once: all, or the largest block's and those outside of blocks."""
        if self.weights.whole:
            return sum(parameter.nbytes for parameter in self.model.parameters())
        blocks = [sum(parameter.nbytes for parameter in block.parameters()) for block in repeated_blocks(self.model)]
        return sum(parameter.nbytes for parameter in self.model.parameters()) - sum(blocks) + max(blocks)

    def blockwise(self) -> BlockwiseModel:
        """The model, to be run a block at a time.

        Raises:
            BlocksEntangled: it cannot be.
        """
        return BlockwiseModel(self.model, self.weights, self.vocabulary, self.device)

    @torch.inference_mode()
    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        """``[b, T, V]`` of ``tokens`` ``[b, T]``, where the model is; block by block where not all weights are there.

        Raises:
            BlocksEntangled: the model can only be run whole, and is not.
        """
        if self.weights.whole:
            logits: torch.Tensor = self.model(input_ids=tokens.to(self.device), use_cache=False).logits
            return logits
        return SweptLogits(self.blockwise()).logits(tokens)


def choose_device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device for ``wanted``.

    Raises:
        UnsupportedModel: CUDA is asked for and not there.
    """
    if wanted == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    if wanted == "cuda":
        raise UnsupportedModel(
            "CUDA is asked for, and this machine has no GPU that PyTorch can use.",
            "Run it on a machine with one, or on the processor: --device, or runner.device of the bot.",
        )
    return torch.device("cpu")


def load_source_model(snapshot: Snapshot, device: torch.device, memory_bytes: int | None = None) -> SourceModel:
    """Load the model: float32 on the CPU, the checkpoint's own type on a GPU.

    Where it would take more than half of the memory of its device (of the host, ``memory_bytes`` at most), its blocks
    are left in the checkpoint. One that is released quantized has been decoded (``formats/decoded_original.py``).

    Raises:
        SourceRefused: weights are missing, misshapen or not finite.
        UnsupportedModel: transformers does not know the architecture, or nothing in it can be quantized.
    """
    assert snapshot.form is None, "the snapshot is decoded first"
    config = load_config(snapshot)
    if _outgrows(snapshot, config, device, memory_bytes):
        return _mapped_source_model(snapshot, config, device)
    model = whole_model(snapshot, config, device, torch.float32 if device.type == "cpu" else "auto")
    stored = set(snapshot.shapes)
    renamed = stored_names(model, stored)
    experts = separate_experts(model, snapshot.weight_files, stored)
    found, unquantized = discover_linears(model, stored, experts, renamed)
    linears, unreached = _without_unreached(model, found)
    return _source_model(snapshot, config, model, linears, unquantized + unreached, device, ResidentWeights())


def _outgrows(snapshot: Snapshot, config: Any, device: torch.device, memory_bytes: int | None) -> bool:
    size = snapshot.elements * _computed_type(config, device).itemsize
    if device.type == "cuda":
        return size > RESIDENT_SHARE * torch.cuda.get_device_properties(device).total_memory
    return size > RESIDENT_SHARE * host_memory(memory_bytes)


def _computed_type(config: Any, device: torch.device) -> torch.dtype:
    if device.type == "cpu":
        return torch.float32
    stored = getattr(config, "dtype", None)
    return stored if isinstance(stored, torch.dtype) else torch.bfloat16


def _source_model(
    snapshot: Snapshot,
    config: Any,
    model: Any,
    linears: list[LinearLayer],
    unquantized: list[UnquantizedWeight],
    device: torch.device,
    weights: BlockWeights,
) -> SourceModel:
    embedding = model.get_input_embeddings()
    output = model.get_output_embeddings()
    return SourceModel(
        model=model,
        tokenizer=load_tokenizer(snapshot),
        linears=linears,
        unquantized=unquantized,
        device=device,
        vocabulary=int((output if output is not None else embedding).weight.shape[0]),
        maximum_length=maximum_length(config),
        weights=weights,
    )


def _mapped_source_model(snapshot: Snapshot, config: Any, device: torch.device) -> SourceModel:
    """The model with its blocks in the checkpoint; each is loaded once here, to be looked at."""
    dtype = _computed_type(config, device)
    try:
        model = empty_model(config, dtype, device)
    except ValueError as error:
        raise SourceRefused(f"transformers cannot build the model: {error}", "Push a sound config.") from error
    weights = MappedWeights(model, SafetensorsFiles(snapshot.weight_files), dtype, device)
    stored = set(snapshot.shapes)
    renamed = stored_names(model, stored)
    _refuse_infinite(model, "")
    experts: dict[str, str] = {}
    for number in range(len(repeated_blocks(model))):
        within = weights.name_of(number)
        with weights.block(number):
            _refuse_infinite(model, within)
            fused = fused_experts(model, within)
            experts |= separate_experts(model, snapshot.weight_files, stored, within)
            for path, module in fused:
                parts = model.get_submodule(path)
                if isinstance(parts, SeparateExperts):
                    _exchange_on_load(model, weights, number, path, module, parts)
    _refuse_leftovers(sorted(weights.unused), bool(getattr(config, "tie_word_embeddings", False)))
    found, unquantized = discover_linears(model, stored, experts, renamed)
    linears, unreached = _without_unreached(model, found, lambda tokens: _forth_and_back(model, weights, tokens))
    fetched = [replace(layer, fetch=_fetching(weights, layer)) for layer in linears]
    return _source_model(snapshot, config, model, fetched, unquantized + unreached, device, weights)


def _forth_and_back(model: Any, weights: BlockWeights, tokens: torch.Tensor) -> None:
    """Each block forward and backward, one after the other.

    Raises:
        UnsupportedModel: the model can only be run whole.
    """
    try:
        vocabulary = int(model.get_input_embeddings().weight.shape[0])
        blockwise = BlockwiseModel(model, weights, vocabulary, tokens.device)
        hidden = blockwise.enter(tokens).hidden
        for number in range(len(blockwise)):
            with weights.block(number):
                states = hidden.detach().requires_grad_(True)
                hidden = blockwise.run(number, tokens, states)
                hidden.float().square().mean().backward()  # type: ignore[no-untyped-call]
    except BlocksEntangled as entangled:
        raise UnsupportedModel(
            f"The model takes more than half of the memory, and cannot be run block by block: {entangled}.",
            "Run it on a machine with more memory.",
        ) from entangled


def _exchange_on_load(
    model: nn.Module, weights: MappedWeights, number: int, path: str, fused: nn.Module, parts: SeparateExperts
) -> None:
    """Load the ``fused`` experts of block ``number`` in the place of ``parts``, then have these share their memory."""
    parent = model.get_submodule(path.rpartition(".")[0])
    name = path.rpartition(".")[2]

    def before() -> None:
        setattr(parent, name, fused)

    def after() -> None:
        parts.take(fused)
        empty_parameters(fused)
        setattr(parent, name, parts)

    empty_parameters(fused)
    weights.on_load(number, before, after)


def _fetching(weights: MappedWeights, layer: LinearLayer) -> Callable[[], torch.Tensor]:
    def fetch() -> torch.Tensor:
        weights.keep(layer.block)
        weight = layer.module.weight
        assert isinstance(weight, torch.Tensor)
        return weight.detach()

    return fetch


def _refuse_infinite(model: nn.Module, within: str) -> None:
    part = model.get_submodule(within.removesuffix("."))
    for name, parameter in part.named_parameters(prefix=within.removesuffix(".")):
        if not parameter.is_meta and parameter.numel() > 0 and not all_finite(parameter):
            raise SourceRefused(f"The weight {name} holds NaN or infinite values.", "Push a sound checkpoint.")


def whole_model(snapshot: Snapshot, config: Any, device: torch.device, dtype: torch.dtype | str) -> Any:
    """transformers' model of ``snapshot`` with all its weights as ``dtype``, ``auto`` for the checkpoint's own.

    Raises:
        SourceRefused: weights are missing, of other shapes, not finite, or none of the model's.
    """
    loader = auto_class(config)
    assert loader is not None
    try:
        model, report = loader.from_pretrained(
            snapshot.directory,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            attn_implementation="sdpa",
        )
    except Exception as first:
        if is_out_of_memory(first) or is_disk_full(first):
            raise
        if "scaled_dot_product_attention" not in str(first):
            raise SourceRefused(
                f"transformers cannot load the model: {first}", "Push weights that fit their config."
            ) from first
        model, report = loader.from_pretrained(
            snapshot.directory,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            attn_implementation="eager",
        )
    missing = sorted(report.get("missing_keys", ()))
    if missing:
        raise SourceRefused(
            f"The checkpoint has no weights for {', '.join(missing[:3])} ({len(missing)} in all).",
            "Push the whole model.",
        )
    mismatched = sorted(str(entry) for entry in report.get("mismatched_keys", ()))
    if mismatched:
        raise SourceRefused(
            f"Weights do not fit the config: {', '.join(mismatched[:3])}.", "Push what belongs together."
        )
    tied = bool(getattr(config, "tie_word_embeddings", False))
    _refuse_leftovers(sorted(report.get("unexpected_keys", ())), tied)
    _refuse_infinite(model, "")
    model.to(device)
    model.eval()
    return model.requires_grad_(False)


def _without_unreached(
    model: nn.Module, linears: list[LinearLayer], forth_and_back: Callable[[torch.Tensor], None] | None = None
) -> tuple[list[LinearLayer], list[UnquantizedWeight]]:
    """``linears`` that the answer to a text comes from, and the others with the reason.

    Raises:
        SourceRefused: transformers cannot run the model.
        UnsupportedModel: none is left.
    """
    routed = {linear.path for linear in linears if linear.routed}
    modules = {linear.path: linear.module for linear in linears}
    reasons = unreached_linears(model, modules, routed, forth_and_back)
    left = [
        UnquantizedWeight(
            name=f"{linear.name}.weight",
            reason=reasons[linear.path],
            type=str(linear.stored_weight().dtype).removeprefix("torch."),
        )
        for linear in linears
        if linear.path in reasons
    ]
    if len(left) == len(linears):
        raise UnsupportedModel(
            f"None of the model's linears can be rounded: {left[0].name} is {left[0].reason}.",
            "Use a causal language model that computes its answer by linears.",
        )
    return [linear for linear in linears if linear.path not in reasons], left


def _refuse_leftovers(names: list[str], tied: bool) -> None:
    """What transformers did not load has to have a reason: a leftover can be half of the model."""
    left = [name for name in names if reason_left_out(name) is None and not (tied and name.endswith("lm_head.weight"))]
    if not left:
        return
    scales = [name for name in left if name.endswith(("_scale_inv", "_scale", "_scale_2"))]
    if scales:
        raise UnsupportedModel(
            f"The checkpoint has scales of quantized weights ({scales[0][:200]}), of which config.json tells nothing.",
            "Push it with its quantization_config, or point at the original, 16- or 32-bit model.",
        )
    raise SourceRefused(
        f"The model does not use {', '.join(name[:200] for name in left[:3])} ({len(left)} tensors in all) of the "
        "checkpoint.",
        "Push the configuration of these weights, or only the tensors that belong to the model.",
    )


def maximum_length(config: Any) -> int | None:
    """The longest sequence that a model of ``config`` was made for, where it says."""
    maximum = getattr(config.get_text_config(), "max_position_embeddings", None)
    return maximum if isinstance(maximum, int) and maximum > 0 else None


def load_config(snapshot: Snapshot) -> Any:
    """The model's configuration.

    Raises:
        SourceRefused: the configuration does not fit its architecture.
        UnsupportedModel: transformers does not know the architecture.
    """
    try:
        config = AutoConfig.from_pretrained(snapshot.directory, trust_remote_code=False, local_files_only=True)
    except Exception as error:
        model_type = snapshot.config.get("model_type")
        if model_type in CONFIG_MAPPING_NAMES:
            raise SourceRefused(
                f"transformers does not take config.json: {error}", "Push the configuration of these weights."
            ) from error
        raise UnsupportedModel(
            f"transformers does not know this architecture (model_type {str(model_type)[:80]!r}).",
            "Use a causal language model that transformers has built in.",
        ) from error
    if auto_class(config) is None:
        raise UnsupportedModel(
            f"{config.model_type!r} is not a causal language model, with or without images.",
            "Use a language model that transformers has built in.",
        )
    return config


def _embedded_tokens(config: dict[str, Any]) -> int | None:
    """How many tokens the model has embeddings for, as ``config.json`` says it; nested where images go in too."""
    text = config.get("text_config")
    for one in (config, text if isinstance(text, dict) else {}):
        size = one.get("vocab_size")
        if isinstance(size, int) and size > 0:
            return size
    return None


def load_tokenizer(snapshot: Snapshot) -> Any | None:
    """The snapshot's tokenizer, ``None`` where it has none.

    Raises:
        SourceRefused: it cannot be loaded.
    """
    if not any((snapshot.directory / name).is_file() for name in VOCABULARY_FILES):
        return None
    if (snapshot.directory / "tokenizer.json").is_file():
        refuse_exhausting_steps(snapshot.directory / "tokenizer.json", _embedded_tokens(snapshot.config))
    try:
        return AutoTokenizer.from_pretrained(snapshot.directory, trust_remote_code=False, local_files_only=True)
    except BaseException as error:
        if not isinstance(error, Exception) and not is_native_panic(error):
            raise
        raise SourceRefused(
            f"The tokenizer cannot be loaded: {type(error).__name__}: {error}", "Push a tokenizer.json that loads."
        ) from error
