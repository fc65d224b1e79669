"""How often generated pictures of digits are read right, and what reading one costs.

    python -m pipeline photos

Compares a plain grey resize to 28x28 with `device.photo.find_digit` on the same pictures and the
same model, per condition, and counts how many pictures without a digit are refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from device.photo import PhotoError, find_digit
from device.picture import decode_image
from device.runner import Classifier, InputError
from pipeline.data import Split
from pipeline.files import UserError, sha256
from pipeline.synthetic_photos import (
    Photo,
    Scene,
    digit_photos,
    draw_skeleton,
    empty_photos,
    render,
)
from pipeline.table import markdown_table

UInt8 = npt.NDArray[np.uint8]
Label = Callable[[UInt8], int]


@dataclass(frozen=True)
class DigitRow:
    """Pictures of one condition: how many, and how many each way reads right."""

    condition: str
    n: int
    raw_resize_correct: int
    find_digit_correct: int
    find_digit_refused: int


@dataclass(frozen=True)
class EmptyRow:
    """Pictures without a digit: how many, and how many are refused."""

    condition: str
    n: int
    refused: int


@dataclass(frozen=True)
class Timing:
    """One 12-megapixel file: median times of decoding and of finding the digit."""

    format: str
    width: int
    height: int
    size_bytes: int
    decode_ms: float
    find_ms: float


@dataclass(frozen=True)
class PhotoBench:
    """What `photo_bench` measured."""

    model: str
    model_sha256: str
    seed: int
    digits: tuple[DigitRow, ...]
    empties: tuple[EmptyRow, ...]
    timings: tuple[Timing, ...]

    @property
    def accuracy(self) -> float:
        """Share of all digit pictures that find_digit and the model read right."""
        return sum(r.find_digit_correct for r in self.digits) / sum(r.n for r in self.digits)

    @property
    def raw_resize_accuracy(self) -> float:
        """The same for a plain resize."""
        return sum(r.raw_resize_correct for r in self.digits) / sum(r.n for r in self.digits)

    @property
    def refused_share(self) -> float:
        """Share of the pictures without a digit that are refused."""
        return sum(r.refused for r in self.empties) / sum(r.n for r in self.empties)


def raw_resize(image: UInt8) -> UInt8:
    """The baseline: grey, resized to 28x28, inverted if the background is light."""
    small = Image.fromarray(image).convert("L").resize((28, 28), Image.Resampling.BILINEAR)
    grey = np.asarray(small)
    return 255 - grey if np.median(grey) > 127 else grey


def measure_digits(photos: list[Photo], label: Label) -> DigitRow:
    """Reads pictures of one condition both ways."""
    raw = found = refused = 0
    for photo in photos:
        image = decode_image(photo.data, photo.name)
        raw += label(raw_resize(image)) == photo.label
        try:
            found += label(find_digit(image)) == photo.label
        except PhotoError:
            refused += 1
    return DigitRow(photos[0].condition, len(photos), raw, found, refused)


def measure_empties(photos: list[Photo]) -> EmptyRow:
    """Counts refusals among pictures of one kind without a digit."""
    refused = 0
    for photo in photos:
        try:
            find_digit(decode_image(photo.data, photo.name))
        except PhotoError:
            refused += 1
    return EmptyRow(photos[0].condition, len(photos), refused)


def measure_time(quality: int | None, repeats: int, seed: int) -> Timing:
    """Times one 12-megapixel picture, JPEG of the given quality or PNG."""
    rng = np.random.default_rng(seed)
    scene = replace(Scene(), size=(3000, 4000), quality=quality, blur=1.5, noise=4)
    data = render(rng, scene, draw_skeleton(rng, 3, 1500, 0.08))
    decode_ms, find_ms = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        image = decode_image(data, "12 megapixels")
        decoded = time.perf_counter()
        find_digit(image)
        decode_ms.append((decoded - start) * 1e3)
        find_ms.append((time.perf_counter() - decoded) * 1e3)
    kind = "PNG" if quality is None else f"JPEG quality {quality}"
    medians = float(np.median(decode_ms)), float(np.median(find_ms))
    return Timing(kind, scene.size[1], scene.size[0], len(data), *medians)


def measure(
    model: Path, test: Split, per_condition: int = 20, seed: int = 1, repeats: int = 11
) -> PhotoBench:
    """Run the whole benchmark.

    Args:
        model: An artifact that `device/runner.py` reads.
        test: The test split, from which half the pictures are made.
        per_condition: Pictures of each condition.
        seed: Of the pictures.
        repeats: Of each timing.

    Raises:
        UserError: The model cannot be used.
    """
    try:
        classifier = Classifier(model)
    except InputError as error:
        raise UserError(str(error)) from None

    def label(image: UInt8) -> int:
        return int(classifier.predict(image[np.newaxis]).labels[0])

    digits: dict[str, list[Photo]] = {}
    rows = []
    for photo in digit_photos(test.images, test.labels, per_condition, seed):
        batch = digits.setdefault(photo.condition, [])
        batch.append(photo)
        if len(batch) == per_condition:
            rows.append(measure_digits(batch, label))
            batch.clear()
    empties: dict[str, list[Photo]] = {}
    for photo in empty_photos(per_condition, seed):
        empties.setdefault(photo.condition, []).append(photo)
    return PhotoBench(
        model=model.name,
        model_sha256=sha256(model),
        seed=seed,
        digits=tuple(rows),
        empties=tuple(measure_empties(batch) for batch in empties.values()),
        timings=tuple(measure_time(quality, repeats, seed) for quality in (90, None)),
    )


def format_result(bench: PhotoBench) -> str:
    """The result for a reader: two Markdown tables and a summary."""
    digits = [
        [
            row.condition,
            *map(str, (row.n, row.raw_resize_correct)),
            *map(str, (row.find_digit_correct, row.find_digit_refused)),
        ]
        for row in bench.digits
    ]
    empties = [[row.condition, str(row.n), str(row.refused)] for row in bench.empties]
    timings = [
        f"{timing.width}x{timing.height} {timing.format}, {timing.size_bytes / 1e6:.1f} MB: "
        f"decode {timing.decode_ms:.0f} ms + find {timing.find_ms:.0f} ms"
        for timing in bench.timings
    ]
    summary = (
        f"read right: plain resize {bench.raw_resize_accuracy:.1%}, "
        f"find_digit {bench.accuracy:.1%}; without a digit, refused: {bench.refused_share:.1%}"
    )
    header = ["condition", "pictures", "plain resize", "find_digit", "refused"]
    tables = (
        markdown_table(header, digits),
        markdown_table(["without a digit", *header[1::3]], empties),
    )
    return "\n".join([tables[0], "", tables[1], "", summary, *timings])


def as_json(bench: PhotoBench) -> dict[str, Any]:
    """The rows and the three shares over all of them."""
    return {
        **asdict(bench),
        "accuracy": bench.accuracy,
        "raw_resize_accuracy": bench.raw_resize_accuracy,
        "refused_share": bench.refused_share,
    }
