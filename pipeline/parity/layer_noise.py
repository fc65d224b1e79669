"""Where an int8 artifact loses precision: the noise of each layer, beside an ideal quantization's.

How much noise 8 bits must bring depends on the weights and the images. So each layer is judged by
what the same float model has when it is quantized as well as 8 bits allow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.logits import quantization_parameters, softmax

Floats = NDArray[Any]  # float32, where nothing else is said
LAYERS = ("C1", "S2", "C3", "S4", "C5", "F6", "OUTPUT", "softmax")
TFLITE_OPERATORS = ["CONV_2D", "MAX_POOL_2D"] * 2 + ["FULLY_CONNECTED"] * 3 + ["SOFTMAX"]
ONNX_OPERATORS = ["Conv", "MaxPool"] * 2 + ["MatMul"] * 3 + ["Softmax"]
MAX_DB = 200.0


@dataclass(frozen=True)
class TensorNoise:
    """The quantization noise of one layer's output."""

    artifact: str  # the int8 file
    tensor: str  # the layer that produces it, one of `LAYERS`
    sqnr_db: float  # signal-to-quantization-noise ratio against the float model, in decibels
    ideal_sqnr_db: float  # the same of an ideal quantization of the float model

    @property
    def loss_db(self) -> float:
        """How far it is below the ideal; negative: above."""
        return self.ideal_sqnr_db - self.sqnr_db


def measure(path: Path, weights: Sequence[Floats], images: Floats) -> tuple[TensorNoise, ...]:
    """Compare every layer's output of an int8 file with the float model's.

    Layers are matched by position and shape: the file must have exactly a LeNet-5's, in int8.

    Args:
        path: The int8 .tflite or .onnx file.
        weights: Of the float model, as `keras.Model.get_weights` gives them.
        images: float32 (N, 32, 32, 1), 0..1.

    Returns:
        One entry a layer, in the order of `LAYERS`; empty when the file has other layers. The
        logits of TFLite are left out: their range is chosen for the probabilities and cuts off
        what does not matter to them (export/logits.py), so the softmax's own entry judges it.
    """
    try:
        read = tflite_outputs if path.suffix == ".tflite" else onnx_outputs
        outputs = read(path, images)
    except Exception:  # of a graph that is not ours, such as names that are not UTF-8
        return ()
    reference = float_outputs(weights, images)
    if [values.shape for values in outputs] != [values.shape for values in reference]:
        return ()
    return tuple(
        TensorNoise(path.name, name, sqnr_db(exact, got), sqnr_db(exact, best))
        for name, exact, got, best in zip(
            LAYERS, reference, outputs, ideal_outputs(weights, images), strict=True
        )
        if not (name == "OUTPUT" and path.suffix == ".tflite")
    )


def sqnr_db(reference: NDArray[np.floating], quantized: NDArray[np.floating]) -> float:
    """Signal-to-quantization-noise ratio: 10 log10(sum of r^2 / sum of (r - q)^2).

    Returns:
        Decibels, within -200..200: JSON has no infinity for equal tensors, and NaN is all noise.
    """
    signal = float(np.square(reference, dtype=np.float64).sum())
    noise = float(np.square(reference.astype(np.float64) - quantized).sum())
    if noise == 0.0:
        return MAX_DB
    if not 0.0 < signal / noise < np.inf:  # NaN is neither
        return -MAX_DB
    return float(np.clip(10 * np.log10(signal / noise), -MAX_DB, MAX_DB))


# --- The float model, and the best that 8 bits can do -------------------------------------------


def float_outputs(weights: Sequence[Floats], images: Floats) -> list[Floats]:
    """Every layer's output of the float model, in the order of `LAYERS`: float32 (N, ...).

    Images have their channels last, and S4 is flat.
    """
    return _forward(weights, images, lambda values: values, lambda values: values)


def ideal_outputs(weights: Sequence[Floats], images: Floats) -> list[Floats]:
    """The same of the float model with 8-bit weights and activations, each rounded to nearest.

    Weights are symmetric with a scale a channel, biases exact. An activation's range is that of
    these very images. Probabilities have the steps of 1/256 that every int8 softmax has.
    """
    kernels = [_round_weights(w) if w.ndim > 1 else w for w in weights]
    return _forward(
        kernels, images, _round_activation, lambda p: np.minimum(np.rint(p * 256), 255) / 256
    )


