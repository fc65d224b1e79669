"""A picture of one digit becomes what MNIST would hold of it; a picture of none is refused."""

import contextlib

import numpy as np
import pytest
from drawings import difference, seven
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from device.photo import NoDigit, PhotoError, SeveralDigits, find_digit
from device.photo.form import in_mnist_form
from pipeline.studies.skeletons import all_digits, smooth_curve


def inverted(image):
    return 255 - image


def as_it_is(image):
    return image


# --- Images of MNIST ----------------------------------------------------------------------------


@pytest.mark.parametrize("shown", [as_it_is, inverted])
def test_mnist_images_black_on_white_or_white_on_black_come_back_as_they_are(mnist, shown):
    for image in mnist.test.images[::10]:
        assert np.array_equal(find_digit(shown(image)), image)


@pytest.mark.parametrize("shown", [as_it_is, inverted])
def test_an_enlarged_mnist_image_comes_back_close_to_the_original(mnist, shown):
    differences = []
    for image in mnist.test.images[:8]:
        large = Image.fromarray(shown(np.pad(image, 10))).resize((480, 480))
        differences.append(difference(find_digit(np.asarray(large)), image))
    assert np.mean(differences) < 12


@pytest.mark.parametrize("shown", [as_it_is, inverted])
def test_mnists_boldest_digits_are_found_when_enlarged(mnist, shown):
    for image in mnist.test.images[[7853, 5958, 8012, 8115]]:
        large = np.asarray(Image.fromarray(image).resize((38, 38), Image.Resampling.BICUBIC))
        likeness = np.corrcoef(find_digit(shown(large)).ravel(), image.ravel())[0, 1]
        assert likeness > 0.7  # the bold strokes are thinned


def tight(image):
    """Without the empty rows and columns around the ink."""
    rows, columns = (np.flatnonzero(image.any(axis=axis)) for axis in (1, 0))
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def test_a_large_digit_cut_to_its_edges_is_found(mnist):
    for image in mnist.test.images[[876, 3635, 6127]]:
        large = tight(image).repeat(8, axis=0).repeat(8, axis=1)
        assert difference(find_digit(large), image) < 35


@pytest.mark.parametrize("side", [16, 28])
def test_a_scan_that_fills_its_frame_is_centred_as_mnist_is(mnist, side):
    for image in map(tight, mnist.test.images[:20]):
        height, width = (max(1, round(side * n / max(image.shape))) for n in image.shape)
        scan, left = np.zeros((side, side), np.uint8), (side - width) // 2
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        scan[:height, left : left + width] = resized
        assert max(tight(find_digit(scan) > 30).shape) in (19, 20)


# --- Drawings -----------------------------------------------------------------------------------


def test_the_digit_is_20_pixels_long_and_centred_by_mass():
    digit = find_digit(seven())
    rows, columns = np.nonzero(digit)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == 20
    centre = np.average(np.stack([rows, columns]), axis=1, weights=digit[rows, columns])
    assert np.abs(centre - 14).max() <= 0.5


def test_a_thin_pen_is_thickened_to_what_mnist_holds():
    image = Image.new("L", (1000, 1000), 255)
    ImageDraw.Draw(image).line([(300, 200), (700, 200), (450, 800)], fill=0, width=9)
    share = (find_digit(np.asarray(image)) > 127).mean()
    assert 0.07 < share < 0.16  # MNIST's sevens: 0.06 to 0.18


@pytest.mark.parametrize("width", [16, 26])
def test_a_bold_loop_that_is_closed_by_its_own_ink_is_left_whole(width):
    (points,) = all_digits(2)["looped"]
    curve = smooth_curve(np.array(points)) * 7 * width + 280 / 2 - 3.5 * width
    image = Image.new("L", (280, 280))
    for x, y in curve:
        ImageDraw.Draw(image).circle((x, y), width / 2, fill=255)
    drawn = in_mnist_form(np.asarray(image) / np.float32(255))
    assert (find_digit(255 - np.asarray(image))[drawn > 220] > 150).all()


def test_a_detached_bar_belongs_to_the_digit():
    image = Image.new("L", (200, 200), 255)
    draw = ImageDraw.Draw(image)
    draw.arc((60, 90, 130, 170), 200, 500, fill=0, width=9)
    draw.line([(70, 55), (68, 105)], fill=0, width=9)
    draw.line([(85, 50), (135, 50)], fill=0, width=9)
    assert find_digit(np.asarray(image))[:8, 14:].any()


