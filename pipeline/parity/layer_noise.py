"""Where an int8 artifact loses precision: the noise of each tensor, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TensorNoise:
    """The quantization noise of one layer's output."""

    artifact: str  # the int8 file
    tensor: str  # the layer that produces it, such as "0 CONV_2D"
    sqnr_db: float  # signal-to-quantization-noise ratio against the float artifact, in decibels


def sqnr_db(reference: NDArray[np.floating], quantized: NDArray[np.floating]) -> float:
    """Signal-to-quantization-noise ratio: 10 log10(sum of r^2 / sum of (r - q)^2).

    Args:
        reference: Float values, any shape.
        quantized: The dequantized values, of the same shape.

    Returns:
        Decibels, within -200..200: JSON has no infinity for equal tensors.
    """
    signal = float(np.square(reference, dtype=np.float64).sum())
    noise = float(np.square(reference.astype(np.float64) - quantized).sum())
    if noise == 0.0:
        return 200.0
    return float(np.clip(10 * np.log10(signal / noise), -200.0, 200.0)) if signal else -200.0


def measure_tflite(
    float32_path: Path, int8_path: Path, images: NDArray[np.float32]
) -> list[TensorNoise]:
    """Compare every operator's output of a float and an int8 TFLite file.

    Args:
        float32_path: The float file.
        int8_path: The int8 file, with the same operators in the same order.
        images: float32 (N, 32, 32, 1), 0..1.

    Returns:
        One entry an operator, in the order of execution; empty when the graphs differ. The
        logits are left out: their range is chosen for the probabilities and cuts off what does
        not matter to them (export/logits.py), so the softmax's own entry judges it.
    """
    reference = _tflite_activations(float32_path, images)
    quantized = _tflite_activations(int8_path, images)
    names = list(reference)
    if names != list(quantized):
        return []
    if names[-1].endswith("SOFTMAX"):
        names.pop(-2)
    return [
        TensorNoise(int8_path.name, name, round(sqnr_db(reference[name], quantized[name]), 2))
        for name in names
    ]


def _tflite_activations(path: Path, images: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """The dequantized output of every operator, (N, ...), by "index OPERATOR"."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_path=str(path),
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]
    operators = interpreter._get_ops_details()
    details = {d["index"]: d for d in interpreter.get_tensor_details()}
    rows: dict[str, list[NDArray[Any]]] = {}
    inputs = images
    if source["dtype"] == np.int8:
        scale, zero_point = source["quantization"]
        inputs = np.clip(np.rint(images / np.float32(scale)) + zero_point, -128, 127)
        inputs = inputs.astype(np.int8)
    for i in range(len(images)):
        interpreter.set_tensor(source["index"], inputs[i : i + 1])
        interpreter.invoke()
        for operator in operators:
            tensor = operator["outputs"][0]
            value = interpreter.get_tensor(tensor).astype(np.float32)
            scale, zero_point = details[tensor]["quantization"]
            if scale:
                value = (value - zero_point) * scale
            rows.setdefault(f"{operator['index']} {operator['op_name']}", []).append(value)
    return {name: np.concatenate(values) for name, values in rows.items()}


def measure_onnx(
    float32_path: Path, int8_path: Path, images: NDArray[np.float32]
) -> list[TensorNoise]:
    """Compare every activation of a float and an int8 ONNX file that both have.

    Args:
        float32_path: The float file.
        int8_path: The QDQ file made from it.
        images: float32 (N, 32, 32, 1), 0..1.

    Returns:
        One entry a tensor, in the order of execution; empty when a graph cannot be looked into.
    """
    try:
        reference = _onnx_activations(float32_path, images)
        quantized = _onnx_activations(int8_path, images)
    except Exception:  # of a graph that is not ours, such as names that are not UTF-8
        return []
    return [
        TensorNoise(int8_path.name, name, round(sqnr_db(reference[name], quantized[name]), 2))
        for name in reference
        if name in quantized and reference[name].shape == quantized[name].shape
    ]


def _onnx_activations(path: Path, images: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """Every activation by name; of a quantized one, the output of its DequantizeLinear."""
    import onnx
    import onnxruntime

    model = onnx.load(path)
    constants = {tensor.name for tensor in model.graph.initializer}
    producers = {output: node for node in model.graph.node for output in node.output}
    tensors: dict[str, str] = {}  # the name of the activation -> the tensor that holds its value
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] not in constants:
            quantizer = producers[node.input[0]]
            tensors[quantizer.input[0]] = node.output[0]
        elif node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            tensors.setdefault(node.output[0], node.output[0])
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors.values())
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    values = session.run(None, {session.get_inputs()[0].name: images})
    return dict(zip(tensors, values, strict=True))
