"""Opens a finished folder in an engine: ``python open_folder.py ENGINE FOLDER VERIFICATION``.

``ENGINE``: ``transformers``, ``gptqmodel``, ``mlx-lm``, ``vllm``, or ``plain-gptq``, transformers on a GPTQ folder that was decoded
by the format's definition: transformers itself opens such folders by gptqmodel alone.

Needs nothing of the runner: ``VERIFICATION`` is its ``verification.safetensors``. The last line is JSON:
``{"version", "engineKl", "tokensEqual", "generated"}``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

NEW_TOKENS = 8
# ids [1, L] → log-probabilities [L, V]; ids [L] → how many tokens it generates.
Opened = tuple[str, Callable[[torch.Tensor], torch.Tensor], Callable[[torch.Tensor], int]]


def transformers_model(folder: Path) -> Any:
    """The folder's model by transformers, with whatever library its quantization asks for, in float32."""
    import transformers

    named = transformers.AutoConfig.from_pretrained(folder, local_files_only=True).architectures or [""]
    loader = getattr(transformers, named[0], transformers.AutoModelForCausalLM)
    model = loader.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    # GPT-NeoX's output layer and experts stay in the folder's type, and the quantized model's own float() refuses.
    return torch.nn.Module.float(model).eval()


def open_transformers(folder: Path) -> Opened:
    """transformers, with whatever library the folder's quantization asks for, in float32."""
    import transformers

    return transformers.__version__, *_of_torch(transformers_model(folder))


def open_gptqmodel(folder: Path) -> Opened:
    """gptqmodel with its torch kernel, which computes in half precision."""
    import gptqmodel

    model = gptqmodel.GPTQModel.load(
        str(folder), device="cpu", backend=gptqmodel.BACKEND.TORCH, dtype=torch.float16
    ).model
    return gptqmodel.__version__, *_of_torch(model.eval())


def plain_gptq_model(folder: Path) -> Any:
    """transformers in float32 on the folder's weights, ``scales · (codes − zeros − 1)`` in groups of inputs."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    bits = config.quantization_config["bits"]
    del config.quantization_config
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(path)
    loader = getattr(transformers, (config.architectures or [""])[0], None)
    model = transformers.AutoModelForCausalLM.from_config(config) if loader is None else loader(config)
    modules = dict(model.named_modules())
    packed = (".qweight", ".qzeros", ".g_idx")
    weights = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
        if not name.endswith(packed)
    }
    for name in [name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")]:
        groups = tensors[f"{name}.g_idx"].long()
        scales = weights.pop(f"{name}.scales")
        codes = _unpacked(tensors[f"{name}.qweight"].T, bits)
        zeros = _unpacked(tensors[f"{name}.qzeros"], bits) + 1
        weight = scales[groups] * (codes.T - zeros[groups])
        is_linear = not isinstance(modules.get(name), transformers.pytorch_utils.Conv1D)
        weights[f"{name}.weight"] = (weight.T if is_linear else weight).contiguous()
    loaded, report = type(model).from_pretrained(
        None, config=config, state_dict=weights, dtype=torch.float32, output_loading_info=True
    )
    wrong = {kind: sorted(map(str, report.get(kind, ()))) for kind in ("missing_keys", "unexpected_keys")}
    if any(wrong.values()):
        raise ValueError(f"the folder does not hold the model's weights: {wrong}")
    return loaded.eval()


def open_plain_gptq(folder: Path) -> Opened:
    """transformers on the folder's decoded weights."""
    import transformers

    return transformers.__version__, *_of_torch(plain_gptq_model(folder))


def _unpacked(words: torch.Tensor, bits: int) -> torch.Tensor:
    """Codes of ``bits`` along the last axis of int32 ``words``, in a row of bits that begins with the lowest."""
    stream = (words.long()[..., None] >> torch.arange(32)) & 1
    stream = stream.flatten(-2).unflatten(-1, (-1, bits))
    return (stream << torch.arange(bits)).sum(-1).float()


