"""What people have -> arrays as they are stored, by their part in the set.

A part is ("x", SPLIT), images, or ("y", SPLIT), labels; SPLIT is "train", "test", "val" or, of a
set that is not split, "".
"""

from __future__ import annotations

import io
import itertools
import math
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from device.idx import FileError, is_idx, open_plain
from device.photo import opaque
from device.picture import PictureError, decode_image, is_picture
from pipeline.data import SIDE, Array, Images, read_file, read_idx, read_npz
from pipeline.files import UserError, first_line

PACKED = {".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar"}
FORMS = (
    "IDX files, an .npz (in Python: np.savez('set.npz', x=images, y=labels)), a .csv with a "
    "column a pixel, or a folder of pictures for each class"
)

SPLITS = {
    split: re.compile(rf"(?<![a-z])[xy]?({words})")
    for split, words in (("test", "test|t10_?k"), ("val", "val|dev"), ("train", "train"))
}
SPLIT_FOLDER = re.compile(
    r"(train|test|val|dev)(ing|idation|id)?[-_ ]?(set|data|images|imgs)?", re.I
)
LABELS = re.compile(
    r"(?<![a-z])(y(?=train|test|val)|(y|labels?|lbls?|targets?|class(es)?)(?![a-z]))"
)
NAMES = re.compile(r"(?<![a-z])(names?|descr|mapping)(?![a-z])")
ROW_NUMBER = re.compile(r"|id|image_?id|index|unnamed: 0")  # a column of a table
NUMBER = re.compile(r"[-+]?[\d.]+(e[-+]?\d+)?", re.I)

Part = tuple[str, str]


@dataclass
class Found:
    """What was found in a source."""

    arrays: dict[Part, Array]  # as they are stored
    names: dict[int, str]  # what the classes are called, by their labels, where a file says it
    origin: str  # the names of the source and its files, in small letters
    notes: list[str]  # what the user should know


def read(source: Path) -> Found:
    """Read a file, a folder, or the files whose names begin with what is given.

    Raises:
        UserError: There is no data, it is damaged, or it is more than one set.
    """
    files = _files(source)
    if not files:
        raise UserError(f"{source}: no such file or folder, or nothing in it")
    origin = " ".join([source.resolve().name, *(path.name for path in files[:20])]).lower()
    found = Found({}, _names(files), origin, [])
    origins: dict[Part, Path] = {}
    for part, array, path in _parts(files, source, found.notes):
        if part in origins:
            raise UserError(
                f"{source}: {origins[part].name} and {path.name} are of two sets; name one: "
                "its folder, or what its files' names begin with"
            )
        found.arrays[part], origins[part] = array, path
    return found


def _files(source: Path) -> list[Path]:
    if source.is_file() or (source.is_symlink() and not source.exists()):
        return [source]
    if not source.is_dir():
        begun = (p for p in source.parent.glob("*") if p.name.startswith(source.name))
        return sorted(path for path in begun if path.is_symlink() or path.is_file())
    files = []
    for path in sorted(source.rglob("*")):
        if any(part.startswith((".", "__")) for part in path.relative_to(source).parts):
            continue
        if path.is_symlink() and path.is_dir():  # else a class would be missing
            raise UserError(f"{path}: a link to a folder; put the folder itself there")
        if path.is_symlink() or path.is_file():
            files.append(path)
    return files


def _parts(
    files: Sequence[Path], source: Path, notes: list[str]
) -> Iterator[tuple[Part, Array, Path]]:
    """Read the first form that there is: part, array, and where it came from."""
    idx = [path for path in files if is_idx(path)]
    places = (source, source.parent)  # where a loose array is one of the set's
    arrays = [p for p in files if p.suffix == ".npz" or (p.suffix == ".npy" and p.parent in places)]
    pictures = [path for path in files if is_picture(path)]
    tables = [path for path in files if path.name.lower().endswith((".csv", ".csv.gz", ".tsv"))]
    if idx:
        used, parts = idx, _read_idx_files(idx, source)
    elif arrays:
        used, parts = arrays, _read_arrays(arrays, source)
    elif source.is_dir() and any(path.parent != source for path in pictures):
        used, parts = pictures, _read_pictures(pictures, source, notes)
    elif tables:
        used, parts = tables, _read_tables(tables, source, notes)
    elif pictures:
        raise UserError(f"{source}: pictures without classes; put each class into a folder")
    else:
        packed = next((path for path in files if path.suffix.lower() in PACKED), None)
        advice = f"unpack {packed.name} first" if packed else f"give {FORMS}"
        raise UserError(f"{source}: no data in a form that is read; {advice}")
    others = sorted(path for path in set(files) - set(used) if path.suffix != ".txt")
    if others:
        notes.append(f"{len(others)} other files are left out, such as {others[0].name}")
    yield from parts


