"""Accuracy on distorted test images, float and int8 side by side: `artifacts/robustness.json`.

Each strength distorts all test images; where a distortion has directions, the images take them in
turn.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from pipeline.artifacts import FLOAT_MODEL, INT8_TFLITE, ROBUSTNESS_JSON, TRAIN_JSON
from pipeline.classify import classify_float_and_int8
from pipeline.data import Images, Split, require_trained_on
from pipeline.data import load as load_data
from pipeline.files import read_json, sha256, write_json
from pipeline.progress import progress
from pipeline.table import markdown_table
from pipeline.train.augment import FloatImages
from pipeline.train.training import accuracy

SEED = 1998


@dataclass(frozen=True)
class Distortion:
    """One way to spoil images."""

    name: str
    unit: str  # of the strength
    strengths: tuple[float, ...]  # those measured, the weakest first
    apply: Callable[[FloatImages, float], FloatImages]  # (images, strength) -> images


@dataclass(frozen=True)
class RobustnessRow:
    """One distortion at one strength."""

    distortion: str
    strength: float
    unit: str
    n: int  # images
    accuracy: dict[str, float]  # "float" and "int8", 0..1


def rotate(images: FloatImages, degrees: float) -> FloatImages:
    """Every other image to the left, the others to the right."""
    out = np.empty_like(images)
    for start, angle in ((0, degrees), (1, -degrees)):
        out[start::2] = ndimage.rotate(images[start::2], angle, (2, 1), reshape=False, order=1)
    return out


def shift(images: FloatImages, pixels: float) -> FloatImages:
    """By whole pixels, down, up, right and left in turn."""
    out = np.empty_like(images)
    for start, (down, right) in enumerate(((1, 0), (-1, 0), (0, 1), (0, -1))):
        by = (0, down * pixels, right * pixels)
        out[start::4] = ndimage.shift(images[start::4], by, order=1)
    return out


def scale(images: FloatImages, factor: float) -> FloatImages:
    """Around the centre; above 1 enlarges."""
    centre = (images.shape[1] - 1) / 2
    offset = centre - centre / factor
    matrix, offsets = (1, 1 / factor, 1 / factor), (0, offset, offset)
    scaled: FloatImages = ndimage.affine_transform(images, matrix, offsets, order=1)
    return scaled


def add_noise(images: FloatImages, deviation: float) -> FloatImages:
    """Gaussian, the same on every run."""
    noise = np.random.default_rng(SEED).standard_normal(images.shape, np.float32)
    return images + np.float32(deviation) * noise


def blur(images: FloatImages, radius_px: float) -> FloatImages:
    """Gaussian, by its standard deviation."""
    blurred: FloatImages = ndimage.gaussian_filter(images, (0, radius_px, radius_px))
    return blurred


def fade(images: FloatImages, share: float) -> FloatImages:
    """Leaves that share of the ink."""
    return images * np.float32(share)


DISTORTIONS = (
    Distortion("none", "", (0,), lambda images, _: images),
    Distortion("rotation", "degrees", (10, 20, 30, 45), rotate),
    Distortion("shift", "pixels", (1, 2, 3, 4), shift),
    Distortion("scale", "times", (0.6, 0.8, 1.2, 1.4), scale),
    Distortion("noise", "of full ink", (0.1, 0.2, 0.3, 0.4), add_noise),
    Distortion("blur", "pixels", (0.5, 1, 1.5, 2), blur),
    Distortion("contrast", "of the ink", (0.7, 0.5, 0.3, 0.1), fade),
)


def distort(images: Images, distortion: Distortion, strength: float) -> Images:
    """Distort all images: uint8 (n, 28, 28) -> the same."""
    x = distortion.apply(images.astype(np.float32) / np.float32(255), strength)
    return np.rint(np.clip(x, 0, 1) * 255).astype(np.uint8)


def run(args: argparse.Namespace) -> int:
    data = load_data(args.data)
    require_trained_on(data, read_json(args.out / TRAIN_JSON))
    print(markdown_table(*table_cells(measure(args.out, data.test)["rows"])))
    return 0


def measure(folder: Path, test: Split) -> dict[str, Any]:
    """Measure every distortion of all test images, and write `robustness.json`."""
    rows: list[RobustnessRow] = []
    n = len(test)
    with progress("robustness") as report:
        for i, distortion in enumerate(DISTORTIONS):
            report(i, len(DISTORTIONS), distortion.name)
            images = [distort(test.images, distortion, s) for s in distortion.strengths]
            got = classify_float_and_int8(folder, np.concatenate(images))
            for k, strength in enumerate(distortion.strengths):
                of = slice(k * n, (k + 1) * n)
                shares = {kind: accuracy(p[of], test.labels) for kind, p in got.items()}
                rows.append(RobustnessRow(distortion.name, strength, distortion.unit, n, shares))
        report(len(DISTORTIONS), len(DISTORTIONS), "")
    models = {name: sha256(folder / name) for name in (FLOAT_MODEL, INT8_TFLITE)}
    result = {"models": models, "rows": [asdict(row) for row in rows]}
    write_json(folder / ROBUSTNESS_JSON, result)
    return result


def table_cells(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """A table of the rows of `robustness.json`: its header and its cells."""
    cells = [
        [
            row["distortion"],
            f"{row['strength']:g} {row['unit']}" if row["unit"] else "",
            f"{row['n']:,}",
            f"{row['accuracy']['float']:.2%}",
            f"{row['accuracy']['int8']:.2%}",
            f"{100 * (row['accuracy']['int8'] - row['accuracy']['float']):+.2f}",
        ]
        for row in rows
    ]
    return ["distortion", "strength", "images", "float", "int8", "difference, pp"], cells
