"""LeNet-5 with random weights, scales, zero points and classes, for bit-exactness tests."""

from __future__ import annotations

import functools

import numpy as np
from tflite_builder import Numbers, build_lenet5

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
        layers.append(Numbers(values, bias, weight_scales, scale, zero_point, relu))
    return build_lenet5(image, layers, edit=edit)


def random_lenet5(seed):
    """LeNet-5 with awkward numbers: exact ties, zero points anywhere, ReLU or none."""
    rng = np.random.default_rng(seed)
    classes = int(rng.choice([2, 3, 10, 16, 17, 33, 130]))
    image = (1 / 255, -128) if seed % 2 == 0 else (_scale(rng), _zero_point(rng))
    layers: list[Numbers] = []
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
        layers.append(Numbers(weights, bias, scales, scale, zero_point, relu))
        input_scale = scale
    return build_lenet5(image, layers)


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