def _words(name: str) -> str:
    """A name in small letters, its words apart: "trainX" -> "train_x"."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _split_of(name: str) -> str:
    """The split that a name tells: "train", "test", "val" or ""."""
    return next((split for split, word in SPLITS.items() if word.search(_words(name))), "")


def _split_at(path: Path, source: Path) -> str:
    """The split that a file's name tells, or its folder's below the source."""
    below = source in path.parent.parents
    return _split_of(path.name) or (_split_of(path.parent.name) if below else "")


def _names(files: Sequence[Path]) -> dict[int, str]:
    """What the classes are called: by labels.txt, or the mapping.txt of EMNIST."""
    for path in files:
        is_mapping = path.name.endswith("mapping.txt")
        if is_mapping or path.name in ("labels.txt", "classes.txt"):
            lines = map(str.strip, read_file(path).decode("utf-8-sig", "replace").splitlines())
            if not is_mapping:
                return dict(enumerate(filter(None, lines)))
            codes = [re.fullmatch(r"(\d{1,3})\s+(\d{1,6})(\s+\d+)*", line) for line in lines]
            return {int(code[1]): chr(int(code[2])) for code in codes if code}
    return {}


# --- IDX and arrays -----------------------------------------------------------------------------


def _read_idx_files(paths: Sequence[Path], source: Path) -> Iterator[tuple[Part, Array, Path]]:
    # One file may lie there packed and unpacked, with dots and with hyphens, and as "... (1)".
    unlike: dict[tuple[str, str], Path] = {}
    for path in paths:
        name = re.sub(r" ?\(\d+\)", "", path.name.lower().removesuffix(".gz").replace(".", "-"))
        unlike.setdefault((_split_at(path, source), name), path)
    for (split, name), path in unlike.items():
        kind = "y" if re.search("label|idx[12]", name) else "x"
        yield (kind, split), read_idx(read_file(path), path), path


def _read_arrays(paths: Sequence[Path], source: Path) -> Iterator[tuple[Part, Array, Path]]:
    """Arrays whose names tell their part; where they do not, their shapes do."""
    for path in paths:
        parts: dict[Part, Array] = {}
        for key, array in read_npz(path).items():
            name = _words(path.stem if key.startswith("arr_") else key)
            if NAMES.search(name) or ROW_NUMBER.fullmatch(name) or not array.ndim:
                continue
            is_label = LABELS.search(name) or array[:1].size < 16
            part = "y" if is_label else "x", _split_of(name) or _split_at(path, source)
            if part in parts and array.ndim == parts[part].ndim:
                raise UserError(
                    f"{path}: {key!r} is one array too many; name the arrays x_train, y_train, "
                    "x_test and y_test"
                )
            if part not in parts or array.ndim > parts[part].ndim:  # scikit-learn's, also flat
                parts[part] = array
        yield from ((part, array, path) for part, array in parts.items())


# --- Pictures -----------------------------------------------------------------------------------


def _read_pictures(
    paths: Sequence[Path], source: Path, notes: list[str]
) -> Iterator[tuple[Part, Array, Path]]:
    """A folder per class, perhaps in folders for training and test."""
    places = {path: path.relative_to(source).parts[:-1] for path in paths if path.parent != source}
    while len({p[0] for p in places.values()}) == 1 and all(len(p) > 1 for p in places.values()):
        places = {path: place[1:] for path, place in places.items()}  # `mnist_png/`
    tops = {place[0] for place in places.values()}
    splits = {top: _split_of(top) for top in tops if SPLIT_FOLDER.fullmatch(top)}
    is_split = len(splits) == len(tops) or len(set(splits.values())) > 1
    images: dict[str, list[Images]] = {}
    labels: dict[str, list[str]] = {}
    unclassed, damaged, below = len(paths) - len(places), [], ""
    sizes: Counter[tuple[int, int]] = Counter()
    for path, place in places.items():
        which, classes = (splits.get(place[0], ""), place[1:]) if is_split else ("", place)
        if not classes or (is_split and not which):
            unclassed += 1
            continue
        if len(classes) > 1:
            below = "/".join(classes)
        try:
            picture = _grey(decode_image(read_file(path), str(path)))
        except (PictureError, UserError) as error:
            damaged.append(str(error))
            continue
        sizes[picture.shape[1], picture.shape[0]] += 1
        images.setdefault(which, []).append(to_28x28(picture))
        # A Mac writes an accent on its own.
        labels.setdefault(which, []).append(unicodedata.normalize("NFC", classes[0]))
    if not images:
        raise UserError(damaged[0] if damaged else f"{source}: no pictures in folders per class")
    if unclassed:
        notes.append(f"{unclassed} pictures outside the classes' folders are left out")
    if below:
        notes.append(f"folders in a class's folder belong to it, such as {below}")
    if damaged:
        notes.append(f"{len(damaged)} pictures cannot be read and are left out: {damaged[0]}")
    del sizes[SIDE, SIDE]
    for (width, height), _ in sizes.most_common(1):
        notes.append(f"{sizes.total()} pictures scaled to {SIDE}x{SIDE}, most of {width}x{height}")
    for which in images:
        yield ("x", which), np.stack(images[which]), source
        yield ("y", which), np.array(labels[which]), source


def _grey(picture: Images) -> Images:
    """(H, W[, C]) uint8 -> (H, W)."""
    if picture.ndim == 2:
        return picture
    return np.rint(opaque(picture)[..., :3].mean(axis=2)).astype(np.uint8)


def to_28x28(image: Images) -> Images:
    """(H, W) uint8 -> (28, 28): as a whole, the shorter side filled up with the edge's grey."""
    height, width = image.shape
    if height != width:
        side = max(height, width)
        top, left = (side - height) // 2, (side - width) // 2
        margin = ((top, side - height - top), (left, side - width - left))
        edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
        image = np.pad(image, margin, constant_values=int(np.median(edge)))
    if image.shape == (SIDE, SIDE):
        return image
    scaled = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(scaled)


