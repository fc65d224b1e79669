"""Any picture of a digit -> the 28x28 grey levels that MNIST holds.

    digit = find_digit(image)  # (H, W[, C]) uint8 -> (28, 28) uint8, white on black

The steps, in the order of this file: find the ink against its local paper, choose the strokes
that look like digits, tell one digit from another, even out their thickness, and box and centre
them as MNIST was made: scaled into 20x20 with the aspect ratio kept, then placed in 28x28 by
centre of mass (LeCun, Cortes and Burges, http://yann.lecun.com/exdb/mnist/). Needs numpy alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

SEARCH_PIXELS = 60_000  # where the ink is looked for
CROP_PIXELS = 25_000  # of the digit, when it is cut out

WINDOW_RADIUS = 10  # pixels; strokes up to 1.25 times as thick are looked for
MIN_CONTRAST = 10  # of 255
MIN_EXTENT = 10  # pixels of the searched picture
MIN_SCORE = 4.0  # contrast times share of the frame: the fainter, the larger it must be
MIN_SEPARATION = 0.76  # of the contrast's variance, between ink and paper; noise: 0.64
MIN_SHARPNESS = 0.93  # a digit's outline is an edge all around
MAX_WIDTH = 2.5  # times the height; MNIST: 2.2
MAX_CROSSINGS = 3.0  # of a line across it, on average; the most of 1,500 digits: 2.6
MAX_SQUARE = 0.32  # share of a digit's extent; what holds a larger square is a thing, not a stroke
MAX_STEP = 0.8  # of the ink's contrast, between the two sides of a stroke
MIN_SHARE = 0.4  # of all ink; what is less is grain among grain, or a letter among letters
MAX_TRIES = 3  # candidates that are looked at closely at each threshold
MAX_DIGITS = 20  # of a number; more is texture, or a page of writing
MAX_RIVALS = 1  # things as much like a digit as one that runs into a line or the frame

REACH = 0.35  # of a digit's extent: what is farther away is no part of it
MIN_PART = 0.03  # of a digit's area: what is smaller is no part of it
MAX_PARTS = 40  # that are put together
MAX_GAP = 0.2  # of a digit's extent, between its parts
ABREAST = 0.7  # of the height of one digit, the height of another beside it, at least
MAX_ACROSS = 2.1  # strokes of one digit from left to right, on average; 998 of 1,000 in MNIST
MAX_BRIDGED = 0.85  # of the height, on both sides of one thin stroke; 998 of 1,000 in MNIST

SHEET_SIDE = 50  # pixels of the shorter side where the sheet is looked for
MAX_CALM = 0.12  # of the light, between neighbours on paper
MIN_SHEET, MIN_AROUND = 0.06, 0.15  # of the picture: the paper, and what is around it

MIN_GROUND = 0.15  # share of a clean picture's pixels that are of its ground's grey
MAX_SQUARE_CLEAN = 0.55  # as MAX_SQUARE; MNIST: 0.48, closer up 0.51

SHAPES = ((), (1,), (3,), (4,))  # of the channels
SIDE = 28  # MNIST image
BOX = 20  # MNIST digit
FINE = 5  # strokes are evened out on a grid this much finer than MNIST's
THICKNESS = (2.0, 3.5)  # MNIST pixels; 90 % of MNIST is within 1.6 and 3.7

NOTHING = "no digit found; show one on plain paper, at least a tenth of the picture high"

Box = tuple[int, int, int, int]
UInt8 = npt.NDArray[np.uint8]
Float = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
Int = npt.NDArray[np.int64]


class PhotoError(ValueError):
    """The array is not a picture, or not of one digit."""


class NoDigit(PhotoError):  # noqa: N818 - says what was found
    """The picture holds nothing that looks like a digit."""


class SeveralDigits(PhotoError):  # noqa: N818 - says what was found
    """The picture holds more than one digit."""


# ------------------------------------------------------------------------ the whole recipe


def find_digit(image: UInt8) -> UInt8:
    """Cuts the digit out of a picture and brings it into the form of an MNIST image.

    Args:
        image: (H, W) or (H, W, 1) grey, (H, W, 3) RGB or (H, W, 4) RGBA, uint8, any size; dark on
            light or light on dark.

    Returns:
        (28, 28) uint8, white ink on black. An MNIST image comes back as it is.

    Raises:
        NoDigit: nothing in the picture looks like a digit.
        SeveralDigits: more than one thing does.
        PhotoError: the array is not a picture.
    """
    found = find_digits(image)
    if len(found) > 1:
        raise SeveralDigits(f"several digits ({len(found)}): use --all")
    return found[0][0]


def find_digits(image: UInt8) -> list[tuple[UInt8, Box]]:
    """Cuts every digit of a number out of a picture, as `find_digit` does with the only one.

    Args:
        image: as for `find_digit`.

    Returns:
        In reading order, at least one: (28, 28) uint8, and the digit's box in pixels of `image`:
        left, top, right, bottom, the last two excluded.

    Raises:
        NoDigit: nothing in the picture looks like a digit.
        SeveralDigits: digits touch.
        PhotoError: the array is not a picture.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in SHAPES:
        raise PhotoError(f"{image.dtype} {image.shape} where uint8 (H, W) or (H, W, 3) is needed")
    if image.size == 0:
        raise PhotoError("the picture has no pixels")
    photo = opaque(image if image.ndim == 3 else image[..., None])
    height, width = photo.shape[:2]
    if photo.shape == (SIDE, SIDE, 1):
        for ready in (photo[..., 0], 255 - photo[..., 0]):
            if _is_mnist(ready):
                return [(ready.copy(), (0, 0, width, height))]
    if max(height, width) < BOX:
        return [(_whole_frame(photo), (0, 0, width, height))]
    try:
        cuts = _find_strokes(photo)
    except NoDigit:
        clean = _clean_strokes(photo)
        if clean is None:
            raise
        cuts = [clean]
    digits = _in_reading_order([digit for cut in cuts for digit in _separate(cut)])
    return [(_in_mnist_form(digit.strokes), digit.box()) for digit in digits]


