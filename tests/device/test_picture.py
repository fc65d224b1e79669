"""Picture files: what is read, and what is refused in one line and in little memory."""

import gc
import io
import struct
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from drawings import difference, encoded, seven
from helpers import run_program
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from device import picture
from device.photo import PhotoError, find_digit
from device.picture import PictureError, decode_image

GREY = Image.fromarray(seven())


def npy(array, **options):
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


# --- What is read -------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_picture_upright(orientation):
    undo = [None, 0, 3, 1, 5, 2, 6, 4][orientation - 1]  # Transpose that the viewer takes back
    turned = GREY if undo is None else GREY.transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(decode_image(encoded(turned, exif=exif), "a.png"), seven())


def test_netpbm_and_npy_hold_the_same_picture():
    image, text = seven(), " ".join(map(str, seven().ravel())).encode()
    bits = image < 128
    pictures = [
        b"P1 # by hand\n100 120\n" + b"".join(b"%d" % bit for bit in bits.ravel()),
        b"P2\n100 120 255\n" + text,
        b"P4 100 120\n" + np.packbits(bits, axis=1).tobytes(),
        b"P5 # made by hand\n100 120\n255\n" + image.tobytes(),
        b"P5 100 120 65535\n" + (image.astype(">u2") * 257).tobytes(),
        b"P6 100 120 255\n" + image.repeat(3).tobytes(),
        *(npy(array) for array in (image, image / 255, image > 127)),
    ]
    for data in pictures:
        assert np.array_equal(decode_image(data, "a"), image)


FILES = {mode: encoded(GREY.convert(mode)) for mode in ("1", "L", "P", "RGB", "RGBA", "LA")}
FILES["16 bits"] = encoded(Image.fromarray(seven().astype(np.uint16) * 257))
FILES["CMYK"] = encoded(GREY.convert("CMYK"), "JPEG", quality=95)


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
def test_a_picture_of_every_mode_is_read(data):
    grey = decode_image(data, "a").reshape(*seven().shape, -1).mean(axis=2)
    assert difference(grey, seven()) < 3


def test_grey_levels_in_a_file_of_three_colours_are_read_as_grey_levels():
    assert np.array_equal(decode_image(FILES["RGB"], "a"), seven())


def test_the_first_frame_with_ink_is_read():
    blank, drawn = (Image.fromarray(x).convert("P") for x in (seven() * 0 + 255, seven()))
    animation = encoded(blank, "GIF", save_all=True, append_images=[blank.copy(), drawn])
    assert np.array_equal(find_digit(decode_image(animation, "a.gif")), find_digit(seven()))


def test_without_pillow_its_own_forms_are_read_and_the_others_say_what_to_install(tmp_path):
    pgm = b"P5 100 120 255\n" + seven().tobytes()
    for name, data in (("a.npy", npy(seven())), ("a.pgm", pgm), ("a.png", encoded(GREY))):
        (tmp_path / name).write_bytes(data)
    script = """
import sys
sys.modules["PIL"] = None
import pathlib, photo, picture
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    print(photo.find_digit(picture.decode_image(path.read_bytes(), path.name)).shape)
"""
    run = run_in_device_folder(script, tmp_path)
    assert run.stdout == "(28, 28)\n" * 2
    assert "PictureError: a.png: PNG and JPEG need Pillow" in run.stderr


def run_in_device_folder(script, *arguments):
    command = [sys.executable, "-c", script, *arguments]
    folder = Path(picture.__file__).parent
    return run_program(*command, cwd=folder)


# --- Memory -------------------------------------------------------------------------------------


def test_a_large_jpeg_comes_back_reduced():
    data = encoded(GREY.resize((4000, 3000)), "JPEG")
    assert decode_image(data, "a.jpg").shape == (375, 500)


