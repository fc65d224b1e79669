"""The images that a user names: pictures, IDX files, folders of them, standard input."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Callable, Iterator, Sequence, Tuple

import numpy as np
from commands import complain
from idx import FileError, is_idx, parse_idx, read_bytes
from photo import PhotoError, find_digit, find_digits
from picture import PictureError, decode_image, is_picture
from runner import InputError
from stream import read_frames


class NotOneDigitError(InputError):
    """A picture that was read, and that holds no digit, or several."""


STREAMS = (".mjpeg", ".mjpg")  # of files that hold JPEG frames, one after the other
Sample = Tuple[str, Any]  # a name, and what `find` gives for its picture, or an InputError


def read_samples(
    names: Sequence[str], find: Callable[[np.ndarray], Any] = find_digit
) -> Iterator[Sample]:
    """What `find` gives of files, folders (their pictures, sorted) and '-' (standard input)."""
    for name in names:
        path = Path(name)
        try:
            if not name:  # an unset variable of a script; as a path it is this folder
                raise InputError("'': no name of a file; name one")
            if name == "-":
                if sys.stdin is None:
                    raise InputError("-: standard input is closed")
                yield from read_stream(name, sys.stdin.fileno(), find)
            elif path.is_dir():
                yield from read_samples(pictures_in(path), find)
            elif path.suffix.lower() in STREAMS:
                with path.open("rb") as stream:
                    yield from read_stream(name, stream.fileno(), find)
            elif is_idx(path):
                for i, image in enumerate(images_of(parse_idx(read_bytes(path), name), name)):
                    whole = (0, 0, *image.shape[::-1])  # its box
                    yield f"{name}[{i}]", [(image, whole)] if find is find_digits else image
            else:
                yield name, read_picture(read_bytes(path), name, find)
        except (InputError, FileError) as error:
            yield name, InputError(str(error))
        except OSError as error:  # a folder that may not be looked into, a name that cannot be
            yield name, InputError(f"{name}: cannot be read ({error.strerror})")


def pictures_in(folder: Path) -> list[str]:
    """The pictures and IDX files in a folder, sorted; stderr says how many others are there."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name[0] != ".")
    pictures = [p for p in files if is_picture(p) or is_idx(p)]
    if not pictures:
        raise InputError(f"{folder}: no pictures in it, among {len(files)} files; name another")
    others = len(files) - len(pictures)
    if others:
        complain(f"{folder}: {others} files that are not pictures were skipped")
    return [str(path) if str(path) != "-" else "./-" for path in pictures]


def read_stream(name: str, descriptor: int, find: Callable[[np.ndarray], Any]) -> Iterator[Sample]:
    """One picture, or a stream of them; in a stream, that there is no digit is an answer."""
    for data, is_stream in read_frames(descriptor, complain):
        found: Any
        try:
            if not data:
                raise InputError(f"{name}: the file is empty")
            found = read_picture(data, name, find)
            if isinstance(found, np.ndarray) and found.min() == found.max():
                raise NotOneDigitError(f"{name}: no digit found, the picture is empty")
        except NotOneDigitError as error:
            found = str(error)[len(f"{name}: ") :] if is_stream() else error
        except InputError as error:
            found = error
        yield name, found


def images_of(array: np.ndarray, name: str) -> np.ndarray:
    """An IDX file's array, if it holds images: uint8 (N, 28, 28) or (N, 32, 32)."""
    if array.ndim != 3 or array.shape[1:] not in ((28, 28), (32, 32)):
        raise InputError(f"{name}: shape {array.shape}, not images; give (N, 28, 28)")
    if not len(array):
        raise InputError(f"{name}: it holds no images; name another")
    return array


def read_picture(data: bytes, name: str, find: Callable[[np.ndarray], Any]) -> Any:
    """What `find` gives for the bytes of any picture."""
    try:
        return find(decode_image(data, name))
    except PictureError as error:
        raise InputError(str(error)) from None
    except PhotoError as error:
        raise NotOneDigitError(f"{name}: {error}") from None
