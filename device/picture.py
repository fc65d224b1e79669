"""A picture file -> its pixels: PGM and NPY with numpy alone, PNG, JPEG and others with Pillow.

image = decode_image(Path("digit.jpg").read_bytes(), "digit.jpg")  # (H, W) or (H, W, 3) uint8
"""

from __future__ import annotations

import io
import math
import re
import warnings
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 50_000_000  # refused before decoding
WORKING_PIXELS = 250_000  # enough for a digit a tenth of the frame high
PILLOW_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM")  # PPM: also PBM

UInt8 = npt.NDArray[np.uint8]
Float = npt.NDArray[np.float32]


class PictureError(ValueError):
    """The bytes are not a picture that can be read."""


def decode_image(data: bytes, name: str) -> UInt8:
    """Decodes PGM, NPY or, with Pillow, PNG, JPEG, BMP, GIF or WebP.

    Large pictures come back reduced by a whole factor, turned upright by their EXIF tag, with
    transparency filled in. Colour is kept, because only the search for ink knows which colour
    tells ink from paper.

    Args:
        data: the whole file.
        name: what to call the picture in an error message.

    Returns:
        (H, W) grey levels or (H, W, 3) RGB, uint8.

    Raises:
        PictureError: one line that says what is wrong.
    """
    try:
        if data.startswith(b"\x93NUMPY"):
            return _decode_npy(data)
        if data[:2] in (b"P2", b"P5"):
            return _decode_pgm(data)
        return _decode_with_pillow(data)
    except PictureError as error:
        raise PictureError(f"{name}: {error}") from None


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise PictureError("the picture has no pixels")
    if width * height > MAX_PIXELS:
        raise PictureError(f"{width}x{height} pixels are more than the {MAX_PIXELS} allowed")


def _decode_npy(data: bytes) -> UInt8:
    """NPY as numpy.lib.format describes it, its size checked before anything is allocated."""
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        else:
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    except Exception as error:  # a hostile header fails in many ways
        raise PictureError("damaged NPY header") from error
    if dtype.kind not in "buf" or dtype.itemsize > 8:
        raise PictureError(f"NPY of {dtype} where uint8, uint16, bool or float is needed")
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3, 4)):
        raise PictureError(f"NPY of shape {shape} where (H, W) or (H, W, 3) is needed")
    _check_size(shape[1], shape[0])
    size_bytes = int(np.prod(shape, dtype=object)) * dtype.itemsize
    body = data[stream.tell() :]
    if len(body) != size_bytes:
        raise PictureError(f"NPY holds {len(body)} bytes of pixels where {size_bytes} are needed")
    values = np.frombuffer(body, dtype).reshape(shape, order="F" if fortran else "C")
    return _grey_if_equal(_without_alpha(_as_uint8(values)))


def _as_uint8(values: npt.NDArray[np.generic]) -> UInt8:
    """bool, uint8, uint16 or finite floats in 0..1 or 0..255 -> 0..255."""
    kind, itemsize = values.dtype.kind, values.dtype.itemsize
    if kind == "b":
        return values.astype(np.uint8) * np.uint8(255)
    if kind == "u" and itemsize == 1:
        return values.astype(np.uint8)
    if kind == "u" and itemsize == 2:
        return (values.astype(np.uint16) >> 8).astype(np.uint8)
    if kind == "f":
        low, high = float(np.min(values)), float(np.max(values))
        if not (low >= 0 and high <= 255):  # also catches NaN
            raise PictureError("float pixels must be finite and within 0..1 or 0..255")
        scale = 255 if high <= 1 else 1
        return np.rint(values.astype(np.float32) * scale).astype(np.uint8)
    raise PictureError(f"pixels of {values.dtype} where uint8, uint16, bool or float is needed")


# Netpbm: 'P2' or 'P5', width, height and largest value, apart by white space or comments.
_GAP = rb"(?:\s|#[^\r\n]*[\r\n])+"
_PGM_HEADER = re.compile(
    rb"P([25])" + _GAP + rb"(\d{1,9})" + _GAP + rb"(\d{1,9})" + _GAP + rb"(\d{1,5})\s"
)


def _decode_pgm(data: bytes) -> UInt8:
    """Plain (P2) or raw (P5) PGM, 8 or 16 bits (https://netpbm.sourceforge.net/doc/pgm.html)."""
    header = _PGM_HEADER.match(data)
    if header is None:
        raise PictureError("damaged PGM header")
    kind, width, height, largest = (int(group) for group in header.groups())
    _check_size(width, height)
    if not 0 < largest < 65536:
        raise PictureError(f"PGM with {largest} as its largest value")
    pixels = width * height
    body = data[header.end() :]
    if kind == 2:
        values = _plain_values(body, pixels)
    else:
        dtype = np.dtype(np.uint8 if largest < 256 else ">u2")
        if len(body) < pixels * dtype.itemsize:
            raise PictureError("truncated PGM")
        values = np.frombuffer(body, dtype, count=pixels)
    if not (values.max() <= largest and values.min() >= 0):  # NaN fails as well
        raise PictureError("PGM pixel beyond its largest value")
    if largest != 255:
        values = np.rint(values.astype(np.float32) * (255 / largest))
    return values.astype(np.uint8).reshape(height, width)


