"""The data set: IDX or NPZ files, verified, split once and for all. `import` brings other forms.

The 60,000 training images are divided into 55,000 to train on and 5,000 to select by; the
10,000 test images are for the final figures alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device.idx import FileError, open_plain, parse_idx, read_bytes
from pipeline.files import UserError, first_line, sha256

SIDE = 28  # pixels
PADDING = 2
VALIDATION_FRACTION = 1 / 12  # 5,000 of 60,000
SPLIT_SEED = 1998
CALIBRATION_IMAGES, CALIBRATION_SEED = 1000, 1000  # set the ranges of int8 (ADR 3)
MAX_BYTES = 2**30  # 60,000 images of int64 have 376 MB; a larger file or array is a mistake
IMPORT = "`make data FROM=... TO=...` reads other forms"

JOINERS = {0x200C: None, 0x200D: None}  # parts of words in several scripts
IDX_NAMES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}

EDGE = np.pad(np.zeros((SIDE - 2, SIDE - 2), bool), 1, constant_values=True)  # (28, 28)

Images = NDArray[np.uint8]  # (N, 28, 28), 0..255, white ink on black
Labels = NDArray[np.uint8]  # (N,), 0..classes-1
Array = NDArray[np.generic]
Probabilities = NDArray[np.float32]  # (N, classes), 0..1


@dataclass(frozen=True)
class Split:
    """Images and their labels, of equal length."""

    images: Images
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, chosen: Array) -> Split:
        return Split(self.images[chosen], self.labels[chosen])


@dataclass(frozen=True)
class Dataset:
    """One data set, divided."""

    train: Split  # what training sees
    validation: Split  # what selects: the best epoch, a temperature
    test: Split  # what the final figures are taken on, and nothing else
    label_names: tuple[str, ...]  # one name a class
    source: Path  # where it was read
    sha256: str  # of all images, labels and their names, in hexadecimal

    @property
    def classes(self) -> int:
        return len(self.label_names)

    @property
    def shows_digits(self) -> bool:
        """Whether the classes are called 0 to 9 and look it: zero has a hole where one has ink.

        Classes without names are called 0 to 9 as well, be they shoes or another script's letters.
        """
        if self.label_names != _numbers(10):
            return False
        ink = [self.train.images[self.train.labels == digit].sum(axis=0) for digit in (0, 1)]
        zero, one = (float(x[12:16, 12:16].mean() / max(x.max(), 1)) for x in ink)
        return zero < 0.3 and one > 0.4


def run(args: argparse.Namespace) -> int:
    data = load(args.data)
    warn(data)
    for name in ("train", "validation", "test"):
        print(f"{name:10} {len(getattr(data, name)):6} images")
    print(f"{'classes':10} {data.classes:6} {', '.join(data.label_names)}")
    return 0


def load(folder: Path) -> Dataset:
    """Load a data set of 28x28 grey images, with its fixed split.

    Args:
        folder: It holds MNIST's four IDX files (each plain or .gz), or one `.npz` with the keys
            x_train, y_train, x_test, y_test; optionally `labels.txt` (one class name a line) and
            `SHA256SUMS` of the uncompressed IDX files or of the .npz, which are then verified.

    Raises:
        UserError: Anything is missing, damaged, of the wrong shape or does not fit together.
    """
    try:
        arrays = _read_arrays(folder)
    except OSError as error:  # a folder that may not be looked into
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from None
    train = _check_split(arrays["x_train"], arrays["y_train"], f"{folder}: training set")
    test = _check_split(arrays["x_test"], arrays["y_test"], f"{folder}: test set")
    classes = int(max(train.labels.max(), test.labels.max())) + 1
    if classes < 2:
        raise UserError(f"{folder}: all labels are 0; at least two classes are needed")
    absent = sorted(set(range(classes)) - set(np.unique(train.labels).tolist()))
    if absent:
        raise UserError(f"{folder}: no training image has the label {absent[0]}; {IMPORT}")
    digest = hashlib.sha256()
    for array in (train.images, train.labels, test.images, test.labels):
        digest.update(array.tobytes())
    names = _label_names(folder, classes)
    if names != _numbers(classes):
        digest.update(json.dumps(names).encode())
    train, validation = _split_off_validation(train, folder)
    return Dataset(train, validation, test, names, folder, digest.hexdigest())


def has_light_border(images: Images) -> bool:
    """Whether most pixels along the four edges are light: black ink on white."""
    return float(np.median(images[:, EDGE])) > 127


def warn(data: Dataset) -> None:
    """Say on stderr what is odd about a data set that can be trained on."""
    odd = []
    if has_light_border(data.train.images):
        odd.append(
            "the images look black on white, and `runner.py` reads white on black; "
            "to turn them: make data FLAGS=--invert FROM=... TO=..."
        )
    if data.label_names == _numbers(10) and not data.shows_digits:
        odd.append(
            "the classes 0 to 9 do not look like digits; write their names into labels.txt, one a "
            "line"
        )
    for text in odd:
        print(f"pipeline: warning: {data.source}: {text}", file=sys.stderr)


def require_trained_on(data: Dataset, training: Mapping[str, Any]) -> None:
    """Raise UserError if a model, by its `train.json`, was trained on another data set."""
    if training.get("data_sha256") != data.sha256:
        raise UserError(
            f"{data.source}: not the data set that the model was trained on; "
            "name that one with --data, or retrain"
        )


def preprocess(images: Images) -> NDArray[np.float32]:
    """Scale to 0..1 and pad with black to 32x32: uint8 (N, 28, 28) -> float32 (N, 32, 32, 1)."""
    margin = ((0, 0), (PADDING, PADDING), (PADDING, PADDING))
    return (np.pad(images, margin).astype(np.float32) / np.float32(255))[..., np.newaxis]


def calibration_images(data: Dataset, count: int = CALIBRATION_IMAGES) -> NDArray[np.float32]:
    """A fixed random sample of the training images, at most `count`, preprocessed."""
    order = np.random.default_rng(CALIBRATION_SEED).permutation(len(data.train))
    return preprocess(data.train.images[order[:count]])


def _read_arrays(folder: Path) -> dict[str, Array]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; --data names a folder of IDX or .npz files")
    sums = _read_checksums(folder)
    if any(_find_idx(folder, name) for name in IDX_NAMES.values()):
        return {key: _read_idx_file(folder, name, sums) for key, name in IDX_NAMES.items()}
    archives = sorted(folder.glob("*.npz"))
    if not archives:
        raise UserError(f"{folder}: neither MNIST's IDX files nor an .npz file in it; {IMPORT}")
    if len(archives) > 1:
        raise UserError(f"{folder}: {len(archives)} .npz files; keep the one that is meant")
    path = archives[0]
    _verify_checksum(path, sha256(path), sums.get(path.name))
    return read_npz(path, IDX_NAMES)


def read_file(path: Path) -> bytes:
    """Read a file, decompressed where it is gzipped; raises UserError if that fails."""
    try:
        return read_bytes(path, MAX_BYTES)
    except FileError as error:
        raise UserError(str(error)) from None


def _find_idx(folder: Path, name: str) -> Path | None:
    candidates = (folder / name, folder / f"{name}.gz")
    return next((path for path in candidates if path.is_file() or path.is_symlink()), None)


def _read_idx_file(folder: Path, name: str, sums: Mapping[str, str]) -> Array:
    path = _find_idx(folder, name)
    if path is None:
        raise UserError(f"{folder / name}: missing (plain or .gz); {IMPORT}")
    data = read_file(path)
    _verify_checksum(path, hashlib.sha256(data).hexdigest(), sums.get(name))
    return read_idx(data, path)


def read_idx(data: bytes, path: Path) -> Array:
    """Parse an IDX file's bytes; raises UserError if they are damaged."""
    try:
        return parse_idx(data, str(path))
    except FileError as error:
        raise UserError(str(error)) from None


