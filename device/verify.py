"""`runner.py verify`: check that this device answers as the trained model.

It checks the hashes of an unpacked bundle's files, and compares the models' answers to the golden
images with those of the development machine.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Mapping

import numpy as np
from commands import load, one_line
from info import runtime_version
from manifest import GOLDEN, MANIFEST, bundle_folder, damaged, read_golden, read_manifest
from runner import HERE, InputError, usable_runtimes


def run(args: argparse.Namespace) -> int:
    """Print a line a model and PASS, or what differs and FAIL.

    Args:
        args: `model`, `runtime`, `threads`; `all`: every model of the bundle.

    Returns:
        The exit code, 0 or 1.

    Raises:
        InputError: There is no bundle, its manifest is damaged, or a model does not load.
    """
    folder = bundle_folder(args.model) if args.model else HERE
    hashes, tolerances = read_promises(folder)
    if args.all:
        models = {name: folder / name for name in tolerances}
    elif not args.model.is_file():
        raise InputError(f"{args.model}: no such model; name one with --model")
    else:
        name = args.model.name
        models = {name if name in tolerances else f"native/{name}": args.model}
        if not models.keys() <= tolerances.keys():
            raise InputError(
                f"{args.model}: not a model of this bundle's manifest; name one of those"
            )
    problems = check_hashes(folder, hashes)
    if not problems:  # a damaged model is not run
        golden = read_golden(folder)
        if not models.keys() <= golden.keys():
            raise damaged(folder / GOLDEN)
        problems = verify_models(models, tolerances, golden, args)
    for problem in problems:
        print(f"differs  {one_line(problem)}")
    print("FAIL" if problems else "PASS")
    return 1 if problems else 0


def read_promises(folder: Path) -> tuple[dict[str, str], dict[str, float]]:
    """What the manifest promises: SHA-256 in hexadecimal by file, tolerance 0..1 by model.

    Raises:
        InputError: There is no manifest, or it is damaged.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise InputError(f"{folder}: verify works in an unpacked bundle; here is no {MANIFEST}")
    try:
        hashes = {name: str(entry["sha256"]) for name, entry in manifest["files"].items()}
        tolerances = {n: float(entry["tolerance"]) for n, entry in manifest["models"].items()}
    except (KeyError, TypeError, ValueError, OverflowError):
        raise damaged(folder / MANIFEST) from None
    sound = all(0.0 <= tolerance < 1.0 for tolerance in tolerances.values())
    if not sound or not {"runner.py", GOLDEN, *tolerances} <= hashes.keys():
        raise damaged(folder / MANIFEST)
    return hashes, tolerances


def verify_models(
    models: Mapping[str, Path],
    tolerances: Mapping[str, float],
    golden: Mapping[str, np.ndarray],
    args: argparse.Namespace,
) -> list[str]:
    """Run each model on the golden images, print what is ok, and return what differs."""
    problems, ran = [], False
    for name, model in models.items():
        if args.all and not usable_runtimes(model):
            print(f"not run  {one_line(name)}: no runtime installed")
            continue
        ran = True
        classifier = load(args, model)
        got = classifier.predict(golden["images"]).probabilities
        differences = compare(got, golden[name], tolerances[name])
        problems += [f"{name}: {line}" for line in differences]
        if not differences:
            version = runtime_version(classifier.runtime)
            print(f"ok       {one_line(name)} on {classifier.runtime} {version}")
    return problems if ran else ["no model could be run: install a runtime"]


def check_hashes(folder: Path, hashes: Mapping[str, str]) -> list[str]:
    """A line for each file of an unpacked bundle whose SHA-256 is not the manifest's."""
    problems = []
    for name, expected in hashes.items():
        path = folder / name
        if not name.isprintable() or not path.is_file():
            problems.append(f"{name}: missing; unpack the bundle again")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            problems.append(f"{name}: altered; its SHA-256 is not the manifest's")
    return problems


def compare(got: np.ndarray, expected: np.ndarray, tolerance: float) -> list[str]:
    """A line for each difference between this device's outputs and the golden ones.

    Labels must be equal. Probabilities may differ by the tolerance: the kernels of two runtimes
    round the last bit differently.

    Args:
        got: float32 (N, classes), 0..1.
        expected: Likewise.
        tolerance: The manifest's, for this model, 0..1.
    """
    if got.shape != expected.shape:
        return [f"golden outputs of shape {expected.shape}, not {got.shape}"]
    labels, expected_labels = got.argmax(axis=1), expected.argmax(axis=1)
    problems = [
        f"golden image {i} is {labels[i]}, not {expected_labels[i]}"
        for i in np.flatnonzero(labels != expected_labels)
    ]
    greatest = float(np.abs(got - expected).max())
    if not greatest <= tolerance:  # NaN is over it as well
        problems.append(f"probabilities differ by {greatest:.2g}, over {tolerance:.2g}")
    return problems
