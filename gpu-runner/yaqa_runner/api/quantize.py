"""``yaqa_runner.quantize``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from yaqa_runner.api.arguments import DeviceName, Files, SketchKind, Texts
from yaqa_runner.api.results import Quantized, QuantizedVariant, RefusedRecipe

if TYPE_CHECKING:
    from yaqa_runner.protocol.events import RunnerEvent
    from yaqa_runner.protocol.interrupt import InterruptFlag


def quantize(
    model: str | Path,
    recipes: str | Iterable[str],
    *,
    output: str | Path,
    calibration: Files | None = None,
    selection: Texts = (),
    report: Texts = (),
    sequences: int = 512,
    length: int = 2048,
    evaluation_sequences: int = 32,
    sketch: str | Path | None = None,
    sketch_kind: SketchKind = "a",
    iterations: int | None = None,
    label_samples: int = 1,
    sigma_input: float | None = None,
    sigma_output: float | None = None,
    seed: int = 0,
    revision: str | None = None,
    device: DeviceName = "auto",
    threads: int | None = None,
    memory_bytes: int | None = None,
    on_event: Callable[[RunnerEvent], None] | None = None,
    interrupt: InterruptFlag | None = None,
) -> Quantized:
    """Quantize a causal language model: sketch its end-to-end KL, round by the sketch, write, measure.

    Every recipe becomes a folder below ``output`` that its loader opens as it stands (llama.cpp, onnxruntime, vLLM,
    transformers). All recipes share one sketch. Round-to-nearest (``rtn``), GPTQ (``one-sided``) and two-sided rounding
    (plain, more cautious, and with tuned scales) are each written, loaded back and measured; the one with the least KL
    on the selection texts is kept, and the figures of all come from the report texts. An interrupted call goes on where
    it was when it is made again.

    Example::

        made = yaqa_runner.quantize(
            "Qwen/Qwen2.5-0.5B", recipes=["gguf:q4_0", "w4a16"], calibration=["wiki.txt"], output="out"
        )
        for variant in made.variants:
            print(variant.folder, variant.metrics.kl_nats.mean)

    Args:
        model: A folder with a snapshot (``config.json``, safetensors, tokenizer), or a Hub repo, ``namespace/name``.
        recipes: ``gguf:q4_0``, ``gguf,bpw=4.5``, ``onnx:q4``, ``w4a16,group=32``, ``gptq:4`` …; see docs/recipes.md.
        output: Where finished folders go, and the sketch.
        calibration: Text files that the sketch is taken on; sampled from the model itself without any.
        selection: Texts that the quantizer is chosen on: files, or a file by domain, ``{"news": "news.txt"}``; sampled
            from the model without any.
        report: Texts that the figures come from, likewise; sampled from the model without any.
        sequences: Calibration sequences.
        length: Tokens a sequence, at most what the model was made for.
        evaluation_sequences: Sequences of each selection and report text.
        sketch: A folder with an earlier sketch of this model, on the same tokens and by the same settings.
        sketch_kind: ``a`` takes tokens as independent, ``b`` whole sequences.
        iterations: Half steps of the power iteration for ``a`` (6), whole rounds for ``b`` (1).
        label_samples: Label sets, and so backward passes, for each forward pass; 1 to 64.
        sigma_input: Damping of the input factor ``H_I``: the share of the identity that is added. ``None``: each
            linear's is chosen on calibration tokens that are kept from the sketch.
        sigma_output: Damping of the output factor ``H_O``, likewise.
        seed: Of sampled sequences and labels, and of the order of tuning.
        revision: Commit, branch or tag of a Hub repo.
        device: ``auto`` is CUDA where there is a GPU.
        threads: Cores to use; all when ``None``.
        memory_bytes: Host memory to plan for; all of the machine's when ``None``.
        on_event: Called with every event of the run: stages, progress, warnings, measurements.
        interrupt: Set it from elsewhere (a signal handler) to end the run at its next safe point.

    Returns:
        The finished folders with their manifests, the recipes that cannot hold the model, and the sketch.

    Raises:
        RunnerFailure: with ``code``, ``message`` and ``remedy``: an argument does not fit (``invalid-spec``), the
            source is unsafe or broken (``source-refused``), no recipe can store the model (``unsupported-model``),
            or the run was ended (``interrupted``).
    """
    # Imported late: torch and transformers take seconds, and help() should not.
    from yaqa_runner.api.local_job import (
        MachineOptions,
        SketchOptions,
        TokenOptions,
        checked_label_samples,
        find_source,
        local_job,
    )
    from yaqa_runner.pipeline.run_job import run_job
    from yaqa_runner.protocol.failures import InvalidSpec
    from yaqa_runner.protocol.interrupt import InterruptFlag
    from yaqa_runner.protocol.reporter import Reporter
    from yaqa_runner.sketches.launched import launched_processes

    if launched_processes() > 1:
        raise InvalidSpec(
            "torchrun spreads sketches over processes, and nothing else.",
            "Take the sketch under torchrun (yaqa-runner sketch), then quantize with --reuse, without it.",
        )
    spec = local_job(
        source=find_source(model, revision),
        recipes=[recipes] if isinstance(recipes, str) else list(recipes),
        output=Path(output).resolve(),
        tokens=TokenOptions(calibration, selection, report, sequences, length, evaluation_sequences, seed),
        sketch=SketchOptions(sketch_kind, iterations, sketch, sigma_input, sigma_output),
        machine=MachineOptions(device, threads, memory_bytes),
    )
    reporter = Reporter(on_event or (lambda event: None), spec.job, spec.fence)
    folder = Path(output)
    outcome = run_job(spec, folder, reporter, interrupt or InterruptFlag(), checked_label_samples(label_samples))
    variants = [
        QuantizedVariant(manifest.recipe, folder / directory, manifest)
        for (_, directory), manifest in zip(outcome.variants, outcome.manifests, strict=True)
    ]
    refused = [
        RefusedRecipe(item.request.recipe.canonical, item.failure.message, item.failure.remedy)
        for item in outcome.refused
    ]
    return Quantized(folder, variants, refused, outcome.sketch)
