"""What lies beside a bundle's models: manifest.json, the golden vectors, the receipt device.json.

The golden vectors, golden.npz, hold `images`, uint8 (N, 28, 28): test images, then some without a
label that parity made to excite the models; `labels`, uint8, of the test images; and under each
model's name what it answered on the development machine, float32 (N, classes).
"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from runner import HERE, Classifier, InputError, usable_runtimes

MANIFEST, GOLDEN = "manifest.json", "golden.npz"
RECEIPT, RECEIPT_VERSION = "device.json", 1  # written by receipt.py
DIGEST = "bundle.sha256"  # written by install.sh


def bundle_folder(model: Path) -> Path:
    """The bundle that a model lies in: its own folder, or the one that holds `native/`."""
    parents = list(model.resolve().parents)
    return next((p.parent for p in parents[:2] if p.name == "native"), parents[0])


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Read the bundle's manifest.json; None when the folder has none.

    Raises:
        InputError: It is damaged, or of another schema version than this bundle's.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        version = manifest["schema_version"]
        sound = isinstance(manifest["files"], dict) and isinstance(manifest["models"], dict)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise damaged(path) from None
    if version != 1:
        raise InputError(
            f"{path}: schema version {version!r}, not 1; use the runner of that bundle"
        )
    if not sound:
        raise damaged(path)
    return manifest  # type: ignore[no-any-return]


def label_names(classifier: Classifier) -> list[str]:
    """The names of a model's classes: the manifest's, or 0, 1, 2..."""
    names = (read_manifest(bundle_folder(classifier.model.path)) or {}).get("labels")
    if not isinstance(names, list) or len(names) != classifier.classes:
        return [str(label) for label in range(classifier.classes)]
    return [str(name) for name in names]


def read_golden(folder: Path) -> dict[str, np.ndarray]:
    """Read the golden vectors of an unpacked bundle.

    Returns:
        The arrays by name; `images` and `labels` are among them; the first images have the labels.

    Raises:
        InputError: The file is missing, cannot be read or is damaged.
    """
    path = folder / GOLDEN
    data = path.read_bytes()
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        images, labels = arrays["images"], arrays["labels"]
        outputs = [array for name, array in arrays.items() if name not in ("images", "labels")]
        sound = images.dtype == labels.dtype == np.uint8 and labels.ndim == 1
        sound = sound and images.ndim == 3 and images.shape[1:] == (28, 28)
        sound = sound and len(images) >= len(labels) > 0
        sound = sound and all(output.dtype == np.float32 for output in outputs)
    except Exception:  # what numpy and zipfile raise of damaged data has no common base class
        sound = False
    if not sound:
        raise damaged(path)
    return arrays


def chosen() -> tuple[Path, str] | None:
    """The model and the runtime that device.json chose.

    Returns:
        None where there is no receipt, and where it is not of this bundle and machine: a line on
        stderr then says so.
    """
    from bench.machine import board_name
    from commands import complain

    path = HERE / RECEIPT
    if not path.is_file():
        return None
    try:
        receipt = json.loads(path.read_bytes())
        model, runtime = HERE / receipt["choice"]["artifact"], receipt["choice"]["runtime"]
        if receipt["schema_version"] != RECEIPT_VERSION:
            reason = f"of schema version {receipt['schema_version']!r}, not {RECEIPT_VERSION}"
        elif receipt["bundle_sha256"] != bundle_sha256(HERE):
            reason = "of another bundle"
        elif receipt["board"] != board_name():
            reason = f"of another machine, {receipt['board']}"
        elif not model.is_file() or runtime not in usable_runtimes(model):
            reason = f"chose {model.name} on {runtime}, which is not here"
        else:
            return model, runtime
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        reason = "damaged"
    complain(f"{path}: not used: {reason}; make a new one with: runner.py receipt")
    return None


def bundle_sha256(folder: Path) -> str:
    """The SHA-256 of the installed bundle; where it was unpacked by hand, of its manifest."""
    try:
        return (folder / DIGEST).read_text().strip()
    except OSError:
        return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()


def damaged(path: Path) -> InputError:
    """The error for a file of the bundle that is not of its form."""
    return InputError(f"{path}: damaged; unpack the bundle again")
