"""Keras -> float32 ONNX (tf2onnx) -> int8 QDQ ONNX (onnxruntime's quantizer)."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from export import seal
from export.quiet import quiet

if TYPE_CHECKING:
    import keras
    import onnx

OPSET = 17  # with IR 8 the newest that onnxruntime 1.16 reads
IR_VERSION = 8


def write_float32(model: keras.Model, path: Path, metadata: dict[str, Any]) -> None:
    """Convert to float32 ONNX: input `image` (batch, 32, 32, 1), output `probabilities`.

    The metadata are JSON values that go into the file's metadata_props, as text, here and below.
    """
    import tensorflow as tf
    import tf2onnx
    from onnxscript import optimizer

    signature = [tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name="image")]
    with quiet():
        proto, _ = tf2onnx.convert.from_keras(model, input_signature=signature, opset=OPSET)
        _flatten_statically(proto)
        proto = optimizer.optimize(proto)
    _name_output(proto.graph, "probabilities")
    _name_batch(proto.graph)
    _number_names(proto.graph)
    path.write_bytes(_finish(proto, metadata))


def write_int8(
    float32_path: Path, samples: NDArray[np.float32], path: Path, metadata: dict[str, Any]
) -> None:
    """Quantize to 8-bit QDQ ONNX: float32 in and out, uint8 inside, per-channel weights.

    Args:
        float32_path: What `write_float32` wrote.
        samples: float32 (N, 32, 32, 1), 0..1: training images that set the activation ranges.
        path: The file to write.
        metadata: JSON values that go into the file's metadata_props, as text.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    batches = iter([{"image": b} for b in np.array_split(samples, max(1, len(samples) // 100))])
    with tempfile.TemporaryDirectory() as folder, quiet():
        prepared, quantized = Path(folder, "prepared.onnx"), Path(folder, "quantized.onnx")
        quant_pre_process(float32_path, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared,
            quantized,
            SimpleNamespace(get_next=lambda: next(batches, None)),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            # Unsigned on both sides: with signed weights onnxruntime's AVX2 kernels add pairs of
            # products in 16 bits, which overflow (ADR 19). Unsigned is exact on every processor.
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QUInt8,
            extra_options={"WeightSymmetric": True},
            calibrate_method=quantization.CalibrationMethod.MinMax,
        )
        proto = onnx.load(quantized)
    _keep_logits_float(proto.graph)
    path.write_bytes(_finish(proto, metadata))


def describe(path: Path) -> dict[str, Any]:
    """Input and output of an ONNX file: name, shape ("batch" is any), dtype."""
    import onnx

    graph = onnx.load(path).graph
    description = {}
    for key, value in (("input", graph.input[0]), ("output", graph.output[0])):
        sizes = value.type.tensor_type.shape.dim
        shape = [size.dim_param or size.dim_value for size in sizes]
        description[key] = {"name": value.name, "shape": shape, "dtype": "float32"}
    return description


def _flatten_statically(proto: onnx.ModelProto) -> None:
    """Give the flatten's Reshape a constant target; its shape arithmetic is then dead.

    tf2onnx computes the target at run time (Shape, Cast, Slice, Concat), though with a dynamic
    batch [-1, features] says the same.
    """
    from onnx import numpy_helper

    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    weights = {name for name, value in constants.items() if value.ndim == 2}
    users = {name: node for node in proto.graph.node for name in node.input}
    for node in proto.graph.node:
        user = users.get(node.output[0])
        if node.op_type != "Reshape" or user is None or user.op_type not in ("MatMul", "Gemm"):
            continue
        features = next(constants[n].shape[0] for n in user.input if n in weights)
        target = numpy_helper.from_array(np.array([-1, features], np.int64), "flatten_shape")
        proto.graph.initializer.append(target)
        node.input[1] = target.name


def _keep_logits_float(graph: onnx.GraphProto) -> None:
    """Take the QuantizeLinear-DequantizeLinear pairs off the softmax's input and output.

    Eight bits of logits decide near ties by chance; onnxruntime's int8 matrix product gives
    float32 at no cost.
    """
    nodes = list(graph.node)  # in topological order
    producers = {output: node for node in nodes for output in node.output}
    softmax = next(node for node in nodes if node.op_type == "Softmax")
    softmax.output[0] = graph.output[0].name
    dequantize = producers[softmax.input[0]]
    if dequantize.op_type == "DequantizeLinear":
        softmax.input[0] = producers[dequantize.input[0]].input[0]
    needed = {softmax.output[0]}
    alive = []
    for node in reversed(nodes[: nodes.index(softmax) + 1]):
        if needed.intersection(node.output):
            alive.append(node)
            needed.update(node.input)
    constants = [constant for constant in graph.initializer if constant.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(alive))
    graph.initializer.extend(constants)


def _name_output(graph: onnx.GraphProto, name: str) -> None:
    old, graph.output[0].name = graph.output[0].name, name
    for node in graph.node:
        node.output[:] = [name if output == old else output for output in node.output]


def _number_names(graph: onnx.GraphProto) -> None:
    """Number tf2onnx's names (`Transpose__34`) by first use: its own counters differ by run."""
    numbers: dict[str, str] = {}

    def renumbered(name: str) -> str:
        return re.sub(
            r"__(\d+)", lambda match: "__" + numbers.setdefault(match[1], str(len(numbers))), name
        )

    for node in graph.node:
        node.input[:] = map(renumbered, node.input)
        node.output[:] = map(renumbered, node.output)
        node.name = renumbered(node.name)
    for tensor in graph.initializer:
        tensor.name = renumbered(tensor.name)
    graph.initializer.sort(key=lambda tensor: tensor.name)


def _name_batch(graph: onnx.GraphProto) -> None:
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del graph.value_info[:]  # inferred for tf2onnx's own names; the checker infers them anew


def _finish(proto: onnx.ModelProto, metadata: dict[str, Any]) -> bytes:
    """Set versions, producer and metadata, and check the whole graph; returns the file's bytes."""
    import onnx

    proto.ir_version = IR_VERSION
    # The quantizer names operator sets that no node uses, newer than onnxruntime 1.16 accepts.
    used = {node.domain for node in proto.graph.node}
    for entry in [entry for entry in proto.opset_import if entry.domain not in used]:
        proto.opset_import.remove(entry)
    proto.producer_name = metadata["name"]
    proto.producer_version = metadata["version"]
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items()}
    texts["checksum"] = json.dumps({seal.KEY: seal.DIGITS})
    onnx.helper.set_model_props(proto, texts)
    onnx.checker.check_model(proto, full_check=True)
    return seal.seal(proto.SerializeToString(deterministic=True))
