"""Every layer's output of the int8 TFLite file on tflite-runtime, whose bytes the C promises.

    python -m pipeline.parity.tflite_layers MODEL.tflite IMAGES.npy OUTPUT.npy

A process of its own in `.venv-device`. The input is quantized as the runner quantizes it.
"""

from __future__ import annotations

import sys

import numpy as np

from device.runner import padding

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
    pad, given = padding(source["quantization"])
    rows = []
    for image in np.load(images_path):  # uint8 (28, 28)
        pad(image)
        interpreter.set_tensor(source["index"], given)
        interpreter.invoke()
        rows.append(np.concatenate([interpreter.get_tensor(t).ravel() for t in tensors]))
    np.save(output, np.array(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
