"""Every layer's output of the int8 TFLite file on tflite-runtime, whose bytes the C promises.

    python -m pipeline.parity.tflite_layers MODEL.tflite IMAGES.npy OUTPUT.npy

A process of its own in `.venv-device`: numpy and tflite-runtime alone are imported.
"""

from __future__ import annotations

import sys

import numpy as np

LAYERS = ("MAX_POOL_2D", "FULLY_CONNECTED", "SOFTMAX")  # the C pools as it convolves


def main() -> int:
    """Write int8 (N, values): the outputs of `LAYERS`, flat, in the order of the graph."""
    from tflite_runtime.interpreter import Interpreter  # type: ignore[import-not-found]

    model, images_path, output = sys.argv[1:]
    interpreter = Interpreter(model, num_threads=1, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]
    layers = [op for op in interpreter._get_ops_details() if op["op_name"] in LAYERS]
    tensors = [int(layer["outputs"][0]) for layer in layers]
    scale, zero_point = source["quantization"]
    real = np.pad(np.load(images_path), [(0, 0), (2, 2), (2, 2)]).astype(np.float32) / 255
    given = np.clip(np.rint(real / np.float32(scale)) + zero_point, -128, 127).astype(np.int8)
    rows = []
    for image in given:  # (32, 32)
        interpreter.set_tensor(source["index"], image[None, :, :, None])
        interpreter.invoke()
        rows.append(np.concatenate([interpreter.get_tensor(t).ravel() for t in tensors]))
    np.save(output, np.array(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