def _in_mnist_form(strokes: Float) -> UInt8:
    """(h, w) 0..1 -> (28, 28) 0..255; refuses two digits that touch, by their many strokes."""
    digit = _centre_by_mass(_box(_even_thickness(strokes)))
    ink = np.pad(digit > 160, ((0, 0), (1, 0)))
    strokes_across = (ink[:, 1:] & ~ink[:, :-1]).sum() / ink.any(axis=1).sum()
    if strokes_across > MAX_ACROSS or _bridged(digit) > MAX_BRIDGED:
        raise SeveralDigits("digits that touch, or a letter: leave a gap between digits")
    return digit


def _bridged(digit: UInt8) -> float:
    """How tall, of 1, the lower of two sides is that one thin stroke joins; 0 where none does.

    An H is 1 and an open four up to 0.8. A stroke near the top or the bottom does not count: it
    closes a zero.
    """
    ink = digit > 100
    ink = ink[_bounds(ink)]
    height, width = ink.shape
    rows = np.arange(height)[:, None]
    count, middle = ink.sum(axis=0), (ink * rows).sum(axis=0) / np.maximum(ink.sum(axis=0), 1)
    pieces = (ink & ~np.pad(ink, ((1, 0), (0, 0)))[:-1]).sum(axis=0)
    thin = (pieces == 1) & (count < 0.35 * height) & (abs(middle / height - 0.5) < 0.3)
    sides = (
        (ink[:, :x].any(axis=1).sum(), ink[:, x + 1 :].any(axis=1).sum()) for x in range(width)
    )
    return max((min(side) / height for side, is_thin in zip(sides, thin) if is_thin), default=0.0)


def opaque(image: UInt8) -> UInt8:
    """(H, W, C): fills what is transparent in RGBA with a fitting paper.

    Ink alone on nothing gets white paper, or black if the ink is light. A whole picture with
    some transparent parts (say, round corners) has them filled with its own paper's colour.
    """
    if image.shape[2] < 4:
        return image
    colour, alpha = image[..., :3], image[..., 3:]
    if alpha.min() == 255:
        return colour
    seen = colour[alpha[..., 0] > min(127, int(alpha.max()) - 1)]  # (n, 3)
    level = seen.mean(axis=1)
    paper = np.full(3, 0 if level.mean() > 127 else 255)
    if len(seen) > alpha.size / 2 and np.ptp(np.percentile(level, (2, 98))) > 40:
        paper = np.median(seen, axis=0)
    share = alpha.astype(np.float32) / 255
    filled: UInt8 = np.rint(colour * share + paper * (1 - share)).astype(np.uint8)
    return filled


def _whole_frame(photo: UInt8) -> UInt8:
    """A picture smaller than MNIST's box fills it: a digit that was cut out and scaled already.

    Its pixels are too few to find strokes among, and where a digit breaks, its parts belong to it.
    """
    strokes = _normalised(photo)
    if strokes is None or (strokes < 0.1).mean() < MIN_GROUND:
        raise NoDigit(NOTHING)
    digit = np.rint(255 * _scale(strokes, BOX)).astype(np.uint8)
    height, width = digit.shape
    whole = np.zeros((SIDE, SIDE), np.uint8)
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    whole[top : top + height, left : left + width] = digit
    return whole


def _normalised(photo: UInt8) -> Float | None:
    """(h, w, C) -> (h, w), ink 1 on a ground of 0; None for a picture with little contrast."""
    grey = photo.mean(axis=2, dtype=np.float32)
    low, high = float(grey.min()), float(grey.max())
    if high - low < 128:
        return None
    strokes = (grey - low) / (high - low)
    # A digit leaves most corners free.
    return 1 - strokes if strokes[[0, 0, -1, -1], [0, -1, 0, -1]].mean() > 0.5 else strokes


@dataclass(frozen=True)
class Cut:
    """Strokes that were cut out of a picture.

    Attributes:
        strokes: (h, w) float32, 0 on paper to 1 in full ink.
        top, left: where the cut begins, in pixels of the picture.
        scale: pixels of the picture to one of the strokes, along each side.
    """

    strokes: Float
    top: int
    left: int
    scale: int

    def box(self) -> Box:
        """Around the ink, in pixels of the picture."""
        rows, columns = _bounds(self.strokes > 0.5)
        left, right = (self.left + side * self.scale for side in (columns.start, columns.stop))
        top, bottom = (self.top + side * self.scale for side in (rows.start, rows.stop))
        return left, top, right, bottom


def _find_strokes(photo: UInt8) -> list[Cut]:
    """The strokes in a photograph, at its own resolution; digits far apart lie in several cuts."""
    k = _reduction(photo, SEARCH_PIXELS)
    small = _shrink(photo, k)
    inverted = _opposed_channels(small)
    ink = _find_ink(_sheet_alone(small) ^ inverted)
    return [_cut_out(photo, k, inverted, ink, mask) for mask in ink.masks]


