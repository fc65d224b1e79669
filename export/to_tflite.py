"""Keras -> float32 and full-integer int8 TFLite."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flatbuffers
import numpy as np
from numpy.typing import NDArray

from export import seal
from export.logits import choose_range, compute_logits, quantization_parameters
from export.quiet import quiet

if TYPE_CHECKING:
    import keras

METADATA_NAME = "lenet5-edge"
FILE_IDENTIFIER = b"TFL3"


def write_float32(model: keras.Model, path: Path, metadata: dict[str, Any]) -> None:
    """Convert to float32 TFLite: static batch of 1, input `image`, output `probabilities`.

    The metadata are JSON values that go into the file, here and below.
    """
    path.write_bytes(_finish(_convert(_converter(model)), metadata))


def write_int8(
    model: keras.Model, samples: NDArray[np.float32], path: Path, metadata: dict[str, Any]
) -> None:
    """Convert to full-integer int8 TFLite: int8 in and out, per-channel weights.

    Args:
        model: float32 (batch, 32, 32, 1) -> (batch, classes).
        samples: float32 (N, 32, 32, 1), 0..1: training images that set the activation ranges.
        path: The file to write.
        metadata: JSON values that go into the file.
    """
    import tensorflow as tf

    converter = _converter(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([samples[i : i + 1]] for i in range(len(samples)))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    low, high = choose_range(compute_logits(model, samples))
    path.write_bytes(_finish(_convert(converter), metadata, quantization_parameters(low, high)))


def _converter(model: keras.Model) -> Any:
    """A converter of the model with its batch fixed to 1.

    A dynamic batch would put SHAPE, STRIDED_SLICE and PACK into the graph and keep delegates
    off; `model.export()` and `from_concrete_functions` lose the batch or the weights.
    """
    import keras
    import tensorflow as tf

    image = keras.Input(batch_shape=(1, *model.input_shape[1:]), name="image")
    static = keras.models.clone_model(model, input_tensors=image)
    static.set_weights(model.get_weights())
    return tf.lite.TFLiteConverter.from_keras_model(static)


def _convert(converter: Any) -> bytes:
    with quiet(), warnings.catch_warnings():
        # The statistics that it misses are those of TensorFlow 1's quantized inputs.
        warnings.filterwarnings("ignore", "Statistics for quantized inputs", UserWarning)
        flatbuffer: bytes = converter.convert()
    return flatbuffer


def _finish(
    flatbuffer: bytes, metadata: dict[str, Any], logits: tuple[float, int] | None = None
) -> bytes:
    """Name input and output and add the metadata, with the checksum that `device/runner.py` reads.

    `logits`: scale and zero point for the softmax's input, instead of the converter's.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(flatbuffer, 0)
    graph = model.subgraphs[0]
    if logits is not None:
        # The runtime derives every multiplier from the scales when it loads the file.
        quantization = graph.tensors[graph.operators[-1].inputs[0]].quantization
        quantization.scale, quantization.zeroPoint = [logits[0]], [logits[1]]
    graph.tensors[graph.inputs[0]].name = b"image"
    graph.tensors[graph.outputs[0]].name = b"probabilities"
    model.description = f"{metadata['name']} {metadata['version']}".encode()

    buffer = schema.BufferT()
    text = json.dumps({seal.KEY: seal.DIGITS, **metadata})
    buffer.data = np.frombuffer(text.encode(), np.uint8)
    model.buffers.append(buffer)
    entry = schema.MetadataT()
    entry.name = METADATA_NAME.encode()
    entry.buffer = len(model.buffers) - 1
    model.metadata = [*(model.metadata or []), entry]

    builder = flatbuffers.Builder(len(flatbuffer) + 4096)
    builder.Finish(model.Pack(builder), file_identifier=FILE_IDENTIFIER)
    return seal.seal(bytes(builder.Output()))


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata that `write_float32` or `write_int8` put into a file.

    Raises:
        ValueError: The file has none.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    for entry in model.metadata or []:
        if entry.name == METADATA_NAME.encode():
            value: dict[str, Any] = json.loads(bytes(model.buffers[entry.buffer].data))
            return value
    raise ValueError(f"{path}: no {METADATA_NAME} metadata")


def describe(path: Path) -> dict[str, Any]:
    """Input and output of a TFLite file: name, shape, dtype and, if quantized, its parameters."""
    from ai_edge_litert import schema_py_generated as schema

    graph = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0).subgraphs[0]
    dtypes = {schema.TensorType.FLOAT32: "float32", schema.TensorType.INT8: "int8"}
    description = {}
    for key, index in (("input", graph.inputs[0]), ("output", graph.outputs[0])):
        tensor = graph.tensors[index]
        entry = {
            "name": tensor.name.decode(),
            "shape": [int(size) for size in tensor.shape],
            "dtype": dtypes[tensor.type],
        }
        if entry["dtype"] == "int8":
            entry["scale"] = float(tensor.quantization.scale[0])
            entry["zero_point"] = int(tensor.quantization.zeroPoint[0])
        description[key] = entry
    return description
