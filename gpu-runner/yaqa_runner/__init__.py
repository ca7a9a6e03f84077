"""Kronecker sketches of a model's end-to-end KL, two-sided adaptive rounding, and the containers people run.

Five functions do the work: :func:`quantize` makes finished folders of a model, :func:`sketch` takes its sketch alone,
:func:`imatrix` writes llama-quantize's importance matrix, :func:`measure` holds anybody's files against their original,
:func:`merge_adapter` makes a whole model of a LoRA adapter and its base.
Each ends with a result or raises :class:`RunnerFailure`.
Importing the package imports nothing heavy.
"""

from yaqa_runner.api.imatrix import imatrix
from yaqa_runner.api.measure import measure
from yaqa_runner.api.merge_adapter import merge_adapter
from yaqa_runner.api.quantize import quantize
from yaqa_runner.api.sketch import sketch
from yaqa_runner.protocol.failures import RunnerFailure
from yaqa_runner.version import __version__

__all__ = ["RunnerFailure", "__version__", "imatrix", "measure", "merge_adapter", "quantize", "sketch"]