def _clean_strokes(photo: UInt8) -> Cut | None:
    """The strokes of a digit on clean black or white, at most CROP_PIXELS; None if it is none.

    A digit that was cut out already, such as a 16x16 scan, may fill its frame, so that no paper is
    left around it to find its ink by, and may be bolder than anything a photograph is searched for.
    What tells it from a piece of a photograph is its ground, which is of one grey.
    """
    k = _reduction(photo, CROP_PIXELS)
    strokes = _normalised(_shrink(photo, k))
    if strokes is None:
        return None
    ink = strokes > 0.5
    parts = _parts(ink, np.rint(255 * strokes).astype(np.uint8))
    main = int(parts.area.argmax())
    is_digit = (
        (strokes < 0.03).mean() > MIN_GROUND
        and _score(parts)[main] > 0
        and parts.area[main] > 0.8 * parts.area.sum()
        and not _holds_square(np.pad(ink, 1), MAX_SQUARE_CLEAN)
    )
    return Cut(strokes, 0, 0, k) if is_digit else None


def _is_mnist(image: UInt8) -> bool:
    """True for an image made as MNIST's were; holds for all 70,000 of them."""
    if image.max() < 250:
        return False
    rows, columns = np.nonzero(image)
    if max(np.ptp(rows), np.ptp(columns)) + 1 not in (BOX - 1, BOX):
        return False
    weight = image[rows, columns].astype(np.float64)
    centre = np.average(np.stack([rows, columns]), axis=1, weights=weight)
    return bool(np.abs(centre - SIDE / 2).max() < 0.52)


def _reduction(image: UInt8, pixels: int) -> int:
    """The whole factor by which both sides shrink to leave at most about `pixels` pixels."""
    height, width = image.shape[:2]
    return min(max(1, round(math.sqrt(width * height / pixels))), width, height)


