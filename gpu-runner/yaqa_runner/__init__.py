"""Kronecker sketches of a model's end-to-end KL, two-sided adaptive rounding, and the containers people run.

Three functions do the work: :func:`quantize` makes finished folders of a model, :func:`sketch` takes its sketch alone,
:func:`measure` holds finished folders against their original. Each ends with a result or raises :class:`RunnerFailure`.
Importing the package imports nothing heavy.
"""

from yaqa_runner.api.measure import measure
from yaqa_runner.api.quantize import quantize
from yaqa_runner.api.sketch import sketch
from yaqa_runner.protocol.failures import RunnerFailure
from yaqa_runner.version import __version__

__all__ = ["RunnerFailure", "__version__", "measure", "quantize", "sketch"]
