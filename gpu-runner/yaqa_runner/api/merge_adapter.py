"""``yaqa_runner.merge_adapter``."""

from __future__ import annotations

from pathlib import Path


def merge_adapter(base: str | Path, adapter: str | Path, *, output: str | Path, revision: str | None = None) -> Path:
    """Merge a LoRA adapter onto its base by the peft library (the extra ``adapters``): a folder that is a whole model.

    Every other function takes it like any other: its variants are the adapter's.

    Example::

        merged = yaqa_runner.merge_adapter("Qwen/Qwen2.5-0.5B", "my-adapter", output="merged")
        yaqa_runner.quantize(merged, recipes=["gguf:q4_0"], output="out")

    Args:
        base: A folder with the base's snapshot, or a Hub repo.
        adapter: A folder with ``adapter_config.json`` and ``adapter_model.safetensors``.
        output: The folder to write.
        revision: Commit, branch or tag of the base's Hub repo.

    Returns:
        ``output``.

    Raises:
        RunnerFailure: with ``code``, ``message`` and ``remedy``: peft is missing (``invalid-spec``), base or adapter
            are unsafe or broken or do not belong together (``source-refused``), or the adapter is no LoRA
            (``unsupported-model``).
    """
    # Imported late: torch and transformers take seconds, and help() should not.
    import tempfile

    from yaqa_runner.api.local_job import find_source
    from yaqa_runner.formats.decoded_original import decoded_original
    from yaqa_runner.formats.merged_adapter import inspect_adapter, merged_adapter
    from yaqa_runner.model.snapshot import inspect_snapshot

    inspect_adapter(Path(adapter))
    snapshot = inspect_snapshot(find_source(base, revision).path)
    with tempfile.TemporaryDirectory() as scratch:
        return merged_adapter(decoded_original(snapshot, Path(scratch)), Path(adapter), Path(output))
