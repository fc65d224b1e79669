"""The runner as a library: images in, labels and probabilities out, and models of no use."""

import json
import re
import resource
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import broken
import numpy as np
import pytest
from dense_onnx import write_dense
from helpers import run_runner
from onnx import helper

from device import runner
from device.runner import Classifier, InputError

INT8 = "lenet5_int8.tflite"
MODELS = ["lenet5_fp32.tflite", INT8, "lenet5_fp32.onnx", "lenet5_int8.onnx"]
MODELS += ["native/lenet5_int8.c"]


@pytest.fixture(scope="session", params=MODELS)
def classifier(request, exported):
    return Classifier(exported / request.param)


# --- The library ----------------------------------------------------------------------------


def test_padded_and_float_images_give_what_bytes_give(classifier, mnist):
    images = mnist.test.images[:50]
    labels, probabilities = classifier.predict(images)
    assert (labels.shape, probabilities.shape) == ((50,), (50, 10))
    assert (labels.dtype, probabilities.dtype) == (np.int64, np.float32)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-5)
    for other in (np.pad(images, ((0, 0), (2, 2), (2, 2))), images / np.float32(255), images / 255):
        np.testing.assert_array_equal(classifier.predict(other).probabilities, probabilities)
    assert runner.prepare(np.full((1, 28, 28), 0.999)).max() == 255  # 254.7


def test_one_image_is_answered_as_in_a_batch_in_whatever_form_it_comes(classifier, mnist):
    images = mnist.test.images[:600]  # more than one slice of the ONNX batch
    labels, probabilities = classifier.predict(images)
    for i in range(0, 600, 12):
        image = images[i]
        for same in (image, np.asfortranarray(image), np.pad(image, 2), image / 255):
            expected = (labels[i], pytest.approx(probabilities[i, labels[i]], abs=1e-6))
            assert classifier.classify(same) == expected


def test_four_threads_may_share_a_classifier(classifier, mnist):
    images = mnist.test.images[:400]
    expected = [classifier.classify(image) for image in images]

    def ask(i):
        if i % 2:
            return i, *classifier.classify(images[i])
        (label,), probabilities = classifier.predict(images[i : i + 1])
        return i, label, probabilities.max()

    with ThreadPoolExecutor(4) as pool:
        for i, label, probability in pool.map(ask, list(range(400)) * 4):
            assert (label, probability) == (expected[i][0], pytest.approx(expected[i][1], abs=1e-6))


def test_a_model_that_is_replaced_while_it_runs_answers_as_before(exported, mnist, tmp_path):
    model = Path(shutil.copy(exported / INT8, tmp_path))
    classifier = Classifier(model)
    before = classifier.predict(mnist.test.images[:100]).probabilities
    model.write_bytes(bytes(100))
    np.testing.assert_array_equal(classifier.predict(mnist.test.images[:100]).probabilities, before)


def test_int8_rows_are_hand_computed_and_sum_to_one(int8):
    raw = np.array([[127, -128, -128], [0, 0, -128], [-128, -128, -128]], np.int8)
    labels, got = runner.answer(int8.model, raw)
    np.testing.assert_allclose(got, [[1, 0, 0], [0.5, 0.5, 0], [0, 0, 0]], atol=1e-6)
    assert labels.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((28, 28), np.uint8), "shape"),
        (np.zeros((1, 28, 29), np.uint8), "shape"),
        (np.zeros((0, 28, 28), np.uint8), "shape"),
        (np.ones((1, 32, 32), np.uint8), "ink in the margin"),
        (np.zeros((1, 28, 28), np.int32), "type int32"),
        (np.full((1, 28, 28), np.nan, np.float32), "finite"),
        (np.full((1, 28, 28), 255.0, np.float32), r"within 0\.\.1"),
        (np.full((1, 28, 28), -0.1), r"within 0\.\.1"),
        *[(other, "images of") for other in ([[1]], None, "x", 3)],
    ],
)
def test_images_of_another_kind_are_refused_by_name(int8, images, message):
    with pytest.raises(InputError, match=message):
        int8.predict(images)
    with pytest.raises(InputError):
        int8.classify(images[0] if np.ndim(images) == 3 and len(images) else [images])


@pytest.mark.parametrize(
    ("pixel", "scale", "zero_point", "expected"),
    [
        (0, 1 / 255, -128, -128),
        (255, 1 / 255, -128, 127),
        (255, 1.0, 0, 1),
        (51, 0.0, 0, np.float32(0.2)),
        (51, 2 / 15, 0, 2),  # 1.5, half to even
        (51, 0.08, 0, 2),  # 2.5
        (255, 0.6, 0, 2),  # 1.67; a cast would give 1
        (255, 1 / 400, 0, 127),
        (0, 1.0, -200, -128),
    ],
)
def test_a_grey_level_is_quantized_as_in_a_hand_computed_table(pixel, scale, zero_point, expected):
    pad, image = runner.padding((scale, zero_point))
    pad(np.full((28, 28), pixel, np.uint8))
    black = max(zero_point, -128)  # the border
    wanted = np.pad(np.full((28, 28), expected), 2, constant_values=black)
    np.testing.assert_array_equal(image, wanted[np.newaxis, ..., np.newaxis])