def _forward(
    weights: Sequence[Floats],
    images: Floats,
    rounded: Callable[[Floats], Floats],
    rounded_probabilities: Callable[[Floats], Floats],
) -> list[Floats]:
    """LeNet-5 with a function applied to every activation."""
    x, outputs = images, []
    for kernel, bias in zip(weights[:4:2], weights[1:4:2], strict=True):
        x = rounded(np.maximum(_convolve(x, kernel) + bias, 0))  # (N, 28, 28, 6), (N, 10, 10, 16)
        outputs.append(x)
        n, height, width, channels = x.shape
        x = x.reshape(n, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))
        outputs.append(x)
    x = outputs[-1] = x.reshape(len(x), -1)  # (N, 400)
    for kernel, bias in zip(weights[4:8:2], weights[5:8:2], strict=True):
        x = rounded(np.maximum(x @ kernel + bias, 0))  # (N, 120), (N, 84)
        outputs.append(x)
    logits = rounded(x @ weights[8] + weights[9])  # (N, classes)
    return [*outputs, logits, rounded_probabilities(softmax(logits))]


def _convolve(x: Floats, kernel: Floats) -> Floats:
    """Valid convolution of (N, height, width, in) with (5, 5, in, out)."""
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))
    return np.tensordot(windows, kernel.transpose(2, 0, 1, 3), axes=3)


def _round_weights(kernel: Floats) -> Floats:
    """Rounded to -127..127 steps of its channel's largest value / 127."""
    largest = np.abs(kernel).max(axis=tuple(range(kernel.ndim - 1)))
    scale = np.where(largest > 0, largest, 1) / np.float32(127)
    return np.rint(kernel / scale) * scale


def _round_activation(values: Floats) -> Floats:
    """Rounded to 256 steps between its least and greatest value, zero among them."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    if low == high:  # all are zero
        return values
    scale, zero_point = quantization_parameters(low, high)
    steps = np.clip(np.rint(values / scale) + zero_point, -128, 127) - zero_point
    return (steps * scale).astype(np.float32)


# --- The artifacts: what each layer after the first is given, and what comes out in the end ------


def tflite_outputs(path: Path, images: Floats) -> list[Floats]:
    """The dequantized output of every layer of an int8 TFLite file, or ValueError."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_path=str(path),
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    layers = [op for op in interpreter._get_ops_details() if op["op_name"] != "RESHAPE"]
    if [layer["op_name"] for layer in layers] != TFLITE_OPERATORS:
        raise ValueError(f"{path}: not a LeNet-5's layers")
    details = {d["index"]: d for d in interpreter.get_tensor_details()}
    source, tensors = layers[0]["inputs"][0], [layer["inputs"][0] for layer in layers[1:]]
    tensors.append(interpreter.get_output_details()[0]["index"])
    if any(details[tensor]["dtype"] != np.int8 for tensor in (source, *tensors)):
        raise ValueError(f"{path}: its layers are not int8")
    scale, zero_point = details[source]["quantization"]
    inputs = np.clip(np.rint(images / np.float32(scale)) + zero_point, -128, 127).astype(np.int8)
    rows: list[list[NDArray[Any]]] = [[] for _ in tensors]
    for i in range(len(images)):
        interpreter.set_tensor(source, inputs[i : i + 1])
        interpreter.invoke()
        for row, tensor in zip(rows, tensors, strict=True):
            scale, zero_point = details[tensor]["quantization"]
            row.append((interpreter.get_tensor(tensor).astype(np.float32) - zero_point) * scale)
    return [np.concatenate(row) for row in rows]


def onnx_outputs(path: Path, images: Floats) -> list[Floats]:
    """The same of an int8 ONNX file, from the outputs of its DequantizeLinear nodes."""
    import onnx
    import onnxruntime

    model = onnx.load(path)
    layers = [node for node in model.graph.node if node.op_type in (*ONNX_OPERATORS, "Gemm")]
    if [layer.op_type.replace("Gemm", "MatMul") for layer in layers] != ONNX_OPERATORS:
        raise ValueError(f"{path}: not a LeNet-5's layers")
    tensors = [layer.input[0] for layer in layers[1:]] + [model.graph.output[0].name]
    rounded = {n.output[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    if not rounded.issuperset(tensors[:6]):  # the logits are not rounded again
        raise ValueError(f"{path}: its layers are not int8")
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    values = session.run(None, {session.get_inputs()[0].name: images})
    return [np.moveaxis(v, 1, -1) if v.ndim == 4 else v for v in values]  # channels last
