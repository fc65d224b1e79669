"""Random affine distortions of a batch of digits."""

from __future__ import annotations

import math
from typing import Any

from pipeline.config import Augmentation

SIDE = 32


def augment(images: Any, seed: Any, strength: Augmentation) -> Any:
    """Distort each image by a random affine map about its centre.

    Args:
        images: float32 tensor (N, 32, 32, 1), 0..1, white ink on black.
        seed: int32 tensor (2,); the same seed gives the same images.
        strength: The limits.

    Returns:
        float32 tensor (N, 32, 32, 1), 0..1; what comes from outside an image is black.

    Source: P. Simard, D. Steinkraus, J. Platt, "Best Practices for Convolutional Neural Networks
    Applied to Visual Document Analysis", ICDAR 2003, section 2.
    """
    import tensorflow as tf

    draws = tf.random.stateless_uniform((tf.shape(images)[0], 6), seed, -1.0, 1.0)
    angle, scale_x, scale_y, shear, shift_x, shift_y = tf.unstack(draws, axis=1)  # each (N,)
    angle *= math.radians(strength.rotation_degrees)
    scale_x = 1.0 + strength.scale * scale_x
    scale_y = 1.0 + strength.scale * scale_y
    shear *= strength.shear
    # The map from an output pixel to the input pixel that it shows: [[a, b], [d, e]] about the
    # centre, then the shift.
    cos, sin = tf.cos(angle), tf.sin(angle)
    a, b = cos / scale_x, (shear * cos - sin) / scale_x
    d, e = sin / scale_y, (shear * sin + cos) / scale_y
    centre = (SIDE - 1) / 2
    c = centre - a * centre - b * centre + strength.shift_px * shift_x
    f = centre - d * centre - e * centre + strength.shift_px * shift_y
    zero = tf.zeros_like(a)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack([a, b, c, d, e, f, zero, zero], axis=1),
        output_shape=[SIDE, SIDE],
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
        fill_value=0.0,
    )
