"""yaqa-runner: sketches, adaptive rounding, containers and evaluation of quantized language models."""

__version__ = "0.1.0"
