"""An ONNX model under construction: nodes, lazily made initializers, external data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 18
IR_VERSION = 9
# Protocol buffers end at 2 GiB, and browsers at about as much in one buffer.
EXTERNAL_BYTES = 1_900_000_000
_ALIGNMENT = 4096
_NUMPY_TYPES: dict[int, Any] = {
    TensorProto.FLOAT: np.float32,
    TensorProto.FLOAT16: np.float16,
    TensorProto.UINT8: np.uint8,
    TensorProto.INT64: np.int64,
}


@dataclass(frozen=True)
class _Initializer:
    name: str
    type: int
    shape: tuple[int, ...]
    make: Callable[[], npt.NDArray[Any]]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * int(np.dtype(_NUMPY_TYPES[self.type]).itemsize)


class OnnxModel:
    """Collects a graph; ``save`` makes the weights one at a time."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._initializers: dict[str, _Initializer] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._names: set[str] = set()

    def input(self, name: str, kind: int, shape: Sequence[int | str]) -> str:
        self._inputs.append(helper.make_tensor_value_info(name, kind, list(shape)))
        return name

    def output(self, name: str, kind: int, shape: Sequence[int | str]) -> None:
        self._outputs.append(helper.make_tensor_value_info(name, kind, list(shape)))

    def weight(self, name: str, kind: int, shape: Sequence[int], make: Callable[[], npt.NDArray[Any]]) -> str:
        """Declare an initializer whose array ``make`` gives when the file is written; a known name is shared."""
        if name not in self._initializers:
            self._initializers[name] = _Initializer(name, kind, tuple(shape), make)
        return name

    def constant(self, values: npt.ArrayLike, dtype: npt.DTypeLike) -> str:
        """A small initializer; equal values are stored once."""
        array = np.asarray(values, dtype=dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        name = self._constants.get(key)
        if name is None:
            name = f"constant_{len(self._constants)}"
            self._constants[key] = name
            self.weight(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape, lambda: array)
        return name

    def integers(self, *values: int) -> str:
        return self.constant(list(values), np.int64)

    def node(self, kind: str, inputs: Sequence[str], name: str, domain: str = "", **attributes: Any) -> str:
        """Add an operator with one output, which is named after it."""
        return self.split_node(kind, inputs, name, 1, domain, **attributes)[0]

    def split_node(
        self, kind: str, inputs: Sequence[str], name: str, outputs: int, domain: str = "", **attributes: Any
    ) -> list[str]:
        """Add an operator with several outputs."""
        if name in self._names:
            raise ValueError(f"two nodes are named {name}")
        self._names.add(name)
        results = [f"{name}_output_{number}" for number in range(outputs)]
        self._nodes.append(helper.make_node(kind, list(inputs), results, name=name, domain=domain, **attributes))
        return results

    def rename(self, value: str, name: str) -> str:
        """Give the value ``value`` its public name, in place of an Identity operator."""
        for node in self._nodes:
            for inputs in (node.input, node.output):
                for position, current in enumerate(inputs):
                    if current == value:
                        inputs[position] = name
        return name

    def save(self, path: Path, name: str, external_bytes: int = EXTERNAL_BYTES) -> list[Path]:
        """Write ``path``; above ``external_bytes`` the weights go to ``{path}_data``, ``{path}_data_1`` …

        Returns the external files. Peak memory is the model below the limit, one tensor above it.
        """
        initializers = list(self._initializers.values())
        external: list[Path] = []
        if sum(item.nbytes for item in initializers) <= external_bytes:
            tensors = [_embedded(item) for item in initializers]
        else:
            tensors, external = _write_external(initializers, path, external_bytes)
        graph = helper.make_graph(self._nodes, name, self._inputs, self._outputs, initializer=tensors)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)],
            ir_version=IR_VERSION,
            producer_name="yaqa-runner",
        )
        path.write_bytes(model.SerializeToString(deterministic=True))
        return external


def _checked(item: _Initializer) -> npt.NDArray[Any]:
    array = np.ascontiguousarray(item.make())
    if array.shape != item.shape or array.dtype != _NUMPY_TYPES[item.type]:
        raise ValueError(f"{item.name}: planned {item.shape}, made {array.shape} {array.dtype}")
    return array


def _embedded(item: _Initializer) -> onnx.TensorProto:
    # reshape: ascontiguousarray makes scalars one-dimensional.
    return numpy_helper.from_array(_checked(item) if item.shape else item.make(), name=item.name)


def _write_external(
    initializers: list[_Initializer], path: Path, limit: int
) -> tuple[list[onnx.TensorProto], list[Path]]:
    tensors: list[onnx.TensorProto] = []
    files: list[Path] = []
    offset = limit
    stream = None
    try:
        for item in initializers:
            if item.nbytes < 1024:
                tensors.append(_embedded(item))
                continue
            if offset + item.nbytes > limit and (offset > 0 or stream is None):
                if stream is not None:
                    stream.close()
                suffix = f"_{len(files)}" if files else ""
                files.append(path.with_name(f"{path.name}_data{suffix}"))
                stream = files[-1].open("wb")
                offset = 0
            assert stream is not None
            stream.write(b"\0" * (-offset % _ALIGNMENT))
            offset += -offset % _ALIGNMENT
            stream.write(_checked(item).data)
            tensors.append(_external(item, files[-1].name, offset))
            offset += item.nbytes
    finally:
        if stream is not None:
            stream.close()
    return tensors, files


def _external(item: _Initializer, file: str, offset: int) -> onnx.TensorProto:
    tensor = TensorProto(name=item.name, data_type=item.type, dims=item.shape, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", file), ("offset", str(offset)), ("length", str(item.nbytes))):
        tensor.external_data.add(key=key, value=value)
    return tensor