def open_vllm(folder: Path) -> Opened:
    """vLLM on the processor."""
    import vllm

    model = vllm.LLM(
        model=str(folder),
        enforce_eager=True,
        max_model_len=128,
        max_num_seqs=2,
        max_num_batched_tokens=128,
        max_logprobs=-1,
    )
    vocabulary = model.llm_engine.model_config.get_vocab_size()

    def log_probabilities(ids: torch.Tensor) -> torch.Tensor:
        settings = vllm.SamplingParams(prompt_logprobs=-1, max_tokens=1, temperature=0)
        # A further token at the end: what follows the last one is asked for too.
        prompt = [*ids[0].tolist(), 0]
        (answer,) = model.generate([{"prompt_token_ids": prompt}], settings)
        values = torch.full((ids.shape[1], vocabulary), -torch.inf)
        for place, found in enumerate(answer.prompt_logprobs[1:]):
            for token, entry in found.items():
                values[place, token] = entry.logprob
        return values

    def generate(prompt: torch.Tensor) -> int:
        settings = vllm.SamplingParams(max_tokens=NEW_TOKENS, temperature=0, ignore_eos=True)
        (answer,) = model.generate([{"prompt_token_ids": prompt.tolist()}], settings)
        return len(answer.outputs[0].token_ids)

    return vllm.__version__, log_probabilities, generate


def open_mlx(folder: Path) -> Opened:
    """mlx-lm on the processor, its numbers widened to float32: there are no kernels of half precision to wait for."""
    import mlx.core as mx
    import mlx_lm
    import numpy as np
    from mlx.utils import tree_map
    from mlx_lm.generate import generate_step
    from mlx_lm.utils import load_model

    def widened(array: mx.array) -> mx.array:
        return array.astype(mx.float32) if mx.issubdtype(array.dtype, mx.floating) else array

    model, _ = load_model(folder)
    model.update(tree_map(widened, model.parameters()))

    def log_probabilities(ids: torch.Tensor) -> torch.Tensor:
        logits = model(mx.array(ids.numpy().astype(np.int32)))
        return torch.from_numpy(np.array(logits[0])).log_softmax(-1)

    def generate(prompt: torch.Tensor) -> int:
        tokens = mx.array(prompt.numpy().astype(np.int32))
        return sum(1 for _ in generate_step(tokens, model, max_tokens=NEW_TOKENS))

    return mlx_lm.__version__, log_probabilities, generate


def _of_torch(model: Any) -> tuple[Callable[[torch.Tensor], torch.Tensor], Callable[[torch.Tensor], int]]:
    @torch.inference_mode()
    def log_probabilities(ids: torch.Tensor) -> torch.Tensor:
        return model(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)

    def generate(prompt: torch.Tensor) -> int:
        ids = model.generate(
            input_ids=prompt[None],
            attention_mask=torch.ones_like(prompt[None]),
            min_new_tokens=NEW_TOKENS,
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
        )
        return int(ids.shape[1] - len(prompt))

    return log_probabilities, generate


ENGINES: dict[str, Callable[[Path], Opened]] = {
    "transformers": open_transformers,
    "plain-gptq": open_plain_gptq,
    "gptqmodel": open_gptqmodel,
    "mlx-lm": open_mlx,
    "vllm": open_vllm,
}


# Those that give a model of transformers.
MODELS: dict[str, Callable[[Path], Any]] = {"transformers": transformers_model, "plain-gptq": plain_gptq_model}


def tokens_equal(folder: Path, record: dict[str, Any]) -> bool:
    """Whether the folder's own tokenizer cuts every hard text as the original's does."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return all(
        tokenizer(text["text"], add_special_tokens=False)["input_ids"] == text["ids"] for text in record["texts"]
    )


def mean_kl(verification: dict[str, torch.Tensor], log_probabilities: Callable[[torch.Tensor], torch.Tensor]) -> float:
    """KL(original ‖ opened) in nats a token over the positions of the verification tensors."""
    total = 0.0
    for row, ids in enumerate(verification["input_ids"]):
        reference = verification["log_probabilities"][row].double()
        values = log_probabilities(ids[None])[verification["positions"][row]].double()
        total += float((reference.exp() * (reference - values)).sum(-1).mean())
    return total / len(verification["input_ids"])


def main() -> None:
    engine, folder, verification = sys.argv[1], Path(sys.argv[2]), load_file(sys.argv[3])
    version, log_probabilities, generate = ENGINES[engine](folder)
    record = json.loads(bytes(verification["tokenizer"].tolist()).decode("utf-8"))
    answer = {
        "version": version,
        "engineKl": mean_kl(verification, log_probabilities),
        "tokensEqual": tokens_equal(folder, record),
        "generated": generate(verification["greedy_prompt"]) == NEW_TOKENS,
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