def split(digit, gap):
    """A two whose base, or a four whose stem, is `gap` pixels away from the rest."""
    image = Image.new("L", (166, 124), 255)
    strokes = {
        2: [[(48, 46), (52, 30), (70, 24), (88, 30), (95, 46), (90, 60), (66, 81 - gap)]],
        4: [[(62, 12), (38, 62), (90 - gap, 62)]],
    }
    apart = {2: [(42, 92), (106, 92)], 4: [(98, 18), (84, 112)]}
    for line in (*strokes[digit], apart[digit]):
        ImageDraw.Draw(image).line(line, fill=45, width=9, joint="curve")
    return np.asarray(image)


@pytest.mark.parametrize("digit", [2, 4])
@pytest.mark.parametrize("gap", [2, 4, 6, 8])
def test_a_part_that_barely_does_not_touch_belongs_to_the_digit(digit, gap):
    # A part left out makes 35 and more.
    assert difference(find_digit(split(digit, gap)), find_digit(split(digit, -4))) < 28


def test_a_base_too_far_away_to_be_sure_of_is_not_dropped():
    with pytest.raises(NoDigit):
        find_digit(np.insert(split(2, 0), [86] * 12, 255, axis=0))


@pytest.mark.parametrize("shown", [as_it_is, inverted])
def test_a_frame_smaller_than_mnists_box_is_taken_whole_even_where_the_digit_breaks(shown):
    scan = np.zeros((16, 10), np.uint8)
    scan[1:3, 2:8] = scan[6:15, 4:6] = 200  # a seven whose bar does not touch its stem
    found = find_digit(shown(scan))
    assert found.shape == (28, 28)
    assert not found[:4].any()  # 16 rows become the 20 in the middle
    assert found[6:8, 13].max() == 255
    assert found[12:22, 13].min() > 150
    assert found[10, 13] < 50  # the gap stays


# --- Light, colour and paper --------------------------------------------------------------------


def coloured(paper, ink):
    return np.where(seven()[..., None] < 128, ink, paper).astype(np.uint8)


