"""LeNet-5 with random weights, scales, zero points and classes, for bit-exactness tests.

They are built directly as flatbuffers: the converter cannot be made to write awkward numbers.
"""

import functools
from dataclasses import dataclass

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

SHAPES = ((6, 5, 5, 1), (16, 5, 5, 6), (120, 400), (84, 120))
USUAL_INPUT, USUAL_ZERO_POINTS = (1 / 255, -128), (-128, -128, -128, -128, -19)


@functools.cache
def realistic_lenet5(
    classes=10, edit=lambda model: None, image=USUAL_INPUT, zero_points=USUAL_ZERO_POINTS
):
    """LeNet-5 as the pipeline exports it, with random weights of realistic size."""
    rng = np.random.default_rng(0)
    layers = []
    scales = (0.0064, 0.0156, 0.0366, 0.0599, 0.1782)
    for shape, scale, zero_point in zip((*SHAPES, (classes, 84)), scales, zero_points, strict=True):
        values = np.clip(np.round(rng.normal(0, 40, shape)), -127, 127).astype(np.int8)
        bias = rng.integers(-2000, 2000, shape[0]).astype(np.int32)
        weight_scales = rng.uniform(0.001, 0.004, shape[0]).astype(np.float32)
        relu = len(layers) < 4
        layers.append(Layer(values, bias, weight_scales, scale, zero_point, relu))
    return build(image, layers, edit)


def random_lenet5(seed):
    """LeNet-5 with awkward numbers: exact ties, zero points anywhere, ReLU or none."""
    rng = np.random.default_rng(seed)
    classes = int(rng.choice([2, 3, 10, 16, 17, 33, 130]))
    image = (1 / 255, -128) if seed % 2 == 0 else (_scale(rng), _zero_point(rng))
    layers = []
    input_scale = image[0]
    for shape in (*SHAPES, (classes, 84)):
        weights = rng.integers(-127, 128, shape).astype(np.int8)
        bias = rng.integers(-20000, 20000, shape[0]).astype(np.int32)
        scales = np.array([_scale(rng) for _ in range(shape[0])], np.float32)
        scale = _output_scale(rng, input_scale, scales, int(np.prod(shape[1:])))
        if len(layers) == 4:  # logits near enough to each other for probabilities between 0 and 1
            smaller = 2.0 ** np.round(np.log2(0.02 / scale))
            scale, scales = float(scale * smaller), scales * np.float32(smaller)
        relu = bool(rng.random() < 0.7)
        # After ReLU, what lies below the zero point is lost; a high one would leave nothing.
        zero_point = _zero_point(rng) if not relu else int(rng.choice([-128, -100, -37, 0]))
        layers.append(Layer(weights, bias, scales, scale, zero_point, relu))
        input_scale = scale
    return build(image, layers)


