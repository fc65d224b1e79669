"""LeNet-5 as the published recipe has it: 61,706 parameters in seven layers.

Source: Y. LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998,
section II.B; here with ReLU, max-pooling and a full second convolution, as in the cookbook.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from export.quiet import quiet

if TYPE_CHECKING:
    import keras

# Trainable parameters by layer for ten classes: weights + biases.
PUBLISHED_PARAMETERS = {
    "C1": 5 * 5 * 1 * 6 + 6,  # 156
    "S2": 0,
    "C3": 5 * 5 * 6 * 16 + 16,  # 2,416
    "S4": 0,
    "C5": 400 * 120 + 120,  # 48,120
    "F6": 120 * 84 + 84,  # 10,164
    "OUTPUT": 84 * 10 + 10,  # 850
}
PUBLISHED_TOTAL = 61_706


def import_tensorflow() -> None:
    """Import TensorFlow for the CPU alone and without its greeting.

    The greeting comes from C++ at import and at the first look for a GPU. A GPU, if there is one,
    is left out: its results differ from run to run, and this network is too small to gain by it.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # The number of threads decides in which order sums are taken, so it must not depend on how
    # many processors this process happens to get.
    os.environ["TF_NUM_INTRAOP_THREADS"] = "2"
    with quiet():
        import tensorflow as tf

        tf.config.set_visible_devices([], "GPU")


def build(
    classes: int = 10, batch_size: int | None = None, input_name: str = "INPUT", width: int = 1
) -> keras.Model:
    """Build the network, with fresh weights from Keras's global seed.

    Args:
        classes: The number of classes, at least 2.
        batch_size: A fixed batch size, or None for any.
        input_name: The name of the input tensor.
        width: More than 1 for a teacher: so many times as many channels and neurons.

    Returns:
        A functional model: float32 (batch, 32, 32, 1), 0..1 -> float32 (batch, classes),
        probabilities.
    """
    import keras
    from keras import layers

    image = keras.Input(batch_shape=(batch_size, 32, 32, 1), name=input_name)
    x = layers.Conv2D(6 * width, 5, activation="relu", name="C1")(image)  # (batch, 28, 28, 6)
    x = layers.MaxPooling2D(2, name="S2")(x)  # (batch, 14, 14, 6)
    x = layers.Conv2D(16 * width, 5, activation="relu", name="C3")(x)  # (batch, 10, 10, 16)
    x = layers.MaxPooling2D(2, name="S4")(x)  # (batch, 5, 5, 16)
    x = layers.Flatten(name="FLATTEN")(x)  # (batch, 400)
    x = layers.Dense(120 * width, activation="relu", name="C5")(x)
    x = layers.Dense(84 * width, activation="relu", name="F6")(x)
    probabilities = layers.Dense(classes, activation="softmax", name="OUTPUT")(x)
    model = keras.Model(image, probabilities, name="lenet5")
    if width == 1:
        check_parameters(model, classes)
    return model


def check_parameters(model: keras.Model, classes: int) -> None:
    """Raise ValueError unless every layer has its published number of parameters.

    The published counts are for 10 classes; the output layer has 85 for each.
    """
    expected = {**PUBLISHED_PARAMETERS, "OUTPUT": 85 * classes}
    counted = {layer.name: int(layer.count_params()) for layer in model.layers}
    for name, count in expected.items():
        if counted.get(name) != count:
            raise ValueError(f"layer {name} has {counted.get(name)} parameters, not {count}")
    total = PUBLISHED_TOTAL - 850 + 85 * classes
    if int(model.count_params()) != total:
        raise ValueError(f"{model.count_params()} parameters in all, not {total}")
