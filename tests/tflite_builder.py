"""Build small int8 TFLite models directly as flatbuffers, without TensorFlow.

The converter cannot be made to write awkward scales, zero points and shapes on demand; this can.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

Operator = schema.BuiltinOperator
Activation = schema.ActivationFunctionType
Padding = schema.Padding


@dataclass
class ModelBuilder:
    """Adds operators one after the other; `build` returns the file's bytes.

    Attributes:
        shape: Shape of the newest activation, with the batch of 1.
        scale: Its scale.
        zero_point: Its zero point.
    """

    shape: tuple[int, ...]
    scale: float
    zero_point: int
    tensors: list[Any] = field(default_factory=list)
    buffers: list[Any] = field(default_factory=lambda: [schema.BufferT()])
    operators: list[Any] = field(default_factory=list)
    codes: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.current = self._activation(self.shape, self.scale, self.zero_point)

    def conv(
        self,
        weights: NDArray[np.int8],
        bias: NDArray[np.int32] | None,
        weight_scales: NDArray[np.float32],
        scale: float,
        zero_point: int,
        *,
        stride: tuple[int, int] = (1, 1),
        dilation: tuple[int, int] = (1, 1),
        padding: int = Padding.VALID,
        activation: int = Activation.NONE,
    ) -> None:
        """weights: (out, kh, kw, in)."""
        options = schema.Conv2DOptionsT()
        options.strideH, options.strideW = stride
        options.dilationHFactor, options.dilationWFactor = dilation
        options.padding, options.fusedActivationFunction = padding, activation
        reach = [(n - 1) * d + 1 for n, d in zip(weights.shape[1:3], dilation, strict=True)]
        size = _output_size(self.shape, reach, stride, padding)
        self._linear(
            Operator.CONV_2D,
            3,
            schema.BuiltinOptions.Conv2DOptions,
            options,
            weights,
            bias,
            weight_scales,
            (1, *size, len(weights)),
            scale,
            zero_point,
        )

    def dense(
        self,
        weights: NDArray[np.int8],
        bias: NDArray[np.int32] | None,
        weight_scales: NDArray[np.float32],
        scale: float,
        zero_point: int,
        *,
        activation: int = Activation.NONE,
    ) -> None:
        """weights: (out, in)."""
        options = schema.FullyConnectedOptionsT()
        options.fusedActivationFunction = activation
        self._linear(
            Operator.FULLY_CONNECTED,
            5,
            schema.BuiltinOptions.FullyConnectedOptions,
            options,
            weights,
            bias,
            weight_scales,
            (1, len(weights)),
            scale,
            zero_point,
        )

    def pool(
        self,
        kind: str,
        window: tuple[int, int],
        stride: tuple[int, int],
        *,
        padding: int = Padding.VALID,
        activation: int = Activation.NONE,
    ) -> None:
        """kind: "max" or "average"."""
        options = schema.Pool2DOptionsT()
        options.filterHeight, options.filterWidth = window
        options.strideH, options.strideW = stride
        options.padding, options.fusedActivationFunction = padding, activation
        code = Operator.MAX_POOL_2D if kind == "max" else Operator.AVERAGE_POOL_2D
        size = _output_size(self.shape, window, stride, padding)
        self._append(
            code,
            2,
            schema.BuiltinOptions.Pool2DOptions,
            options,
            [],
            (1, *size, self.shape[3]),
            self.scale,
            self.zero_point,
        )

    def flatten(self) -> None:
        """RESHAPE to (1, features)."""
        shape = (1, int(np.prod(self.shape)))
        target = self._constant(np.array(shape, np.int32), schema.TensorType.INT32)
        self._append(
            Operator.RESHAPE,
            1,
            schema.BuiltinOptions.ReshapeOptions,
            schema.ReshapeOptionsT(),
            [target],
            shape,
            self.scale,
            self.zero_point,
        )

    def softmax(self, beta: float = 1.0) -> None:
        """Output scale 1/256 and zero point -128, as TFLite demands."""
        options = schema.SoftmaxOptionsT()
        options.beta = beta
        self._append(
            Operator.SOFTMAX,
            2,
            schema.BuiltinOptions.SoftmaxOptions,
            options,
            [],
            self.shape,
            1 / 256,
            -128,
        )

    def unsupported(self) -> None:
        """A LOGISTIC operator."""
        self._append(
            Operator.LOGISTIC, 2, schema.BuiltinOptions.NONE, None, [], self.shape, 1 / 256, -128
        )

    def build(self) -> bytes:
        """The .tflite file."""
        subgraph = schema.SubGraphT()
        subgraph.tensors, subgraph.operators = self.tensors, self.operators
        subgraph.inputs, subgraph.outputs = [0], [self.current]
        model = schema.ModelT()
        model.version, model.description = 3, "test"
        model.operatorCodes, model.buffers, model.subgraphs = self.codes, self.buffers, [subgraph]
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _linear(
        self,
        code: int,
        version: int,
        kind: int,
        options: Any,
        weights: NDArray[np.int8],
        bias: NDArray[np.int32] | None,
        weight_scales: NDArray[np.float32],
        shape: tuple[int, ...],
        scale: float,
        zero_point: int,
    ) -> None:
        zeros = np.zeros(len(weight_scales), np.int64)
        inputs = [self._constant(weights, schema.TensorType.INT8, weight_scales, zeros)]
        if bias is None:
            inputs.append(-1)
        else:
            scales = np.float32(self.scale) * weight_scales
            inputs.append(self._constant(bias, schema.TensorType.INT32, scales, zeros))
        self._append(code, version, kind, options, inputs, shape, scale, zero_point)

    def _append(
        self,
        code: int,
        version: int,
        kind: int,
        options: Any,
        inputs: list[int],
        shape: tuple[int, ...],
        scale: float,
        zero_point: int,
    ) -> None:
        operator_code = schema.OperatorCodeT()
        operator_code.builtinCode = operator_code.deprecatedBuiltinCode = code
        operator_code.version = version
        self.codes.append(operator_code)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.codes) - 1
        operator.builtinOptionsType, operator.builtinOptions = kind, options
        operator.inputs = [self.current, *inputs]
        self.current = self._activation(shape, scale, zero_point)
        operator.outputs = [self.current]
        self.operators.append(operator)

    def _activation(self, shape: tuple[int, ...], scale: float, zero_point: int) -> int:
        self.shape, self.scale, self.zero_point = shape, scale, zero_point
        return self._tensor(
            shape, schema.TensorType.INT8, 0, np.array([scale], np.float32), np.array([zero_point])
        )

    def _constant(
        self,
        values: NDArray[Any],
        kind: int,
        scales: NDArray[np.float32] | None = None,
        zero_points: NDArray[np.int64] | None = None,
    ) -> int:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        self.buffers.append(buffer)
        return self._tensor(values.shape, kind, len(self.buffers) - 1, scales, zero_points)

    def _tensor(
        self,
        shape: tuple[int, ...],
        kind: int,
        buffer: int,
        scales: NDArray[np.float32] | None,
        zero_points: NDArray[Any] | None,
    ) -> int:
        tensor = schema.TensorT()
        tensor.shape, tensor.type, tensor.buffer = list(shape), kind, buffer
        tensor.name = f"tensor{len(self.tensors)}"
        if scales is not None and zero_points is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = np.asarray(scales, np.float32)
            tensor.quantization.zeroPoint = np.asarray(zero_points, np.int64)
        self.tensors.append(tensor)
        return len(self.tensors) - 1


def _output_size(
    shape: tuple[int, ...], window: Any, stride: tuple[int, int], padding: int
) -> tuple[int, int]:
    sizes = [
        -(-length // step) if padding == Padding.SAME else (length - taps) // step + 1
        for length, taps, step in zip(shape[1:3], window, stride, strict=True)
    ]
    return sizes[0], sizes[1]
