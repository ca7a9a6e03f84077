"""Linears that stay in 16 bits although they could be rounded, each with the reason."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import nn

from yaqa_runner.machine.exhaustion import is_disk_full, is_out_of_memory
from yaqa_runner.protocol.failures import RunnerFailure, SourceRefused

PROBE_TOKENS = 16
# What turns a state's decay and step: an error there is carried on from token to token.
_STEERING = re.compile(r"\.(in_proj_a|in_proj_b|in_proj_ba|x_proj|dt_proj|f_a_proj|f_b_proj|b_proj|bcdt_proj)$")
_ROUTER = re.compile(r"\.(gate|router|router\.(gate|layer|classifier|proj)|gate\.wg|shared_expert_gate)$")
_EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


def left_by_role(path: str, rows: int, config: Any) -> str | None:
    """Why the linear at ``path`` with ``rows`` outputs is not rounded, by what it is for; ``None`` where it is."""
    if _STEERING.search(path):
        return "steers a state, where an error is carried from token to token"
    if _ROUTER.search(path) and (rows == 1 or rows in _expert_counts(config)):
        return "a router of experts"
    return None


def _expert_counts(config: Any) -> set[int]:
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    found = {value for name in _EXPERT_COUNTS if isinstance(value := getattr(text, name, None), int)}
    # Some routers have an output for each expert that computes nothing, too.
    empty = getattr(text, "zero_expert_num", None)
    return found | ({count + empty for count in found} if isinstance(empty, int) else set())


def unreached_linears(
    model: nn.Module,
    linears: Mapping[str, nn.Module],
    routed: Collection[str],
    forth_and_back: Callable[[torch.Tensor], None] | None = None,
) -> dict[str, str]:
    """Those of ``linears`` (by path) that a text's answer does not come from, with the reason.

    Runs a few tokens forth and back: a linear whose output wants no gradient (scores that only choose), that is not
    called, or that gives more than its product has no factor to be rounded by. ``routed``: linears that see only the
    tokens that a router sends them. ``forth_and_back`` runs the tokens ``[1, T]`` of a model that is not run whole.

    Raises:
        SourceRefused: transformers cannot run the model.
    """
    called: set[str] = set()
    unlike: set[str] = set()
    reached: set[str] = set()

    def hook_for(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            called.add(path)
            if not isinstance(output, torch.Tensor):
                unlike.add(path)
            elif output.requires_grad:
                output.register_hook(lambda gradient: reached.add(path))  # type: ignore[no-untyped-call]

        return hook

    embedding = model.get_input_embeddings()  # type: ignore[operator]
    handles: list[Any] = []
    if forth_and_back is None:
        handles.append(
            embedding.register_forward_hook(lambda module, inputs, output: output.detach().requires_grad_(True))
        )
    handles += [module.register_forward_hook(hook_for(path)) for path, module in linears.items()]
    tokens = torch.arange(PROBE_TOKENS, device=embedding.weight.device)[None] % embedding.weight.shape[0]
    try:
        with torch.enable_grad():
            if forth_and_back is None:
                logits = model(input_ids=tokens, use_cache=False).logits
                logits.float().square().mean().backward()
            else:
                forth_and_back(tokens)
    except Exception as error:
        if is_out_of_memory(error) or is_disk_full(error) or isinstance(error, RunnerFailure):
            raise
        raise SourceRefused(
            f"transformers cannot run the model on {PROBE_TOKENS} tokens: {type(error).__name__}: {str(error)[:300]}",
            "Push weights and a config that transformers computes with.",
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    reasons = {}
    for path in linears:
        if path in unlike:
            reasons[path] = "gives more than a product of its inputs"
        elif path not in called:
            if path not in routed and "expert" not in path:
                reasons[path] = "not used on text"
        elif path not in reached:
            reasons[path] = "no gradient of the answer comes to it"
    return reasons