# --- Tables -------------------------------------------------------------------------------------


def _read_tables(
    paths: Sequence[Path], source: Path, notes: list[str]
) -> Iterator[tuple[Part, Array, Path]]:
    read = False
    for path in paths:
        try:
            parts = _read_table(path)
        except FileError as error:
            raise UserError(str(error)) from None
        except (ValueError, OSError, EOFError, zlib.error) as error:
            raise UserError(f"{path}: damaged table ({first_line(error)}); save it again") from None
        if not parts:
            notes.append(f"{path.name}: has no column a pixel and is left out")
        for kind, array in parts.items():
            read = True
            yield (kind, _split_at(path, source)), array, path
    if not read:
        raise UserError(f"{paths[0]}: no table of pixels; {FORMS} are read")


def _read_table(path: Path) -> dict[str, Array]:
    """Images "x" and, where there are, labels "y", by the header or by the number of columns."""
    with _open_text(path) as stream:
        lines = list(itertools.islice(filter(str.strip, stream), 200)) or [""]
    delimiter = max(",;\t ", key=lines[0].count)
    rows = [[cell.strip(' "\r\n') for cell in line.split(delimiter)] for line in lines]
    first, width = rows[0], len(rows[0])
    counted = [[str(i + start) for i in range(width - 1)] for start in (0, 1)]  # by pandas
    numbers = [cell for cell in first if NUMBER.fullmatch(cell)]
    header = (width > 1 and first[1:] in counted) or 2 * len(numbers) < width
    if not rows[header:]:
        raise ValueError("no row of data")
    names = [_words(name) for name in first] if header else []
    label = next((i for i, name in enumerate(names) if LABELS.search(name)), None)
    skipped = {i for i, name in enumerate(names) if ROW_NUMBER.fullmatch(name)}
    if label is None and not _is_square(width - len(skipped)):
        # The first or the last; a corner of the images is everywhere the same.
        label = width - 1 if len({row[0] for row in rows[header:]}) == 1 else 0
    pixels = [i for i in range(width) if i != label and i not in skipped]

    def load(columns: list[int], dtype: Any) -> Array:  # (rows, columns)
        form: Any = {"delimiter": delimiter, "comments": None, "quotechar": '"', "ndmin": 2}
        form.update(skiprows=int(header), usecols=columns)
        with _open_text(path) as stream:
            return np.loadtxt(filter(str.strip, stream), dtype, **form)

    if width == 1 and LABELS.search(_words(path.stem)):  # the images are another file's
        return {"y": load([0], str)[:, 0]}
    if len(pixels) < 16 or not _is_square(len(pixels)):
        return {}
    images = {"x": load(pixels, np.float32)}
    return images if label is None else images | {"y": load([label], str)[:, 0]}


def _open_text(path: Path) -> io.TextIOWrapper:
    return io.TextIOWrapper(open_plain(path), "utf-8-sig")


def _is_square(count: int) -> bool:
    return math.isqrt(count) ** 2 == count