def _plain_values(body: bytes, count: int) -> npt.NDArray[np.generic]:
    if len(body) < 2 * count - 1:
        raise PictureError("truncated PGM")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # numpy warns of text that is no number
        try:
            return np.fromstring(body, np.float32, count=count, sep=" ")
        except (ValueError, DeprecationWarning) as error:
            raise PictureError("PGM pixel that is no number, or too few pixels") from error


def _decode_with_pillow(data: bytes) -> UInt8:
    try:
        from PIL import Image
    except ImportError:
        raise PictureError(
            "PNG and JPEG need Pillow (pip install pillow); PGM needs none"
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own limit is below Pillow's
            opened = Image.open(io.BytesIO(data), formats=PILLOW_FORMATS)
    except Image.DecompressionBombError:
        raise PictureError(f"more than the {MAX_PIXELS} pixels allowed") from None
    except Exception as error:  # damaged headers fail in many ways
        raise PictureError("not a PNG, JPEG, BMP, GIF, WebP, PGM or NPY picture") from error
    _check_size(*opened.size)
    try:
        factor = _reduction(opened.width, opened.height, WORKING_PIXELS)
        if factor in (6, 7):  # a quarter by the decoder and half of that below is an eighth too
            factor = 8
        opened.draft(None, (opened.width // factor, opened.height // factor))  # JPEG only
        image = _simple_mode(opened)
        factor = _reduction(image.width, image.height, WORKING_PIXELS)
        pixels = np.asarray(image.reduce(factor) if factor > 1 else image)
        turned = _upright(pixels, _orientation(image))
    except Exception as error:  # damaged bodies fail in many ways
        raise PictureError("damaged or truncated picture") from error
    return _grey_if_equal(_without_alpha(turned))


def _reduction(width: int, height: int, pixels: int) -> int:
    """The whole factor by which both sides shrink to leave at most about `pixels` pixels."""
    return max(1, round(math.sqrt(width * height / pixels)))


def _simple_mode(image: "Image.Image") -> "Image.Image":
    """Any Pillow mode -> L, LA, RGB or RGBA, 8 bits a channel."""
    from PIL import Image

    if image.mode.startswith("I"):  # 16-bit grey PNG
        return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    if "transparency" in image.info and image.mode in ("1", "L", "RGB", "P"):
        return image.convert("RGBA")
    if image.mode in ("L", "LA", "RGB", "RGBA"):
        return image
    return image.convert({"1": "L", "PA": "RGBA"}.get(image.mode, "RGB"))


def _orientation(image: "Image.Image") -> int:
    """EXIF tag 0x0112, 1..8; a damaged EXIF block counts as none."""
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # Pillow's EXIF reader fails in many ways
        return 1


def _upright(pixels: UInt8, orientation: int) -> UInt8:
    """Undoes the camera's turn (EXIF 2.32, section 4.6.4, tag Orientation)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _grey_if_equal(pixels: UInt8) -> UInt8:
    """(H, W, 3) with three equal channels -> (H, W)."""
    if pixels.ndim == 3 and (pixels[..., :1] == pixels[..., 1:]).all():
        return pixels[..., 0]
    return pixels


def _without_alpha(pixels: UInt8) -> UInt8:
    """(H, W[, 1 to 4]) -> (H, W) or (H, W, 3): transparent parts filled with a fitting paper.

    Ink alone on nothing gets white paper, or black if the ink is light. A whole picture with
    some transparent parts (say, round corners) has them filled with its own paper's colour.
    """
    if pixels.ndim == 2 or pixels.shape[2] == 3:
        return pixels
    if pixels.shape[2] == 1:
        return pixels[..., 0]
    colour, alpha = pixels[..., :-1], pixels[..., -1:]
    if alpha.min() < 255:
        fill = _fill_colour(colour, alpha[..., 0])
        share = alpha.astype(np.float32) / 255
        colour = np.rint(colour * share + fill * (1 - share)).astype(np.uint8)
    return colour[..., 0] if colour.shape[2] == 1 else colour


def _fill_colour(colour: UInt8, alpha: UInt8) -> Float:
    opaque = colour[alpha > 127]  # (n, channels)
    if len(opaque) == 0:
        opaque = colour[alpha > 0]
    if len(opaque) == 0:
        return np.full(colour.shape[2], 255, np.float32)
    level = opaque.mean(axis=1)
    is_picture = len(opaque) > alpha.size / 2 and np.ptp(np.percentile(level, (2, 98))) > 40
    if is_picture:
        paper: Float = np.median(opaque, axis=0).astype(np.float32)
        return paper
    return np.full(colour.shape[2], 0 if level.mean() > 127 else 255, np.float32)