def test_calling_in_a_loop_keeps_memory_flat(int8, mnist):
    image = mnist.test.images[0]
    for _ in range(1_000):
        int8.classify(image)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(8_000):
        int8.classify(image)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1024  # kB


# --- Models that cannot be used -----------------------------------------------------------------


@pytest.mark.parametrize("name", [INT8, "lenet5_int8.onnx"])
def test_what_is_not_the_file_that_was_made_is_refused_before_a_runtime_sees_it(
    exported, tmp_path, name, monkeypatch
):
    model, data = tmp_path / name, (exported / name).read_bytes()
    altered = bytearray(data)
    altered[len(data) // 2] ^= 0x10
    no_checksum = data.replace(b'"crc32"', b'"other"')
    for library in ("onnxruntime.InferenceSession", "ai_edge_litert.interpreter.Interpreter"):
        monkeypatch.setattr(library, lambda *_, **__: pytest.fail("a runtime has seen it"))
    for content in (b"", data[:7], data[:5000], data[:-1], bytes(altered), b"x" * 99, no_checksum):
        model.write_bytes(content)
        with pytest.raises(InputError) as caught:
            Classifier(model)
        why = "damaged (wrong checksum); copy it again"
        if b'"crc32"' not in content:
            why = "not a model of this project (no checksum): use `make export`"
        assert str(caught.value) == f"{model}: {why}"


NO_SOFTMAX = helper.make_node("Identity", ["logits"], ["y"])


def with_graph(change):
    """Change the graph of the TFLite file that lies at a path."""
    return lambda path: broken.rewrite_tflite(path, lambda model: change(model.subgraphs[0]))


def three_channels(graph):
    graph.tensors[graph.inputs[0]].shape = [1, 32, 32, 3]


def end_before_the_softmax(graph):
    graph.outputs = [graph.operators[-1].inputs[0]]
    del graph.operators[-1]


@pytest.mark.parametrize(
    ("name", "make", "why"),
    [
        ("m.onnx", lambda path: write_dense(path, batch=1), "onnxruntime refuses it"),
        ("m.onnx", lambda path: write_dense(path, batch=8), "onnxruntime refuses it"),
        ("m.onnx", lambda path: write_dense(path, [NO_SOFTMAX], classes=0), "with a softmax"),
        ("m.onnx", lambda path: write_dense(path, [NO_SOFTMAX]), "end the model with a softmax"),
        (MODELS[0], with_graph(end_before_the_softmax), "end the model with a softmax"),
        (INT8, with_graph(end_before_the_softmax), "end the model with a softmax"),
        (INT8, with_graph(three_channels), "ai-edge-litert refuses it"),
    ],
)
def test_a_model_of_another_form_is_refused_in_a_line(exported, tmp_path, name, make, why):
    model = tmp_path / name
    if name in MODELS:
        shutil.copy(exported / name, model)
    make(model)
    with pytest.raises(InputError, match=re.escape(f"{model}: ") + f".*{why}") as caught:
        Classifier(model)
    assert "\n" not in str(caught.value)


def test_a_model_that_answers_nan_is_an_error_and_no_guess(mnist, digits, tmp_path):
    # sqrt(-greatest grey level): NaN unless the image is black.
    nodes = [
        helper.make_node("Softmax", ["logits"], ["p"]),
        helper.make_node("ReduceMax", ["flat"], ["most"], axes=[1]),
        helper.make_node("Neg", ["most"], ["negative"]),
        helper.make_node("Sqrt", ["negative"], ["nan"]),
        helper.make_node("Add", ["p", "nan"], ["y"]),
    ]
    model = tmp_path / "m.onnx"
    write_dense(model, nodes)
    classifier = Classifier(model)
    image = mnist.test.images[0]
    for answer, given in (
        (classifier.classify, image),
        (classifier.predict, np.stack([np.zeros_like(image), image])),
    ):
        with pytest.raises(InputError, match="its outputs are not probabilities"):
            answer(given)
    run = run_runner("-m", model, "--json", digits / "a.pgm")
    assert run.returncode == 2
    assert "its outputs are not probabilities" in json.loads(run.stdout)["error"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no.tflite", "no such model; name another"),
        ("lenet5.keras", "unknown type of model; known: .c, .tflite, .onnx"),
        ("lenet5_int8.onnx", "ai-edge-litert does not read .onnx files; onnxruntime does"),
    ],
)
def test_a_model_that_is_missing_or_not_for_the_runtime_is_refused(exported, name, why):
    with pytest.raises(InputError, match=f"^{re.escape(f'{exported / name}: {why}')}$"):
        Classifier(exported / name, "ai-edge-litert")


def test_tflite_runtime_with_numpy_2_is_one_line(exported, monkeypatch):
    monkeypatch.setattr(runner.np, "__version__", "2.4.0")
    with pytest.raises(InputError, match=r"No module named 'tflite_runtime'\): pip install"):
        Classifier(exported / INT8, "tflite-runtime")  # it is not in this environment
    monkeypatch.setattr(runner, "find_spec", lambda _: "there")
    with pytest.raises(InputError, match=r"needs numpy 1, not 2.4.0: pip install 'numpy<2'"):
        Classifier(exported / INT8, "tflite-runtime")
