"""`runner.py accuracy`: classify a whole labelled set and print the share that is right."""

from __future__ import annotations

import argparse
import time
import unicodedata
from pathlib import Path
from typing import Sequence, Tuple

import numpy as np
from commands import load, one_line
from idx import FileError, read_idx
from manifest import label_names
from photo import find_digit
from runner import InputError, first_line
from samples import images_of, pictures_in, read_samples

IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
Labelled = Tuple[np.ndarray, np.ndarray]  # uint8 (N, 28, 28), integers (N,)


def run(args: argparse.Namespace) -> int:
    """Print the accuracy on the test images of `args.images`; a refused picture is a wrong one."""
    classifier = load(args)
    names, refused = label_names(classifier), 0
    try:
        if args.labels is not None:
            images, labels = read_idx(args.images), read_idx(args.labels)
        elif args.images.is_dir() and not holds_arrays(args.images):
            images, labels, refused = read_classes(args.images, names)
        else:
            images, labels = read_test_images(args.images)
    except FileError as error:
        raise InputError(str(error)) from None
    images = images_of(images, str(args.images))
    if labels.ndim != 1 or len(labels) != len(images):
        raise InputError(f"{args.images}: {labels.shape} labels for {len(images)} images")
    if labels.min() < 0 or labels.max() >= len(names):
        raise InputError(
            f"{args.images}: label {labels.max()}; the model has {len(names)} classes, from 0"
        )
    start = time.perf_counter()
    predicted = classifier.predict(images).labels
    seconds = time.perf_counter() - start
    correct, count = int((predicted == labels).sum()), len(labels) + refused
    print(
        f"{one_line(args.model.name)} on {classifier.runtime}: {correct} of {count} correct, "
        f"{correct / count:.2%}, {seconds / len(labels) * 1e6:.1f} us an image"
        + (f"; refused pictures: {refused}" if refused else "")
    )
    return 0


def holds_arrays(folder: Path) -> bool:
    """Whether a folder is a data set as the pipeline reads it: IDX files or an .npz."""
    return any(folder.glob(f"{IMAGES}*")) or any(folder.glob("*.npz"))


def read_test_images(path: Path) -> Labelled:
    """The test images of a data set: MNIST's IDX files in a folder, or an .npz."""
    if any(path.glob(f"{IMAGES}*")):
        return tuple(  # type: ignore[return-value]
            read_idx(min(path.glob(f"{name}*"), default=path / name)) for name in (IMAGES, LABELS)
        )
    path = min(path.glob("*.npz"), default=path)
    if path.suffix != ".npz":
        what = "no test images" if path.exists() else "no such file or folder"
        raise InputError(
            f"{path}: {what}; give a folder of IDX files or of pictures per class, an .npz, or two "
            "IDX files"
        )
    try:
        with np.load(path, allow_pickle=False) as arrays:
            images, labels = arrays["x_test"], arrays["y_test"]
        grey = images.astype(np.uint8)
        if (grey != images).any() or labels.dtype.kind not in "ui":
            raise ValueError("x_test must be whole numbers 0 to 255, y_test whole numbers")
    except Exception as error:  # numpy and zipfile raise a dozen kinds for damaged files
        raise InputError(
            f"{path}: not an .npz with x_test and y_test ({first_line(error)}); save it again"
        ) from None
    return grey, labels


def read_classes(folder: Path, names: Sequence[str]) -> Tuple[np.ndarray, np.ndarray, int]:
    """Images, labels and the number of refused pictures, of a folder of pictures per class."""
    folder = folder / "test" if (folder / "test").is_dir() else folder
    images, labels, refused = [], [], 0
    for place in sorted(p for p in folder.iterdir() if p.is_dir() and p.name[0] != "."):
        name = unicodedata.normalize("NFC", place.name)  # a Mac writes an accent on its own
        if name not in names:
            raise InputError(f"{place}: not a class of the model, which are: {', '.join(names)}")
        for _, image in read_samples(pictures_in(place), as_it_is_or_cut_out):
            if isinstance(image, InputError):
                refused += 1
            else:
                images.append(image)
                labels.append(names.index(name))
    if not images:
        raise InputError(f"{folder}: no folders of pictures that are named as the model's classes")
    return np.stack(images), np.array(labels), refused


def as_it_is_or_cut_out(picture: np.ndarray) -> np.ndarray:
    """What a picture shows, uint8 (28, 28): as it is if it is 28x28, white on black."""
    if picture.shape == (28, 28) and np.median(picture[[0, -1]]) < 128:
        return picture
    return find_digit(picture)
