"""Every layer of the C is compared with tflite-runtime's, on images made to excite."""

import numpy as np
import pytest

from pipeline.artifacts import NATIVE_SOURCE
from pipeline.parity import c_layers

pytestmark = pytest.mark.usefixtures("this_machine_alone", "device_python")


def replace_rounding(source, wrong):
    right = "((int32_t)(2.0f * steps) + 1) / 2"
    assert right in source.read_text()
    source.write_text(source.read_text().replace(right, wrong))


def test_wrong_rounding_in_the_softmax_is_told_by_layer_and_first_value(artifacts, mnist):
    replace_rounding(artifacts / NATIVE_SOURCE, "(int32_t)steps")
    (row,), exciting = c_layers.judge_layers(artifacts, mnist.test.images[:100])
    assert row.status == "fail"
    assert row.reason.startswith("layer softmax differs in ")
    assert "values; the first is value " in row.reason
    assert exciting.shape[1:] == (28, 28)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [("\n#error\n", "compiling failed"), ("(__builtin_trap(), 0)", "ended early")],
)
def test_source_that_does_not_compile_or_crashes_fails_and_excites_nothing(
    artifacts, mnist, wrong, reason
):
    replace_rounding(artifacts / NATIVE_SOURCE, wrong)
    (row,), exciting = c_layers.judge_layers(artifacts, mnist.test.images[:1])
    assert (row.status, len(exciting)) == ("fail", 0)
    assert reason in row.reason


def test_without_tflite_runtime_nothing_is_compared_and_the_reason_is_told(
    exported, mnist, tmp_path
):
    (row,), exciting = c_layers.judge_layers(exported, mnist.test.images[:1], tmp_path / "python")
    assert row.status == "not_run"
    assert row.reason.endswith("python: missing; run `make .venv-device/.installed`")
    again = c_layers.judge_layers(exported, mnist.test.images[:1], tmp_path / "python")[1]
    np.testing.assert_array_equal(again, exciting)
