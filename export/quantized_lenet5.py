"""Read LeNet-5 from its int8 TFLite file: the numbers that integer inference needs.

Only the network of `pipeline/train/lenet5.py` is read, for any number of classes. Anything else is
refused by name, because C code for a guess would not be bit-exact. The flatbuffer is parsed with
the schema that ships with ai-edge-litert.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

SIDE = 32  # pixels of the input, which is (1, 32, 32, 1)

# The operators in order, and the shape that each gives, without the batch; -1: the classes.
OPERATORS = (
    ("CONV_2D", (28, 28, 6)),
    ("MAX_POOL_2D", (14, 14, 6)),
    ("CONV_2D", (10, 10, 16)),
    ("MAX_POOL_2D", (5, 5, 16)),
    ("RESHAPE", (400,)),
    ("FULLY_CONNECTED", (120,)),
    ("FULLY_CONNECTED", (84,)),
    ("FULLY_CONNECTED", (-1,)),
    ("SOFTMAX", (-1,)),
)
# Their options, by the schema's names.
OPTIONS = {
    "CONV_2D": {
        "padding": schema.Padding.VALID,
        **dict.fromkeys(("strideH", "strideW", "dilationHFactor", "dilationWFactor"), 1),
    },
    "MAX_POOL_2D": {
        "padding": schema.Padding.VALID,
        **dict.fromkeys(("strideH", "strideW", "filterHeight", "filterWidth"), 2),
        "fusedActivationFunction": schema.ActivationFunctionType.NONE,
    },
    "RESHAPE": {},
    "FULLY_CONNECTED": {"weightsFormat": schema.FullyConnectedOptionsWeightsFormat.DEFAULT},
    "SOFTMAX": {"beta": 1.0},
}
ENUMERATIONS = {"padding": schema.Padding, "fusedActivationFunction": schema.ActivationFunctionType}
KERNEL = 5  # taps of a convolution, down and across


class UnsupportedModelError(ValueError):
    """The file is damaged, or is not the int8 LeNet-5 that the C generator covers."""


@dataclass(frozen=True)
class Activation:
    """Quantization of an int8 activation tensor: real value = scale * (int8 - zero_point)."""

    channels: int  # size of the last axis
    scale: np.float32  # real value of one step
    zero_point: int  # the int8 that stands for 0.0


@dataclass(frozen=True)
class Layer:
    """A convolution or a dense layer."""

    source: Activation  # input
    result: Activation  # output
    weights: NDArray[np.int8]  # (outputs, 5, 5, inputs) or (outputs, inputs); -127..127
    bias: NDArray[np.int64]  # (outputs,), int32 values
    multipliers: NDArray[np.float64]  # (outputs,), real input * weight / output scale
    relu: bool  # whether ReLU follows


@dataclass(frozen=True)
class QuantizedLenet5:
    """The network: conv1, pooling, conv2, pooling, dense1, dense2, dense3, softmax."""

    layers: tuple[Layer, ...]  # conv1, conv2, dense1, dense2 and dense3
    probabilities: Activation  # output: scale 1/256, zero point -128

    @property
    def image(self) -> Activation:
        """Input activation, (32, 32, 1)."""
        return self.layers[0].source

    @property
    def logits(self) -> Activation:
        """The softmax's input, (classes,)."""
        return self.layers[-1].result


def read_lenet5(path: Path) -> QuantizedLenet5:
    """Parse an int8 `.tflite` file with batch 1.

    Raises:
        UnsupportedModelError: The file is no TFLite model or no int8 LeNet-5; the message names
            the operator, the option or the tensor.
    """
    data = path.read_bytes()
    if data[4:8] != b"TFL3":
        raise UnsupportedModelError("not a TFLite file (no TFL3 identifier)")
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data))
        return _Reader(model).network()
    except UnsupportedModelError:
        raise
    except Exception as error:  # the schema's classes check nothing: any offset may be wild
        raise UnsupportedModelError(f"damaged flatbuffer ({type(error).__name__})") from error


