"""``yaqa-runner``: run a job spec, quantize a model, or take a sketch.

Exit codes: 0 done; 2 the job spec or the command line is invalid; 3 the source is refused or its model is not
supported; 4 out of memory; 5 the disk is full; 70 a bug; 75 interrupted, and the same command resumes.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from yaqa_runner.protocol.failures import InvalidSpec, RunnerFailure, as_failure
from yaqa_runner.protocol.interrupt import InterruptFlag, install_signal_handlers
from yaqa_runner.protocol.reporter import Reporter, json_line_sink
from yaqa_runner.sketch.launched import launched_processes, leads_its_group
from yaqa_runner.version import __version__

if TYPE_CHECKING:
    from yaqa_runner.protocol.job_spec import JobSpec

logger = logging.getLogger(__name__)

NIL_JOB = "00000000-0000-0000-0000-000000000000"


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = build_parser().parse_args(arguments)
    flag = InterruptFlag()
    install_signal_handlers(flag)
    command: Callable[[argparse.Namespace, InterruptFlag], int] = options.command
    return command(options, flag)


def build_parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    parser = argparse.ArgumentParser(
        prog="yaqa-runner",
        description="Kronecker sketches of a model's end-to-end KL, and weights rounded by them.",
        epilog=__doc__.partition("\n\n")[2] if __doc__ else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"yaqa-runner {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

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
    # What --processes starts.
    run.add_argument("--sketch-only", action="store_true", help=argparse.SUPPRESS)
    run.set_defaults(command=_run)

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
    remote.set_defaults(command=_remote)

    quantize = commands.add_parser("quantize", help="quantize a model folder or Hub repo")
    _add_source_options(quantize)
    quantize.add_argument(
        "--recipe", action="append", required=True, metavar="NAME[,OPTION=VALUE…]", help="gguf:q4_0, w4a16,group=32, …"
    )
    quantize.add_argument(
        "--selection", action="append", default=[], metavar="[DOMAIN=]FILE", help="text the gate chooses on"
    )
    quantize.add_argument(
        "--report", action="append", default=[], metavar="[DOMAIN=]FILE", help="text the figures come from"
    )
    quantize.add_argument("--evaluation-sequences", type=int, default=32, metavar="N", help="of each text (32)")
    quantize.add_argument("--reuse", type=Path, metavar="FOLDER", help="an earlier sketch")
    quantize.add_argument("--sigma-input", type=float, default=0.1)
    quantize.add_argument("--sigma-output", type=float, default=0.1)
    quantize.add_argument(
        "--plots",
        action="store_true",
        help="pictures in OUTPUT/plots: KL by layer and by size, spectra (the extra 'plots')",
    )
    quantize.add_argument("--json", action="store_true", help="manifests as one JSON document on stdout")
    quantize.set_defaults(command=_quantize)

    sketch = commands.add_parser(
        "sketch",
        help="take the sketch alone; on several GPUs under torchrun",
        epilog="Several processes, each with its share of the sequences: "
        "torchrun --nproc-per-node N -m yaqa_runner sketch MODEL --output FOLDER",
    )
    _add_source_options(sketch)
    sketch.add_argument("--json", action="store_true", help="sketch.json on stdout")
    sketch.set_defaults(command=_sketch)

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
    evaluate.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    evaluate.add_argument("--json", action="store_true", help="scores as one JSON document on stdout")
    evaluate.add_argument("--verbose", action="store_true", help="log on stderr")
    evaluate.set_defaults(command=_evaluate)
    return parser


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
    parser.add_argument("--sketch-kind", choices=("a", "b"), default="a")
    parser.add_argument("--iterations", type=int, metavar="N", help="half steps for a (6), rounds for b (1)")
    parser.add_argument("--label-samples", type=int, default=1, metavar="N", help="label sets a forward pass (1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=int, metavar="N")
    parser.add_argument(
        "--memory", type=int, metavar="BYTES", help="host memory to plan for; all of the machine's when left out"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--verbose", action="store_true", help="log on stderr")


def _processes(text: str) -> int | None:
    """A number, or ``None`` for as many as there are GPUs."""
    if text == "auto":
        return None
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 64:
        raise argparse.ArgumentTypeError("a number from 1 to 64, or auto")
    return int(text)


def _run(options: argparse.Namespace, flag: InterruptFlag) -> int:
    from yaqa_runner.cli.streams import claim_stdout, configure_logging

    events = claim_stdout()
    configure_logging(verbose=True)
    from yaqa_runner.protocol.job_spec import read_job_spec

    reporter: Reporter = Reporter(json_line_sink(events), NIL_JOB, 1)
    try:
        spec = read_job_spec(options.spec)
        reporter = Reporter(json_line_sink(events), spec.job, spec.fence)
        from yaqa_runner.pipeline.run_job import run_job
        from yaqa_runner.pipeline.spread_sketch import processes_for, sketch_of_job, spread_sketch

        output = _output_folder(spec, options.out)
        if options.sketch_only:
            # The run that started this one says how it ends.
            leader = json_line_sink(events) if leads_its_group() else lambda event: None
            sketch_of_job(spec, output, Reporter(leader, spec.job, spec.fence), flag)
            return 0
        spread_sketch(spec, options.spec, output, processes_for(spec, options.processes), reporter, flag)
        run_job(spec, output, reporter, flag)
    except BaseException as error:
        if isinstance(error, (SystemExit, GeneratorExit)):
            raise
        failure = _as_logged_failure(error)
        if not options.sketch_only:
            reporter.fail(failure)
        return failure.exit_code
    return 0


def _output_folder(spec: JobSpec, out: Path | None) -> Path:
    if out is not None:
        return out
    if spec.staging.kind == "directory":
        return Path(spec.staging.path)
    raise InvalidSpec("A job that is staged on the Hub needs a folder to work in.", "Use yaqa-runner remote, or --out.")


def _remote(options: argparse.Namespace, flag: InterruptFlag) -> int:
    from yaqa_runner.remote.launch import RemoteRun, launch

    run = RemoteRun(options.staging, options.job, options.fence, options.push_events)
    return launch(run, [sys.executable, "-m", "yaqa_runner"], flag)


def _quantize(options: argparse.Namespace, flag: InterruptFlag) -> int:
    from yaqa_runner.cli.display import Display, print_summary
    from yaqa_runner.cli.streams import claim_stdout, configure_logging

    stdout = claim_stdout()
    configure_logging(options.verbose)
    display = Display()
    reporter = Reporter(display, NIL_JOB, 1)
    try:
        if launched_processes() > 1:
            raise InvalidSpec(
                "torchrun spreads sketches over processes, and nothing else.",
                "Take the sketch under torchrun (yaqa-runner sketch), then quantize with --reuse, without it.",
            )
        from yaqa_runner.cli.local_job import job_from_options
        from yaqa_runner.cli.plots import draw_plots, require_matplotlib
        from yaqa_runner.pipeline.run_job import run_job

        if options.plots:
            require_matplotlib()

        spec = job_from_options(options)
        reporter = Reporter(display, spec.job, spec.fence)
        outcome = run_job(spec, options.output, reporter, flag, _label_samples(options))
        if options.plots:
            draw_plots(outcome.manifests, outcome.sketch, options.output / "plots")
    except BaseException as error:
        if isinstance(error, (SystemExit, GeneratorExit)):
            raise
        failure = _as_logged_failure(error)
        reporter.fail(failure)
        display.close()
        if options.json:
            print(json.dumps({"ok": False, "error": _error_document(failure)}), file=stdout, flush=True)
        return failure.exit_code
    display.close()
    if options.json:
        document = {
            "ok": True,
            "output": str(options.output),
            "variants": [
                {"directory": directory, "manifest": manifest.to_wire()}
                for (_, directory), manifest in zip(outcome.variants, outcome.manifests, strict=True)
            ],
        }
        print(json.dumps(document), file=stdout, flush=True)
    else:
        from rich.console import Console

        print_summary(Console(file=stdout), outcome.manifests)
        print(f"Finished folders are in {options.output}.", file=stdout, flush=True)
    return 0


def _sketch(options: argparse.Namespace, flag: InterruptFlag) -> int:
    from yaqa_runner.cli.display import Display
    from yaqa_runner.cli.streams import claim_stdout, configure_logging

    stdout = claim_stdout()
    configure_logging(options.verbose)
    display = Display()
    leads = leads_its_group()
    reporter = Reporter(display if leads else lambda event: None, NIL_JOB, 1)
    try:
        from yaqa_runner.cli.local_job import sketch_from_options

        sketch = sketch_from_options(options, reporter, flag, _label_samples(options))
    except BaseException as error:
        if isinstance(error, (SystemExit, GeneratorExit)):
            raise
        failure = _as_logged_failure(error)
        reporter.fail(failure)
        display.close()
        if options.json:
            print(json.dumps({"ok": False, "error": _error_document(failure)}), file=stdout, flush=True)
        return failure.exit_code
    display.close()
    if not leads:
        return 0
    if options.json:
        print(json.dumps({"ok": True, "sketch": sketch.record.to_wire()}), file=stdout, flush=True)
    else:
        print(f"Sketch {sketch.key} of {len(sketch.layers)} linears is in {sketch.directory}.", file=stdout, flush=True)
    return 0


def _evaluate(options: argparse.Namespace, flag: InterruptFlag) -> int:
    from yaqa_runner.cli.display import print_scores
    from yaqa_runner.cli.streams import claim_stdout, configure_logging

    stdout = claim_stdout()
    configure_logging(options.verbose)
    try:
        from yaqa_runner.cli.evaluate_command import evaluate_from_options, scores_document

        scores = evaluate_from_options(options, flag)
    except BaseException as error:
        if isinstance(error, (SystemExit, GeneratorExit)):
            raise
        failure = _as_logged_failure(error)
        print(f"{failure.code}: {failure.message}\n{failure.remedy}", file=sys.stderr)
        if options.json:
            print(json.dumps({"ok": False, "error": _error_document(failure)}), file=stdout, flush=True)
        return failure.exit_code
    if options.json:
        print(json.dumps(scores_document(scores)), file=stdout, flush=True)
    else:
        from rich.console import Console

        print_scores(Console(file=stdout), scores)
    return 0


def _label_samples(options: argparse.Namespace) -> int:
    if not 1 <= options.label_samples <= 64:
        raise InvalidSpec("--label-samples takes 1 to 64.", "Give a number in that range.")
    return int(options.label_samples)


def _as_logged_failure(error: BaseException) -> RunnerFailure:
    failure = as_failure(error)
    if failure.code == "internal":
        logger.error("the run failed", exc_info=error)
    return failure


def _error_document(failure: RunnerFailure) -> dict[str, str]:
    return {"code": failure.code, "message": failure.message, "remedy": failure.remedy}


if __name__ == "__main__":
    sys.exit(main())
