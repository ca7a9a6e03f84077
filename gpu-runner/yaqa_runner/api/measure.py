"""``yaqa_runner.measure``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from yaqa_runner.api.arguments import DeviceName, Texts

if TYPE_CHECKING:
    from yaqa_runner.pipeline.measure_folders import MeasuredFolder
    from yaqa_runner.protocol.events import RunnerEvent
    from yaqa_runner.protocol.interrupt import InterruptFlag


def measure(
    model: str | Path,
    folders: str | Path | Iterable[str | Path],
    *,
    texts: Texts = (),
    sequences: int = 32,
    length: int = 2048,
    seed: int = 0,
    revision: str | None = None,
    device: DeviceName = "auto",
    on_event: Callable[[RunnerEvent], None] | None = None,
    interrupt: InterruptFlag | None = None,
) -> list[MeasuredFolder]:
    """Measure quantized models, whoever made them, against the original: KL(original ‖ quantized), top-1, perplexity.

    Each is loaded by its format's own library (gguf, onnxruntime, compressed-tensors, …), as it stands.

    Example::

        (found,) = yaqa_runner.measure("Qwen/Qwen2.5-0.5B", "out/gguf-q4-0", texts={"wiki": "wiki.txt"})
        print(found.metrics.kl_nats.mean, found.by_domain["wiki"].perplexity.ratio)

    Args:
        model: The original: a folder with its snapshot, or a Hub repo, ``namespace/name``.
        folders: One or several: folders that :func:`yaqa_runner.quantize` wrote, GGUF files of any type, ONNX graphs,
            folders with GPTQ or compressed-tensors weights or what else transformers opens.
        texts: Text files, or files by domain; sequences are sampled from the original without any.
        sequences: Sequences of each text.
        length: Tokens a sequence, at most what the model was made for.
        seed: Of sampled sequences.
        revision: Commit, branch or tag of a Hub repo.
        device: ``auto`` is CUDA where there is a GPU.
        on_event: Called with every event of the run: stages, progress, warnings.
        interrupt: Set it from elsewhere (a signal handler) to end the run at its next safe point.

    Returns:
        One measurement each, in their order, with the bytes of the weights and the bits a weight that they make.

    Raises:
        RunnerFailure: with ``code``, ``message`` and ``remedy``: a file cannot be opened, is of another model, or a
            text cannot be read (``invalid-spec``), the original is unsafe or broken (``source-refused``), or the run
            was ended (``interrupted``).
    """
    # Imported late: torch and transformers take seconds, and help() should not.
    from yaqa_runner.api.local_job import find_source, text_list
    from yaqa_runner.calibration.splits import EvaluationSize
    from yaqa_runner.pipeline.measure_folders import MeasuringJob, measure_folders
    from yaqa_runner.pipeline.run_monitor import RunMonitor
    from yaqa_runner.protocol.events import NIL_JOB
    from yaqa_runner.protocol.interrupt import InterruptFlag
    from yaqa_runner.protocol.job_spec import EvaluationText
    from yaqa_runner.protocol.reporter import Reporter

    wanted = [folders] if isinstance(folders, (str, Path)) else list(folders)
    job = MeasuringJob(
        source=find_source(model, revision).path,
        files=[Path(folder) for folder in wanted],
        texts=[EvaluationText.model_validate(text) for text in text_list(texts)],
        size=EvaluationSize(sequences, length, seed),
        device=device,
    )
    reporter = Reporter(on_event or (lambda event: None), NIL_JOB, 1)
    return measure_folders(job=job, monitor=RunMonitor(reporter, interrupt or InterruptFlag()))
