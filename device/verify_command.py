"""`runner.py verify`: check that this device answers as the trained model.

The files of an unpacked bundle are checked by their hashes, and what its models answer here to the
golden images by what they answered there.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any, Mapping

import numpy as np


def run(runner: Any, args: argparse.Namespace) -> int:
    """Print a line a model and PASS, or what differs and FAIL.

    Args:
        runner: The module `runner`.
        args: `model`, `runtime`, `threads`; `all`: every model of the bundle that has a runtime.

    Returns:
        The exit code: 0 or 1.

    Raises:
        InputError: There is no bundle, its manifest is damaged, or a model does not load.
    """
    folder = runner.bundle_folder(args.model)
    manifest = runner.read_manifest(folder)
    if manifest is None:
        raise runner.InputError(
            f"{folder}: verify works in an unpacked bundle; here is no manifest.json"
        )
    try:
        hashes = {name: str(entry["sha256"]) for name, entry in manifest["files"].items()}
        tolerances = {n: float(entry["tolerance"]) for n, entry in manifest["models"].items()}
        sound = all(0.0 <= tolerance < 1.0 for tolerance in tolerances.values())
        sound = sound and {"runner.py", "golden.npz", *tolerances} <= hashes.keys()
    except (KeyError, TypeError, ValueError, OverflowError):
        sound = False
    if not sound:
        raise damaged(runner, folder / "manifest.json")
    if not args.all and not args.model.is_file():
        raise runner.InputError(f"{args.model}: no such model")
    if args.all:
        models = {name: folder / name for name in tolerances}
    else:
        models = {name_in_bundle(runner, args.model): args.model}
        if not models.keys() <= tolerances.keys():
            raise runner.InputError(f"{args.model}: not a model of this bundle's manifest")
    problems = check_hashes(folder, hashes)
    if not problems:  # a damaged model is not run
        golden = runner.part_of_bundle("golden").read_golden(folder, runner)
        if not models.keys() <= golden.keys():
            raise damaged(runner, folder / "golden.npz")
        for name, model in models.items():
            if args.all and not runner.has_runtime(model):
                print(f"not run  {name}: no runtime installed")
                continue
            classifier = runner.Classifier(model, args.runtime, args.threads)
            got = classifier.predict(golden["images"]).probabilities
            differences = compare(got, golden[name], tolerances[name])
            problems += [f"{name}: {line}" for line in differences]
            if not differences:
                version = runner.runtime_version(classifier.runtime)
                print(f"ok       {name} on {classifier.runtime} {version}")
    for problem in problems:
        print(f"differs  {problem}")
    print("FAIL" if problems else "PASS")
    return 1 if problems else 0


def damaged(runner: Any, path: Path) -> Exception:
    """The error for a file of the bundle that is not of its form."""
    return runner.InputError(f"{path}: damaged; unpack the bundle again")  # type: ignore[no-any-return]


def name_in_bundle(runner: Any, model: Path) -> str:
    """What the manifest calls a model; compiled C it lists by its source."""
    native = "native" in runner.RUNTIMES.get(model.suffix, ())
    return f"native/{model.stem}.c" if native else model.name


def check_hashes(folder: Path, hashes: Mapping[str, str]) -> list[str]:
    """What differs between the files of a bundle and its manifest.

    Args:
        folder: The unpacked bundle.
        hashes: SHA-256 in hexadecimal by file, as the manifest has it.

    Returns:
        One line a difference.
    """
    problems = []
    for name, expected in hashes.items():
        path = folder / name
        if not name.isprintable() or not path.is_file():
            problems.append(f"{name}: missing; unpack the bundle again")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            problems.append(f"{name}: altered; its SHA-256 is not the manifest's")
    return problems


def compare(got: np.ndarray, expected: np.ndarray, tolerance: float) -> list[str]:
    """What differs between this device's outputs and the golden ones.

    Labels must be equal. Probabilities may differ by the tolerance: the kernels of two runtimes
    round the last bit differently.

    Args:
        got: float32 (N, classes), 0..1.
        expected: Likewise.
        tolerance: The manifest's, for this model, 0..1.

    Returns:
        One line a difference.
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
