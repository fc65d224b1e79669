"""Random small int8 models over every supported operator, for bit-exactness tests."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from tflite_builder import Activation, ModelBuilder, Padding

ACTIVATIONS = (Activation.NONE, Activation.RELU, Activation.RELU6, Activation.RELU_N1_TO_1)


def random_model(seed: int) -> tuple[bytes, tuple[int, ...]]:
    """A valid model and its input shape (height, width, channels)."""
    rng = np.random.default_rng(seed)
    if seed % 3 == 0:  # the one-channel kernels need rows of 32 pixels
        shape = (int(rng.integers(12, 33)), 32, 1)
    else:
        shape = (int(rng.integers(5, 17)), int(rng.integers(5, 17)), int(rng.integers(1, 8)))
    model = ModelBuilder((1, *shape), _scale(rng), _zero_point(rng))
    for _ in range(int(rng.integers(1, 3))):
        _add_conv(model, rng, square5=seed % 3 == 0 and not model.operators)
        if seed % 3 == 0 and len(model.operators) == 1:
            model.pool("max", (2, 2), (2, 2))
        elif rng.random() < 0.7:
            _add_pool(model, rng)
    if rng.random() < 0.5:
        model.flatten()
    for _ in range(int(rng.integers(1, 3))):
        _add_dense(model, rng, int(rng.choice([1, 2, 10, 16, 17, 33, 130])))
    if rng.random() < 0.7:
        model.softmax(float(rng.choice([1.0, 0.5])))
    return model.build(), shape


def random_inputs(shape: tuple[int, ...], seed: int, count: int) -> NDArray[np.int8]:
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


def _scale(rng: np.random.Generator) -> float:
    # Powers of two make exact ties in the rounding, which random scales hardly ever hit.
    if rng.random() < 0.4:
        return float(2.0 ** rng.integers(-9, -3))
    return float(np.float32(rng.uniform(0.002, 0.1)))


def _zero_point(rng: np.random.Generator) -> int:
    return int(rng.choice([-128, -128, 0, 127, int(rng.integers(-128, 128))]))


def _weights(
    rng: np.random.Generator, shape: tuple[int, ...]
) -> tuple[NDArray[np.int8], NDArray[np.int32], NDArray[np.float32]]:
    weights = rng.integers(-127, 128, shape).astype(np.int8)
    bias = rng.integers(-20000, 20000, shape[0]).astype(np.int32)
    scales = np.array(
        [_scale(rng) for _ in range(shape[0] if rng.random() < 0.7 else 1)], np.float32
    )
    return weights, bias, scales


def _output_scale(
    rng: np.random.Generator, model: ModelBuilder, scales: NDArray[np.float32], taps: int
) -> float:
    """So that outputs fill the int8 range a few times over, at most."""
    spread = model.scale * float(scales.mean()) * 73 * 74 * np.sqrt(taps) / 64
    if rng.random() < 0.5:
        return float(2.0 ** np.round(np.log2(spread)))
    return float(np.float32(spread * rng.uniform(0.5, 2.0)))


def _add_conv(model: ModelBuilder, rng: np.random.Generator, square5: bool) -> None:
    height, width, depth = model.shape[1:]
    kernel = (
        (5, 5)
        if square5
        else (int(rng.integers(1, min(height, 5) + 1)), int(rng.integers(1, min(width, 5) + 1)))
    )
    channels = int(rng.choice([1, 3, 6, 8, 15, 16, 20]))
    weights, bias, scales = _weights(rng, (channels, *kernel, depth))
    scale = _output_scale(rng, model, scales, kernel[0] * kernel[1] * depth)
    plain = square5 or rng.random() < 0.5
    model.conv(
        weights,
        bias,
        scales,
        scale,
        _zero_point(rng),
        stride=(1, 1) if plain else (int(rng.integers(1, 4)), int(rng.integers(1, 4))),
        dilation=(2, 1) if not plain and height > 2 * kernel[0] and rng.random() < 0.3 else (1, 1),
        padding=Padding.VALID if plain else int(rng.choice([Padding.SAME, Padding.VALID])),
        activation=int(rng.choice(ACTIVATIONS)),
    )


def _add_pool(model: ModelBuilder, rng: np.random.Generator) -> None:
    height, width = model.shape[1:3]
    window = (int(rng.integers(1, min(height, 3) + 1)), int(rng.integers(1, min(width, 3) + 1)))
    stride = window if rng.random() < 0.6 else (int(rng.integers(1, 3)), int(rng.integers(1, 3)))
    model.pool(
        str(rng.choice(["max", "max", "average"])),
        window,
        stride,
        padding=int(rng.choice([Padding.VALID, Padding.VALID, Padding.SAME])),
        activation=int(rng.choice(ACTIVATIONS)),
    )


def _add_dense(model: ModelBuilder, rng: np.random.Generator, outputs: int) -> None:
    inputs = int(np.prod(model.shape))
    weights, bias, scales = _weights(rng, (outputs, inputs))
    scale = _output_scale(rng, model, scales, inputs)
    with_bias = bias if rng.random() < 0.8 else None
    model.dense(
        weights, with_bias, scales, scale, _zero_point(rng), activation=int(rng.choice(ACTIVATIONS))
    )
