"""`python -m pipeline import SOURCE DIR`: one folder that every stage reads, and a look at it."""

from __future__ import annotations

import argparse
import gzip
import math
import re
import shlex
import warnings
from pathlib import Path

import numpy as np

from pipeline.data import (
    EDGE,
    IDX_NAMES,
    SIDE,
    SPLIT_SEED,
    Array,
    Images,
    Labels,
    Split,
    check_name,
    has_light_border,
    load,
)
from pipeline.files import UserError, atomic_path
from pipeline.importing.read import Found, read, to_28x28
from pipeline.table import markdown_table

TEST_FRACTION = 1 / 7  # as MNIST's, where the source has no test images
WHOLE = re.compile(r"-?[0-9]{1,9}(\.0*)?|-?[0-9]\.[0-9]+e\+0[0-9]")  # the latter by np.savetxt
SCALES = ((0, 1), (-0.5, 0.5), (-1, 1), (-128, 127), (0, 16), (0, 255), (0, 65535))
SAMPLES = 16  # of each class on the sheet
FRAME = np.pad(np.zeros((SIDE, SIDE), bool), 2, constant_values=True)  # (32, 32)
SHEET = "samples.png"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
KNOWN_NAMES = {  # by a word in the names of source or files, and the number of classes
    ("fashion", 10): "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot",
    ("kmnist", 10): "o,ki,su,tsu,na,ha,ma,ya,re,wo",
    ("sign", 24): ",".join("ABCDEFGHIKLMNOPQRSTUVWXY"),
    ("emnist", 26): ",".join(LETTERS),
    ("emnist", 47): ",".join(f"0123456789{LETTERS}abdefghnqrt"),
    ("emnist", 62): ",".join(f"0123456789{LETTERS}{LETTERS.lower()}"),
}


def run(args: argparse.Namespace) -> int:
    """Import, and print what came of it."""
    if args.out.exists() and not (args.out.is_dir() and not any(args.out.iterdir())):
        raise UserError(f"{args.out}: it is there already; name a new folder")
    found = read(args.source)
    train, test, names = convert(found, args.source, args.invert, args.transpose)
    write(train, test, names, args.out, args.source)
    print(summary(train, test, names))
    print(f"orientation: {'rows and columns exchanged' if args.transpose else 'as it was stored'}")
    edges = np.concatenate([part.images[:, EDGE] for part in (train, test)])  # (N, pixels)
    light = np.median(edges, axis=1) > 127
    if 0.05 < light.mean() < 0.95:
        found.notes.append(
            f"{light.sum()} of {len(light)} images look black on white and the others do not: "
            "make them alike first"
        )
    elif has_light_border(train.images):
        other = "without" if args.invert else "with"
        found.notes.append(f"`runner.py` reads white on black: import again {other} --invert")
    if _names_say("emnist", found) and not args.transpose:
        found.notes.append("EMNIST's images lie on their side: import again with --transpose")
    for note in found.notes:
        print(f"note: {note}")
    folder = shlex.quote(str(args.out))
    print(f"look at {args.out / SHEET}, then: make export DATA={folder} OUT=artifacts-mine")
    return 0


# --- From arrays of any kind to one -------------------------------------------------------------


def convert(
    found: Found, source: Path, invert: bool = False, transpose: bool = False
) -> tuple[Split, Split, tuple[str, ...]]:
    """Bring what was found to 28x28 grey levels and labels from 0; adds to its notes.

    Returns:
        Training images, test images, the classes' names.

    Raises:
        UserError: It does not fit together.
    """
    images, labels = _merged(found, source)
    grey = _grey_levels(images, found, source)
    if transpose:
        grey = {split: x.swapaxes(1, 2) for split, x in grey.items()}
    if invert:
        grey = {split: 255 - x for split, x in grey.items()}
    numbers, names = _numbered(labels, found, source)
    splits = {k: Split(np.ascontiguousarray(x), numbers[k]) for k, x in grey.items()}
    if "test" not in splits:
        splits["train"], splits["test"] = _split_off_test(splits["train"])
        found.notes.append(
            f"there are no labelled test images; {len(splits['test'])} of the training images were "
            "drawn at random in their place"
        )
    absent = sorted(set(range(len(names))) - set(splits["train"].labels.tolist()))
    if absent:
        raise UserError(f"{source}: no training image of the class {names[absent[0]]!r}; add some")
    return splits["train"], splits["test"], names


