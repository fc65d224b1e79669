"""A drawn digit, the bytes of a picture file, and how far two pictures are apart."""

import io

import numpy as np
from PIL import Image, ImageDraw


def seven(ink=0, paper=255):
    """A seven drawn as in a paint program, uint8 (120, 100)."""
    image = Image.new("L", (100, 120), paper)
    ImageDraw.Draw(image).line([(25, 25), (75, 25), (45, 95)], fill=ink, width=9, joint="curve")
    return np.asarray(image)


def encoded(image, kind="PNG", **options):
    """The bytes of a picture file."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def difference(a, b):
    """The mean difference in grey levels; a digit shifted by one pixel makes about 20."""
    return float(np.abs(a.astype(int) - b).mean())


def write_pgm(path, image):
    """Write grey levels, uint8 (H, W)."""
    path.write_bytes(b"P5\n%d %d\n255\n" % image.shape[::-1] + image.tobytes())
    return path
