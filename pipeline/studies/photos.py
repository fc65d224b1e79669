"""How often generated pictures of digits are read right, and what reading one costs.

Compares a plain grey resize to 28x28 with `device.photo.find_digit` on the same pictures and the
same model, per condition, and counts how many pictures without a digit are refused.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from device.photo import PhotoError, find_digit
from device.picture import decode_image
from device.runner import Classifier, InputError
from pipeline.artifacts import INT8_TFLITE, PHOTOS_JSON, TRAIN_JSON
from pipeline.data import Split, require_trained_on
from pipeline.data import load as load_data
from pipeline.files import UserError, read_json, sha256, write_json
from pipeline.studies.synthetic_photos import (
    CONDITIONS,
    NO_DIGIT,
    Photo,
    Scene,
    UInt8,
    digit_photos,
    draw_skeleton,
    empty_photos,
    render,
)
from pipeline.table import markdown_table

Label = Callable[[UInt8], int]
PER_CONDITION = 20  # pictures
SEED = 1  # of the pictures
REPEATS = 11  # of each timing


@dataclass(frozen=True)
class PhotoRow:
    """Pictures of one condition: how many, and how many each way reads right."""

    condition: str
    n: int
    raw_resize_correct: int
    find_digit_correct: int
    find_digit_refused: int


@dataclass(frozen=True)
class NoDigitRow:
    """Pictures without a digit: how many, and how many are refused."""

    condition: str
    n: int
    refused: int


@dataclass(frozen=True)
class PhotoTiming:
    """One 12-megapixel file: median times of decoding and of finding the digit."""

    format: str
    width: int
    height: int
    size_bytes: int
    decode_ms: float
    find_ms: float


def run(args: argparse.Namespace) -> int:
    data = load_data(args.data)
    require_trained_on(data, read_json(args.out / TRAIN_JSON))
    result = measure(args.out / INT8_TFLITE, data.test)
    write_json(args.out / PHOTOS_JSON, result)
    print(format_result(result))
    return 0


def raw_resize(image: UInt8) -> UInt8:
    """The baseline: grey, resized to 28x28, inverted if the background is light."""
    small = Image.fromarray(image).convert("L").resize((28, 28), Image.Resampling.BILINEAR)
    grey = np.asarray(small)
    return 255 - grey if np.median(grey) > 127 else grey


def measure_digits(photos: list[Photo], label: Label) -> PhotoRow:
    """Read pictures of one condition both ways."""
    raw = found = refused = 0
    for photo in photos:
        image = decode_image(photo.data, photo.name)
        raw += label(raw_resize(image)) == photo.label
        try:
            found += label(find_digit(image)) == photo.label
        except PhotoError:
            refused += 1
    return PhotoRow(photos[0].condition, len(photos), raw, found, refused)


def measure_empties(photos: list[Photo]) -> NoDigitRow:
    """Count refusals among pictures of one kind without a digit."""
    refused = 0
    for photo in photos:
        try:
            find_digit(decode_image(photo.data, photo.name))
        except PhotoError:
            refused += 1
    return NoDigitRow(photos[0].condition, len(photos), refused)


def measure_time(quality: int | None) -> PhotoTiming:
    """Time one 12-megapixel picture, JPEG of the given quality or PNG."""
    rng = np.random.default_rng(SEED)
    scene = replace(Scene(), size=(3000, 4000), quality=quality, blur=1.5, noise=4)
    data = render(rng, scene, draw_skeleton(rng, 3, 1500, 0.08))
    decode_ms, find_ms = [], []
    for _ in range(REPEATS):
        start = time.perf_counter()
        image = decode_image(data, "12 megapixels")
        decoded = time.perf_counter()
        find_digit(image)
        decode_ms.append((decoded - start) * 1e3)
        find_ms.append((time.perf_counter() - decoded) * 1e3)
    kind = "PNG" if quality is None else f"JPEG quality {quality}"
    medians = float(np.median(decode_ms)), float(np.median(find_ms))
    return PhotoTiming(kind, scene.size[1], scene.size[0], len(data), *medians)


def measure(model: Path, test: Split) -> dict[str, Any]:
    """Read and time all pictures; half of them are made from test images."""
    try:
        classifier = Classifier(model)
    except InputError as error:
        raise UserError(str(error)) from None

    def label(image: UInt8) -> int:
        return classifier.classify(image)[0]

    digits = [
        measure_digits([*digit_photos(kind, test.images, test.labels, PER_CONDITION, SEED)], label)
        for kind in CONDITIONS
    ]
    empties = [measure_empties([*empty_photos(kind, PER_CONDITION, SEED)]) for kind in NO_DIGIT]
    return as_json(model, digits, empties, [measure_time(quality) for quality in (90, None)])


def as_json(
    model: Path,
    digits: Sequence[PhotoRow],
    empties: Sequence[NoDigitRow],
    timings: Sequence[PhotoTiming],
) -> dict[str, Any]:
    """What `photos.json` holds: the rows, and the shares over all of them."""
    with_digit, without = sum(row.n for row in digits), sum(row.n for row in empties)
    return {
        "model": model.name,
        "model_sha256": sha256(model),
        "seed": SEED,
        "digits": [asdict(row) for row in digits],
        "empties": [asdict(row) for row in empties],
        "timings": [asdict(row) for row in timings],
        "accuracy": sum(row.find_digit_correct for row in digits) / with_digit,
        "raw_resize_accuracy": sum(row.raw_resize_correct for row in digits) / with_digit,
        "refused_share": sum(row.refused for row in empties) / without,
    }


def tables(result: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Caption, header and rows of each table of what `photos.json` holds."""
    counts = ("condition", "n", "raw_resize_correct", "find_digit_correct", "find_digit_refused")
    digits = [[str(row[key]) for key in counts] for row in result["digits"]]
    empties = [
        [str(row[key]) for key in ("condition", "n", "refused")] for row in result["empties"]
    ]
    timings = [
        [
            f"{row['width']}x{row['height']} {row['format']}",
            f"{row['size_bytes'] / 1e6:.1f}",
            f"{row['decode_ms']:.0f}",
            f"{row['find_ms']:.0f}",
        ]
        for row in result["timings"]
    ]
    header = [
        "condition",
        "pictures",
        "plain resize right",
        "device/photo right",
        "device/photo refused",
    ]
    return [
        ("Photographs with a digit", header, digits),
        ("Photographs without a digit", ["condition", "pictures", "refused"], empties),
        ("Time of a photograph", ["file", "size, MB", "decode, ms", "find, ms"], timings),
    ]


def summary(result: Mapping[str, Any]) -> str:
    digits, empties = (sum(row["n"] for row in result[key]) for key in ("digits", "empties"))
    return (
        f"With device/photo {result['accuracy']:.1%} of {digits} generated photographs of digits "
        f"are read right, with a plain resize {result['raw_resize_accuracy']:.1%}; of {empties} "
        f"without a digit it refuses {result['refused_share']:.1%}."
    )


def format_result(result: Mapping[str, Any]) -> str:
    parts = [
        f"{caption}:\n\n{markdown_table(head, rows)}" for caption, head, rows in tables(result)
    ]
    return "\n\n".join([*parts, summary(result)])
