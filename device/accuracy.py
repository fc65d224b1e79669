"""`runner.py accuracy`: classify a whole labelled set and print the share that is right."""

from __future__ import annotations

import argparse
import time

from commands import load
from idx import FileError, read_idx
from runner import InputError
from samples import images_of


def run(args: argparse.Namespace) -> int:
    """Print the accuracy on `args.images` with `args.labels`, IDX files both."""
    try:
        images, labels = images_of(read_idx(args.images), str(args.images)), read_idx(args.labels)
    except FileError as error:
        raise InputError(str(error)) from None
    if labels.ndim != 1 or len(labels) != len(images):
        raise InputError(f"{args.labels}: {labels.shape} labels for {len(images)} images")
    classifier = load(args)
    classes = classifier.model.classes
    if labels.max() >= classes:
        raise InputError(f"{args.labels}: label {labels.max()}; the model has {classes} classes")
    start = time.perf_counter()
    predicted = classifier.predict(images).labels
    seconds = time.perf_counter() - start
    correct = int((predicted == labels).sum())
    print(
        f"{args.model.name} on {classifier.runtime}: {correct} of {len(labels)} correct, "
        f"{correct / len(labels):.2%}, {seconds / len(labels) * 1e6:.1f} us an image"
    )
    return 0
