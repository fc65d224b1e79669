"""Any picture of a digit: decoding, refusing, and the form of an MNIST image."""

import contextlib
import gc
import gzip
import io
import shutil
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from device import photo, picture
from device.photo import NoDigit, PhotoError, SeveralDigits, find_digit, find_digits
from device.photo.form import in_mnist_form
from device.picture import PictureError, decode_image
from pipeline.studies.skeletons import all_digits, smooth_curve

UInt8 = npt.NDArray[np.uint8]
MNIST = Path(__file__).parents[2] / "data" / "mnist" / "t10k-images-idx3-ubyte.gz"


@pytest.fixture(scope="module")
def mnist() -> UInt8:
    data = np.frombuffer(gzip.decompress(MNIST.read_bytes()), np.uint8, offset=16)
    return data.reshape(-1, 28, 28)


def seven(ink: int = 0, paper: int = 255) -> UInt8:
    """A seven drawn as in a paint program, 120x100."""
    image = Image.new("L", (100, 120), paper)
    ImageDraw.Draw(image).line([(25, 25), (75, 25), (45, 95)], fill=ink, width=9, joint="curve")
    return np.asarray(image)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def npy(array: npt.NDArray[np.generic], **options: bool) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def difference(a: UInt8, b: UInt8) -> float:
    return float(np.abs(a.astype(int) - b).mean())


# ---------------------------------------------------------------------- the MNIST form


@pytest.mark.parametrize("flip", [0, 255])
def test_mnist_images_black_on_white_or_white_on_black_come_back_as_they_are(
    mnist: UInt8, flip: int
) -> None:
    assert all(np.array_equal(find_digit(image ^ np.uint8(flip)), image) for image in mnist[::10])


def test_an_mnist_image_survives_the_way_through_an_rgb_png(mnist: UInt8) -> None:
    data = encoded(Image.fromarray(mnist[0]).convert("RGB"))
    assert np.array_equal(find_digit(decode_image(data, "a.png")), mnist[0])


@pytest.mark.parametrize("inverted", [False, True])
def test_an_enlarged_mnist_image_comes_back_close_to_the_original(
    mnist: UInt8, inverted: bool
) -> None:
    differences = []
    for image in mnist[:8]:
        paper = np.pad(image, 10)
        large = Image.fromarray(255 - paper if inverted else paper).resize((480, 480))
        differences.append(difference(find_digit(np.asarray(large)), image))
    assert np.mean(differences) < 12  # grey levels; a shift by one pixel makes about 20


def test_the_digit_is_20_pixels_long_and_centred_by_mass() -> None:
    digit = find_digit(seven())
    rows, columns = np.nonzero(digit)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == 20
    centre = np.average(np.stack([rows, columns]), axis=1, weights=digit[rows, columns])
    assert np.abs(centre - 14).max() <= 0.5


def test_a_thin_pen_is_thickened_to_what_mnist_holds() -> None:
    image = Image.new("L", (1000, 1000), 255)
    ImageDraw.Draw(image).line([(300, 200), (700, 200), (450, 800)], fill=0, width=9)
    share = (find_digit(np.asarray(image)) > 127).mean()
    assert 0.07 < share < 0.16  # MNIST's sevens: 0.06 to 0.18