def _merged(found: Found, source: Path) -> tuple[dict[str, Array], dict[str, Array]]:
    """Images (N, H, W) and labels (N,) of "train" and, where there are, "test"."""
    images: dict[str, Array] = {}
    labels: dict[str, Array] = {}
    splits = {split for _, split in found.arrays}
    into = {"": "train", "val": "train" if "test" in splits else "test"}
    for split in sorted(splits, reverse=True):
        x, y = (found.arrays.get((kind, split)) for kind in "xy")
        what = f"{source}: {split or 'all'} images"
        if x is None and not split and len(splits) > 1:  # such as the names of the classes
            found.notes.append("labels that belong to no images are left out")
            continue
        if x is None:
            raise UserError(f"{what}: there are their labels, but no images; add their file")
        if y is None:
            found.notes.append(f"the {split} images have no labels and are left out")
            continue
        x, y = _planes(x, what), _one_each(y, what)
        if len(x) != len(y):
            raise UserError(f"{what}: {len(x)} images, but {len(y)} labels; one each is needed")
        if not len(x):
            raise UserError(f"{what}: there are none")
        goal = into.get(split, split)
        if goal in images and x.shape[1:] != images[goal].shape[1:]:
            raise UserError(f"{what}: of another size than those for training; import them apart")
        images[goal] = np.concatenate([images[goal], x]) if goal in images else x
        labels[goal] = np.concatenate([labels[goal], y]) if goal in labels else y
    if "train" not in images:
        raise UserError(f"{source}: no training images with labels; add their files")
    return images, labels


def _planes(images: Array, what: str) -> Array:
    """Images of any usual shape -> (N, H, W)."""
    shape = images.shape
    if images.dtype.kind not in "buif":
        raise UserError(f"{what}: of type {images.dtype}; give grey levels as numbers")
    if images.ndim == 2:
        side = math.isqrt(shape[1])
        if side * side == shape[1]:
            return images.reshape(-1, side, side)
    if images.ndim == 4 and shape[1] in (1, 3) and shape[3] > 4:  # channels first
        images = np.moveaxis(images, 1, 3)
    if images.ndim == 4 and images.shape[3] in (1, 3, 4):
        images = images[..., 0] if images.shape[3] == 1 else images[..., :3].mean(axis=3)
    if images.ndim != 3 or not all(4 <= side <= 4096 for side in images.shape[1:]):
        raise UserError(f"{what}: of shape {shape}; give (N, {SIDE}, {SIDE})")
    return images


def _one_each(labels: Array, what: str) -> Array:
    """Labels of any usual form -> (N,), int64 or text."""
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels.astype(np.bytes_), "utf-8", "replace")
    if labels.ndim == 2 and labels.shape[1] > 1:
        one_hot = labels.dtype.kind in "buif" and ((labels == 0) | (labels == 1)).all()
        if one_hot and (labels.sum(axis=1) == 1).all():
            return labels.argmax(axis=1)
        if labels.dtype.kind in "ui":  # QMNIST's: class, series, writer, ...
            labels = labels[:, :1]
    if labels.ndim > 1 and labels[:1].size == 1:
        labels = labels.reshape(len(labels))
    if labels.ndim != 1 or labels.dtype.kind not in "buifU":
        raise UserError(f"{what}: labels {labels.dtype} {labels.shape}; give one for each image")
    if labels.dtype.kind == "U" and not all(WHOLE.fullmatch(text) for text in np.unique(labels)):
        return labels
    whole = labels.astype(np.float64)
    if not (np.abs(whole) < 2**31).all() or (whole != np.rint(whole)).any():  # NaN fails as well
        raise UserError(f"{what}: labels that are not whole numbers; give the number of a class")
    return whole.astype(np.int64)


def _grey_levels(images: dict[str, Array], found: Found, source: Path) -> dict[str, Images]:
    """Bring (N, H, W) of any range and size to uint8 (N, 28, 28), all splits in the same way."""
    scales = {_scale(x, source) for x in images.values()}
    if len(scales) > 1:
        both = " and ".join(f"{black:g} to {white:g}" for black, white in sorted(scales))
        raise UserError(f"{source}: training and test pixels are {both}; give one scale to both")
    black, white = scales.pop()
    if white != 255:
        found.notes.append(f"pixels were {black:g} to {white:g} and are 0 to 255 now")
    sizes = {x.shape[1:] for x in images.values()}
    if sizes != {(SIDE, SIDE)}:
        height, width = max(sizes)
        found.notes.append(f"images of {width}x{height} pixels were scaled to {SIDE}x{SIDE}")
    return {k: _resized(_as_levels(x, black, white)) for k, x in images.items()}


