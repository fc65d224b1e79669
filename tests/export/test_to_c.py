"""The C generator: its arithmetic, what it refuses, and bit-exactness on random models."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from native_helpers import compile_c, compiled_run, lenet5_model, reference_outputs, require
from random_models import random_inputs, random_model
from tflite_builder import ModelBuilder

from export.requantization import (
    ArithmeticBoundError,
    quantize_multiplier,
    requantization,
    softmax_table,
)
from export.tflite_graph import UnsupportedModelError, read_graph
from export.to_c import main, to_c


@pytest.mark.parametrize(
    ("real", "fixed", "exponent"),
    [
        (0.0, 0, 0),
        (0.5, 1 << 30, 0),
        (1.0, 1 << 30, 1),
        (0.25, 1 << 30, -1),
        (0.75, 3 << 29, 0),
        (0.375, 3 << 29, -1),
        (1.0 - 2.0**-33, 1 << 30, 1),  # rounds up to 2^31, which does not fit
        (2.0**-40, 0, 0),  # too small for a shift of 31
    ],
)
def test_multiplier_is_split_as_tflite_splits_it(real: float, fixed: int, exponent: int) -> None:
    assert quantize_multiplier(real) == (fixed, exponent)


def _two_roundings(x: int, fixed: int, exponent: int) -> int:
    """The reference in two steps, each rounding half up."""
    high = ((x << max(exponent, 0)) * fixed + (1 << 30)) >> 31
    right = max(-exponent, 0)
    return (high + ((1 << right) >> 1)) >> right


@given(
    sums=st.lists(st.integers(-(2**20), 2**20), min_size=1, max_size=20),
    real=st.floats(2.0**-20, 4.0) | st.sampled_from([2.0**-k for k in range(20)]),
    bias=st.integers(-(2**20), 2**20),
    zero_point=st.integers(-128, 127),
)
def test_one_folded_shift_equals_two_roundings(
    sums: list[int], real: float, bias: int, zero_point: int
) -> None:
    table = requantization(
        np.array([[1]], np.int8), np.array([bias]), np.array([real]), 0, zero_point, 0
    )
    fixed, exponent = quantize_multiplier(real)
    for x in sums:
        folded = (x * int(table.multiplier[0]) + int(table.offset[0])) >> int(table.shift[0])
        assert folded == _two_roundings(x + bias, fixed, exponent) + zero_point


def test_sum_beyond_32_bits_is_refused() -> None:
    weights = np.full((1, 70000), 127, np.int8)
    with pytest.raises(ArithmeticBoundError, match="leaves 32 bits"):
        requantization(weights, np.array([0]), np.array([0.01]), 0, 0, 0)


def test_softmax_table_holds_powers_of_e() -> None:
    table = softmax_table(np.float32(np.log(2)), np.float32(1))
    assert table.shape == (256,)
    assert table[:3].tolist() == [1.0, 0.5, 0.25]


def _model_file(folder: Path, data: bytes) -> Path:
    path = folder / "model.tflite"
    path.write_bytes(data)
    return path


def test_unknown_operator_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ModelBuilder((1, 8, 8, 1), 0.1, 0)
    model.pool("max", (2, 2), (2, 2))
    model.unsupported()
    path = _model_file(tmp_path, model.build())
    assert main([str(path), str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(path) in error
    assert "LOGISTIC" in error
    assert not (tmp_path / "out").exists()


def test_missing_file_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "none.tflite"), str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_asymmetric_weights_are_refused(tmp_path: Path) -> None:
    model = ModelBuilder((1, 4, 4, 1), 0.1, 0)
    model.dense(np.ones((2, 16), np.int8), None, np.array([0.1], np.float32), 0.1, 0)
    model.tensors[1].quantization.zeroPoint = np.array([3], np.int64)
    with pytest.raises(UnsupportedModelError, match="not symmetric"):
        read_graph(_model_file(tmp_path, model.build()))


@given(st.data())
def test_damaged_file_is_refused_without_a_crash(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    good = _DAMAGED_MODEL
    bad = bytearray(good[: data.draw(st.integers(0, len(good)))])
    for _ in range(data.draw(st.integers(0, 4))):
        if bad:
            bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    path = _model_file(tmp_path_factory.mktemp("damaged"), bytes(bad))
    try:
        to_c(path, path.parent)
    except (UnsupportedModelError, ArithmeticBoundError) as error:
        assert "\n" not in str(error)


_DAMAGED_MODEL = random_model(1)[0]


def test_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    path = _model_file(tmp_path, lenet5_model())
    first, second = to_c(path, tmp_path / "a"), to_c(path, tmp_path / "b")
    assert first.source.read_bytes() == second.source.read_bytes()
    assert first.header.read_bytes() == second.header.read_bytes()


def test_lenet5_needs_at_most_8_kib_of_scratch(tmp_path: Path) -> None:
    assert to_c(_model_file(tmp_path, lenet5_model()), tmp_path).scratch_bytes <= 8192


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("level", ["-O0", "-O3"])
def test_source_compiles_without_a_warning(compiler: str, level: str, tmp_path: Path) -> None:
    require(compiler)
    source = to_c(_model_file(tmp_path, lenet5_model()), tmp_path).source
    compile_c(tmp_path / "model.o", level, "-c", str(source), compiler=compiler)


def test_source_needs_no_allocation_file_or_math_library(tmp_path: Path) -> None:
    source = to_c(_model_file(tmp_path, lenet5_model()), tmp_path).source
    compiled = compile_c(tmp_path / "model.o", "-O2", "-c", str(source))
    symbols = subprocess.run(
        ["nm", "--undefined-only", str(compiled)], capture_output=True, text=True, check=True
    )
    wanted = {line.split()[-1] for line in symbols.stdout.splitlines()}
    allowed = {
        "memset",
        "memcpy",
        "__cpu_model",
        "__cpu_features2",
        "__stack_chk_fail",
        "_GLOBAL_OFFSET_TABLE_",
    }
    assert wanted <= allowed


@pytest.mark.parametrize("seed", range(12))
def test_random_model_is_bit_exact_in_portable_c(
    seed: int, tmp_path: Path, device_python: str
) -> None:
    data, shape = random_model(seed)
    path = _model_file(tmp_path, data)
    inputs = random_inputs(shape, seed, 64)
    expected = reference_outputs(device_python, path, inputs)
    source = to_c(path, tmp_path, "model").source
    run = compiled_run(source, "PORTABLE", expected.shape[1])
    np.testing.assert_array_equal(run(inputs), expected)


def test_weights_of_minus_128_keep_neon_away(tmp_path: Path) -> None:
    model = ModelBuilder((1, 4, 4, 1), 0.1, 0)
    weights = np.full((2, 16), -128, np.int8)
    model.dense(weights, None, np.array([0.1], np.float32), 0.1, 0)
    source = to_c(_model_file(tmp_path, model.build()), tmp_path).source
    assert "#define WEIGHTS_REACH_MINUS_128 1" in source.read_text()