def scaled(side):
    return np.asarray(Image.fromarray(seven()).resize((side, side * 6 // 5), Image.Resampling.BOX))


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
    "20 pixels wide": scaled(20),
    "60 pixels wide": scaled(60),
    "2000 pixels wide": scaled(2000),
    "7.5 megapixels": seven().repeat(25, axis=0).repeat(25, axis=1),
    "one channel": seven()[..., None],
    "four channels": np.dstack([seven()] * 3 + [OPAQUE]),
    "dark ink on nothing": np.dstack([OPAQUE * 0] * 3 + [255 - seven()]),
    "light ink on nothing": np.dstack([OPAQUE] * 3 + [255 - seven()]),
}


@pytest.mark.parametrize("name", SEVENS)
def test_light_colour_and_size_change_little(name):
    most = 20 if name.endswith("wide") else 13
    assert difference(find_digit(SEVENS[name]), find_digit(seven())) < most


def speckled(shape, colour, spread, size=1):
    """A surface whose every channel has a grain of its own, `size` pixels large."""
    coarse = [-(-side // size) for side in shape]
    grain = np.random.default_rng(4).normal(0, spread, (*coarse, 3))
    grain = grain.repeat(size, axis=0).repeat(size, axis=1)[: shape[0], : shape[1]]
    return (np.array(colour) + grain).clip(0, 255).astype(np.uint8)


def on_paper(paper, ink, scale=1.0):
    """A seven that fills most of the paper."""
    image = Image.fromarray(paper)
    height = scale * min(image.height, image.width)
    corners = [(0.2, 0.1), (0.8, 0.1), (0.4, 0.9)]
    left, top = (image.width - height) / 2, (image.height - height) / 2
    line = [(left + x * height, top + y * height) for x, y in corners]
    ImageDraw.Draw(image).line(line, fill=ink, width=round(0.1 * height), joint="curve")
    return np.asarray(image)


def wood(shape):
    """Wavy grain, light and dark in turn."""
    y, x = np.indices(shape)
    wave = np.sin(y / 4 + 3 * np.sin(x / 30) + 2 * np.sin(y / 50 + x / 80))
    return (np.array([150, 100, 60]) * (1 + 0.3 * wave[..., None])).clip(0, 255).astype(np.uint8)


def on_wood(sheet):
    """A sheet of 300x260 on a wooden table."""
    table = wood((480, 640))
    table[90:390, 200:460] = sheet
    return table


def test_digits_that_fill_a_rough_sheet_of_strong_colour_are_found(mnist):
    paper = speckled((150, 130), (206, 204, 96), 14, size=3)
    differences = []
    for digit in mnist.test.images[:10]:
        share = np.asarray(Image.fromarray(digit[3:25, 3:25]).resize((130, 150)))[..., None] / 255
        photo = (paper * (1 - share) + np.array([44, 96, 104]) * share).astype(np.uint8)
        with contextlib.suppress(NoDigit):
            differences.append(difference(find_digit(photo), digit))
    assert len(differences) > 8
    assert np.mean(differences) < 20


def test_light_ink_on_a_small_dark_picture_with_noise_is_found():
    dark = on_paper(speckled((28, 28), (40, 40, 40), 9), (235, 235, 235))
    assert difference(find_digit(dark), find_digit(on_paper(dark * 0, (255, 255, 255)))) < 15


def test_a_digit_on_a_sheet_on_a_wooden_table_is_found():
    sheet = on_paper(np.full((300, 260, 3), 235, np.uint8), (30, 40, 120), scale=0.5)
    assert difference(find_digit(on_wood(sheet)), find_digit(sheet)) < 15


# --- No digit -----------------------------------------------------------------------------------

RAMP = np.tile(np.linspace(60, 250, 300).astype(np.uint8), (200, 1))
NOISE = np.random.default_rng(0).normal(128, 30, (200, 200)).clip(0, 255).astype(np.uint8)
DISC = np.where(np.hypot(*(np.mgrid[:300, :400] - [[[150]], [[200]]])) < 40, 40, 230)
RULED = np.full((300, 400), 245, np.uint8)
RULED[20::30] = 150
SHEET_EDGE = np.full((300, 400), 235, np.uint8)  # its shadow's dark line, a table of another grey
SHEET_EDGE[:, 300:] = 130
SHEET_EDGE[40:, 300:306] = 90
NO_DIGIT = {
    "black": np.zeros((28, 28)),
    "one pixel": np.full((1, 1), 7),
    "small and of one grey": np.full((16, 16), 255),
    "small noise": NOISE[:16, :16],
    "one colour": np.full((300, 400, 3), 200),
    "ramp": RAMP,
    "upright ramp": RAMP.T,
    "ruled": RULED,
    "noise": NOISE,
    "table": np.tile(np.where(np.arange(300) < 40, 60, 240), (200, 1)),
    "disc": DISC,
    "disc on clean white": np.where(DISC < 99, 0, 255)[90:210, 140:260],
    "sheet's edge": SHEET_EDGE,
    "grain of wood": wood((480, 640)),
    "empty sheet on wood": on_wood(235),
}


@pytest.mark.parametrize("image", NO_DIGIT.values(), ids=NO_DIGIT)
def test_a_picture_without_a_digit_is_refused(image):
    with pytest.raises(NoDigit, match="no digit found"):
        find_digit(image.astype(np.uint8))


def test_strokes_without_full_ink_are_no_digit():
    with pytest.raises(NoDigit):
        in_mnist_form((0.6 / 255 * (255 - seven())).astype(np.float32))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.int32),
        np.zeros(4, np.uint8),
        np.zeros((4, 4, 2), np.uint8),
        Image.new("L", (4, 4)),
        [[0, 255]],
    ],
    ids=["int32", "flat", "two channels", "Pillow", "list"],
)
def test_an_array_that_is_no_picture_is_refused(array):
    with pytest.raises(PhotoError, match="is needed"):
        find_digit(array)


sides = st.integers(1, 70)
shapes = st.tuples(sides, sides) | st.tuples(sides, sides, st.just(3))


@settings(max_examples=100)
@given(shapes, st.integers(0, 99), st.integers(1, 256))
def test_any_array_gives_a_digit_or_no_digit(shape, seed, levels):
    image = np.random.default_rng(seed).integers(0, levels, shape).astype(np.uint8)
    try:
        digit = find_digit(image)
    except (NoDigit, SeveralDigits):
        return
    assert (digit.shape, digit.dtype) == ((28, 28), np.uint8)
    assert digit.max() > 127
