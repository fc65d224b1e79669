"""Artifacts that are broken on purpose, each in a way that has happened to somebody."""

import re

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema

from export import seal, to_onnx, to_tflite
from pipeline.train.training import load_model

METADATA = {"name": "lenet5-edge", "version": "0", "labels": list("0123456789")}


def rewrite_tflite(path, change):
    """Apply `change(model)` to a TFLite file and write it with a right checksum."""
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    change(model)
    model.metadata, model.buffers = None, model.buffers[:-1]  # `_finish` adds its own
    builder = flatbuffers.Builder(1 << 18)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(to_tflite._finish(bytes(builder.Output()), METADATA))


def matrices(model):
    """(tensor, buffer) of the weights of each convolution and dense layer, in order."""
    graph = model.subgraphs[0]
    for operator in graph.operators:
        if operator.inputs is not None and len(operator.inputs) == 3:
            tensor = graph.tensors[operator.inputs[1]]
            yield tensor, model.buffers[tensor.buffer]


def without_weights(path):
    """All weights are zero, as after a conversion that lost them."""

    def clear(model):
        for _, buffer in matrices(model):
            buffer.data = np.zeros_like(buffer.data)

    rewrite_tflite(path, clear)


def cast_without_rounding(path, model_path):
    """The weights are cast to int8 without rounding: int8(w / scale)."""
    kernels = [w for w in load_model(model_path).get_weights() if w.ndim > 1]

    def cast(model):
        for (tensor, buffer), kernel in zip(matrices(model), kernels, strict=True):
            rows = np.moveaxis(kernel, -1, 0)  # output channel first, as TFLite has it
            scale = np.array(tensor.quantization.scale).reshape(-1, *[1] * (rows.ndim - 1))
            steps = np.clip(np.trunc(rows / scale), -128, 127).astype(np.int8)
            buffer.data = np.frombuffer(steps.tobytes(), np.uint8)

    rewrite_tflite(path, cast)


def calibrated_on_noise(path, model_path):
    """The activation ranges come from noise instead of training images."""
    to_tflite.write_int8(load_model(model_path), _noise(), path, METADATA)


def onnx_calibrated_on_noise(path, float32_path):
    """As above, for ONNX."""
    to_onnx.write_int8(float32_path, _noise(), path, METADATA)


def _noise():
    return np.random.default_rng(0).random((100, 32, 32, 1), np.float32)


def rename_a_tensor_to_bytes_that_are_no_text(path):
    """The name of an activation is not UTF-8, and the checksum is right."""
    node = next(n for n in onnx.load(path).graph.node if n.op_type == "MaxPool")
    name = node.output[0].encode()
    path.write_bytes(_sealed(path.read_bytes().replace(name, name[:-1] + b"\xff")))


def truncating_requantization(path):
    """Every product is rounded down to 8 bits: half a step less in each bias says the same."""

    def truncate(model):
        graph = model.subgraphs[0]
        for operator in list(graph.operators):
            if operator.inputs is None or len(operator.inputs) < 3:
                continue  # a pooling, the flattening, the softmax
            given, weights, bias = (graph.tensors[i] for i in operator.inputs[:3])
            output = graph.tensors[operator.outputs[0]]
            steps = given.quantization.scale[0] * np.array(weights.quantization.scale)
            half = np.rint(0.5 * output.quantization.scale[0] / steps).astype(np.int32)
            buffer = model.buffers[bias.buffer]
            values = np.frombuffer(bytes(bytearray(buffer.data)), np.int32) - half
            buffer.data = np.frombuffer(values.astype(np.int32).tobytes(), np.uint8)

    rewrite_tflite(path, truncate)


def label_names_exchanged(path):
    """The metadata calls class 3 "5" and class 5 "3"; the checksum is right."""
    content = path.read_bytes()
    changed = content.replace(b'"3", "4", "5"', b'"5", "4", "3"')
    assert changed != content
    path.write_bytes(_sealed(changed))


def _sealed(content):
    return seal.seal(re.sub(rb'"crc32": "[0-9a-f]{8}"', b'"crc32": "00000000"', content))
