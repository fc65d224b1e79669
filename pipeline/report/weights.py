"""The weights of each layer before and after quantization, from the two TFLite files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.train.lenet5 import PUBLISHED_PARAMETERS

LAYERS = tuple(name for name, count in PUBLISHED_PARAMETERS.items() if count)


@dataclass(frozen=True)
class LayerWeights:
    """The weights of one layer, without biases."""

    layer: str
    float32: NDArray[np.float32]  # (n,), of the float file
    codes: NDArray[np.int8]  # (n,), as the int8 file stores them
    dequantized: NDArray[np.float32]  # (n,), what they stand for


def read_weights(float32_path: Path, int8_path: Path) -> list[LayerWeights]:
    """Read the weights of the float and the int8 TFLite file, layer by layer.

    Raises:
        ValueError, RuntimeError: A file is missing or damaged, or they are not of one LeNet-5.
    """
    before, after = _constants(float32_path), _constants(int8_path)
    if not len(before) == len(after) == len(LAYERS):
        raise ValueError("they do not have a LeNet-5's layers")
    layers = []
    for name, (weights, _, _), (codes, scales, axis) in zip(LAYERS, before, after, strict=True):
        if weights.shape != codes.shape or codes.dtype != np.int8:
            raise ValueError(f"layer {name} differs")
        shape = np.ones(codes.ndim, int)
        shape[axis] = len(scales)
        values = codes * scales.reshape(shape if len(scales) > 1 else (1,) * codes.ndim)
        layers.append(
            LayerWeights(name, weights.ravel(), codes.ravel(), values.ravel().astype(np.float32))
        )
    return layers


def _constants(path: Path) -> list[tuple[NDArray[Any], NDArray[np.float32], int]]:
    """Weights, scales and the axis of the scales, for each layer that has weights."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_path=str(path),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    details = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
    constants = []
    for operator in interpreter._get_ops_details():
        if operator["op_name"] in ("CONV_2D", "FULLY_CONNECTED"):
            index = operator["inputs"][1]
            quantization = details[index]["quantization_parameters"]
            scales, axis = quantization["scales"], quantization["quantized_dimension"]
            constants.append((interpreter.get_tensor(index), scales, axis))
    return constants
