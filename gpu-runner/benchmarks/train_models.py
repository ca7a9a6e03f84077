"""Train the small models that the KL benchmark uses beside the demo model.

Each is another architecture on other text: the Python standard library's source, and its documentation strings. Where
shapes fit, weights start from the demo model's, which spares most of the time.
Training is bounded by processor time, so the weights, and the figures taken on them, differ from run to run.

    python benchmarks/train_models.py --model qwen3-code --minutes 40 --output benchmarks/models
"""

from __future__ import annotations

import argparse
import ast
import math
import shutil
import sysconfig
import time
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    GPTNeoXConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

HERE = Path(__file__).resolve().parent
DEMO_MODEL = HERE.parent.parent / "demo" / "model"
HELD_OUT_SHARE = {"qwen3-code": 20, "gpt-neox-docs": 8}
"""One file of so many is kept from training, for calibration, selection and report texts."""


def standard_library_files() -> list[Path]:
    """Source files of the standard library of the running Python, sorted, tests and third-party packages left out."""
    root = Path(sysconfig.get_paths()["stdlib"])
    skipped = {"site-packages", "test", "tests", "__pycache__", "idlelib", "lib2to3", "turtledemo"}
    return [path for path in sorted(root.rglob("*.py")) if not skipped & set(path.relative_to(root).parts)]


def source_text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="ignore")


def documentation_text(path: Path) -> str:
    """The documentation strings of one file, in order."""
    try:
        tree = ast.parse(source_text(path))
    except (SyntaxError, ValueError):
        return ""
    parts = [
        ast.get_docstring(node) or ""
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    return "\n\n".join(part for part in parts if len(part) > 40)


def configurations(vocabulary: int) -> dict[str, PretrainedConfig]:
    """The models by name; every linear's input width is a multiple of 256, so that every GGUF type fits."""
    return {
        "qwen3-code": Qwen3Config(
            vocab_size=vocabulary,
            hidden_size=256,
            intermediate_size=768,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=64,
            max_position_embeddings=512,
            tie_word_embeddings=False,
            bos_token_id=0,
            eos_token_id=1,
        ),
        "gpt-neox-docs": GPTNeoXConfig(
            vocab_size=vocabulary,
            hidden_size=256,
            intermediate_size=1024,
            num_hidden_layers=5,
            num_attention_heads=4,
            max_position_embeddings=512,
            tie_word_embeddings=False,
            bos_token_id=0,
            eos_token_id=1,
        ),
    }


@torch.no_grad()
def start_from_demo(model: PreTrainedModel) -> None:
    """Copy the demo model's embeddings, and its weights of equal name and shape, into ``model``."""
    demo = AutoModelForCausalLM.from_pretrained(DEMO_MODEL, dtype=torch.float32)
    given = demo.state_dict()
    for name, weight in model.state_dict().items():
        if name in given and given[name].shape == weight.shape:
            weight.copy_(given[name])
    embedding = demo.get_input_embeddings().weight
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        layer.weight.copy_(embedding)


def main() -> None:
    """Train one model and write it with its held-out text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, choices=["qwen3-code", "gpt-neox-docs"])
    parser.add_argument("--minutes", type=float, default=40.0, help="of processor time")
    parser.add_argument("--output", type=Path, default=HERE / "models")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(DEMO_MODEL)
    extract = source_text if arguments.model.endswith("code") else documentation_text
    files = standard_library_files()
    share = HELD_OUT_SHARE[arguments.model]
    held_out = [extract(path) for path in files[::share]]
    kept = [extract(path) for index, path in enumerate(files) if index % share]
    tokens = torch.tensor(tokenizer("\n\n".join(kept))["input_ids"])
    held_out_tokens = torch.tensor(tokenizer("\n\n".join(held_out))["input_ids"])
    model = AutoModelForCausalLM.from_config(configurations(len(tokenizer))[arguments.model])
    start_from_demo(model)
    print(f"{arguments.model}: {sum(p.numel() for p in model.parameters()):,} parameters, {len(tokens):,} tokens")

    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.95), weight_decay=0.05)
    generator = torch.Generator().manual_seed(0)
    start = time.process_time()
    step = 0
    while (done := (time.process_time() - start) / (arguments.minutes * 60)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
        offsets = torch.randint(0, len(tokens) - arguments.length, (arguments.batch,), generator=generator)
        batch = torch.stack([tokens[offset : offset + arguments.length] for offset in offsets.tolist()])
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 20 == 0:
            print(f"step {step}, {done:.0%}, loss {loss.item():.3f}", flush=True)
        step += 1

    model.eval()
    rows = held_out_tokens[: 32 * arguments.length].reshape(-1, arguments.length)
    with torch.no_grad():
        perplexity = math.exp(model(input_ids=rows, labels=rows).loss.item())
    folder = arguments.output / arguments.model
    model.to(torch.bfloat16).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(DEMO_MODEL / name, folder / name)
    third = len(held_out) // 3
    for split, part in zip(
        ("calibration", "selection", "report"),
        (held_out[: third * 2], held_out[third * 2 : third * 2 + third // 2], held_out[third * 2 + third // 2 :]),
        strict=True,
    ):
        (folder / f"{split}.txt").write_text("\n\n".join(part), encoding="utf-8")
    print(f"{step} steps; perplexity {perplexity:.1f} on files it has not seen; written to {folder}")


if __name__ == "__main__":
    main()
