"""Kronecker sketches of a model's end-to-end KL, two-sided adaptive rounding, and the containers people run."""

from yaqa_runner.version import __version__

__all__ = ["__version__"]
