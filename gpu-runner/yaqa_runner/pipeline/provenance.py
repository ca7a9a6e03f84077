"""Where figures come from: versions, device."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from yaqa_runner.formats.gguf.converter_package import converter_name
from yaqa_runner.protocol.manifest import Device
from yaqa_runner.version import __version__

PACKAGES = (
    "torch",
    "transformers",
    "safetensors",
    "tokenizers",
    "gguf",
    "onnx",
    "onnxruntime",
    "compressed-tensors",
    "numba",
    "numpy",
)


def library_versions() -> dict[str, str]:
    """Versions of everything that has a part in the figures."""
    versions = {"yaqa-runner": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    versions["llama.cpp-converter"] = converter_name()
    return versions


def describe_device(device: torch.device) -> Device:
    """The device's name, and the CUDA runtime where there is one."""
    if device.type == "cuda":
        return Device(kind="cuda", name=torch.cuda.get_device_name(device), driver=f"CUDA {torch.version.cuda}")
    return Device(kind="cpu", name=_cpu_name(), driver=None)


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:  # noqa: PTH123
            for line in stream:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()[:200]
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown"
