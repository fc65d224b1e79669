"""Every layer of the C is compared with tflite-runtime's, on images made to excite."""

from types import SimpleNamespace

import numpy as np
import pytest

from pipeline import native
from pipeline.artifacts import NATIVE_SOURCE
from pipeline.files import UserError
from pipeline.parity import c_layers
from pipeline.parity.c_layers import LayersRow

this_machine_alone = pytest.mark.usefixtures("this_machine_alone", "device_python")


def replace_rounding(source, wrong):
    right = "((int32_t)(2.0f * steps) + 1) / 2"
    assert right in source.read_text()
    source.write_text(source.read_text().replace(right, wrong))


@this_machine_alone
def test_wrong_rounding_in_the_softmax_is_told_by_layer_and_first_value(artifacts, mnist):
    replace_rounding(artifacts / NATIVE_SOURCE, "(int32_t)steps")
    (row,), exciting = c_layers.judge_layers(artifacts, mnist.test.images[:100])
    assert row.status == "fail"
    assert row.reason.startswith("layer softmax differs in ")
    assert "values; the first is value " in row.reason
    assert exciting.shape[1:] == (28, 28)
    assert row.images == 100 + len(exciting) > 100 + 196 + 100


@this_machine_alone
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


@this_machine_alone
def test_without_tflite_runtime_nothing_is_compared_and_the_reason_is_told(
    exported, mnist, tmp_path, monkeypatch
):
    monkeypatch.setattr(c_layers, "DEVICE_PYTHON", tmp_path / "python")
    (row,), exciting = c_layers.judge_layers(exported, mnist.test.images[:1])
    assert row.status == "not_run"
    assert row.reason.endswith("python: missing; run `make .venv-device/.installed`")
    again = c_layers.judge_layers(exported, mnist.test.images[:1])[1]
    np.testing.assert_array_equal(again, exciting)


NETWORK = SimpleNamespace(probabilities=SimpleNamespace(channels=10))
VALUES = 1176 + 400 + 120 + 84 + 10 + 10
IMAGE = np.zeros((1, 28, 28), np.uint8)


@pytest.mark.parametrize(
    ("values", "code", "whole"),
    [(VALUES, 0, True), (VALUES, 1, False), (VALUES - 1, 0, False), (2 * VALUES, 0, False)],
)
def test_layers_count_only_if_the_program_gave_them_all(values, code, whole):
    script = f"printf avx2; head -c {12 + values} /dev/zero; exit {code}"
    if whole:
        kernels, layers = c_layers.run_layers(["sh", "-c", script], NETWORK, IMAGE)
        assert (kernels, layers.shape) == ("avx2", (1, VALUES))
    else:
        with pytest.raises(UserError, match="ended early"):
            c_layers.run_layers(["sh", "-c", script], NETWORK, IMAGE)


@pytest.mark.parametrize("processor", [c_layers.HERE, "aarch64 cortex-a53"])
def test_a_processor_that_nothing_here_can_play_is_not_run(processor, monkeypatch, tmp_path):
    monkeypatch.setattr(c_layers, "this_architecture", lambda: "riscv64")
    monkeypatch.setattr(native.shutil, "which", lambda program: None)
    row = LayersRow(processor, "", 1, "pass", "")
    row = c_layers._judge(row, tmp_path, NETWORK, IMAGE, np.zeros((1, VALUES), np.int8))
    assert (row.status, row.kernels, bool(row.reason)) == ("not_run", "", True)


def test_search_goes_on_from_the_best_image_of_each_output(monkeypatch):
    drawing = np.zeros((28, 28))
    drawing[3:12, 5:22] = drawing[15:24, 2:7] = 255

    def distance(images):
        return np.abs(images - drawing).mean(axis=(1, 2))

    monkeypatch.setattr(c_layers, "_scores", lambda n, c, images: [-distance(images)[:, None]])
    images = c_layers.exciting(NETWORK, [])
    assert distance(images[:1]) < 40  # of as many images that do not go on from the best: 50
    noise, pixels = images[1:101], images[101:]
    assert 127 < noise.mean() < 128
    lit = np.flatnonzero(pixels.any(axis=0).ravel())
    assert (len(pixels), len(lit), set(pixels.sum(axis=(1, 2)).tolist())) == (196, 196, {255})
