"""int8 TFLite -> one self-contained C source, bit-exact with tflite-runtime 2.14.

Weights are constants, shapes compile-time constants, the arithmetic is integer (softmax: a table
of floats). Kernels for x86, ARM and plain C11 are C files in c_templates/; this module puts them
together with the model's numbers.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from export.c_tables import tables
from export.quantized_lenet5 import QuantizedLenet5, read_lenet5

TEMPLATES = Path(__file__).parent / "c_templates"
KERNELS = (
    "portable.c.in",
    *("x86_sse2.c.in", "madd.c.in"),  # the second is written in terms of the first
    *("x86_avx2.c.in", "madd.c.in"),
    *("wasm_simd128.c.in", "madd.c.in"),
    "x86_avx512vnni.c.in",
    "dsp.c.in",
    *("neon.c.in", "neon_kernels.c.in"),
    *("neon_dot.c.in", "neon_kernels.c.in"),
)


def to_c(model: Path, folder: Path) -> Path:
    """Write `lenet5_int8.c` and `lenet5_int8.h` for an int8 LeNet-5; returns the path of the first.

    Raises:
        UnsupportedModelError: The file is damaged or is not an int8 LeNet-5.
        ArithmeticBoundError: The model's numbers could overflow the integer arithmetic.
    """
    network = read_lenet5(model)
    before = [_template("platform.c.in"), _template("common.c.in")]
    after = [_template(name) for name in (*KERNELS, "api.c.in")]
    source = "\n".join([*before, tables(network), *after])
    fields = _header_fields(network, model)
    header = re.sub(r"@(\w+)@", lambda match: fields[match[1]], _template("model.h.in"))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lenet5_int8.c"
    path.with_suffix(".h").write_text(header)
    path.write_text(source)
    return path


def _header_fields(network: QuantizedLenet5, model: Path) -> dict[str, str]:
    image, probabilities = network.image, network.probabilities
    return {
        "model": model.name,
        "sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "classes": str(probabilities.channels),
        "input_scale": f"{float(image.scale).hex()}f",
        "input_zero_point": str(image.zero_point),
        "output_scale": f"{float(probabilities.scale).hex()}f",
        "output_zero_point": str(probabilities.zero_point),
    }


def _template(name: str) -> str:
    return (TEMPLATES / name).read_text()