def random_inputs(shape, seed, count):
    """Noise, constants, checkerboards, single pixels and sparse images, (count, *shape)."""
    rng = np.random.default_rng(seed)
    images = rng.integers(-128, 128, (count, *shape)).astype(np.int8)
    images[0], images[1], images[2] = -128, 127, 0
    rows, columns = np.indices(shape[:2])
    images[3] = np.where((rows + columns) % 2, 127, -128)[..., None]
    images[4] = -128
    images[4, shape[0] // 2, shape[1] // 2] = 127
    sparse = slice(5, 5 + count // 3)
    images[sparse] = np.where(rng.random((count, *shape))[sparse] < 0.8, -128, images[sparse])
    return images


def _scale(rng):
    # Powers of two make exact ties in the rounding, which random scales hardly ever hit.
    if rng.random() < 0.4:
        return float(2.0 ** rng.integers(-9, -3))
    return float(np.float32(rng.uniform(0.002, 0.1)))


def _zero_point(rng):
    return int(rng.choice([-128, 0, int(rng.integers(-128, 128)), 40]))


def _output_scale(rng, input_scale, scales, taps):
    """So that outputs fill the int8 range a few times over, at most."""
    spread = input_scale * float(scales.mean()) * 73 * 74 * np.sqrt(taps) / 64
    if rng.random() < 0.5:
        return float(2.0 ** np.round(np.log2(spread)))
    return float(np.float32(spread * rng.uniform(0.5, 2.0)))


# --- The file -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """The numbers of a layer with weights."""

    weights: NDArray[np.int8]  # (out, 5, 5, in) or (out, in)
    bias: NDArray[np.int32]  # (out,)
    weight_scales: NDArray[np.float32]  # (out,)
    scale: float  # of the output
    zero_point: int  # of the output
    relu: bool  # whether ReLU follows


def build(image, layers, edit=lambda model: None):
    """The bytes of a .tflite file.

    Args:
        image: Scale and zero point of the input.
        layers: conv1, conv2, dense1, dense2 and dense3.
        edit: Changes the model (a `schema.ModelT`) before it is written.
    """
    conv1, conv2, *dense = layers
    graph = _Graph(image)
    for conv, side in ((conv1, 28), (conv2, 10)):
        strides = {"strideH": 1, "strideW": 1, "padding": schema.Padding.VALID}
        options = _made(schema.Conv2DOptionsT, **strides)
        graph.layer("CONV_2D", 3, options, conv, (1, side, side, len(conv.weights)))
        window = dict.fromkeys(("filterHeight", "filterWidth", "strideH", "strideW"), 2)
        options = _made(schema.Pool2DOptionsT, **window, padding=schema.Padding.VALID)
        shape = (1, side // 2, side // 2, len(conv.weights))
        graph.append("MAX_POOL_2D", 2, options, [], shape, *graph.quantization)
    target = graph.constant(np.array((1, 400), np.int32), schema.TensorType.INT32)
    options = schema.ReshapeOptionsT()
    graph.append("RESHAPE", 1, options, [target], (1, 400), *graph.quantization)
    for layer in dense:
        options = schema.FullyConnectedOptionsT()
        graph.layer("FULLY_CONNECTED", 4, options, layer, (1, len(layer.weights)))
    options = _made(schema.SoftmaxOptionsT, beta=1.0)
    graph.append("SOFTMAX", 2, options, [], graph.shape, 1 / 256, -128)
    parts = {"tensors": graph.tensors, "operators": graph.operators}
    subgraph = _made(schema.SubGraphT, inputs=[0], outputs=[graph.current], **parts)
    parts = {"operatorCodes": graph.codes, "buffers": graph.buffers, "subgraphs": [subgraph]}
    model = _made(schema.ModelT, version=3, description="test", **parts)
    edit(model)
    packer = flatbuffers.Builder(1024)
    packer.Finish(model.Pack(packer), b"TFL3")
    return bytes(packer.Output())


def _made(kind, **fields):
    """An object of the schema with these fields."""
    made = kind()
    for name, value in fields.items():
        setattr(made, name, value)
    return made


class _Graph:
    """Gets one operator after the other; `current` is the newest activation's tensor."""

    def __init__(self, image):
        self.tensors, self.operators, self.codes = [], [], []
        self.buffers = [schema.BufferT()]
        self.current = self._activation((1, 32, 32, 1), *image)

    def layer(self, name, version, options, layer, shape):
        relu = schema.ActivationFunctionType
        options.fusedActivationFunction = relu.RELU if layer.relu else relu.NONE
        scales, kind = layer.weight_scales, schema.TensorType
        weights = self.constant(layer.weights, kind.INT8, scales)
        bias = self.constant(layer.bias, kind.INT32, np.float32(self.quantization[0]) * scales)
        self.append(name, version, options, [weights, bias], shape, layer.scale, layer.zero_point)

    def append(self, name, version, options, inputs, shape, scale, zero_point):
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

    def constant(self, values, kind, scales=None):
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
