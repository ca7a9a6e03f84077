"""Why a run ends without a result, in fixed words, with the exit code of each."""

from __future__ import annotations

from typing import Literal, get_args

from yaqa_runner.config import read_list
from yaqa_runner.machine.exhaustion import is_disk_full, is_out_of_memory

FailureCode = Literal[
    "invalid-spec",
    "source-refused",
    "unsupported-model",
    "out-of-memory",
    "disk-full",
    "interrupted",
    "internal",
]

# The control plane reads the same table, to tell what a run without a result line died of.
_TABLE = read_list("exit-codes.json")
EXIT_CODES: dict[FailureCode, int] = {code: _TABLE[code] for code in get_args(FailureCode)}

MESSAGE_CHARACTERS = 4000


class RunnerFailure(Exception):
    """A run that cannot go on.

    Attributes:
        code: One of the fixed words.
        message: The cause, for a person.
        remedy: What that person can do about it.
    """

    def __init__(self, code: FailureCode, message: str, remedy: str) -> None:
        super().__init__(message)
        self.code: FailureCode = code
        self.message = message[:MESSAGE_CHARACTERS]
        self.remedy = remedy[:MESSAGE_CHARACTERS]

    @property
    def exit_code(self) -> int:
        """The process's exit status for this failure."""
        return EXIT_CODES[self.code]


class InvalidSpec(RunnerFailure):
    """The job spec or the command line asks for something that cannot be done."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__("invalid-spec", message, remedy)


class SourceRefused(RunnerFailure):
    """The source is unsafe or broken: pickles, remote code, bad headers, non-finite weights."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__("source-refused", message, remedy)


class UnsupportedModel(RunnerFailure):
    """The source is sound, but of a kind that this version cannot quantize."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__("unsupported-model", message, remedy)


class Interrupted(RunnerFailure):
    """A signal asked the run to end."""

    def __init__(self, message: str = "The run was interrupted by a signal.") -> None:
        super().__init__("interrupted", message, "Run the same command again: it resumes from the checkpoint.")


def is_native_panic(error: BaseException) -> bool:
    """Whether Rust code gave up: no ``Exception``, so that ``except Exception`` lets it pass."""
    return type(error).__module__ == "pyo3_runtime" and type(error).__name__ == "PanicException"


def as_failure(error: BaseException) -> RunnerFailure:
    """The failure that a run reports for ``error``, following its causes for memory and disk."""
    if isinstance(error, RunnerFailure):
        return error
    cause: BaseException | None = error
    for _ in range(8):
        if cause is None:
            break
        if isinstance(cause, RunnerFailure):
            return cause
        if is_native_panic(cause) and "Regex" in str(cause):
            return SourceRefused(
                f"The tokenizer's patterns cannot be carried out: {cause}",
                "Push a tokenizer.json whose patterns come to an end on every text.",
            )
        if is_out_of_memory(cause):
            return RunnerFailure(
                "out-of-memory",
                f"Memory ran out: {cause}",
                "Use a machine with more memory, shorter sequences, or fewer of them.",
            )
        if is_disk_full(cause):
            return RunnerFailure("disk-full", f"The disk is full: {cause}", "Free disk space and run again.")
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, KeyboardInterrupt):
        return Interrupted()
    return RunnerFailure(
        "internal",
        f"{type(error).__name__}: {error}",
        "This is a bug in the runner; its log (stderr) has the traceback.",
    )
