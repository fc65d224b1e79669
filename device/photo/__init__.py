"""Any picture of a digit -> the 28x28 grey levels that MNIST holds.

    digit = find_digit(image)  # (H, W[, C]) uint8 -> (28, 28) uint8, white on black

A file a step: find the ink against its local paper (ink.py), choose and cut out the strokes that
look like digits (strokes.py), tell one digit from another (digits.py), then even out their
thickness, and box and centre them as MNIST was made (form.py). find.py calls them. It needs numpy
alone.
"""

from .find import find_digit, find_digits
from .pixels import NoDigit, PhotoError, SeveralDigits, opaque

__all__ = ["NoDigit", "PhotoError", "SeveralDigits", "find_digit", "find_digits", "opaque"]