def read_npz(path: Path, keys: Collection[str] = ()) -> dict[str, Array]:
    """Read arrays of an .npz file, or the one of an .npy file under the file's name.

    Args:
        path: The file.
        keys: The arrays that are wanted; default: all.

    Raises:
        UserError: One is missing, or holds Python objects, or the file is damaged.
    """
    try:
        with open_plain(path) as stream:
            if path.suffix == ".npy":
                return {path.stem: _read_npy(stream, path.stat().st_size, path.name, path)}
            with zipfile.ZipFile(stream) as archive:
                names = [name.removesuffix(".npy") for name in archive.namelist()]
                missing = [key for key in keys if key not in names]
                if missing:
                    raise FileError(f"{path}: no array {missing[0]!r}, only {names}; {IMPORT}")
                arrays = {}
                for key in keys or names:
                    with archive.open(f"{key}.npy") as member:
                        size_bytes = archive.getinfo(f"{key}.npy").file_size
                        arrays[key] = _read_npy(member, size_bytes, f"{key}.npy", path)
                return arrays
    except FileError as error:
        raise UserError(str(error)) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # zipfile and numpy raise a dozen kinds for damaged files
        raise UserError(
            f"{path}: damaged {path.suffix} file ({first_line(error)}); copy or save it again"
        ) from None


