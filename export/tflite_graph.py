"""Read an int8 TFLite file as a chain of typed layers.

The flatbuffer is parsed with the schema that ships with ai-edge-litert. Only what a LeNet-like
classifier needs is accepted: one subgraph, one chain of operators, int8 activations, symmetric
int8 weights. Everything else is refused by name, because code that guesses is not bit-exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

SUPPORTED = (
    "CONV_2D",
    "MAX_POOL_2D",
    "AVERAGE_POOL_2D",
    "RESHAPE",
    "FULLY_CONNECTED",
    "SOFTMAX",
)

_OPERATOR_NAMES = {
    code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")
}
_TYPE_NAMES = {
    code: name for name, code in vars(schema.TensorType).items() if not name.startswith("_")
}


class UnsupportedModelError(ValueError):
    """The model is readable but uses something that the C generator does not cover."""


@dataclass(frozen=True)
class Activation:
    """An int8 activation tensor.

    Attributes:
        shape: Without the batch: (height, width, channels) or (features,).
        scale: Real value of one step.
        zero_point: The int8 that stands for 0.0.
    """

    shape: tuple[int, ...]
    scale: np.float32
    zero_point: int

    @property
    def size(self) -> int:
        """Number of elements (= bytes)."""
        return int(np.prod(self.shape))


@dataclass(frozen=True)
class Conv2D:
    """A convolution; dilation is already expanded into zero taps.

    Attributes:
        source: Input activation.
        result: Output activation.
        weights: int8, (out_channels, kernel_height, kernel_width, in_channels).
        bias: int64 holding int32 values, (out_channels,).
        multipliers: Real input_scale * weight_scale / output_scale, float64, (out_channels,).
        stride: (vertical, horizontal).
        padding: (top, bottom, left, right), to be filled with the input's zero point.
        clamp: Lowest and highest int8 output, from the fused activation.
    """

    source: Activation
    result: Activation
    weights: NDArray[np.int8]
    bias: NDArray[np.int64]
    multipliers: NDArray[np.float64]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    clamp: tuple[int, int]


@dataclass(frozen=True)
class Pool2D:
    """Max or average pooling; input and output share scale and zero point.

    Attributes:
        source: Input activation.
        result: Output activation.
        kind: "max" or "average".
        window: (height, width).
        stride: (vertical, horizontal).
        padding: (top, bottom, left, right); padded cells count for nothing.
        clamp: Lowest and highest int8 output.
    """

    source: Activation
    result: Activation
    kind: str
    window: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    clamp: tuple[int, int]


@dataclass(frozen=True)
class Dense:
    """A fully connected layer over the flattened input.

    Attributes:
        source: Input activation.
        result: Output activation.
        weights: int8, (out_features, in_features).
        bias: int64 holding int32 values, (out_features,).
        multipliers: float64, (out_features,).
        clamp: Lowest and highest int8 output.
    """

    source: Activation
    result: Activation
    weights: NDArray[np.int8]
    bias: NDArray[np.int64]
    multipliers: NDArray[np.float64]
    clamp: tuple[int, int]


@dataclass(frozen=True)
class Softmax:
    """Softmax over all features; the output scale is 1/256 and its zero point -128.

    Attributes:
        source: Input activation.
        result: Output activation.
        beta: Factor on the logits.
    """

    source: Activation
    result: Activation
    beta: np.float32


Layer = Conv2D | Pool2D | Dense | Softmax


@dataclass(frozen=True)
class Graph:
    """The chain of layers from input to output.

    Attributes:
        source: Input activation, (height, width, channels).
        result: Output activation, (classes,).
        layers: In execution order; RESHAPE is dropped, since it moves no byte.
    """

    source: Activation
    result: Activation
    layers: tuple[Layer, ...]


def read_graph(path: Path) -> Graph:
    """Parse a TFLite file.

    Args:
        path: An int8 `.tflite` file with batch 1.

    Returns:
        The layers in execution order.

    Raises:
        UnsupportedModelError: The file is no TFLite model or uses what is not covered; the
            message names the operator or tensor.
    """
    data = path.read_bytes()
    if data[4:8] != b"TFL3":
        raise UnsupportedModelError("not a TFLite file (no TFL3 identifier)")
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
        if len(model.subgraphs) != 1:
            raise UnsupportedModelError(f"{len(model.subgraphs)} subgraphs; one is supported")
        return _Reader(model).graph()
    except UnsupportedModelError:
        raise
    except Exception as error:  # the schema's classes check nothing: any offset may be wild
        raise UnsupportedModelError(f"damaged flatbuffer ({type(error).__name__})") from error


class _Reader:
    """Walks the operators of one subgraph."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.subgraph = model.subgraphs[0]

    def graph(self) -> Graph:
        names = [self._operator_name(operator) for operator in self.subgraph.operators]
        for name in names:
            if name not in SUPPORTED:
                raise UnsupportedModelError(
                    f"operator {name} is not supported (supported: {', '.join(SUPPORTED)})"
                )
        if len(self.subgraph.inputs) != 1 or len(self.subgraph.outputs) != 1:
            raise UnsupportedModelError("exactly one input and one output tensor are supported")
        current = int(self.subgraph.inputs[0])
        layers: list[Layer] = []
        for operator, name in zip(self.subgraph.operators, names, strict=True):
            if operator.inputs[0] != current:
                raise UnsupportedModelError(f"{name} does not continue the chain of operators")
            layer = self._layer(name, operator)
            if layer is not None:
                layers.append(layer)
            current = int(operator.outputs[0])
        if current != self.subgraph.outputs[0]:
            raise UnsupportedModelError("the output is not the result of the last operator")
        if not layers:
            raise UnsupportedModelError("the model has no operators")
        source, result = layers[0].source, layers[-1].result
        if len(source.shape) != 3:
            raise UnsupportedModelError(
                f"input shape {source.shape}; (height, width, channels) is supported"
            )
        return Graph(source, result, tuple(layers))

    def _layer(self, name: str, operator: Any) -> Layer | None:
        if name == "CONV_2D":
            return self._conv(operator)
        if name == "FULLY_CONNECTED":
            return self._dense(operator)
        if name == "SOFTMAX":
            return self._softmax(operator)
        if name == "RESHAPE":
            self._activation(operator.outputs[0], name)
            return None
        return self._pool(operator, "max" if name == "MAX_POOL_2D" else "average")

    def _operator_name(self, operator: Any) -> str:
        code = self.model.operatorCodes[operator.opcodeIndex]
        # Old writers fill only the deprecated 8-bit field.
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        name = _OPERATOR_NAMES.get(number, f"number {number}")
        return f"CUSTOM '{_text(code.customCode)}'" if name == "CUSTOM" else name

    def _activation(self, index: int, operator: str) -> Activation:
        tensor = self.subgraph.tensors[index]
        label = f"{operator}: tensor '{_text(tensor.name)}'"
        if tensor.type != schema.TensorType.INT8:
            raise UnsupportedModelError(
                f"{label} is {_TYPE_NAMES.get(tensor.type, tensor.type)}; only full-integer int8 "
                "models are supported"
            )
        shape = tuple(int(n) for n in tensor.shape)
        if not shape or shape[0] != 1 or min(shape) < 1:
            raise UnsupportedModelError(f"{label} has shape {shape}; batch 1 is required")
        scales, zero_points = _quantization(tensor, label)
        if len(scales) != 1 or not scales[0] > 0:
            raise UnsupportedModelError(f"{label} needs one positive scale")
        return Activation(shape[1:], np.float32(scales[0]), int(zero_points[0]))

    def _weights(
        self, operator: Any, name: str
    ) -> tuple[NDArray[np.int8], NDArray[np.int64], NDArray[np.float32]]:
        tensor = self.subgraph.tensors[operator.inputs[1]]
        label = f"{name}: weights '{_text(tensor.name)}'"
        weights = self._constant(operator.inputs[1], schema.TensorType.INT8, np.int8, label)
        scales, zero_points = _quantization(tensor, label)
        outputs = weights.shape[0]
        if np.any(zero_points != 0):
            raise UnsupportedModelError(f"{label} are not symmetric (zero point is not 0)")
        if len(scales) not in (1, outputs) or (
            len(scales) > 1 and tensor.quantization.quantizedDimension != 0
        ):
            raise UnsupportedModelError(f"{label} are not quantized per output channel")
        bias = np.zeros(outputs, np.int64)
        if len(operator.inputs) > 2 and operator.inputs[2] >= 0:
            label = f"{name}: bias"
            bias = self._constant(
                operator.inputs[2], schema.TensorType.INT32, np.int32, label
            ).astype(np.int64)
            if bias.shape != (outputs,):
                raise UnsupportedModelError(f"{label} has shape {bias.shape}, not ({outputs},)")
        return weights, bias, scales

    def _constant(self, index: int, kind: int, dtype: Any, label: str) -> NDArray[Any]:
        tensor = self.subgraph.tensors[index]
        if tensor.type != kind:
            raise UnsupportedModelError(
                f"{label} is {_TYPE_NAMES.get(tensor.type, tensor.type)}, not {_TYPE_NAMES[kind]}"
            )
        if tensor.sparsity is not None:
            raise UnsupportedModelError(f"{label} is sparse")
        data = self.model.buffers[tensor.buffer].data
        shape = tuple(int(n) for n in tensor.shape)
        if data is None or len(data) != int(np.prod(shape)) * np.dtype(dtype).itemsize:
            raise UnsupportedModelError(f"{label} is not a constant of shape {shape}")
        array = np.frombuffer(bytes(data), np.dtype(dtype).newbyteorder("<"))
        return array.astype(dtype).reshape(shape)

    def _conv(self, operator: Any) -> Conv2D:
        options = operator.builtinOptions
        source = self._activation(operator.inputs[0], "CONV_2D")
        result = self._activation(operator.outputs[0], "CONV_2D")
        weights, bias, scales = self._weights(operator, "CONV_2D")
        if weights.ndim != 4 or len(source.shape) != 3 or weights.shape[3] != source.shape[2]:
            raise UnsupportedModelError(
                f"CONV_2D: weights {weights.shape} over input {source.shape}; grouped or 1-D "
                "convolution is not supported"
            )
        weights = _expand_dilation(weights, options.dilationHFactor, options.dilationWFactor)
        stride = (int(options.strideH), int(options.strideW))
        window = (weights.shape[1], weights.shape[2])
        padding, size = _geometry(source.shape, window, stride, options.padding)
        _check_shape("CONV_2D", result, (*size, weights.shape[0]))
        # In double, as PopulateConvolutionQuantizationParams of TFLite's kernel_util.cc.
        multipliers = source.scale.astype(np.float64) * scales.astype(np.float64)
        multipliers = multipliers / result.scale.astype(np.float64)
        return Conv2D(
            source,
            result,
            weights,
            bias,
            np.resize(multipliers, weights.shape[0]),
            stride,
            padding,
            _clamp(options.fusedActivationFunction, result, "CONV_2D"),
        )

    def _dense(self, operator: Any) -> Dense:
        options = operator.builtinOptions
        source = self._activation(operator.inputs[0], "FULLY_CONNECTED")
        result = self._activation(operator.outputs[0], "FULLY_CONNECTED")
        if options.weightsFormat != schema.FullyConnectedOptionsWeightsFormat.DEFAULT:
            raise UnsupportedModelError("FULLY_CONNECTED: shuffled weights are not supported")
        weights, bias, scales = self._weights(operator, "FULLY_CONNECTED")
        if weights.ndim != 2 or weights.shape[1] != source.size:
            raise UnsupportedModelError(
                f"FULLY_CONNECTED: weights {weights.shape} over {source.size} features"
            )
        _check_shape("FULLY_CONNECTED", result, (weights.shape[0],))
        if len(scales) == 1:
            # Per tensor, TFLite multiplies the two scales in float32 before it widens
            # (GetQuantizedConvolutionMultipler in kernel_util.cc).
            product = (source.scale * scales).astype(np.float64)
        else:
            product = source.scale.astype(np.float64) * scales.astype(np.float64)
        multipliers = np.resize(product / result.scale.astype(np.float64), weights.shape[0])
        clamp = _clamp(options.fusedActivationFunction, result, "FULLY_CONNECTED")
        return Dense(source, result, weights, bias, multipliers, clamp)

    def _pool(self, operator: Any, kind: str) -> Pool2D:
        name = "MAX_POOL_2D" if kind == "max" else "AVERAGE_POOL_2D"
        options = operator.builtinOptions
        source = self._activation(operator.inputs[0], name)
        result = self._activation(operator.outputs[0], name)
        if (source.scale, source.zero_point) != (result.scale, result.zero_point):
            raise UnsupportedModelError(f"{name}: input and output differ in scale or zero point")
        window = (int(options.filterHeight), int(options.filterWidth))
        stride = (int(options.strideH), int(options.strideW))
        padding, size = _geometry(source.shape, window, stride, options.padding)
        _check_shape(name, result, (*size, source.shape[2]))
        return Pool2D(
            source,
            result,
            kind,
            window,
            stride,
            padding,
            _clamp(options.fusedActivationFunction, result, name),
        )

    def _softmax(self, operator: Any) -> Softmax:
        source = self._activation(operator.inputs[0], "SOFTMAX")
        result = self._activation(operator.outputs[0], "SOFTMAX")
        if len(source.shape) != 1:
            raise UnsupportedModelError(f"SOFTMAX over shape {source.shape}; one axis is supported")
        if result.scale != np.float32(1 / 256) or result.zero_point != -128:
            raise UnsupportedModelError("SOFTMAX: the output scale must be 1/256, zero point -128")
        return Softmax(source, result, np.float32(operator.builtinOptions.beta))


