"""``yaqa_runner.sketch``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from yaqa_runner.api.arguments import DeviceName, Files, SketchKind

if TYPE_CHECKING:
    from yaqa_runner.protocol.events import RunnerEvent
    from yaqa_runner.protocol.interrupt import InterruptFlag
    from yaqa_runner.sketches.store import Sketch


def sketch(
    model: str | Path,
    *,
    output: str | Path,
    calibration: Files | None = None,
    sequences: int = 512,
    length: int = 2048,
    kind: SketchKind = "a",
    iterations: int | None = None,
    label_samples: int = 1,
    seed: int = 0,
    revision: str | None = None,
    device: DeviceName = "auto",
    threads: int | None = None,
    memory_bytes: int | None = None,
    on_event: Callable[[RunnerEvent], None] | None = None,
    interrupt: InterruptFlag | None = None,
) -> Sketch:
    """Take the Kronecker sketch of a causal language model's end-to-end KL, and leave it at ``output``.

    For every linear of weight ``[out, in]`` that is ``H_I`` ``[in, in]`` and ``H_O`` ``[out, out]`` with
    ``KL ≈ ½ tr(H_O E H_I Eᵀ)`` nats a token for a change ``E`` of the weight (arXiv 2505.22988, section 3), and
    ``E[x xᵀ]``. The folder holds one safetensors file a block and ``sketch.json``; :func:`yaqa_runner.quantize` takes
    it up by ``sketch=``. A call that was interrupted goes on where it was when it is made again.

    Under ``torchrun`` every process makes the same call and takes its share of the sequences; the first one writes.

    Example::

        taken = yaqa_runner.sketch("Qwen/Qwen2.5-0.5B", calibration=["wiki.txt"], output="sketch")
        taken.factors("model.layers.0.self_attn.q_proj").input.whole()  # H_I [in, in]

    Args:
        model: A folder with a snapshot (``config.json``, safetensors, tokenizer), or a Hub repo, ``namespace/name``.
        output: Where the sketch goes.
        calibration: Text files; sequences are sampled from the model itself without any.
        sequences: Calibration sequences.
        length: Tokens a sequence, at most what the model was made for.
        kind: ``a`` takes tokens as independent, ``b`` whole sequences.
        iterations: Half steps of the power iteration for ``a`` (6), whole rounds for ``b`` (1).
        label_samples: Label sets, and so backward passes, for each forward pass; 1 to 64.
        seed: Of sampled sequences and labels.
        revision: Commit, branch or tag of a Hub repo.
        device: ``auto`` is CUDA where there is a GPU.
        threads: Cores of this machine to use; all when ``None``.
        memory_bytes: Host memory to plan for; all of the machine's when ``None``.
        on_event: Called with every event of the run: stages, progress, warnings.
        interrupt: Set it from elsewhere (a signal handler) to end the run at its next safe point.

    Returns:
        The sketch; of a factor, only the rows that are asked for are read.

    Raises:
        RunnerFailure: with ``code``, ``message`` and ``remedy``, as :func:`yaqa_runner.quantize` does.
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
    from yaqa_runner.model.load import choose_device
    from yaqa_runner.pipeline.calibrate import make_calibration
    from yaqa_runner.pipeline.run_context import load_run
    from yaqa_runner.pipeline.run_monitor import RunMonitor
    from yaqa_runner.pipeline.sketch import obtain_sketch
    from yaqa_runner.protocol.interrupt import InterruptFlag
    from yaqa_runner.protocol.reporter import Reporter
    from yaqa_runner.sketches.parallel import joined_ranks, own_device

    folder = Path(output).resolve()
    label_samples = checked_label_samples(label_samples)
    spec = local_job(
        source=find_source(model, revision),
        # The recipe is never made; a job spec wants one.
        recipes=["gguf:q8_0"],
        output=folder,
        tokens=TokenOptions(calibration, (), (), sequences, length, 2, seed),
        sketch=SketchOptions(kind, iterations),
        machine=MachineOptions(device, threads, memory_bytes),
    )
    reporter = Reporter(on_event or (lambda event: None), spec.job, spec.fence)
    monitor = RunMonitor(reporter, interrupt or InterruptFlag())
    with joined_ranks(own_device(choose_device(device))) as ranks:
        context = load_run(spec=spec, output=folder, monitor=monitor, label_samples=label_samples, device=ranks.device)
        tokens = make_calibration(context=context)
        return obtain_sketch(context=context, calibration=tokens, target=folder, ranks=ranks).sketch