def _read_npy(stream: Any, size_bytes: int, name: str, path: Path) -> Array:
    """Read one array; its header must not promise more than there is, as numpy believes it."""
    if size_bytes > MAX_BYTES:
        raise FileError(f"{path}: {name}: larger than {MAX_BYTES // 2**20} MiB; divide it")
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"{name}: not an array of numbers")
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.hasobject:  # loading a pickle can run any code
        raise FileError(
            f"{path}: {name} holds Python objects, which are never loaded; save it as numbers or "
            "text, with .astype(int) or .astype(str)"
        )
    if math.prod(shape) * dtype.itemsize > size_bytes:
        raise ValueError(f"{name}: truncated, {shape} of {dtype} are promised")
    stream.seek(0)
    array: Array = np.lib.format.read_array(stream, allow_pickle=False)
    return array


def _read_checksums(folder: Path) -> dict[str, str]:
    path = folder / "SHA256SUMS"
    if not path.is_file():
        return {}
    sums = {}
    for line in read_file(path).decode("utf-8", errors="replace").splitlines():
        digest, _, name = line.strip().partition(" ")
        sums[name.lstrip(" *")] = digest.lower()  # `sha256sum --binary` puts a star
    return sums


def _verify_checksum(path: Path, digest: str, expected: str | None) -> None:
    if expected not in (None, digest):
        raise UserError(
            f"{path}: its SHA-256 is not the one in SHA256SUMS; the file was altered, restore it"
        )


def _check_split(images: Array, labels: Array, what: str) -> Split:
    if images.ndim != 3 or images.shape[1:] != (SIDE, SIDE):
        raise UserError(
            f"{what}: images of shape {images.shape}, not (N, {SIDE}, {SIDE}); {IMPORT}"
        )
    if labels.shape != (len(images),):
        raise UserError(
            f"{what}: {len(images)} images but labels of shape {labels.shape}; {IMPORT}"
        )
    if len(images) == 0:
        raise UserError(f"{what}: it is empty; add images")
    pixels = _as_uint8(images, f"{what}: images")
    if pixels.max() <= 1:
        raise UserError(f"{what}: images are 0 to {pixels.max()}, not 0 to 255; {IMPORT}")
    return Split(pixels, _as_uint8(labels, f"{what}: labels"))


def _as_uint8(values: Array, what: str) -> NDArray[np.uint8]:
    if values.dtype == np.uint8:
        return values.astype(np.uint8, copy=False)
    if values.dtype.kind not in "iuf":
        raise UserError(f"{what} are of type {values.dtype}, not numbers; {IMPORT}")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise UserError(f"{what} contain NaN or infinity; leave those images out")
    if values.min() < 0 or values.max() > 255 or (values != np.rint(values)).any():
        raise UserError(f"{what} are not whole numbers within 0..255; {IMPORT}")
    return values.astype(np.uint8)


def _split_off_validation(train: Split, folder: Path) -> tuple[Split, Split]:
    count = round(len(train) * VALIDATION_FRACTION)
    if count == 0:
        raise UserError(f"{folder}: {len(train)} training images are too few to split; add some")
    order = np.random.default_rng(SPLIT_SEED).permutation(len(train))
    kept, held_out = np.sort(order[count:]), np.sort(order[:count])
    return train[kept], train[held_out]


def _numbers(classes: int) -> tuple[str, ...]:
    """The names of classes that have none."""
    return tuple(map(str, range(classes)))


def check_name(name: str, where: str) -> None:
    """Raise UserError for a class's name that is empty or would drive the terminal."""
    if not name.strip() or not name.translate(JOINERS).isprintable():
        raise UserError(f"{where}: the name {name!a} is empty or cannot be printed; rename it")


def _label_names(folder: Path, classes: int) -> tuple[str, ...]:
    path = folder / "labels.txt"
    if not path.is_file():
        return _numbers(classes)
    try:
        text = read_file(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; convert it") from None
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    for name in names:
        check_name(name, str(path))
    if len(names) != classes:
        raise UserError(f"{path}: {len(names)} names for {classes} classes; one a line is needed")
    return names