@pytest.mark.parametrize("side", [20, 60, 400, 2000])
def test_size_does_not_matter(side: int) -> None:
    scaled = Image.fromarray(seven()).resize((side, side * 6 // 5), Image.Resampling.BOX)
    assert difference(find_digit(np.asarray(scaled)), find_digit(seven())) < 20


@pytest.mark.parametrize("width", [16, 26])
def test_a_bold_loop_that_is_closed_by_its_own_ink_is_left_whole(width: int) -> None:
    (points,) = all_digits(2)["looped"]
    curve = smooth_curve(np.array(points)) * 7 * width + 280 / 2 - 3.5 * width
    image = Image.new("L", (280, 280))
    for x, y in curve:
        ImageDraw.Draw(image).circle((x, y), width / 2, fill=255)
    drawn = in_mnist_form(np.asarray(image) / np.float32(255))
    assert (find_digit(255 - np.asarray(image))[drawn > 220] > 150).all()


def test_a_detached_bar_belongs_to_the_digit() -> None:
    image = Image.new("L", (200, 200), 255)
    draw = ImageDraw.Draw(image)
    draw.arc((60, 90, 130, 170), 200, 500, fill=0, width=9)
    draw.line([(70, 55), (68, 105)], fill=0, width=9)
    draw.line([(85, 50), (135, 50)], fill=0, width=9)
    digit = find_digit(np.asarray(image))
    assert digit[:8, 14:].any()


def split(digit: int, gap: int) -> UInt8:
    """A two whose base, or a four whose stem, is `gap` pixels away from the rest."""
    image = Image.new("L", (166, 124), 255)
    draw = ImageDraw.Draw(image)
    strokes = {
        2: [[(48, 46), (52, 30), (70, 24), (88, 30), (95, 46), (90, 60), (66, 81 - gap)]],
        4: [[(62, 12), (38, 62), (90 - gap, 62)]],
    }
    apart = {2: [(42, 92), (106, 92)], 4: [(98, 18), (84, 112)]}
    for line in (*strokes[digit], apart[digit]):
        draw.line(line, fill=45, width=9, joint="curve")
    return np.asarray(image)


@pytest.mark.parametrize("digit", [2, 4])
@pytest.mark.parametrize("gap", [2, 4, 6, 8])
def test_a_part_that_barely_does_not_touch_belongs_to_the_digit(digit: int, gap: int) -> None:
    # a shift by one pixel makes about 20, a part left out 35 and more
    assert difference(find_digit(split(digit, gap)), find_digit(split(digit, -4))) < 28


def test_a_base_too_far_away_to_be_sure_of_is_not_dropped() -> None:
    far = np.insert(split(2, 0), [86] * 12, 255, axis=0)
    with pytest.raises(NoDigit):
        find_digit(far)


def coloured(paper: tuple[int, int, int], ink: tuple[int, int, int]) -> UInt8:
    return np.where(seven()[..., None] < 128, ink, paper).astype(np.uint8)


SHADOW = np.where(np.arange(220) < 115, 1, 2).astype(np.uint8)
OPAQUE = np.full_like(seven(), 255)
CORNERLESS = OPAQUE * (np.indices(OPAQUE.shape).max(axis=0) >= 15)
DUST = np.zeros((320, 300), bool)
DUST[10:14, 10:14] = DUST[250:253, 30:33] = True
SEVENS = {
    "light on dark": seven(255, 0),
    "half in a shadow": np.pad(seven(), 60, constant_values=255) // SHADOW,
    "dust away from the digit": np.where(DUST, 0, np.pad(seven(), 100, constant_values=255)),
    "transparent corners": np.dstack([seven()] * 3 + [CORNERLESS]),
    "touching the frame": np.pad(seven()[21:, 20:], ((0, 120), (0, 120)), constant_values=255),
    "yellow on white": coloured((255, 255, 255), (250, 230, 60)),
    "red on green": coloured((120, 170, 110), (235, 110, 120)),
    "lighter in one colour and darker in another": coloured((20, 70, 250), (150, 240, 20)),
    "7.5 megapixels": seven().repeat(25, axis=0).repeat(25, axis=1),
    "one channel": seven()[..., None],
    "four channels": np.dstack([seven()] * 3 + [OPAQUE]),
    "dark ink on nothing": np.dstack([OPAQUE * 0] * 3 + [255 - seven()]),
    "light ink on nothing": np.dstack([OPAQUE] * 3 + [255 - seven()]),
}


@pytest.mark.parametrize("image", SEVENS.values(), ids=SEVENS)
def test_light_colour_and_size_change_little(image: UInt8) -> None:
    assert difference(find_digit(image), find_digit(seven())) < 13


def speckled(
    shape: tuple[int, int], colour: tuple[int, int, int], spread: float, size: int = 1
) -> UInt8:
    """A surface whose every channel has a grain of its own, `size` pixels large."""
    coarse = [-(-side // size) for side in shape]
    grain = np.random.default_rng(4).normal(0, spread, (*coarse, 3))
    grain = grain.repeat(size, axis=0).repeat(size, axis=1)[: shape[0], : shape[1]]
    return (np.array(colour) + grain).clip(0, 255).astype(np.uint8)


def on_paper(paper: UInt8, ink: tuple[int, int, int], scale: float = 1.0) -> UInt8:
    """A seven that fills most of the paper."""
    image = Image.fromarray(paper)
    height = scale * min(image.height, image.width)
    corners = [(0.2, 0.1), (0.8, 0.1), (0.4, 0.9)]
    left, top = (image.width - height) / 2, (image.height - height) / 2
    line = [(left + x * height, top + y * height) for x, y in corners]
    ImageDraw.Draw(image).line(line, fill=ink, width=round(0.1 * height), joint="curve")
    return np.asarray(image)


def test_digits_that_fill_a_rough_sheet_of_strong_colour_are_found(mnist: UInt8) -> None:
    paper = speckled((150, 130), (206, 204, 96), 14, size=3)
    differences = []
    for digit in mnist[:10]:
        share = np.asarray(Image.fromarray(digit[3:25, 3:25]).resize((130, 150)))[..., None] / 255
        photo = (paper * (1 - share) + np.array([44, 96, 104]) * share).astype(np.uint8)
        with contextlib.suppress(NoDigit):
            differences.append(difference(find_digit(photo), digit))
    assert len(differences) > 8
    assert np.mean(differences) < 20


def test_light_ink_on_a_small_dark_picture_with_noise_is_found() -> None:
    dark = on_paper(speckled((28, 28), (40, 40, 40), 9), (235, 235, 235))
    assert difference(find_digit(dark), find_digit(on_paper(dark * 0, (255, 255, 255)))) < 15


def wood(shape: tuple[int, int]) -> UInt8:
    """Wavy grain, light and dark in turn."""
    y, x = np.indices(shape)
    wave = np.sin(y / 4 + 3 * np.sin(x / 30) + 2 * np.sin(y / 50 + x / 80))
    return (np.array([150, 100, 60]) * (1 + 0.3 * wave[..., None])).clip(0, 255).astype(np.uint8)


def test_a_digit_on_a_sheet_on_a_wooden_table_is_found() -> None:
    table = wood((480, 640))
    sheet = on_paper(np.full((300, 260, 3), 235, np.uint8), (30, 40, 120), scale=0.5)
    table[90:390, 200:460] = sheet
    assert difference(find_digit(table), find_digit(sheet)) < 15


# ------------------------------------------------------------------- several digits


def row(digits: list[UInt8], gap: int, factor: int = 5) -> UInt8:
    """MNIST digits side by side, dark on light, `gap` of their pixels apart."""
    width = sum(digit.any(axis=0).sum() for digit in digits) + gap * (len(digits) - 1)
    ink = np.zeros((28, width), np.uint8)
    left = 0
    for digit in digits:
        columns = np.flatnonzero(digit.any(axis=0))
        tight = digit[:, columns[0] : columns[-1] + 1]
        ink[:, left : left + tight.shape[1]] |= tight
        left += tight.shape[1] + gap
    large = np.pad(ink, 8).repeat(factor, axis=0).repeat(factor, axis=1)
    return 255 - np.asarray(Image.fromarray(large).resize(large.shape[::-1]))


@pytest.mark.parametrize("gap", [1, 3, 12])
def test_one_of_two_digits_is_never_answered_alone(mnist: UInt8, gap: int) -> None:
    for first, second in mnist[20:30].reshape(5, 2, 28, 28):
        with pytest.raises(PhotoError):
            find_digit(row([first, second], gap))


@pytest.mark.parametrize("count", [2, 3, 8])
def test_the_digits_of_a_number_are_found_in_reading_order(mnist: UInt8, count: int) -> None:
    digits = list(mnist[:count])
    image = row(digits, gap=5)
    found = find_digits(image)
    assert len(found) == count
    assert np.mean([difference(a, b) for (a, _), b in zip(found, digits, strict=True)]) < 15
    boxes = [box for _, box in found]
    assert boxes == sorted(boxes)
    inside = np.zeros(image.shape, bool)
    for left, top, right, bottom in boxes:
        assert (image[top:bottom, left:right] < 128).any(axis=1).mean() > 0.9
        inside[top:bottom, left:right] = True
    assert (image[~inside] < 60).sum() < 0.02 * (image < 60).sum()
    with pytest.raises(SeveralDigits, match=rf"^several digits \({count}\): use --all$"):
        find_digit(image)


@pytest.mark.parametrize("strength", [0.45, 0.25])
def test_a_faint_digit_beside_a_dark_one_is_read(mnist: UInt8, strength: float) -> None:
    image = row(list(mnist[:2]), gap=8)
    right = image[:, image.shape[1] // 2 :]
    right[:] = 255 - (255 - right) * strength
    found = find_digits(image)
    assert max(difference(a, b) for (a, _), b in zip(found, mnist[:2], strict=True)) < 20


def test_the_upper_line_is_read_first(mnist: UInt8) -> None:
    lines = [row(list(mnist[i : i + 3]), gap=6) for i in (0, 3)]
    width = max(line.shape[1] for line in lines)
    page = np.concatenate(
        [np.pad(x, ((0, 0), (0, width - x.shape[1])), constant_values=255) for x in lines]
    )
    found = find_digits(page)
    assert np.mean([difference(a, b) for (a, _), b in zip(found, mnist[:6], strict=True)]) < 15


def test_a_lone_digit_has_its_box() -> None:
    ((digit, box),) = find_digits(np.pad(seven(), ((50, 0), (90, 0)), constant_values=255))
    assert np.abs(np.array(box) - (90 + 25, 50 + 20, 90 + 80, 50 + 100)).max() <= 4
    assert difference(digit, find_digit(seven())) < 6


def test_digits_that_touch_are_refused(mnist: UInt8) -> None:
    eights = [mnist[61], mnist[84]]
    with pytest.raises(SeveralDigits, match="touch"):
        find_digits(row(eights, gap=-2))


@pytest.mark.parametrize("slant", [0, 20])
def test_two_ones_joined_by_a_stroke_are_not_one_digit(slant: int) -> None:
    image = Image.new("L", (200, 200), 255)
    for left in (60, 125):
        ImageDraw.Draw(image).line([(left + slant, 40), (left, 160)], fill=0, width=12)
    ImageDraw.Draw(image).line([(65, 105), (130, 100)], fill=0, width=12)
    with pytest.raises(SeveralDigits, match="touch"):
        find_digits(np.asarray(image))


def test_a_page_of_marks_is_no_number(mnist: UInt8) -> None:
    lines = [row(list(mnist[i : i + 8]), gap=4, factor=2)[:, :320] for i in range(0, 48, 8)]
    page = np.concatenate([np.pad(x, ((0, 0), (0, 320 - x.shape[1])), "edge") for x in lines])
    with pytest.raises(NoDigit):
        find_digits(page)


# ------------------------------------------------------------------------- no digit


def ramp() -> UInt8:
    return np.tile(np.linspace(60, 250, 300).astype(np.uint8), (200, 1))


def ruled() -> UInt8:
    lines = np.full((300, 400), 245, np.uint8)
    lines[20::30] = 150
    return lines


def noise() -> UInt8:
    return np.random.default_rng(0).normal(128, 30, (200, 200)).clip(0, 255).astype(np.uint8)


def disc() -> UInt8:
    y, x = np.mgrid[:300, :400]
    return np.where(np.hypot(y - 150, x - 200) < 40, 40, 230).astype(np.uint8)


def sheet_edge() -> UInt8:
    """A sheet, the dark line of its shadow, and a table of another brightness."""
    image = np.full((300, 400), 235, np.uint8)
    image[:, 300:] = 130
    image[40:, 300:306] = 90
    return image


def empty_sheet() -> UInt8:
    table = wood((480, 640))
    table[90:390, 200:460] = 235
    return table


NO_DIGIT = {
    "black": np.zeros((28, 28), np.uint8),
    "one pixel": np.full((1, 1), 7, np.uint8),
    "small and of one grey": np.full((16, 16), 255, np.uint8),
    "small noise": noise()[:16, :16],
    "one colour": np.full((300, 400, 3), 200, np.uint8),
    "ramp": ramp(),
    "upright ramp": ramp().T,
    "ruled": ruled(),
    "noise": noise(),
    "table": np.where(np.arange(300) < 40, 60, 240).astype(np.uint8)[None].repeat(200, axis=0),
    "disc": disc(),
    "disc on clean white": np.where(disc() < 99, 0, 255).astype(np.uint8)[90:210, 140:260],
    "sheet's edge": sheet_edge(),
    "grain of wood": wood((480, 640)),
    "empty sheet on wood": empty_sheet(),
}


@pytest.mark.parametrize("image", NO_DIGIT.values(), ids=NO_DIGIT)
def test_a_picture_without_a_digit_is_refused(image: UInt8) -> None:
    with pytest.raises(NoDigit, match="no digit found"):
        find_digit(image)


def test_strokes_without_full_ink_are_no_digit() -> None:
    with pytest.raises(NoDigit):
        in_mnist_form((0.6 / 255 * (255 - seven())).astype(np.float32))


# ------------------------------------------------------------------------- decoding


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_picture_upright(orientation: int) -> None:
    undo = [None, 0, 3, 1, 5, 2, 6, 4][orientation - 1]  # Transpose that the viewer takes back
    image = Image.fromarray(seven())
    turned = image if undo is None else image.transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode_image(encoded(turned, exif=exif), "a.png")
    assert np.array_equal(decoded, seven())


def test_netpbm_and_npy_hold_the_same_picture() -> None:
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


GREY = Image.fromarray(seven())
FILES = {mode: encoded(GREY.convert(mode)) for mode in ("1", "L", "P", "RGB", "RGBA", "LA")}
FILES["16 bits"] = encoded(Image.fromarray(seven().astype(np.uint16) * 257))
FILES["CMYK"] = encoded(GREY.convert("CMYK"), "JPEG", quality=95)


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
def test_a_picture_of_every_mode_is_read(data: bytes) -> None:
    grey = decode_image(data, "a").reshape(*seven().shape, -1).mean(axis=2)
    assert difference(grey, seven()) < 3


def test_a_large_jpeg_comes_back_reduced() -> None:
    data = encoded(Image.fromarray(seven()).resize((4000, 3000)), "JPEG")
    height, width = decode_image(data, "a.jpg").shape
    assert height * width <= 2 * picture.WORKING_PIXELS
    assert (height, width) == (375, 500)


def test_the_first_frame_with_ink_is_read() -> None:
    blank, drawn = (Image.fromarray(x).convert("P") for x in (seven() * 0 + 255, seven()))
    animation = encoded(blank, "GIF", save_all=True, append_images=[blank.copy(), drawn])
    assert np.array_equal(find_digit(decode_image(animation, "a.gif")), find_digit(seven()))


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (encoded(Image.fromarray(seven()), "TIFF"), "TIFF"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", "HEIC"),
    ],
)
def test_tiff_and_heic_are_refused_with_the_command_that_converts_them(data, kind) -> None:
    with pytest.raises(PictureError, match=rf"^a: {kind} is not read; .*convert FILE digit.jpg"):
        decode_image(data, "a")


def drawn_large(width: int, height: int, mode: str) -> Image.Image:
    """The seven in the middle of a large sheet."""
    image = Image.new(mode, (width, height), "white")
    scaled = Image.fromarray(seven()).resize((width // 4, height // 3)).convert(mode)
    image.paste(scaled, (width // 3, height // 3))
    return image


WITH_ALPHA = {"transparency": bytes([255] * 128 + [200] * 128)}
LARGE = {
    "50 megapixel phone": (drawn_large, (8160, 6144, "RGB"), "JPEG", {}),
    "progressive": (drawn_large, (4000, 3000, "RGB"), "JPEG", {"progressive": True}),
    "palette with transparency": (drawn_large, (8160, 6144, "P"), "PNG", WITH_ALPHA),
    "colour": (drawn_large, (4000, 3000, "RGB"), "PNG", {}),
    "webp": (drawn_large, (1900, 1500, "RGB"), "WEBP", {"method": 0}),
    "gif": (drawn_large, (8160, 6144, "L"), "GIF", {}),
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
def test_a_large_picture_is_read_within_128_megabytes(name: str, tmp_path: Path) -> None:
    draw, size, kind, options = LARGE[name]
    (tmp_path / "large").write_bytes(encoded(draw(*size), kind, **options))
    done = subprocess.run(
        [sys.executable, "-c", PEAK_MEMORY, tmp_path / "large"],
        cwd=Path(picture.__file__).parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 128_000


@pytest.mark.parametrize(
    ("size", "kind", "options"),
    [((7000, 5000), "JPEG", {"progressive": True}), ((3000, 2000), "WEBP", {"method": 0})],
)
def test_what_cannot_be_decoded_in_that_memory_is_refused(size, kind, options) -> None:
    data = encoded(Image.new("RGB", size), kind, **options)
    with pytest.raises(PictureError, match=r"^a: \d+x\d+ pixels take \d+ MB; save it smaller"):
        decode_image(data, "a")


def png_header(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\r"
        + header
        + struct.pack(">I", zlib.crc32(header))
        + b"\x00\x00\x00\x00IDAT"
        + struct.pack(">I", zlib.crc32(b"IDAT"))
    )


def npy_header(text: str) -> bytes:
    padded = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded


@pytest.mark.parametrize(
    "data",
    [
        png_header(60_000, 60_000),
        png_header(8_000, 8_000),
        b"P4 65536 1\n",
        b"P5 99999 99999 255\n",
        b"P6 99999 99999 255\n",
        b"GIF89a\xff\xff\xff\xff\x00\x00\x00,\0\0\0\0\xff\xff\xff\xff\x00\x08\x00;",
        b"BM" + struct.pack("<IIIIiiHHIIIIII", 54, 0, 54, 40, 65535, 65535, 1, 24, *6 * (0,)),
        png_header(2**31 - 1, 1),
        npy_header("{'descr': '|u1', 'fortran_order': False, 'shape': (99999, 99999)}"),
    ],
    ids=["huge png", "64 megapixel png", "pbm", "pgm", "ppm", "gif", "bmp", "one row", "npy"],
)
def test_a_decompression_bomb_is_refused_before_anything_is_allocated(data: bytes) -> None:
    tracemalloc.start()
    with pytest.raises(PictureError, match=r"^bomb: .*allowed$"):
        decode_image(data, "bomb")
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 5_000_000  # Pillow's own modules, when first imported


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"hello",
        b"GIF89a",
        encoded(Image.fromarray(seven()))[:200],
        encoded(Image.fromarray(seven()), "JPEG")[:300],
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
        npy(np.full((4, 4), np.nan)),
        npy(np.full((4, 4), np.inf)),
        npy(np.full((4, 4), -1.0)),
        npy(np.zeros((4, 4), np.complex64)),
        npy(np.zeros((4, 4), "U4")),
        npy(np.zeros((4,), np.uint8)),
        npy(np.zeros((0, 4), np.uint8)),
        npy(np.zeros((4, 4, 7), np.uint8)),
        npy(seven())[:-1],
        npy_header("{'descr': '|u1', 'fortran_order': False, 'shape': (-4, -4)}"),
        npy_header("__import__('os').getcwd()"),
    ],
)
def test_malformed_bytes_give_one_line_that_names_the_picture(data: bytes) -> None:
    with pytest.raises(PictureError) as caught:
        decode_image(data, "bad.bin")
    assert str(caught.value).startswith("bad.bin: ")
    assert "\n" not in str(caught.value)


STARTS = [
    encoded(Image.fromarray(seven())),
    encoded(Image.fromarray(seven()), "JPEG"),
    encoded(Image.fromarray(seven()).convert("P"), "GIF"),
    encoded(Image.fromarray(seven()), "BMP"),
    b"P5 10 12 255\n" + bytes(120),
    b"P2 2 2 255\n1 2 3 4",
    b"P4 10 12\n" + bytes(24),
    b"P3 1 2 255\n1 2 3 4 5 6",
    encoded(Image.fromarray(seven()), "WEBP"),
    npy(seven()),
    *(b"", b"P5", b"P2 3 3 9\n", b"\x93NUMPY\x01\x00"),
]


@settings(max_examples=200, deadline=None)
@given(
    start=st.sampled_from(STARTS),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    keep=st.floats(0, 1),
    tail=st.binary(max_size=20),
)
def test_damaged_pictures_raise_nothing_but_photo_error(
    start: bytes, changes: list[tuple[float, int]], keep: float, tail: bytes
) -> None:
    data = bytearray(start)
    for where, value in changes if start else ():
        data[int(where * len(data))] = value
    try:
        image = decode_image(bytes(data[: int(keep * len(data)) + 1]) + tail, "x")
        assert find_digit(image).shape == (28, 28)
    except (PictureError, PhotoError):
        pass


@settings(max_examples=100, deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    colour=st.booleans(),
    seed=st.integers(0, 99),
    levels=st.integers(1, 256),
)
def test_any_array_gives_a_digit_or_no_digit(
    height: int, width: int, colour: bool, seed: int, levels: int
) -> None:
    shape = (height, width, 3) if colour else (height, width)
    image = np.random.default_rng(seed).integers(0, levels, shape).astype(np.uint8)
    try:
        digit = find_digit(image)
    except (NoDigit, SeveralDigits):
        return
    assert digit.shape == (28, 28) and digit.dtype == np.uint8 and digit.max() > 127


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4), np.int32), np.zeros(4, np.uint8), np.zeros((4, 4, 2), np.uint8)]
)
def test_an_array_that_is_no_picture_is_refused(array: UInt8) -> None:
    with pytest.raises(PhotoError, match="is needed"):
        find_digit(array)


def test_memory_stays_flat_over_many_pictures() -> None:
    data = encoded(Image.fromarray(seven()), "JPEG")
    held = []
    tracemalloc.start()
    for _ in range(2):  # Python and numpy keep some free lists, which the first pictures fill
        for _ in range(4):
            find_digit(decode_image(data, "a.jpg"))
        gc.collect()
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert held[1] - held[0] < 50_000  # one picture kept would be 10 times its 100 kB


# ---------------------------------------------------------------------- on its own


def test_the_package_works_alone_and_without_pillow(tmp_path: Path) -> None:
    shutil.copytree(Path(photo.__file__).parent, tmp_path / "photo")
    shutil.copy(picture.__file__, tmp_path / "picture.py")
    (tmp_path / "seven.npy").write_bytes(npy(seven()))
    (tmp_path / "seven.pgm").write_bytes(b"P5 100 120 255\n" + seven().tobytes())
    (tmp_path / "seven.png").write_bytes(encoded(Image.fromarray(seven())))
    script = """
import sys
sys.modules["PIL"] = None
import photo, picture
for name in ("seven.npy", "seven.pgm"):
    digit = photo.find_digit(picture.decode_image(open(name, "rb").read(), name))
    assert digit.shape == (28, 28)
try:
    picture.decode_image(open("seven.png", "rb").read(), "seven.png")
except picture.PictureError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("seven.png: PNG and JPEG need Pillow")


@pytest.mark.parametrize("inverted", [False, True])
def test_mnists_boldest_digits_are_found_when_enlarged(mnist: UInt8, inverted: bool) -> None:
    for image in mnist[[7853, 5958, 8012, 8115]]:
        large = np.asarray(Image.fromarray(image).resize((38, 38), Image.Resampling.BICUBIC))
        found = find_digit(255 - large if inverted else large)
        likeness = np.corrcoef(found.ravel(), image.ravel())[0, 1]
        assert likeness > 0.7  # the bold strokes are thinned


def test_a_large_digit_cut_to_its_edges_is_found(mnist: UInt8) -> None:
    for image in mnist[[876, 3635, 6127]]:
        rows, columns = np.nonzero(image)
        tight = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert difference(find_digit(tight.repeat(8, axis=0).repeat(8, axis=1)), image) < 35


@pytest.mark.parametrize("side", [16, 28])
def test_a_scan_that_fills_its_frame_is_centred_as_mnist_is(mnist, side):
    for image in mnist[:20]:
        rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
        tight = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        scale = side / max(tight.shape)
        size = (max(1, round(tight.shape[1] * scale)), max(1, round(tight.shape[0] * scale)))
        scan = np.zeros((side, side), np.uint8)
        left = (side - size[0]) // 2
        resized = Image.fromarray(tight).resize(size, Image.Resampling.BILINEAR)
        scan[: size[1], left : left + size[0]] = resized
        found = find_digit(scan)
        extents = [np.ptp(np.flatnonzero((found > 30).any(axis=axis))) + 1 for axis in (0, 1)]
        assert max(extents) in (19, 20)


@pytest.mark.parametrize("inverted", [False, True])
def test_a_frame_smaller_than_mnists_box_is_taken_whole_even_where_the_digit_breaks(inverted):
    scan = np.zeros((16, 10), np.uint8)
    scan[1:3, 2:8] = scan[6:15, 4:6] = 200  # a seven whose bar does not touch its stem
    found = find_digit(255 - scan if inverted else scan)
    assert found.shape == (28, 28)
    assert not found[:4].any()  # 16 rows become the 20 in the middle
    assert found[6:8, 13].max() == 255
    assert found[12:22, 13].min() > 150
    assert found[10, 13] < 50  # the gap stays
