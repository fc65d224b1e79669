"""A picture file -> its pixels: binary PGM and NPY with numpy alone, others with Pillow.

image = decode_image(Path("digit.jpg").read_bytes(), "digit.jpg")  # (H, W[, C]) uint8
"""

from __future__ import annotations

import io
import math
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL import Image

MAX_BYTES = 60_000_000  # for the pixels of one picture while it is decoded
MAX_SIDE = 65_535  # pixels
MAX_FRAMES = 50  # of an animation, looked through for one that is not blank
WORKING_PIXELS = 250_000  # enough for a digit a tenth of the frame high
BAND_PIXELS = 1_000_000  # converted at once
PILLOW_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM")
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".pbm", ".npy"}
SUFFIXES |= {".tif", ".tiff", ".heic", ".heif"}  # refused, with the command that converts them
# 'P5', width, height and largest value, apart by space or comments.
PGM_HEADER = re.compile(rb"P5%b%b%b\s" % (3 * (rb"(?:\s|#[^\r\n]*[\r\n])+(\d{1,9})",)))
START = re.compile(
    rb"\x89PNG\r\n|\xff\xd8\xff|GIF8[79]a|BM.{4}\0{4}|RIFF.{4}WEBP|P[1-6]\s|\x93NUMPY", re.DOTALL
)
TIFF_OR_HEIC = re.compile(rb"(II\*\0|MM\0\*)|....ftyp(?:hei[cxms]|hev[cx]|mif1|msf1)", re.DOTALL)

UInt8 = npt.NDArray[np.uint8]


class PictureError(ValueError):
    """The bytes are not a picture that can be read."""


def is_picture(path: Path) -> bool:
    """Whether a file's suffix is a picture's or its first bytes are."""
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        with path.open("rb") as stream:
            start = stream.read(64)
    except OSError:
        return False
    return bool(START.match(start) or TIFF_OR_HEIC.match(start))


def decode_image(data: bytes, name: str) -> UInt8:
    """Decodes binary PGM, NPY or, with Pillow, PNG, JPEG, BMP, GIF, WebP, PPM, PBM or text PGM.

    Large pictures come back reduced by a whole factor, turned upright by their EXIF tag; of an
    animation, the first frame that is not blank. Colour and transparency are kept, because only
    the search for ink knows what tells ink from paper.

    Args:
        data: the whole file.
        name: what to call the picture in an error message.

    Returns:
        uint8: (H, W) grey levels, (H, W, 3) RGB, or (H, W, 4) RGBA where something is transparent.

    Raises:
        PictureError: one line that says what is wrong and what to do.
    """
    try:
        if len(data) > MAX_BYTES:
            raise PictureError(f"{len(data)} bytes; save it smaller: {MAX_BYTES} are allowed")
        if data.startswith(b"\x93NUMPY"):
            return _simplest(_decode_npy(data))
        if data[:2] == b"P5":
            return _decode_pgm(data)
        return _decode_with_pillow(data)
    except PictureError as error:
        raise PictureError(f"{name}: {error}") from None


def _check_size(width: int, height: int, bytes_per_pixel: float) -> None:
    """Refuses before decoding what would take too much memory."""
    if width < 1 or height < 1:
        raise PictureError("the picture has no pixels; save it again")
    need = width * height * bytes_per_pixel
    if max(width, height) > MAX_SIDE or need > MAX_BYTES:
        raise PictureError(
            f"{width}x{height} pixels take {need / 1e6:.0f} MB; save it smaller or as JPEG: "
            f"{MAX_BYTES / 1e6:.0f} MB and {MAX_SIDE} pixels a side are allowed"
        )


def _decode_npy(data: bytes) -> UInt8:
    """NPY as numpy.lib.format describes it, its size checked before anything is allocated."""
    stream = io.BytesIO(data)
    try:
        np.lib.format.read_magic(stream)
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    except Exception as error:  # a hostile header fails in many ways
        raise PictureError("damaged NPY header; save it again") from error
    if dtype.kind not in "buf" or dtype.itemsize > 8:
        raise PictureError(f"NPY of {dtype} where uint8, uint16, bool or float is needed")
    if len(shape) not in (2, 3) or shape[2:] not in ((), (1,), (3,), (4,)):
        raise PictureError(f"NPY of shape {shape}; save each picture alone: (H, W) or (H, W, 3)")
    channels = shape[2] if len(shape) == 3 else 1
    _check_size(shape[1], shape[0], channels * (1 if dtype.itemsize == 1 else 5))
    count = shape[0] * shape[1] * channels
    if len(data) - stream.tell() != count * dtype.itemsize:
        raise PictureError(f"NPY of shape {shape} and {dtype} of another length; save it again")
    values = np.frombuffer(data, dtype, offset=stream.tell())
    values = values.reshape(shape, order="F" if fortran else "C")
    if dtype.kind == "b":
        return values.view(np.uint8) * np.uint8(255)
    if dtype.kind == "u" and dtype.itemsize <= 2:
        return values if dtype.itemsize == 1 else (values >> 8).astype(np.uint8)
    low, high = float(values.min()), float(values.max())
    if dtype.kind != "f" or not (low >= 0 and high <= 255):  # NaN fails as well
        raise PictureError("NPY pixels must be uint8, uint16, bool or floats in 0..1 or 0..255")
    return _scaled(values, 1 if high <= 1 else 255)


