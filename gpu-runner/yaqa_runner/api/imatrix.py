"""``yaqa_runner.imatrix``."""

from __future__ import annotations

from pathlib import Path


def imatrix(
    model: str | Path, sketch: str | Path, *, output: str | Path = "imatrix.gguf", revision: str | None = None
) -> Path:
    """Write the importance matrix that llama-quantize takes, out of a sketch's second moments.

    It holds what ``llama-imatrix`` would gather on the sketch's calibration tokens: the squares of every linear's
    inputs and their number, under llama.cpp's names of the tensors and in its order of inputs.

    Example::

        yaqa_runner.imatrix("Qwen/Qwen2.5-0.5B", "out/sketch", output="imatrix.gguf")
        # llama-quantize --imatrix imatrix.gguf model-BF16.gguf model-IQ3_M.gguf IQ3_M

    Args:
        model: What the sketch was taken of: a folder with its snapshot, or a Hub repo, ``namespace/name``.
        sketch: The folder that :func:`yaqa_runner.sketch` or :func:`yaqa_runner.quantize` left.
        output: The file to write.
        revision: Commit, branch or tag of a Hub repo.

    Returns:
        The file.

    Raises:
        RunnerFailure: with ``code``, ``message`` and ``remedy``: the folder holds no sketch, or one of another model
            (``invalid-spec``), llama.cpp has no form for the model (``unsupported-model``), or it is unsafe or broken
            (``source-refused``).
    """
    # Imported late: torch and transformers take seconds, and help() should not.
    import tempfile

    from yaqa_runner.api.local_job import find_source
    from yaqa_runner.formats.decoded_original import decoded_original
    from yaqa_runner.formats.source import ExportError
    from yaqa_runner.model.snapshot import fingerprint_files, inspect_snapshot, link_snapshot
    from yaqa_runner.pipeline.importance import write_importance
    from yaqa_runner.protocol.failures import InvalidSpec, UnsupportedModel
    from yaqa_runner.sketches.store import SketchUnreadable, open_sketch

    source = find_source(model, revision)
    snapshot = inspect_snapshot(source.path)
    target = Path(output)
    with tempfile.TemporaryDirectory() as work:
        # The converter sees only what a snapshot may hold, named after the model.
        linked = Path(work) / (source.repo.partition("/")[2] or "model")
        try:
            taken = open_sketch(Path(sketch))
            if taken.record.source_sha256 != fingerprint_files(snapshot):
                raise SketchUnreadable("it is of another model")
            link_snapshot(decoded_original(snapshot, Path(work) / "decoded"), linked)
            write_importance(target, linked, taken)
        except SketchUnreadable as error:
            raise InvalidSpec(f"The sketch cannot be used: {error}", "Give the sketch of this very model.") from error
        except ExportError as error:
            raise UnsupportedModel(
                f"There is no importance matrix of this model: {error}", "llama.cpp has no form for it."
            ) from error
    return target
