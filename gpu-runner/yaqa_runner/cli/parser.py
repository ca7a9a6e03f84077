"""The command line's grammar."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from yaqa_runner.protocol.interrupt import InterruptFlag
from yaqa_runner.version import __version__

Command = Callable[[argparse.Namespace, InterruptFlag], int]


def build_parser(commands: Mapping[str, Command], epilog: str) -> argparse.ArgumentParser:
    """The parser of ``commands``, by name: run, remote, quantize, sketch, imatrix, measure, evaluate."""
    parser = argparse.ArgumentParser(
        prog="yaqa-runner",
        description="Kronecker sketches of a model's end-to-end KL, and weights rounded by them.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"yaqa-runner {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, add_options in _OPTIONS.items():
        add_options(subparsers).set_defaults(command=commands[name])
    return parser


Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _run(commands: Subparsers) -> argparse.ArgumentParser:
    run = commands.add_parser("run", help="run a job spec; events on stdout, one JSON object a line")
    run.add_argument("spec", type=Path, help="job.json, protocol 1")
    run.add_argument("--out", type=Path, help="where finished folders go; the spec's staging folder when left out")
    run.add_argument(
        "--processes",
        type=_processes,
        default=1,
        metavar="N|auto",
        help="take the sketch on so many processes, each with a GPU of its own; auto: one a GPU (1)",
    )
    _add_converter_option(run)
    # What --processes starts.
    run.add_argument("--sketch-only", action="store_true", help=argparse.SUPPRESS)
    return run


def _remote(commands: Subparsers) -> argparse.ArgumentParser:
    remote = commands.add_parser(
        "remote", help="run a job whose spec lies in a private staging repo, and upload what it makes there"
    )
    remote.add_argument("--staging", required=True, metavar="REPO", help="namespace/name of the staging repo")
    remote.add_argument("--job", required=True, metavar="ID", help="the job that the spec has to be of")
    remote.add_argument("--fence", required=True, type=int, metavar="N", help="the attempt that it has to be of")
    remote.add_argument(
        "--push-events",
        type=float,
        default=0,
        metavar="SECONDS",
        help="upload the events so far this often, where nobody sees the output as it comes (0: never)",
    )
    return remote


def _quantize(commands: Subparsers) -> argparse.ArgumentParser:
    quantize = commands.add_parser(
        "quantize",
        help="quantize a model folder or Hub repo",
        epilog="Defaults are for one model that somebody waits for: 512 sequences of 2048 tokens. yaqa-bot calibrates "
        "on 128 of 256 (its setting quantization.calibration), because it does every push on whatever machine it has: "
        "here --sequences 128 --length 256. Fewer tokens take less time and give a sketch with more noise.",
    )
    _add_source_options(quantize)
    quantize.add_argument(
        "--recipe", action="append", required=True, metavar="NAME[,OPTION=VALUE…]", help="gguf:q4_0, w4a16,group=32, …"
    )
    quantize.add_argument(
        "--selection",
        action="append",
        default=[],
        metavar="[DOMAIN=]FILE",
        help="text the quantizer is chosen on; sampled from the model itself when left out",
    )
    quantize.add_argument(
        "--report",
        action="append",
        default=[],
        metavar="[DOMAIN=]FILE",
        help="text the figures come from; sampled from the model itself when left out",
    )
    quantize.add_argument("--evaluation-sequences", type=int, default=32, metavar="N", help="of each text (32)")
    quantize.add_argument("--reuse", type=Path, metavar="FOLDER", help="an earlier sketch")
    chosen = "each linear's is chosen on held-out calibration text"
    quantize.add_argument("--sigma-input", type=float, help=f"share that the input factor is damped by ({chosen})")
    quantize.add_argument("--sigma-output", type=float, help=f"the same of the output factor ({chosen})")
    quantize.add_argument(
        "--plots",
        action="store_true",
        help="pictures in OUTPUT/plots: KL by layer and by size, spectra (the extra 'plots')",
    )
    quantize.add_argument("--json", action="store_true", help="manifests as one JSON document on stdout")
    _add_converter_option(quantize)
    return quantize


def _sketch(commands: Subparsers) -> argparse.ArgumentParser:
    sketch = commands.add_parser(
        "sketch",
        help="take the sketch alone; on several GPUs under torchrun",
        epilog="Several processes, each with its share of the sequences: "
        "torchrun --nproc-per-node N -m yaqa_runner sketch MODEL --output FOLDER",
    )
    _add_source_options(sketch)
    sketch.add_argument("--json", action="store_true", help="sketch.json on stdout")
    return sketch


def _imatrix(commands: Subparsers) -> argparse.ArgumentParser:
    imatrix = commands.add_parser("imatrix", help="llama-quantize's importance matrix, out of a sketch")
    imatrix.add_argument("model", help="the sketch's model: a folder with its snapshot, or a Hub repo (namespace/name)")
    imatrix.add_argument("sketch", type=Path, help="the folder that sketch or quantize left")
    imatrix.add_argument(
        "--output", type=Path, default=Path("imatrix.gguf"), metavar="FILE", help="the file to write (imatrix.gguf)"
    )
    imatrix.add_argument("--revision", help="commit, branch or tag of a Hub repo")
    imatrix.add_argument("--json", action="store_true", help="its place as one JSON document on stdout")
    imatrix.add_argument("--verbose", action="store_true", help="log on stderr")
    _add_converter_option(imatrix)
    return imatrix


def _merge(commands: Subparsers) -> argparse.ArgumentParser:
    merge = commands.add_parser("merge", help="a LoRA adapter merged onto its base (the extra 'adapters')")
    merge.add_argument("base", help="the adapter's base: a folder with its snapshot, or a Hub repo (namespace/name)")
    merge.add_argument("adapter", type=Path, help="a folder with adapter_config.json and adapter_model.safetensors")
    merge.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="where the merged model goes")
    merge.add_argument("--revision", help="commit, branch or tag of the base's Hub repo")
    merge.add_argument("--json", action="store_true", help="its place as one JSON document on stdout")
    merge.add_argument("--verbose", action="store_true", help="log on stderr")
    return merge


def _measure(commands: Subparsers) -> argparse.ArgumentParser:
    measure = commands.add_parser("measure", help="KL of anybody's quantized files against their original")
    measure.add_argument("model", help="the original: a folder with a model snapshot, or a Hub repo (namespace/name)")
    measure.add_argument("--revision", help="commit, branch or tag of a Hub repo")
    measure.add_argument(
        "files",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="a GGUF file, an ONNX graph, or a folder: what quantize wrote, GPTQ, compressed-tensors, MLX",
    )
    measure.add_argument(
        "--variant", action="append", default=[], type=Path, metavar="FOLDER", help="likewise (an earlier spelling)"
    )
    measure.add_argument(
        "--text",
        action="append",
        default=[],
        metavar="[DOMAIN=]FILE",
        help="text to measure on; sampled from the original when left out",
    )
    measure.add_argument("--sequences", type=int, default=32, metavar="N", help="of each text (32)")
    measure.add_argument("--length", type=int, default=2048, metavar="TOKENS", help="tokens a sequence (2048)")
    measure.add_argument("--seed", type=int, default=0, help="of sampled sequences (0)")
    _add_device(measure)
    measure.add_argument("--json", action="store_true", help="figures as one JSON document on stdout")
    measure.add_argument("--verbose", action="store_true", help="log on stderr")
    return measure


def _evaluate(commands: Subparsers) -> argparse.ArgumentParser:
    evaluate = commands.add_parser(
        "evaluate", help="multiple-choice tasks of lm-eval on a model and on finished folders (the extra 'evaluate')"
    )
    evaluate.add_argument("model", type=Path, help="a folder with the original's snapshot")
    evaluate.add_argument(
        "--variant", action="append", default=[], type=Path, metavar="FOLDER", help="what quantize wrote"
    )
    evaluate.add_argument("--task", action="append", required=True, metavar="NAME", help="arc_easy, hellaswag, …")
    evaluate.add_argument("--tasks-folder", type=Path, metavar="FOLDER", help="YAML files of further tasks")
    evaluate.add_argument("--limit", type=int, metavar="N", help="questions of each task")
    _add_device(evaluate)
    evaluate.add_argument("--json", action="store_true", help="scores as one JSON document on stdout")
    evaluate.add_argument("--verbose", action="store_true", help="log on stderr")
    return evaluate


_OPTIONS: dict[str, Callable[[Subparsers], argparse.ArgumentParser]] = {
    "run": _run,
    "remote": _remote,
    "quantize": _quantize,
    "sketch": _sketch,
    "imatrix": _imatrix,
    "merge": _merge,
    "measure": _measure,
    "evaluate": _evaluate,
}


def _add_converter_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--llama-cpp",
        type=Path,
        metavar="FOLDER",
        help="a checkout of llama.cpp, whose converter lays GGUF files out; a package of it when left out",
    )


def _add_source_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a folder with a model snapshot, or a Hub repo (namespace/name)")
    parser.add_argument("--revision", help="commit, branch or tag of a Hub repo")
    parser.add_argument(
        "--calibration",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="calibration text; sampled from the model itself when left out",
    )
    parser.add_argument("--sequences", type=int, default=512, metavar="N", help="calibration sequences (512)")
    parser.add_argument("--length", type=int, default=2048, metavar="TOKENS", help="tokens a sequence (2048)")
    parser.add_argument(
        "--sketch-kind", choices=("a", "b"), default="a", help="a takes tokens as independent, b whole sequences (a)"
    )
    parser.add_argument(
        "--iterations",
        type=int,
        metavar="N",
        help="half steps of the power iteration for a (6), whole rounds for b (1)",
    )
    parser.add_argument("--label-samples", type=int, default=1, metavar="N", help="label sets a forward pass (1)")
    parser.add_argument("--seed", type=int, default=0, help="of sampled sequences and labels (0)")
    _add_device(parser)
    parser.add_argument("--threads", type=int, metavar="N", help="cores to use; all when left out")
    parser.add_argument(
        "--memory", type=int, metavar="BYTES", help="host memory to plan for; all of the machine's when left out"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="where finished folders go")
    parser.add_argument("--verbose", action="store_true", help="log on stderr")


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: CUDA where there is a GPU (auto)"
    )


def _processes(text: str) -> int | None:
    """A number, or ``None`` for as many as there are GPUs."""
    if text == "auto":
        return None
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 64:
        raise argparse.ArgumentTypeError("a number from 1 to 64, or auto")
    return int(text)
