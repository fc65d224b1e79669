"""Build int8 TFLite files of LeNet-5 directly as flatbuffers, without TensorFlow.

The converter cannot be made to write awkward scales, zero points and options on demand; this can.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

VALID = schema.Padding.VALID
Activation = schema.ActivationFunctionType


@dataclass(frozen=True)
class Numbers:
    """A layer with weights."""

    weights: NDArray[np.int8]  # (out, 5, 5, in) or (out, in)
    bias: NDArray[np.int32]  # (out,)
    weight_scales: NDArray[np.float32]  # (out,)
    scale: float  # of the output
    zero_point: int  # of the output
    relu: bool  # whether ReLU follows


def build_lenet5(image, layers, edit=lambda model: None):
    """A .tflite file.

    Args:
        image: Scale and zero point of the input.
        layers: conv1, conv2, dense1, dense2 and dense3.
        edit: Changes the model (a `schema.ModelT`) before it is written.
    """
    conv1, conv2, *dense = layers
    builder = _Builder(image)
    builder.conv(conv1, 28)
    builder.pool(14)
    builder.conv(conv2, 10)
    builder.pool(5)
    builder.flatten()
    for layer in dense:
        builder.dense(layer)
    builder.softmax()
    model = builder.model()
    edit(model)
    packer = flatbuffers.Builder(1024)
    packer.Finish(model.Pack(packer), b"TFL3")
    return bytes(packer.Output())


def _made(kind: Any, **fields: Any) -> Any:
    """An object of the schema with these fields."""
    made = kind()
    for name, value in fields.items():
        setattr(made, name, value)
    return made


class _Builder:
    """Adds operators one after the other; `current` is the newest activation's tensor."""

    def __init__(self, image):
        self.tensors: list[Any] = []
        self.buffers = [schema.BufferT()]
        self.operators: list[Any] = []
        self.codes: list[Any] = []
        self.current = self._activation((1, 32, 32, 1), *image)

    def model(self):
        subgraph = _made(
            schema.SubGraphT,
            tensors=self.tensors,
            operators=self.operators,
            inputs=[0],
            outputs=[self.current],
        )
        parts = {"operatorCodes": self.codes, "buffers": self.buffers, "subgraphs": [subgraph]}
        return _made(schema.ModelT, version=3, description="test", **parts)

    def conv(self, layer, side):
        options = _made(schema.Conv2DOptionsT, strideH=1, strideW=1, padding=VALID)
        self._layer("CONV_2D", 3, options, layer, (1, side, side, len(layer.weights)))

    def dense(self, layer):
        options = schema.FullyConnectedOptionsT()
        self._layer("FULLY_CONNECTED", 4, options, layer, (1, len(layer.weights)))

    def pool(self, side):
        window = dict.fromkeys(("filterHeight", "filterWidth", "strideH", "strideW"), 2)
        options = _made(schema.Pool2DOptionsT, **window, padding=VALID)
        shape = (1, side, side, self.shape[3])
        self._append("MAX_POOL_2D", 2, options, [], shape, *self.quantization)

    def flatten(self):
        shape = (1, int(np.prod(self.shape)))
        target = self._constant(np.array(shape, np.int32), schema.TensorType.INT32)
        options = schema.ReshapeOptionsT()
        self._append("RESHAPE", 1, options, [target], shape, *self.quantization)

    def softmax(self):
        options = _made(schema.SoftmaxOptionsT, beta=1.0)
        self._append("SOFTMAX", 2, options, [], self.shape, 1 / 256, -128)

    def _layer(self, name, version, options, layer, shape):
        options.fusedActivationFunction = Activation.RELU if layer.relu else Activation.NONE
        scales, int8, int32 = layer.weight_scales, schema.TensorType.INT8, schema.TensorType.INT32
        weights = self._constant(layer.weights, int8, scales)
        bias = self._constant(layer.bias, int32, np.float32(self.quantization[0]) * scales)
        self._append(name, version, options, [weights, bias], shape, layer.scale, layer.zero_point)

    def _append(self, name, version, options, inputs, shape, scale, zero_point):
        code = getattr(schema.BuiltinOperator, name)
        both = {"builtinCode": code, "deprecatedBuiltinCode": code}
        self.codes.append(_made(schema.OperatorCodeT, version=version, **both))
        inputs = [self.current, *inputs]
        self.current = self._activation(shape, scale, zero_point)
        operator = _made(
            schema.OperatorT,
            opcodeIndex=len(self.codes) - 1,
            builtinOptionsType=getattr(schema.BuiltinOptions, type(options).__name__[:-1]),
            builtinOptions=options,
            inputs=inputs,
            outputs=[self.current],
        )
        self.operators.append(operator)

    def _activation(self, shape, scale, zero_point):
        self.shape, self.quantization = shape, (scale, zero_point)
        return self._tensor(shape, schema.TensorType.INT8, 0, np.array([scale]), zero_point)

    def _constant(self, values, kind, scales=None):
        data = np.frombuffer(values.tobytes(), np.uint8)
        self.buffers.append(_made(schema.BufferT, data=data))
        return self._tensor(values.shape, kind, len(self.buffers) - 1, scales, 0)

    def _tensor(self, shape, kind, buffer, scales, zero_point):
        name = f"tensor{len(self.tensors)}"
        tensor = _made(schema.TensorT, shape=list(shape), type=kind, buffer=buffer, name=name)
        if scales is not None:
            tensor.quantization = _made(
                schema.QuantizationParametersT,
                scale=np.asarray(scales, np.float32),
                zeroPoint=np.full(len(scales), zero_point, np.int64),
            )
        self.tensors.append(tensor)
        return len(self.tensors) - 1