class _Reader:
    """Walks the operators of a model."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.subgraph = model.subgraphs[0]

    def network(self) -> QuantizedLenet5:
        self._check_operators()
        current = int(self.subgraph.inputs[0])
        activation = self._activation(current, "input", (SIDE, SIDE, 1))
        layers: list[Layer] = []
        for operator, (name, shape) in zip(self.subgraph.operators, OPERATORS, strict=True):
            if operator.inputs[0] != current:
                raise UnsupportedModelError(f"{name} does not take the result of the one before")
            current = int(operator.outputs[0])
            source, activation = activation, self._activation(current, name, shape)
            _check_options(name, operator.builtinOptions)
            if name in ("CONV_2D", "FULLY_CONNECTED"):
                layers.append(self._layer(name, operator, source, activation))
            elif name == "SOFTMAX":
                if activation != Activation(source.channels, np.float32(1 / 256), -128):
                    raise UnsupportedModelError(
                        "SOFTMAX: its output needs scale 1/256, zero point -128 and as many "
                        "classes as its input"
                    )
            elif (source.scale, source.zero_point) != (activation.scale, activation.zero_point):
                raise UnsupportedModelError(f"{name}: input and output differ in scale")
        if current != self.subgraph.outputs[0]:
            raise UnsupportedModelError("the output is not the result of the last operator")
        return QuantizedLenet5(tuple(layers), activation)

    def _check_operators(self) -> None:
        names = [self._operator_name(operator) for operator in self.subgraph.operators]
        for number, (name, (want, _)) in enumerate(zip(names, OPERATORS, strict=False), 1):
            if name != want:
                raise UnsupportedModelError(f"operator {number} is {name}; LeNet-5 has {want}")
        if len(names) != len(OPERATORS):
            raise UnsupportedModelError(f"{len(names)} operators; LeNet-5 has {len(OPERATORS)}")

    def _operator_name(self, operator: Any) -> str:
        code = self.model.operatorCodes[operator.opcodeIndex]
        # Old writers fill only the deprecated 8-bit field.
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        name = _name(schema.BuiltinOperator, number)
        return f"CUSTOM '{_text(code.customCode)}'" if name == "CUSTOM" else name

    def _activation(self, index: int, operator: str, shape: tuple[int, ...]) -> Activation:
        tensor = self.subgraph.tensors[index]
        label = f"{operator}: tensor '{_text(tensor.name)}'"
        if tensor.type != schema.TensorType.INT8:
            raise UnsupportedModelError(
                f"{label} is {_name(schema.TensorType, tensor.type)}; int8 is needed"
            )
        found = tuple(int(n) for n in tensor.shape)
        if shape == (-1,) and len(found) == 2 and found[1] > 0:
            shape = found[1:]
        if found != (1, *shape):
            raise UnsupportedModelError(f"{label} has shape {found}; LeNet-5 has {(1, *shape)}")
        scales, zero_points = _quantization(tensor, label)
        if len(scales) != 1 or not 0 < scales[0] < np.inf or abs(zero_points[0] + 0.5) > 128:
            raise UnsupportedModelError(f"{label} needs one positive scale and an int8 zero point")
        return Activation(shape[-1], scales[0], int(zero_points[0]))

    def _layer(self, name: str, operator: Any, source: Activation, result: Activation) -> Layer:
        window = (KERNEL, KERNEL) if name == "CONV_2D" else ()
        shape = (result.channels, *window, source.channels)
        weights = self._constant(operator, 1, f"{name}: weights", np.dtype(np.int8), shape)
        if weights.min() < -127:  # what TFLite's specification excludes, and two NEON products too
            raise UnsupportedModelError(f"{name}: weights reach -128; -127 to 127 is the range")
        tensor = self.subgraph.tensors[operator.inputs[1]]
        scales, zero_points = _quantization(tensor, f"{name}: weights")
        if np.any(zero_points != 0):
            raise UnsupportedModelError(f"{name}: weights are not symmetric (zero point is not 0)")
        if len(scales) != result.channels or tensor.quantization.quantizedDimension != 0:
            raise UnsupportedModelError(f"{name}: weights are not quantized per output channel")
        bias = self._constant(operator, 2, f"{name}: bias", np.dtype(np.int32), shape[:1])
        activation = operator.builtinOptions.fusedActivationFunction
        kinds = schema.ActivationFunctionType
        if activation not in (kinds.NONE, kinds.RELU):
            found = _name(kinds, activation)
            raise UnsupportedModelError(
                f"{name}: fusedActivationFunction {found}; LeNet-5 has RELU or NONE"
            )
        # In double, as PopulateConvolutionQuantizationParams of TFLite's kernel_util.cc.
        multipliers = np.float64(source.scale) * scales.astype(np.float64)
        multipliers = multipliers / np.float64(result.scale)
        relu = activation == kinds.RELU
        return Layer(source, result, weights, bias.astype(np.int64), multipliers, relu)

    def _constant(
        self, operator: Any, place: int, label: str, dtype: Any, shape: tuple[int, ...]
    ) -> NDArray[Any]:
        """An operator's constant input, of the dtype and shape that it must have."""
        if len(operator.inputs) <= place or operator.inputs[place] < 0:
            raise UnsupportedModelError(f"{label}: none")
        tensor = self.subgraph.tensors[operator.inputs[place]]
        sparse = "sparse " if tensor.sparsity is not None else ""
        kind = _name(schema.TensorType, tensor.type)
        found = f"{sparse}{kind} {tuple(int(n) for n in tensor.shape)}"
        if found != (wanted := f"{dtype.name.upper()} {shape}"):
            raise UnsupportedModelError(f"{label}: {found}; LeNet-5 has {wanted}")
        data = self.model.buffers[tensor.buffer].data
        if data is None or len(data) != int(np.prod(shape)) * dtype.itemsize:
            raise UnsupportedModelError(f"{label} are not constant")
        return np.frombuffer(bytes(data), dtype.newbyteorder("<")).astype(dtype).reshape(shape)


def _check_options(operator: str, options: Any) -> None:
    for option, want in OPTIONS[operator].items():
        found = getattr(options, option)
        if found != want:
            kind = ENUMERATIONS.get(option)
            found, want = (_name(kind, value) if kind else value for value in (found, want))
            raise UnsupportedModelError(f"{operator}: {option} {found}; LeNet-5 has {want}")


def _name(enumeration: Any, number: int) -> str:
    """What the schema calls a value of an enumeration."""
    names = {value: name for name, value in vars(enumeration).items()}
    return str(names.get(number, f"number {number}"))


def _text(name: bytes | None) -> str:
    return (name or b"").decode(errors="replace")


def _quantization(tensor: Any, label: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    q = tensor.quantization
    if q is None or q.scale is None or q.zeroPoint is None or len(q.scale) == 0:
        raise UnsupportedModelError(f"{label} has no quantization parameters")
    return q.scale, q.zeroPoint
