"""Kronecker sketches of a model's end-to-end KL, two-sided adaptive rounding, and the containers people run.

Three functions do the work: :func:`quantize` makes finished folders of a model, :func:`sketch` takes its sketch alone,
:func:`measure` holds finished folders against their original. Importing the package imports nothing heavy.
"""

from yaqa_runner.api.measure import measure
from yaqa_runner.api.quantize import quantize
from yaqa_runner.api.sketch import sketch
from yaqa_runner.version import __version__

__all__ = ["__version__", "measure", "quantize", "sketch"]