def _scaled(values: npt.NDArray[Any], largest: float) -> UInt8:
    """0..largest -> 0..255."""
    wide = values.astype(np.float32)
    wide *= 255 / largest
    return np.rint(wide, out=wide).astype(np.uint8)


def _decode_pgm(data: bytes) -> UInt8:
    """Binary PGM of 8 or 16 bits (https://netpbm.sourceforge.net/doc/pgm.html)."""
    header = PGM_HEADER.match(data)
    if header is None:
        raise PictureError("damaged PGM header; save it again")
    width, height, largest = map(int, header.groups())
    if not 0 < largest < 65536:
        raise PictureError(f"PGM with {largest} as its largest value; save it again")
    dtype = np.dtype(np.uint8 if largest < 256 else ">u2")
    _check_size(width, height, 1 if largest == 255 else 5)
    if len(data) - header.end() < width * height * dtype.itemsize:
        raise PictureError("truncated PGM; copy it again")
    values: npt.NDArray[Any] = np.frombuffer(data, dtype, width * height, header.end())
    if values.max() > largest:
        raise PictureError("PGM pixel beyond its largest value; save it again")
    image: UInt8 = values if largest == 255 else _scaled(values, largest)
    return image.reshape(height, width)


def _decode_with_pillow(data: bytes) -> UInt8:
    foreign = TIFF_OR_HEIC.match(data)
    if foreign:
        kind = "TIFF" if foreign[1] else "HEIC"
        raise PictureError(f"{kind} is not read; convert it first: convert FILE digit.jpg")
    try:
        from PIL import Image
    except ImportError:
        raise PictureError(
            "PNG and JPEG need Pillow (pip install pillow); PGM needs none"
        ) from None
    stream = io.BytesIO(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own limit is below Pillow's
            opened = Image.open(stream, formats=PILLOW_FORMATS)
    except Image.DecompressionBombError:
        raise PictureError("save it smaller: more pixels than are allowed") from None
    except Exception as error:  # damaged headers fail in many ways
        raise PictureError("not a picture that is read; save it as PNG or JPEG") from error
    _check_size(*opened.size, _bytes_per_pixel(opened, data, stream.tell()))
    try:
        return _simplest(_first_with_ink(opened))
    except Exception as error:  # damaged bodies fail in many ways
        raise PictureError("damaged or truncated picture; copy or save it again") from error


def _bytes_per_pixel(opened: Image.Image, data: bytes, position: int) -> float:
    """What Pillow's decoders hold, as measured; `position` is where the header ends."""
    if opened.format == "WEBP":
        return 20
    if opened.format not in ("JPEG", "MPO"):
        return {"1": 1, "L": 1, "P": 1}.get(opened.mode, 4)
    # A JPEG is decoded row by row and reduced if its first scan holds all its colours (ITU T.81,
    # B.2.3). Otherwise libjpeg keeps 16 bits of each colour, of which some may be at half size.
    colours = len(opened.getbands())
    length = 6 + 2 * colours
    scan = data[position - length : position - length + 3]
    if scan == bytes((0, length, colours)) and "progressive" not in opened.info:
        return 4 / 64
    from PIL.JpegImagePlugin import get_sampling

    return {2: 3, 1: 4}.get(get_sampling(opened), 2 * colours)


def _first_with_ink(opened: Image.Image) -> UInt8:
    """The first frame that is not blank, or the last that was looked at."""
    width, height = opened.size
    factor = _reduction(width, height)
    if factor in (6, 7):  # a quarter by the decoder and half of that below is an eighth too
        factor = 8
    opened.draft(None, (width // factor, height // factor))  # JPEG only
    pixels = _reduced(opened)
    for frame in range(1, MAX_FRAMES if width * height * 16 <= MAX_BYTES else 1):
        if (pixels != pixels[0, 0]).any():
            break
        try:
            opened.seek(frame)
        except EOFError:
            break
        pixels = _reduced(opened)
    return _upright(pixels, _orientation(opened))


def _reduced(image: Image.Image) -> UInt8:
    """Converted and shrunk to about WORKING_PIXELS, in bands to save memory."""
    width, height = image.size
    factor = _reduction(width, height)
    rows = factor * max(1, BAND_PIXELS // (factor * width))
    bands = (
        _simple_mode(image.crop((0, top, width, min(top + rows, height))))
        for top in range(0, height, rows)
    )
    return np.concatenate([np.asarray(band.reduce(factor)) for band in bands])


def _reduction(width: int, height: int) -> int:
    """The whole factor by which both sides shrink to leave about WORKING_PIXELS."""
    return max(1, round(math.sqrt(width * height / WORKING_PIXELS)))


def _simple_mode(image: Image.Image) -> Image.Image:
    """Any Pillow mode -> L, RGB or RGBA, 8 bits a channel."""
    from PIL import Image

    if image.mode.startswith("I"):  # 16-bit grey PNG
        return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    if "transparency" in image.info or image.mode in ("LA", "PA", "RGBA", "La", "RGBa"):
        return image.convert("RGBA")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _orientation(image: Image.Image) -> int:
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


def _simplest(pixels: UInt8) -> UInt8:
    """Without an alpha channel that hides nothing, and grey where all colours are equal."""
    if pixels.shape[2:] == (4,) and (pixels[..., 3] == 255).all():
        pixels = pixels[..., :3]
    if pixels.shape[2:] in ((1,), (3,)) and (pixels[..., :1] == pixels).all():
        pixels = pixels[..., 0]
    return pixels
