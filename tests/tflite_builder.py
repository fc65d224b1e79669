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

Operator = schema.BuiltinOperator
Options = schema.BuiltinOptions
Activation = schema.ActivationFunctionType


@dataclass(frozen=True)
class Numbers:
    """A layer with weights.

    Attributes:
        weights: int8, (out, 5, 5, in) or (out, in).
        bias: int32, (out,).
        weight_scales: float32, (out,).
        scale: Of the output.
        zero_point: Of the output.
        relu: Whether ReLU follows.
    """

    weights: NDArray[np.int8]
    bias: NDArray[np.int32]
    weight_scales: NDArray[np.float32]
    scale: float
    zero_point: int
    relu: bool


def build_lenet5(image, layers, logits_to_probabilities=(1 / 256, -128), edit=lambda model: None):
    """A .tflite file.

    Args:
        image: Scale and zero point of the input.
        layers: conv1, conv2, dense1, dense2 and dense3.
        logits_to_probabilities: Scale and zero point of the softmax's output.
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
    builder.softmax(*logits_to_probabilities)
    model = builder.model()
    edit(model)
    packer = flatbuffers.Builder(1024)
    packer.Finish(model.Pack(packer), b"TFL3")
    return bytes(packer.Output())


class _Builder:
    """Adds operators one after the other; `current` is the newest activation's tensor."""

    def __init__(self, image):
        self.tensors: list[Any] = []
        self.buffers = [schema.BufferT()]
        self.operators: list[Any] = []
        self.codes: list[Any] = []
        self.current = self._activation((1, 32, 32, 1), *image)

    def model(self):
        subgraph = schema.SubGraphT()
        subgraph.tensors, subgraph.operators = self.tensors, self.operators
        subgraph.inputs, subgraph.outputs = [0], [self.current]
        model = schema.ModelT()
        model.version, model.description = 3, "test"
        model.operatorCodes, model.buffers, model.subgraphs = self.codes, self.buffers, [subgraph]
        return model

    def conv(self, layer, side):
        options = schema.Conv2DOptionsT()
        options.strideH = options.strideW = 1
        options.padding = schema.Padding.VALID
        shape = (1, side, side, len(layer.weights))
        self._layer(Operator.CONV_2D, 3, Options.Conv2DOptions, options, layer, shape)

    def dense(self, layer):
        options = schema.FullyConnectedOptionsT()
        shape = (1, len(layer.weights))
        kind = Options.FullyConnectedOptions
        self._layer(Operator.FULLY_CONNECTED, 4, kind, options, layer, shape)

    def pool(self, side):
        options = schema.Pool2DOptionsT()
        options.filterHeight = options.filterWidth = options.strideH = options.strideW = 2
        options.padding = schema.Padding.VALID
        shape = (1, side, side, self.shape[3])
        self._append(
            Operator.MAX_POOL_2D, 2, Options.Pool2DOptions, options, [], shape, *self.quantization
        )

    def flatten(self):
        shape = (1, int(np.prod(self.shape)))
        target = self._constant(np.array(shape, np.int32), schema.TensorType.INT32)
        options, kind = schema.ReshapeOptionsT(), Options.ReshapeOptions
        self._append(Operator.RESHAPE, 1, kind, options, [target], shape, *self.quantization)

    def softmax(self, scale, zero_point):
        options = schema.SoftmaxOptionsT()
        options.beta = 1.0
        kind = Options.SoftmaxOptions
        self._append(Operator.SOFTMAX, 2, kind, options, [], self.shape, scale, zero_point)

    def _layer(self, code, version, kind, options, layer, shape):
        options.fusedActivationFunction = Activation.RELU if layer.relu else Activation.NONE
        scales, int8, int32 = layer.weight_scales, schema.TensorType.INT8, schema.TensorType.INT32
        weights = self._constant(layer.weights, int8, scales)
        bias = self._constant(layer.bias, int32, np.float32(self.quantization[0]) * scales)
        inputs = [weights, bias]
        self._append(code, version, kind, options, inputs, shape, layer.scale, layer.zero_point)

    def _append(self, code, version, kind, options, inputs, shape, scale, zero_point):
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

    def _activation(self, shape, scale, zero_point):
        self.shape, self.quantization = shape, (scale, zero_point)
        return self._tensor(shape, schema.TensorType.INT8, 0, np.array([scale]), zero_point)

    def _constant(self, values, kind, scales=None):
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        self.buffers.append(buffer)
        return self._tensor(values.shape, kind, len(self.buffers) - 1, scales, 0)

    def _tensor(self, shape, kind, buffer, scales, zero_point):
        tensor = schema.TensorT()
        tensor.shape, tensor.type, tensor.buffer = list(shape), kind, buffer
        tensor.name = f"tensor{len(self.tensors)}"
        if scales is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = np.asarray(scales, np.float32)
            tensor.quantization.zeroPoint = np.full(len(scales), zero_point, np.int64)
        self.tensors.append(tensor)
        return len(self.tensors) - 1
