"""``yaqa-runner``: run a job spec, quantize a model, take a sketch, or measure what was made.

Exit codes: 0 done; 2 the job spec or the command line is invalid; 3 the source is refused or its model is not
supported; 4 out of memory; 5 the disk is full; 70 a bug; 75 interrupted, and the same command resumes.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaqa_runner
from yaqa_runner.cli.failing import exit_code_of
from yaqa_runner.cli.parser import Command, build_parser
from yaqa_runner.protocol.events import NIL_JOB
from yaqa_runner.protocol.failures import InvalidSpec, RunnerFailure
from yaqa_runner.protocol.interrupt import InterruptFlag, install_signal_handlers
from yaqa_runner.protocol.reporter import Reporter, json_line_sink
from yaqa_runner.sketches.launched import leads_its_group

if TYPE_CHECKING:
    from yaqa_runner.protocol.job_spec import JobSpec


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    epilog = __doc__.partition("\n\n")[2] if __doc__ else ""
    options = build_parser(COMMANDS, epilog).parse_args(arguments)
    flag = InterruptFlag()
    install_signal_handlers(flag)
    command: Command = options.command
    return command(options, flag)


def _run(options: argparse.Namespace, flag: InterruptFlag) -> int:
    from yaqa_runner.cli.streams import claim_stdout, configure_logging

    events = claim_stdout()
    configure_logging(verbose=True)
    from yaqa_runner.protocol.job_spec import read_job_spec

    reporter = Reporter(json_line_sink(events), NIL_JOB, 1)

    def run() -> int:
        nonlocal reporter
        _choose_converter(options.llama_cpp)
        spec = read_job_spec(options.spec)
        reporter = Reporter(json_line_sink(events), spec.job, spec.fence)
        from yaqa_runner.pipeline.run_job import run_job
        from yaqa_runner.pipeline.spread_sketch import processes_for, sketch_of_job, spread_sketch

        output = _output_folder(spec, options.out)
        if options.sketch_only:
            leader = json_line_sink(events) if leads_its_group() else lambda event: None
            sketch_of_job(spec, output, Reporter(leader, spec.job, spec.fence), flag)
            return 0
        spread_sketch(spec, options.spec, output, processes_for(spec, options.processes), reporter, flag)
        run_job(spec, output, reporter, flag)
        return 0

    def report(failure: RunnerFailure) -> None:
        # The run that started a sketch of several processes says itself how it ends.
        if not options.sketch_only:
            reporter.fail(failure)

    return exit_code_of(run, report)


def _choose_converter(checkout: Path | None) -> None:
    """Take llama.cpp's converter from ``checkout``, where one is given."""
    if checkout is None:
        return
    from yaqa_runner.formats import ExportError
    from yaqa_runner.formats.gguf.converter_package import use_checkout

    try:
        use_checkout(checkout)
    except ExportError as error:
        raise InvalidSpec(str(error), "Give --llama-cpp the folder that git clone made.") from error


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
    from yaqa_runner.cli.person import Person

    person = Person(options)

    def run() -> int:
        from yaqa_runner.cli.llama_cpp_word import llama_cpp_word
        from yaqa_runner.cli.plots import draw_plots, require_matplotlib
        from yaqa_runner.pipeline.measure import VERIFICATION_FILE

        _choose_converter(options.llama_cpp)
        if options.plots:
            require_matplotlib()
        made = yaqa_runner.quantize(
            options.model,
            options.recipe,
            selection=_texts(options.selection),
            report=_texts(options.report),
            evaluation_sequences=options.evaluation_sequences,
            sketch=options.reuse,
            sketch_kind=options.sketch_kind,
            sigma_input=options.sigma_input,
            sigma_output=options.sigma_output,
            on_event=person.show,
            interrupt=flag,
            **_source_options(options),
        )
        manifests = [variant.manifest for variant in made.variants]
        if options.plots:
            draw_plots(manifests, made.sketch, options.output / "plots")
        verification = options.output / VERIFICATION_FILE
        words = {
            variant.folder.name: llama_cpp_word(variant.folder, verification)
            for variant in made.variants
            if any(variant.folder.glob("*.gguf"))
        }
        person.close()
        if options.json:
            variants = [
                {
                    "directory": variant.folder.name,
                    "manifest": variant.manifest.to_wire(),
                    "engine": words.get(variant.folder.name),
                }
                for variant in made.variants
            ]
            refused = [asdict(item) for item in made.refused]
            person.print_json({"ok": True, "output": str(options.output), "variants": variants, "refused": refused})
            return 0
        from yaqa_runner.cli.display import print_summary

        print_summary(person.console(), manifests)
        for name, word in words.items():
            person.print(f"{name}: {word}")
        for item in made.refused:
            person.print(f"Not made: {item.message} {item.remedy}")
        person.print(f"Finished folders are in {options.output}.")
        return 0

    return exit_code_of(run, person.fail)