def _text(name: bytes | str | None) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def _quantization(tensor: Any, label: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    q = tensor.quantization
    if q is None or q.scale is None or q.zeroPoint is None or len(q.scale) == 0:
        raise UnsupportedModelError(f"{label} has no quantization parameters")
    return np.asarray(q.scale, np.float32), np.asarray(q.zeroPoint, np.int64)


def _check_shape(name: str, result: Activation, shape: tuple[int, ...]) -> None:
    if result.shape != shape:
        raise UnsupportedModelError(f"{name}: output shape {result.shape}, expected {shape}")


def _expand_dilation(weights: NDArray[np.int8], rows: int, columns: int) -> NDArray[np.int8]:
    """Spread the taps apart with zeros: the same sums, without a dilated loop in C."""
    count, height, width, depth = weights.shape
    spread = np.zeros((count, (height - 1) * rows + 1, (width - 1) * columns + 1, depth), np.int8)
    spread[:, ::rows, ::columns] = weights
    return spread


def _geometry(
    shape: tuple[int, ...], window: tuple[int, int], stride: tuple[int, int], padding: int
) -> tuple[tuple[int, int, int, int], tuple[int, int]]:
    """Padding (top, bottom, left, right) and output size, as TensorFlow defines SAME and VALID."""
    sizes, pads = [], []
    for length, taps, step in zip(shape[:2], window, stride, strict=True):
        if padding == schema.Padding.VALID:
            size, total = (length - taps) // step + 1, 0
        else:
            size = -(-length // step)
            total = max((size - 1) * step + taps - length, 0)
        if size < 1:
            raise UnsupportedModelError(f"window {window} is larger than the input {shape}")
        sizes.append(size)
        pads += [total // 2, total - total // 2]
    return (pads[0], pads[1], pads[2], pads[3]), (sizes[0], sizes[1])


def _clamp(activation: int, result: Activation, name: str) -> tuple[int, int]:
    """The int8 range of a fused activation, as CalculateActivationRangeQuantized of TFLite."""

    def quantize(value: float) -> int:
        steps = float(np.float32(value) / result.scale)
        return result.zero_point + int(np.copysign(np.floor(abs(steps) + 0.5), steps))

    kinds = schema.ActivationFunctionType
    if activation == kinds.NONE:
        return -128, 127
    if activation == kinds.RELU:
        return max(-128, quantize(0.0)), 127
    if activation == kinds.RELU6:
        return max(-128, quantize(0.0)), min(127, quantize(6.0))
    if activation == kinds.RELU_N1_TO_1:
        return max(-128, quantize(-1.0)), min(127, quantize(1.0))
    raise UnsupportedModelError(f"{name}: fused activation number {activation} is not supported")