def drawn_large(width, height, mode):
    """The seven in the middle of a large sheet."""
    image = Image.new(mode, (width, height), "white")
    image.paste(GREY.resize((width // 4, height // 3)).convert(mode), (width // 3, height // 3))
    return image


WITH_ALPHA = {"transparency": bytes([255] * 128 + [200] * 128)}
LARGE = {
    "50 megapixel phone": ((8160, 6144, "RGB"), "JPEG", {}),
    "progressive": ((4000, 3000, "RGB"), "JPEG", {"progressive": True}),
    "palette with transparency": ((8160, 6144, "P"), "PNG", WITH_ALPHA),
    "colour": ((4000, 3000, "RGB"), "PNG", {}),
    "webp": ((1900, 1500, "RGB"), "WEBP", {"method": 0}),
    "gif": ((8160, 6144, "L"), "GIF", {}),
}
PEAK_MEMORY = """
import sys
def peak_kib():
    return int(next(x for x in open("/proc/self/status") if x.startswith("VmHWM")).split()[1])
import numpy, PIL.Image, photo, picture
before = peak_kib()
photo.find_digit(picture.decode_image(open(sys.argv[1], "rb").read(), "large"))
print(peak_kib() - before)
"""


@pytest.mark.parametrize("name", LARGE)
def test_a_large_picture_is_read_within_128_megabytes(name, tmp_path):
    size, kind, options = LARGE[name]
    (tmp_path / "large").write_bytes(encoded(drawn_large(*size), kind, **options))
    run = run_in_device_folder(PEAK_MEMORY, tmp_path / "large")
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 128_000


@pytest.mark.parametrize(
    ("size", "kind", "options"),
    [((7000, 5000), "JPEG", {"progressive": True}), ((3000, 2000), "WEBP", {"method": 0})],
)
def test_what_cannot_be_decoded_in_that_memory_is_refused(size, kind, options):
    data = encoded(Image.new("RGB", size), kind, **options)
    with pytest.raises(PictureError, match=r"^a: \d+x\d+ pixels take \d+ MB; save it smaller"):
        decode_image(data, "a")


def test_memory_stays_flat_over_many_pictures():
    data = encoded(GREY, "JPEG")
    held = []
    tracemalloc.start()
    for _ in range(2):  # Python and numpy keep some free lists, which the first pictures fill
        for _ in range(4):
            find_digit(decode_image(data, "a.jpg"))
        gc.collect()
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert held[1] - held[0] < 50_000  # one picture kept would be 10 times its 100 kB


def png_header(width, height):
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = b"\x00\x00\x00\x00IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    start = b"\x89PNG\r\n\x1a\n\x00\x00\x00\r"
    return start + header + struct.pack(">I", zlib.crc32(header)) + data


def npy_header(text):
    padded = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded


BOMBS = {
    "huge png": png_header(60_000, 60_000),
    "64 megapixel png": png_header(8_000, 8_000),
    "one row": png_header(2**31 - 1, 1),
    "pbm": b"P4 65536 1\n",
    "pgm": b"P5 99999 99999 255\n",
    "ppm": b"P6 99999 99999 255\n",
    "gif": b"GIF89a\xff\xff\xff\xff\x00\x00\x00,\0\0\0\0\xff\xff\xff\xff\x00\x08\x00;",
    "bmp": b"BM" + struct.pack("<IIIIiiHHIIIIII", 54, 0, 54, 40, 65535, 65535, 1, 24, *6 * (0,)),
    "npy": npy_header("{'descr': '|u1', 'fortran_order': False, 'shape': (99999, 99999)}"),
}


@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS)
def test_a_decompression_bomb_is_refused_before_anything_is_allocated(data):
    tracemalloc.start()
    with pytest.raises(PictureError, match=r"^bomb: .*allowed$"):
        decode_image(data, "bomb")
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 5_000_000  # Pillow's own modules, when first imported


# --- What is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "kind"),
    [(encoded(GREY, "TIFF"), "TIFF"), (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC")],
)
def test_tiff_and_heic_are_refused_with_the_command_that_converts_them(data, kind):
    with pytest.raises(PictureError, match=rf"^a: {kind} is not read; .*convert FILE digit.jpg"):
        decode_image(data, "a")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"hello",
        b"GIF89a",
        encoded(GREY)[:200],
        encoded(GREY, "JPEG")[:300],
        b"P5\n",
        b"P5 4 4 255\n123",
        b"P5 4 4 0\n" + bytes(16),
        b"P5 0 4 255\n",
        b"P2 2 2 255\n1 2 3",
        b"P2 2 2 255\n1 2 x 4",
        b"P2 2 2 9\n1 2 3 10",
        b"P1 2 2\n1 2 0 1",
        b"P4 20 2\n12345",
        b"\x93NUMPY",
        npy(np.array([{"a": 1}], object), allow_pickle=True),
        *(npy(np.full((4, 4), value)) for value in (np.nan, np.inf, -1.0)),
        *(npy(np.zeros((4, 4), kind)) for kind in (np.complex64, "U4")),
        *(npy(np.zeros(shape, np.uint8)) for shape in ((4,), (0, 4), (4, 4, 7))),
        npy(seven())[:-1],
        npy_header("{'descr': '|u1', 'fortran_order': False, 'shape': (-4, -4)}"),
        npy_header("__import__('os').getcwd()"),
    ],
)
def test_malformed_bytes_give_one_line_that_names_the_picture(data):
    with pytest.raises(PictureError) as caught:
        decode_image(data, "bad.bin")
    assert str(caught.value).startswith("bad.bin: ")
    assert "\n" not in str(caught.value)


STARTS = [
    *(encoded(GREY, kind) for kind in ("PNG", "JPEG", "BMP", "WEBP")),
    encoded(GREY.convert("P"), "GIF"),
    b"P5 10 12 255\n" + bytes(120),
    b"P2 2 2 255\n1 2 3 4",
    b"P4 10 12\n" + bytes(24),
    b"P3 1 2 255\n1 2 3 4 5 6",
    npy(seven()),
    *(b"", b"P5", b"P2 3 3 9\n", b"\x93NUMPY\x01\x00"),
]


@settings(max_examples=200)
@given(
    st.sampled_from(STARTS),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    st.floats(0, 1),
    st.binary(max_size=20),
)
def test_damaged_pictures_raise_nothing_but_photo_error(start, changes, keep, tail):
    data = bytearray(start)
    for where, value in changes if start else ():
        data[int(where * len(data))] = value
    try:
        image = decode_image(bytes(data[: int(keep * len(data)) + 1]) + tail, "x")
        assert find_digit(image).shape == (28, 28)
    except (PictureError, PhotoError):
        pass