def _sketch(options: argparse.Namespace, flag: InterruptFlag) -> int:
    from yaqa_runner.cli.person import Person

    leads = leads_its_group()
    person = Person(options, is_silent=not leads)

    def run() -> int:
        sketch = yaqa_runner.sketch(
            options.model,
            kind=options.sketch_kind,
            on_event=person.show,
            interrupt=flag,
            **_source_options(options),
        )
        person.close()
        if not leads:
            return 0
        if options.json:
            person.print_json({"ok": True, "sketch": sketch.record.to_wire()})
        else:
            person.print(f"Sketch {sketch.key} of {len(sketch.layers)} linears is in {sketch.directory}.")
        return 0

    return exit_code_of(run, person.fail)


def _imatrix(options: argparse.Namespace, flag: InterruptFlag) -> int:
    from yaqa_runner.cli.person import Person

    person = Person(options)

    def run() -> int:
        _choose_converter(options.llama_cpp)
        written = yaqa_runner.imatrix(options.model, options.sketch, output=options.output, revision=options.revision)
        person.close()
        if options.json:
            person.print_json({"ok": True, "imatrix": str(written)})
        else:
            person.print(f"{written} is written: an importance matrix for llama-quantize.")
        return 0

    return exit_code_of(run, person.fail)


def _merge(options: argparse.Namespace, flag: InterruptFlag) -> int:
    from yaqa_runner.cli.person import Person

    person = Person(options)

    def run() -> int:
        written = yaqa_runner.merge_adapter(
            options.base, options.adapter, output=options.output, revision=options.revision
        )
        person.close()
        if options.json:
            person.print_json({"ok": True, "model": str(written)})
        else:
            person.print(f"{written} holds the merged model: quantize it like any other.")
        return 0

    return exit_code_of(run, person.fail)


def _measured_files(options: argparse.Namespace) -> list[Path]:
    files = [*options.files, *options.variant]
    if not files:
        raise InvalidSpec("There is nothing to measure.", "Name the files after the original.")
    return files


def _measure(options: argparse.Namespace, flag: InterruptFlag) -> int:
    from yaqa_runner.cli.person import Person

    person = Person(options)

    def run() -> int:
        found = yaqa_runner.measure(
            options.model,
            _measured_files(options),
            texts=_texts(options.text),
            sequences=options.sequences,
            length=options.length,
            seed=options.seed,
            revision=options.revision,
            device=options.device,
            on_event=person.show,
            interrupt=flag,
        )
        person.close()
        if options.json:
            person.print_json({"ok": True, "measured": [row.to_wire() for row in found]})
            return 0
        from yaqa_runner.cli.display import print_measured

        print_measured(person.console(), found)
        return 0

    return exit_code_of(run, person.fail)


def _evaluate(options: argparse.Namespace, flag: InterruptFlag) -> int:
    from yaqa_runner.cli.person import Person

    person = Person(options)

    def run() -> int:
        from yaqa_runner.cli.display import print_scores
        from yaqa_runner.cli.evaluate_command import evaluate_from_options, scores_document

        scores = evaluate_from_options(options, flag)
        person.close()
        if options.json:
            person.print_json(scores_document(scores))
        else:
            print_scores(person.console(), scores)
        return 0

    return exit_code_of(run, person.fail)


COMMANDS: dict[str, Command] = {
    "run": _run,
    "remote": _remote,
    "quantize": _quantize,
    "sketch": _sketch,
    "imatrix": _imatrix,
    "merge": _merge,
    "measure": _measure,
    "evaluate": _evaluate,
}


def _source_options(options: argparse.Namespace) -> dict[str, Any]:
    """Arguments that quantize and sketch share."""
    return {
        "output": options.output,
        "calibration": options.calibration,
        "sequences": options.sequences,
        "length": options.length,
        "iterations": options.iterations,
        "label_samples": options.label_samples,
        "seed": options.seed,
        "revision": options.revision,
        "device": options.device,
        "threads": options.threads,
        "memory_bytes": options.memory,
    }


def _texts(given: list[str]) -> list[str | tuple[str, str]]:
    """Files, with their domain where ``[DOMAIN=]FILE`` names one."""
    split = [item.partition("=") for item in given]
    return [(domain, file) if separator else domain for domain, separator, file in split]


if __name__ == "__main__":
    sys.exit(main())