def _shrink(image: UInt8, k: int) -> UInt8:
    """(H, W, C) -> (H / k, W / k, C), by means over k x k blocks."""
    if k == 1:
        return image
    height, width = image.shape[0] // k, image.shape[1] // k
    image = image[: height * k, : width * k]
    rows = image[0::k].astype(np.uint16)  # sums of up to 257 pixels fit
    for offset in range(1, k):
        rows += image[offset::k]
    rows //= k
    total = rows[:, 0::k].copy()
    for offset in range(1, k):
        total += rows[:, offset::k]
    return (total // k).astype(np.uint8)


def _opposed_channels(image: UInt8) -> UInt8:
    """(h, w, C) -> (C,), 255 for a channel that goes down where the strongest goes up, else 0.

    Yellow ink on blue paper is lighter in red and darker in blue. Once blue is inverted
    (`image ^ 255`) it is light ink in all channels.
    """
    lag = min(WINDOW_RADIUS, image.shape[1] - 1)
    wide = image.astype(np.float32)
    step = (wide[:, lag:] - wide[:, : image.shape[1] - lag]).reshape(-1, image.shape[2])
    covariance = step.T @ step
    variance = covariance.diagonal()
    opposed = covariance[variance.argmax()] < -0.3 * np.sqrt(variance.max() * variance)
    return np.where(opposed, 255, 0).astype(np.uint8)


def _sheet_alone(image: UInt8) -> UInt8:
    """Paints over what lies around the paper if that is rough, such as a table's grain.

    The paper is the largest calm surface, with all that it encloses along a row or a column.
    """
    k = min(image.shape[:2]) // SHEET_SIDE
    if k < 3:  # a digit cut out, not a table
        return image
    planes = _shrink(image, k).transpose(2, 0, 1)
    edges = (_spread(planes, 1) - _shrunk(planes, 1)).max(axis=0)
    light = np.maximum(_spread(planes, 1).max(axis=0), np.uint8(100))  # the dark is noisy
    calm = edges < MAX_CALM * light.astype(np.float32)
    parts = _parts(calm, edges)
    if len(parts.area) == 0:
        return image
    surface = parts.draw(np.arange(len(parts.area)) == parts.area.argmax())
    sheet = np.zeros_like(surface)
    for axis in (0, 1):
        before = np.maximum.accumulate(surface, axis=axis)
        after = np.flip(np.maximum.accumulate(np.flip(surface, axis), axis=axis), axis)
        sheet |= before & after
    around = ~sheet
    is_sheet = surface.mean() > MIN_SHEET and surface[sheet].mean() > 0.7
    if not is_sheet or around.mean() < MIN_AROUND or calm[around].mean() > 0.4:
        return image
    paper = np.median(planes[:, surface], axis=1).astype(np.uint8)
    around = around.repeat(k, axis=0).repeat(k, axis=1)
    painted = image.copy()
    height, width = around.shape
    painted[:height, :width][around] = paper
    painted[height:], painted[:, width:] = paper, paper
    return painted


# ------------------------------------------------------------------------------- the ink


@dataclass(frozen=True)
class Ink:
    """The strokes that were chosen, on the coarse grid.

    Attributes:
        masks: (h, w) each, True on the strokes of a digit, or of digits close together.
        paper: (C, h, w) uint8, the picture with the strokes painted over by their surroundings.
        scale: pixels of the searched picture to one of this grid, along each side.
    """

    masks: list[Bool]
    paper: UInt8
    scale: int


@dataclass(frozen=True)
class Layer:
    """Dark or light ink of one range of thickness, before strokes are chosen.

    Attributes:
        picture: (C, h, w) uint8.
        paper: (C, h, w) uint8, the picture with its ink painted over by what is around it.
        contrast: (h, w) uint8, 0 (paper) to 255, how far each pixel is from its paper.
        edges: (h, w) uint8, the contrast among the pixels close by.
    """

    picture: UInt8
    paper: UInt8
    contrast: UInt8
    edges: UInt8


@dataclass(frozen=True)
class Parts:
    """The connected parts of a mask, as runs along its rows.

    Attributes:
        runs: (r, 3) start and stop in the flat mask, one column wider than it is, and the part.
        shape: (h, w) of the mask.
        area, edge, rim, mass: (n,) pixels, sides of pixels towards paper, pixels on the frame,
            sum of contrast.
        top, bottom, left, right: (n,) bounding box, bottom and right excluded.
    """

    runs: Int
    shape: tuple[int, int]
    area: Int
    edge: Int
    rim: Int
    mass: Int
    top: Int
    bottom: Int
    left: Int
    right: Int

    @property
    def height(self) -> Int:
        """Of the bounding box, (n,) pixels."""
        return self.bottom - self.top

    @property
    def width(self) -> Int:
        """Of the bounding box, (n,) pixels."""
        return self.right - self.left

    @property
    def extent(self) -> Int:
        """The longer side of the bounding box, (n,) pixels."""
        return np.maximum(self.height, self.width)

    @property
    def thickness(self) -> Float:
        """Of a long stroke: twice its area over its outline."""
        return (2.0 * self.area / np.maximum(self.edge, 1)).astype(np.float32)

    def draw(self, chosen: Bool) -> Bool:
        """(n,) chosen parts -> (h, w) mask."""
        height, width = self.shape
        steps = np.zeros(height * (width + 1) + 1, np.int8)
        runs = self.runs[chosen[self.runs[:, 2]]]
        steps[runs[:, 0]] = 1
        steps[runs[:, 1]] = -1
        filled = np.cumsum(steps[:-1], dtype=np.int8).reshape(height, width + 1)
        return filled[:, :width] > 0


def _find_ink(image: UInt8) -> Ink:
    """(h, w, C) -> the strokes of the digit.

    Ink is what is thin: a grey closing (for dark ink) or opening (for light) wider than any
    stroke paints it over with the paper around it, and leaves shadows, tables and the edges of
    sheets as they are. What was painted over, in any channel, is the contrast. Thicker strokes
    are looked for with the same window in pictures halved again and again, so that beside a thin
    pen's digit there may lie things that are thin only by a marker's measure.
    """
    planes = _blur(np.ascontiguousarray(image.transpose(2, 0, 1)))
    best: tuple[float, Ink | None] = 0.0, None
    scale, thinnest = 1, 0.0
    while scale == 1 or min(planes.shape[1:]) >= 48:
        radius = min(WINDOW_RADIUS, min(planes.shape[1:]) // 4)
        for layer in _layers(planes, radius):
            found = _best_strokes(layer, scale, thinnest, 1.25 * radius, 1.1 * best[0])
            if found[0] > 0:
                best = found
        planes = _shrink(planes.transpose(1, 2, 0), 2).transpose(2, 0, 1)
        scale, thinnest = 2 * scale, 0.25 * WINDOW_RADIUS
    if best[1] is None:
        raise NoDigit(NOTHING)
    return best[1]


def _blur(planes: UInt8) -> UInt8:
    """(C, h, w): takes the edge off noise where strokes are wide enough to bear it."""
    if min(planes.shape[1:]) < 64:
        return planes
    wide = planes.astype(np.uint16)
    wide[:, 1:-1] = (wide[:, :-2] + 2 * wide[:, 1:-1] + wide[:, 2:] + 2) >> 2
    wide[..., 1:-1] = (wide[..., :-2] + 2 * wide[..., 1:-1] + wide[..., 2:] + 2) >> 2
    return wide.astype(np.uint8)


def _layers(planes: UInt8, radius: int) -> Iterator[Layer]:
    """(C, h, w) -> dark ink, then light."""
    reach = max(1, radius // 5)
    near = _spread(planes, reach)
    edges = near - _shrunk(planes, reach)
    brightest, darkest = _spread(planes, radius), _shrunk(planes, radius)
    dark_paper, light_paper = _shrunk(brightest, radius), _spread(darkest, radius)
    for paper, difference, lit in (
        (dark_paper, dark_paper - planes, np.maximum(dark_paper, near)),
        (light_paper, planes - light_paper, brightest),
    ):
        # Relative to the light that falls there, so that ink in a shadow counts as much: as light
        # as paper, or as light ink. The strongest channel tells; a colour's weakest is noisy.
        gain = 255 / np.maximum(lit.max(axis=0), np.float32(64))
        contrast, near_edges = (
            np.minimum(x.max(axis=0) * gain, 255).astype(np.uint8) for x in (difference, edges)
        )
        yield Layer(planes, paper, contrast, near_edges)


def _spread(planes: UInt8, radius: int) -> UInt8:
    """(..., h, w): the largest value within `radius` along both axes, by doubling."""
    for axis in (-1, -2):
        planes = planes.swapaxes(axis, -2)
        window = 2 * radius + 1
        padded = np.zeros(
            (*planes.shape[:-2], planes.shape[-2] + 2 * radius, planes.shape[-1]), np.uint8
        )
        padded[..., radius : radius + planes.shape[-2], :] = planes
        reach = 1
        while reach < window:
            step = min(reach, window - reach)
            padded = np.maximum(padded[..., :-step, :], padded[..., step:, :])
            reach += step
        planes = padded.swapaxes(axis, -2)
    return planes


def _shrunk(planes: UInt8, radius: int) -> UInt8:
    """The smallest value within `radius`."""
    return 255 - _spread(255 - planes, radius)


# --------------------------------------------------------------- the strokes of the digit


def _parts(mask: Bool, contrast: UInt8) -> Parts:
    """Connected parts (8 neighbours) of an (h, w) mask, from the runs along its rows."""
    height, width = mask.shape
    stride = width + 1  # one empty column, so that no run crosses a row's end
    flat = np.zeros(height * stride + 1, np.int8)
    flat[:-1].reshape(height, stride)[:, :width] = mask
    step = np.diff(flat, prepend=np.int8(0))
    start, stop = np.flatnonzero(step == 1), np.flatnonzero(step == -1)
    upper, lower, overlap = _touching(start, stop, stride)
    part, n = _joined(len(start), upper, lower)

    row, left = np.divmod(start, stride)
    right = left + stop - start
    length = stop - start
    rim = np.where((row == 0) | (row == height - 1), length, (left == 0) * 1 + (right == width))

    def summed(values: npt.NDArray[np.generic]) -> Int:
        return np.bincount(part, values, minlength=n).astype(np.int64)

    edge = summed(2 + 2 * length) - 2 * np.bincount(part[upper], overlap, minlength=n).astype(int)
    box = np.array([[height], [0], [width], [0]]).repeat(n, axis=1)
    np.minimum.at(box[0], part, row)
    np.maximum.at(box[1], part, row + 1)
    np.minimum.at(box[2], part, left)
    np.maximum.at(box[3], part, right)
    runs = np.stack([start, stop, part], axis=1)
    mass = np.bincount(np.repeat(part, length), contrast[mask], minlength=n).astype(np.int64)
    return Parts(runs, mask.shape, summed(length), edge, summed(rim), mass, *box)


def _touching(start: Int, stop: Int, stride: int) -> tuple[Int, Int, Int]:
    """Pairs of runs in neighbouring rows that touch, and by how many columns they overlap."""
    first = np.searchsorted(stop, start + stride - 1, side="right")
    last = np.searchsorted(start, stop + stride + 1, side="left")
    count = np.maximum(last - first, 0)
    upper = np.repeat(np.arange(len(start)), count)
    lower = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + first[upper]
    overlap = np.minimum(stop[upper] + stride, stop[lower])
    overlap -= np.maximum(start[upper] + stride, start[lower])
    return upper, lower, np.maximum(overlap, 0)


def _joined(n: int, a: Int, b: Int) -> tuple[Int, int]:
    """Numbers the connected groups of n things, of which a[i] and b[i] belong together."""
    root = np.arange(n)
    while not np.array_equal(root[a], root[b]):
        high, low = np.maximum(root[a], root[b]), np.minimum(root[a], root[b])
        np.minimum.at(root, high, low)
        while not np.array_equal(root, root[root]):
            root = root[root]
    names, part = np.unique(root, return_inverse=True)
    return part.astype(np.int64), len(names)


def _best_strokes(
    layer: Layer, scale: int, thinnest: float, thickest: float, beaten: float
) -> tuple[float, Ink | None]:
    """The score of the most digit-like part at any threshold, and that part made whole.

    The score is 0 if none is above `beaten`; the part is None if others are as much like a digit.
    """
    contrast = layer.contrast
    floor = max(MIN_CONTRAST, _noise_floor(contrast))
    least = max(250.0, MIN_SCORE * min(contrast.shape), beaten / scale)
    candidates: list[tuple[float, int, Parts, Float]] = []
    level = floor
    while level < 0.8 * contrast.max():
        mask = contrast > level
        parts = _parts(mask, contrast)
        score = _score(parts)
        score *= (parts.thickness > thinnest) & (parts.thickness <= thickest)
        if score.any():
            sharpness = _sharpness(parts, mask, layer.edges)
            score *= np.where(sharpness > MIN_SHARPNESS, sharpness**6, 0)
        for part in np.argsort(-score)[:MAX_TRIES]:
            if score[part] > least:
                candidates.append((float(score[part]), int(part), parts, score))
        level *= 2
    candidates.sort(key=lambda candidate: -candidate[0])
    for best_score, part, parts, score in candidates:
        alike = score > 0.25 * best_score
        if parts.area[alike | _beside(parts, part)].sum() < MIN_SHARE * parts.area.sum():
            continue
        strokes = parts.draw(np.arange(len(score)) == part)
        if not _is_stroke(strokes, float(parts.thickness[part]), layer):
            continue
        rivals = int((alike & ~_beside(parts, part)).sum())
        masks = _complete(strokes, contrast, floor, rivals) if alike.sum() <= MAX_DIGITS else []
        return scale * best_score, Ink(masks, layer.paper, scale) if masks else None
    return 0.0, None


def _noise_floor(contrast: UInt8) -> float:
    """The contrast above which there is ink and no grain of the paper's.

    Six standard deviations above the paper's own, if paper is most of the picture. A digit that
    fills its frame makes that too high; its ink and its paper are two groups of contrast, which
    grain never is.
    """
    sample = contrast[::2, ::2] if contrast.size > 10_000 else contrast
    quiet, middle, ink = np.percentile(sample, (16, 50, 98))
    floor = float(middle + 6 * (middle - quiet))
    if floor < 0.5 * ink:
        return floor
    count = np.bincount(sample.ravel(), minlength=256)
    below = np.cumsum(count) / sample.size  # share of the pixels up to each contrast
    mass = np.cumsum(count * np.arange(256)) / sample.size
    between = (mass[-1] * below - mass) ** 2 / np.maximum(below * (1 - below), 1e-6)
    split = int(between.argmax())  # Otsu's threshold
    two_groups = between[split] > MIN_SEPARATION * sample.var() and below[split] > 0.6
    return min(floor, split) if two_groups else floor


def _is_stroke(mask: Bool, thickness: float, layer: Layer) -> bool:
    """False for a thing as broad as it is long, and for what lies between two unlike surfaces.

    Paper is the same on both sides of a stroke. The shadow along a sheet's edge, a fold, or the
    sliver of table beyond has paper on one side only.
    """
    window = _bounds(mask, margin=round(thickness) + 6)
    ink = mask[window].astype(np.uint8)
    if _holds_square(np.pad(mask[window], 1), MAX_SQUARE):  # beyond the frame is no ink
        return False
    picture = layer.picture[(slice(None), *window)]
    gap = 2  # pixels over which a stroke's edge may be blurred
    ring = _spread(ink, gap + 1) > _spread(ink, gap)
    reach = round(thickness / 2) + gap + 2
    high = _spread(np.where(ring, picture, np.uint8(0)), reach)
    low = _shrunk(np.where(ring, picture, np.uint8(255)), reach)
    inside = ink > 0
    above, below, at = (x[:, inside].astype(np.float32) for x in (high, low, picture))
    # Relative to the light there, as the contrast is; below 0 where no ring is near.
    step = (255 * (above - below) / np.maximum(np.maximum(above, at), 64)).max(axis=0)
    return bool(np.percentile(step, 85) < MAX_STEP * layer.contrast[window][inside].mean())


def _holds_square(mask: Bool, share: float) -> bool:
    """Whether a square of the given share of the mask's extent fits in, partly over the frame."""
    extent = max(side.stop - side.start for side in _bounds(mask))
    window = mask[_bounds(mask, margin=1)].astype(np.uint8)
    return bool(_shrunk(window, math.ceil((share * extent - 1) / 2)).any())


def _score(parts: Parts) -> Float:
    """(n,) 0 for what cannot be a digit, else higher the darker and larger it is."""
    height, width = parts.shape
    extent = parts.extent
    slim = parts.thickness / np.maximum(extent, 1)
    crossings = parts.edge / (2 * (parts.height + parts.width))  # of a line across it, on average
    crosses_frame = (parts.width == width) | (parts.height == height)
    possible = (
        (extent >= MIN_EXTENT)
        & (slim < 0.42)  # MNIST: 0.40 at most
        & (parts.width < MAX_WIDTH * parts.height)
        & (crossings < MAX_CROSSINGS)  # not a grid of lines, a scribble, the paper among letters
        & (parts.rim < 0.3 * parts.edge)  # not a thing that reaches in from outside
        & ~(crosses_frame & (slim < 0.025))  # not a ruled line
    )
    contrast = parts.mass / np.maximum(parts.area, 1)
    score = contrast * extent * np.where(parts.rim > 0, 0.7, 1.0)
    return np.where(possible, score, 0).astype(np.float32)


def _sharpness(parts: Parts, mask: Bool, edges: UInt8) -> Float:
    """(n,) the share of each part's outline where the picture has an edge of its strength.

    A stroke has one all around; a shadow, a corner in the dark or the paper between two strokes,
    whose outline is partly the window's, has not.
    """
    inner = mask.copy()
    inner[1:] &= mask[:-1]
    inner[:-1] &= mask[1:]
    inner[:, 1:] &= mask[:, :-1]
    inner[:, :-1] &= mask[:, 1:]
    part = np.repeat(parts.runs[:, 2], parts.runs[:, 1] - parts.runs[:, 0])  # of each mask pixel
    outline = ~inner[mask]
    part = part[outline]
    n = len(parts.area)
    contrast = parts.mass / np.maximum(parts.area, 1)
    sharp = edges[mask][outline] > 0.5 * contrast[part]
    total = np.maximum(np.bincount(part, minlength=n), 1)
    return (np.bincount(part, sharp, minlength=n) / total).astype(np.float32)


def _complete(mask: Bool, contrast: UInt8, floor: float, rivals: int) -> list[Bool]:
    """Grows a part to all ink of about its own strength, with what broke off it or is like it.

    Each of the masks is far from the others and holds one digit or more.
    """
    strength = float(np.percentile(contrast[mask], 90))
    shared = mask.astype(np.uint8)
    parts = _parts(contrast > max(floor, 0.4 * strength), shared)  # mass: pixels shared with mask
    main = int(parts.mass.argmax())
    digit_like = _score(replace(parts, mass=parts.area)) > 0
    if not digit_like[main]:  # it ran into a line or the frame
        return [mask] if rivals <= MAX_RIVALS else []
    extent, thickness = parts.extent / parts.extent[main], parts.thickness / parts.thickness[main]
    large = digit_like & (extent > 0.5) & (extent < 2.2)
    small = (
        (parts.area > MIN_PART * parts.area[main])
        & (extent < 2.2)
        & (parts.rim == 0)
        & (thickness > 0.5)
    )
    if large.sum() > MAX_DIGITS:
        return []
    large, small = np.flatnonzero(large), np.flatnonzero(small & ~large)
    groups = _near(parts, large, small, REACH * float(parts.extent[main]))
    return [parts.draw(np.isin(np.arange(len(parts.area)), group)) for group in groups]


def _beside(parts: Parts, main: int) -> Bool:
    """(n,) the parts within a quarter of its size of one part, and that part."""
    everything = np.arange(len(parts.area))
    beside: Bool = (
        _apart(parts, everything[main : main + 1], everything)[0] <= parts.extent[main] / 4
    )
    return beside


def _near(parts: Parts, large: Int, small: Int, reach: float) -> list[Int]:
    """Groups of large parts whose boxes lie close to one another, each with the small ones near."""
    members = np.concatenate([large, small])
    a, b = np.nonzero(_apart(parts, large, members) <= reach)
    group = _joined(len(members), a, b)[0]
    return [members[group == i] for i in np.unique(group[: len(large)])]


def _apart(parts: Parts, some: Int, others: Int) -> Int:
    """(m,) and (n,) parts -> (m, n) pixels between their boxes, along the axis where it is more."""
    first, last = np.stack([parts.top, parts.left]), np.stack([parts.bottom, parts.right])
    before = first[:, some, None] - last[:, None, others]
    after = first[:, None, others] - last[:, some, None]
    pixels: Int = np.maximum(before, after).max(axis=0)
    return pixels


# ------------------------------------------------------------- one digit from another


def _separate(cut: Cut) -> list[Cut]:
    """The digits in a cut, each with the parts that a gap in its stroke has set apart."""
    ink = cut.strokes > 0.5
    parts = _parts(ink, ink.astype(np.uint8))
    largest = np.argsort(-parts.area)[:MAX_PARTS]
    groups = _groups(parts, largest[parts.area[largest] > MIN_PART * parts.area.max()])
    extents = [max(_size(parts, group)) for group in groups]
    digits = []
    for group, extent in zip(groups, extents, strict=True):
        height, width = _size(parts, group)
        if extent < 0.5 * max(extents):
            continue  # a comma, or dust
        if width > MAX_WIDTH * height:
            if len(groups) < 3:
                raise NoDigit(NOTHING)  # a two whose base is too far away to be sure of
            continue  # a line under a number
        digits.append(cut if len(groups) == 1 else _alone(cut, parts, group))
    if not digits:
        raise NoDigit(NOTHING)
    return digits


def _groups(parts: Parts, solid: Int) -> list[Int]:
    """Which parts make up a digit, for each digit; the closest are joined first."""
    rows, left = np.divmod(parts.runs[:, 0], parts.shape[1] + 1)
    right = left + parts.runs[:, 1] - parts.runs[:, 0]
    runs = [np.stack([rows, left, right])[:, parts.runs[:, 2] == part] for part in solid]
    pairs = [(_gap(runs[i], runs[j]), i, j) for i in range(len(solid)) for j in range(i)]
    groups = [solid[i : i + 1] for i in range(len(solid))]
    for gap, i, j in sorted(pairs):
        a, b = groups[i], groups[j]
        if a is not b and _is_one_digit(parts, a, b, gap):
            both = np.concatenate([a, b])
            groups = [both if group is a or group is b else group for group in groups]
    return list({id(group): group for group in groups}.values())


def _gap(a: Int, b: Int) -> float:
    """Pixels between two parts, of which each has (3, r) row, left and right of its runs."""
    down = np.abs(a[0][:, None] - b[0])
    across = np.maximum(a[1][:, None] - b[2], b[1] - a[2][:, None]).clip(0)
    return float(np.hypot(down, across).min())


def _size(parts: Parts, group: Int) -> tuple[int, int]:
    """Height and width of some parts together."""
    height = parts.bottom[group].max() - parts.top[group].min()
    return int(height), int(parts.right[group].max() - parts.left[group].min())


def _is_one_digit(parts: Parts, a: Int, b: Int, gap: float) -> bool:
    """Whether two groups of parts are close, and not two digits side by side."""
    (height_a, width_a), (height_b, width_b) = _size(parts, a), _size(parts, b)
    height, width = _size(parts, np.concatenate([a, b]))
    low, high = sorted((height_a, height_b))
    abreast = (
        low > ABREAST * high
        and height_a + height_b - height > 0.5 * low
        and width_a + width_b - width < 0.5 * min(width_a, width_b)
    )
    return not abreast and gap < MAX_GAP * max(height_a, width_a, height_b, width_b)


def _alone(cut: Cut, parts: Parts, group: Int) -> Cut:
    """One digit, with the grey at its edges and without the others."""
    chosen = np.isin(np.arange(len(parts.area)), group)
    mask = parts.draw(chosen)
    near = (_spread(mask.astype(np.uint8), 2) > 0) & ~parts.draw(~chosen)
    rows, columns = _bounds(mask, margin=2)
    top, left = cut.top + rows.start * cut.scale, cut.left + columns.start * cut.scale
    return Cut((cut.strokes * near)[rows, columns], top, left, cut.scale)


def _in_reading_order(digits: list[Cut]) -> list[Cut]:
    """From left to right in each line, the upper line first."""
    lines: list[list[Cut]] = []
    for digit in sorted(digits, key=lambda digit: digit.box()[1]):
        _, top, _, bottom = digit.box()
        if not lines or (top + bottom) / 2 > lines[-1][0].box()[3]:
            lines.append([])
        lines[-1].append(digit)
    return [digit for line in lines for digit in sorted(line, key=lambda digit: digit.box()[0])]


# ---------------------------------------------------------------- from strokes to MNIST


def _cut_out(photo: UInt8, k: int, inverted: UInt8, ink: Ink, mask: Bool) -> Cut:
    """Some of the strokes, at the photo's own resolution.

    The photo is `k` times as large as the picture in which the ink was looked for.
    """
    k *= ink.scale
    rows, columns = _bounds(mask, margin=3)
    mask, paper = mask[rows, columns], ink.paper[:, rows, columns].transpose(1, 2, 0)
    crop = photo[rows.start * k : rows.stop * k, columns.start * k : columns.stop * k]
    scale = _reduction(crop, CROP_PIXELS)
    crop = _shrink(crop, scale) ^ inverted
    around = _spread(mask.astype(np.uint8), 1)
    grown = _resize(np.dstack([paper, mask, around]).astype(np.float32), crop.shape[:2])
    light, share = grown[..., :-2], grown[..., -2]
    near = grown[..., -1] > 0.3  # leaves out dust and lines beside the strokes
    difference = (light - crop) / np.maximum(light, 128)  # evens out shadows on light paper
    core = share > 0.5
    colour = difference[core].mean(axis=0)  # from paper to ink: what tells them apart best
    strength = difference @ colour  # (h, w)
    full = np.percentile(strength[core], 75)
    low = 0.2 * full
    strokes: Float = ((strength - low) / (0.8 * full - low)).clip(0, 1) * near
    return Cut(strokes, rows.start * k, columns.start * k, scale)


def _bounds(mask: Bool, margin: int = 0) -> tuple[slice, slice]:
    """The box around all True, as (rows, columns)."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (
        slice(max(0, int(rows[0]) - margin), min(mask.shape[0], int(rows[-1]) + 1 + margin)),
        slice(max(0, int(columns[0]) - margin), min(mask.shape[1], int(columns[-1]) + 1 + margin)),
    )


def _fit(strokes: Float, side: int) -> Float:
    """Cuts to the strokes and scales their longer side to `side`, aspect ratio kept."""
    return _scale(strokes[_bounds(strokes > 0.5)], side)


def _scale(strokes: Float, side: int) -> Float:
    """Scales the longer side to `side`, aspect ratio kept."""
    height, width = strokes.shape
    scale = side / max(height, width)
    shape = (max(1, round(height * scale)), max(1, round(width * scale)))
    return _resize(strokes[..., None], shape)[..., 0]


def _resize(image: Float, shape: tuple[int, int]) -> Float:
    """(h, w, C) -> (*shape, C): means over areas when it shrinks, linear when it grows."""
    rows, columns = _weights(image.shape[0], shape[0]), _weights(image.shape[1], shape[1])
    resized: Float = np.einsum("yh,hwc,xw->yxc", rows, image, columns, optimize=True)
    return resized


def _weights(n: int, m: int) -> Float:
    """(m, n): how much of each of n pixels goes into each of m."""
    scale = n / m
    if scale > 1:
        edges = np.arange(m + 1)[:, None] * scale - np.arange(n)[None]
        covered = edges.clip(0, 1)
        shares: Float = ((covered[1:] - covered[:-1]) / scale).astype(np.float32)
        return shares
    centre = ((np.arange(m) + 0.5) * scale - 0.5).clip(0, n - 1)
    return (1 - np.abs(centre[:, None] - np.arange(n)[None])).clip(0, 1).astype(np.float32)


def _even_thickness(strokes: Float) -> Float:
    """Thickens a thin pen's strokes and thins a marker's to within what MNIST holds."""
    fine = np.pad(_fit(strokes, BOX * FINE), 2 * FINE)
    grey = np.rint(fine * 255).astype(np.uint8)
    parts = _parts(grey > 127, grey)
    thickness = 2.4 * parts.area.sum() / parts.edge.sum() / FINE  # MNIST pixels; 2.4, not 2: stairs
    change = np.clip(thickness, *THICKNESS) - thickness
    radius = round(abs(change) * FINE / 2)
    grown = _disc(grey, radius) if change > 0 else 255 - _disc(255 - grey, radius)
    if grown.max() < 128:
        grown = grey
    return (grown / 255).astype(np.float32)


def _disc(image: UInt8, radius: int) -> UInt8:
    """Largest value within about `radius` pixels: square and cross in turn make an octagon."""
    for step in range(radius):
        square = _spread(image, 1)
        if step % 2:
            image = square
        else:
            across = np.maximum(image[1:-1, :-2], image[1:-1, 2:])
            along = np.maximum(image[:-2, 1:-1], image[2:, 1:-1])
            image = image.copy()
            image[1:-1, 1:-1] = np.maximum(image[1:-1, 1:-1], np.maximum(across, along))
    return image


def _box(strokes: Float) -> UInt8:
    """The 20x20 box: longer side 20 pixels."""
    return np.rint(_fit(strokes, BOX) * 255).astype(np.uint8)


def _centre_by_mass(digit: UInt8) -> UInt8:
    """(<=20, <=20) -> (28, 28), the centre of mass in the middle to the nearest pixel."""
    ys, xs = np.nonzero(digit)
    weight = digit[ys, xs].astype(np.float64)
    top = round(SIDE / 2 - float(np.average(ys, weights=weight)))
    left = round(SIDE / 2 - float(np.average(xs, weights=weight)))
    height, width = digit.shape
    top, left = min(max(top, 0), SIDE - height), min(max(left, 0), SIDE - width)
    image = np.zeros((SIDE, SIDE), np.uint8)
    image[top : top + height, left : left + width] = digit
    return image