def _scale(images: Array, source: Path) -> tuple[float, float]:
    """Which of the usual scales the pixels are on: black and white."""
    low, high = float(images.min()), float(images.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise UserError(f"{source}: pixels that are NaN or infinite; leave those images out")
    if low == high:
        raise UserError(f"{source}: all pixels are {low:g}; give images with ink")
    for black, white in SCALES:
        slack = 0.05 * (white - black)  # interpolation goes beyond black and white
        fits = black - slack <= low and high <= white + slack and (not black or low < black / 2)
        if fits and high - low >= 5 * slack:  # less is another scale, such as one of 12 bits
            return black, white
    raise UserError(
        f"{source}: pixels from {low:g} to {high:g}; give the grey levels 0 to 255 from before "
        "they were normalised"
    )


def _as_levels(images: Array, black: float, white: float) -> Images:
    """black..white -> uint8 0..255."""
    if images.dtype == np.uint8 and white == 255:
        return images.astype(np.uint8, copy=False)
    levels = images.astype(np.float32)
    levels -= black
    levels *= 255 / (white - black)
    return np.rint(levels.clip(0, 255, out=levels), out=levels).astype(np.uint8)


def _resized(images: Images) -> Images:
    """(N, H, W) -> (N, 28, 28)."""
    side = images.shape[1:]
    if side == (SIDE, SIDE):
        return images
    if side == FRAME.shape and not images[:, FRAME].any():  # MNIST with black around it
        return images[:, 2:-2, 2:-2]
    return np.stack([to_28x28(image) for image in images])


def _numbered(
    labels: dict[str, Array], found: Found, source: Path
) -> tuple[dict[str, Labels], tuple[str, ...]]:
    """Number the classes from 0, and name them."""
    if any(y.dtype.kind == "U" for y in labels.values()):
        labels = {split: y.astype(str) for split, y in labels.items()}
    values = np.unique(np.concatenate(list(labels.values())))
    if len(values) == 1:
        raise UserError(f"{source}: all of one class, {values[0]}; give at least two")
    if len(values) > 256:
        raise UserError(f"{source}: {len(values)} different labels; 256 classes are possible")
    numeric = values.dtype.kind != "U"
    names = [str(value) for value in values]
    if found.names and (not numeric or len(found.names) != len(values)):
        found.notes.append(f"{len(found.names)} names for {len(values)} classes are not used")
    elif found.names:
        names = [found.names[key] for key in sorted(found.names)]
    elif numeric:
        for (word, count), known in KNOWN_NAMES.items():
            if count == len(values) and _names_say(word, found):
                names = known.split(",")
    for name in names:
        check_name(name, str(source))
    if numeric and values.tolist() != list(range(len(values))):
        found.notes.append(f"the labels {values[0]} to {values[-1]} are 0 to {len(values) - 1} now")
    numbers = {k: np.searchsorted(values, y).astype(np.uint8) for k, y in labels.items()}
    return numbers, tuple(names)


def _names_say(word: str, found: Found) -> bool:
    """Whether the name of the source or of a file holds the word."""
    return re.search(rf"(?<![a-z]){word}", found.origin) is not None


def _split_off_test(data: Split) -> tuple[Split, Split]:
    """Draw test images, the same share of each class; the same data gives the same ones."""
    rng = np.random.default_rng(SPLIT_SEED)
    is_test = np.zeros(len(data), bool)
    for label in np.unique(data.labels):
        own = rng.permutation(np.flatnonzero(data.labels == label))
        is_test[own[: max(round(len(own) * TEST_FRACTION), int(len(own) > 1))]] = True
    return data[~is_test], data[is_test]


# --- What is written and said -------------------------------------------------------------------


def write(train: Split, test: Split, names: tuple[str, ...], folder: Path, source: Path) -> None:
    """Write the four IDX files, labels.txt and the sheet of samples; the folder appears whole.

    Raises:
        UserError: It cannot be written, or there is too little to train on.
    """
    arrays = (train.images, train.labels, test.images, test.labels)
    with atomic_path(folder) as made:
        made.mkdir()
        for name, array in zip(IDX_NAMES.values(), arrays, strict=True):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            packed = gzip.compress(header + array.tobytes(), 6, mtime=0)
            (made / f"{name}.gz").write_bytes(packed)
        (made / "labels.txt").write_text("".join(f"{name}\n" for name in names), "utf-8")
        draw_sheet(train, names, made / SHEET)
        try:
            load(made)
        except UserError as error:
            raise UserError(str(error).replace(str(made), str(source))) from None


def draw_sheet(data: Split, names: tuple[str, ...], path: Path) -> None:
    """Draw the first images of each class, a row a class, as PNG."""
    from matplotlib.figure import Figure

    step = SIDE + 2
    sheet = np.full((len(names) * step, SAMPLES * step), 128, np.uint8)
    for row in range(len(names)):
        for column, i in enumerate(np.flatnonzero(data.labels == row)[:SAMPLES]):
            top, left = row * step + 1, column * step + 1
            sheet[top : top + SIDE, left : left + SIDE] = data.images[i]
    height, width = sheet.shape
    figure = Figure(figsize=(width / 60, height / 60), dpi=120)
    axes = figure.add_axes((0, 0, 1, 1), xticks=[])
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=255)
    axes.set_yticks(np.arange(len(names)) * step + step / 2, names, parse_math=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a script that the font does not have
        figure.savefig(path, bbox_inches="tight")


def summary(train: Split, test: Split, names: tuple[str, ...]) -> str:
    """What was imported: a table of the classes, polarity, duplicates."""
    counts = [np.bincount(part.labels, minlength=len(names)) for part in (train, test)]
    rows = [
        [name, str(label), *map(str, both)]
        for label, (name, *both) in enumerate(zip(names, *counts, strict=True))
    ]
    known = {image.tobytes() for image in train.images}
    twice = sum(image.tobytes() in known for image in test.images)
    return (
        f"{markdown_table(['class', 'label', 'training', 'test'], rows)}\n"
        f"{len(names)} classes, {len(train)} training and {len(test)} test images\n"
        f"polarity: {'black on white' if has_light_border(train.images) else 'white on black'}\n"
        f"duplicates: {twice} test images are training images, too"
    )
