"""The golden vectors of a bundle: test images, their labels, and what each model answered to them.

`golden.npz` holds `images` uint8 (256, 28, 28), `labels` uint8 (256,), and for each model, under
its name, float32 (256, classes): its probabilities.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

NAME = "golden.npz"


def read_golden(folder: Path, runner: Any) -> dict[str, np.ndarray]:
    """Read the golden vectors of an unpacked bundle.

    Args:
        folder: The bundle's.
        runner: The module `runner`.

    Returns:
        The arrays by name; `images` and `labels` are among them and fit each other.

    Raises:
        InputError: The file is missing, cannot be read or is damaged.
    """
    from io import BytesIO

    path = folder / NAME
    data = runner.read_bytes(path)
    try:
        with np.load(BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        images, labels = arrays["images"], arrays["labels"]
        outputs = [array for name, array in arrays.items() if name not in ("images", "labels")]
        sound = images.dtype == labels.dtype == np.uint8 and len(images) > 0
        sound = sound and images.shape == (*labels.shape, 28, 28)
        sound = sound and all(output.dtype == np.float32 for output in outputs)
    except Exception:  # what numpy and zipfile raise of damaged data has no common base class
        sound = False
    if not sound:
        raise runner.InputError(f"{path}: damaged; unpack the bundle again")
    return arrays
