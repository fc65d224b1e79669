"""The device runner: as a library and as a command, with good input and with rubbish."""

import gzip
import io
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import broken
import numpy as np
import pytest
from conftest import DEVICE_PYTHON, ROOT, run_runner

from device import idx, runner
from device.idx import FileError
from device.runner import Classifier, InputError
from export import seal

MODELS = ["lenet5_fp32.tflite", "lenet5_int8.tflite", "lenet5_fp32.onnx", "lenet5_int8.onnx"]


def write_pgm(path, image):
    path.write_bytes(b"P5\n%d %d\n255\n" % image.shape[::-1] + image.tobytes())
    return path


@pytest.fixture(scope="session")
def digits(mnist, tmp_path_factory):
    """A folder with three test digits, as PGM, NPY and PGM of 32x32."""
    folder = tmp_path_factory.mktemp("digits")
    write_pgm(folder / "a.pgm", mnist.test.images[0])
    np.save(folder / "b.npy", mnist.test.images[1])
    write_pgm(folder / "c.pgm", np.pad(mnist.test.images[2], 2))
    return folder


@pytest.fixture(scope="session", params=MODELS)
def classifier(request, exported):
    runtime = "ai-edge-litert" if request.param.endswith("tflite") else "onnxruntime"
    return Classifier(exported / request.param, runtime)


# --- The library ----------------------------------------------------------------------------


def test_shapes_and_types_of_predictions(classifier, mnist):
    predictions = classifier.predict(mnist.test.images[:7])
    assert predictions.probabilities.shape == (7, 10)
    assert predictions.probabilities.dtype == np.float32
    assert predictions.labels.shape == (7,)
    np.testing.assert_allclose(predictions.probabilities.sum(axis=1), 1.0, atol=1e-5)


def test_padded_and_float_images_give_what_bytes_give(classifier, mnist):
    images = mnist.test.images[:50]
    expected = classifier.predict(images).probabilities
    for other in (np.pad(images, ((0, 0), (2, 2), (2, 2))), images / np.float32(255), images / 255):
        np.testing.assert_array_equal(classifier.predict(other).probabilities, expected)


def test_batch_gives_what_single_images_give(classifier, mnist):
    images = mnist.test.images[:600]  # more than one slice of the ONNX batch
    together = classifier.predict(images).probabilities
    apart = [classifier.predict(images[i : i + 1]).probabilities[0] for i in range(0, 600, 60)]
    np.testing.assert_allclose(together[::60], apart, atol=1e-6)


def test_classify_gives_what_predict_gives(classifier, mnist):
    labels, probabilities = classifier.predict(mnist.test.images[:50])
    for i, image in enumerate(mnist.test.images[:50]):
        for same in (image, np.asfortranarray(image), np.pad(image, 2), image / 255):
            label, probability = classifier.classify(same)
            assert label == labels[i]
            assert probability == pytest.approx(probabilities[i, label], abs=1e-6)


def test_four_threads_may_share_a_classifier(classifier, mnist):
    images = mnist.test.images[:400]
    expected = [classifier.classify(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        got = pool.map(lambda i: (i, classifier.classify(images[i])), list(range(400)) * 4)
        assert all(answer == expected[i] for i, answer in got)


def test_a_model_that_is_replaced_while_it_runs_answers_as_before(exported, mnist, tmp_path):
    model = Path(shutil.copy(exported / "lenet5_int8.tflite", tmp_path))
    classifier = Classifier(model)
    before = classifier.predict(mnist.test.images[:100]).probabilities
    model.write_bytes(bytes(100))
    np.testing.assert_array_equal(classifier.predict(mnist.test.images[:100]).probabilities, before)


def test_dequantized_rows_are_hand_computed_and_sum_to_one(exported):
    raw = np.array([[127, -128, -128], [0, 0, -128], [-128, -128, -128]], np.int8)
    labels, got = runner.answer(Classifier(exported / "lenet5_int8.tflite").model, raw)
    np.testing.assert_allclose(got, [[1, 0, 0], [0.5, 0.5, 0], [0, 0, 0]], atol=1e-6)
    assert labels.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((28, 28), np.uint8), "shape"),
        (np.zeros((), np.uint8), "shape"),
        (np.zeros((1, 28, 29), np.uint8), "shape"),
        (np.zeros((0, 28, 28), np.uint8), "shape"),
        (np.zeros((1, 28, 28), np.int32), "type int32"),
        (np.full((1, 28, 28), np.nan, np.float32), "finite"),
        (np.full((1, 28, 28), 255.0, np.float32), r"within 0\.\.1"),
        (np.full((1, 28, 28), -0.1), r"within 0\.\.1"),
    ],
)
def test_images_of_another_kind_are_refused_by_name(classifier, images, message):
    with pytest.raises(InputError, match=message):
        classifier.predict(images)


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
    assert image[0, 2:30, 2:30, 0].tolist() == [[expected] * 28] * 28


def test_the_border_around_the_image_is_black():
    pad, image = runner.padding((1 / 255, -128))
    pad(np.full((28, 28), 255, np.uint8))
    assert image.shape == (1, 32, 32, 1)
    assert (image == -128).sum() == 32 * 32 - 28 * 28


def test_calling_in_a_loop_keeps_memory_flat(exported, mnist):
    classifier = Classifier(exported / "lenet5_int8.tflite")
    image = mnist.test.images[0]
    for _ in range(2_000):
        classifier.classify(image)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(20_000):
        classifier.classify(image)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1024  # kB


# --- Damaged and foreign models ------------------------------------------------------------------


@pytest.mark.parametrize("python", [sys.executable, DEVICE_PYTHON], ids=["development", "device"])
def test_truncated_and_altered_models_are_one_line_and_exit_2(python, exported, digits, tmp_path):
    model = tmp_path / "model.tflite"
    data = (exported / "lenet5_int8.tflite").read_bytes()
    rng = random.Random(0)
    altered = bytearray(data)
    altered[rng.randrange(len(data))] ^= 0x10
    for content in (b"", data[:7], data[:100], data[:5000], data[:-1], bytes(altered), b"x" * 99):
        model.write_bytes(content)
        run = run_runner("-m", model, digits / "a.pgm", python=python)
        assert run.returncode == 2, run.stderr
        (line,) = run.stderr.splitlines()
        assert line.startswith(f"runner.py: {model}: ")


@pytest.mark.parametrize("python", [sys.executable, DEVICE_PYTHON], ids=["development", "device"])
def test_model_without_our_checksum_is_refused_in_a_line(python, exported, digits, tmp_path):
    model = tmp_path / "model.tflite"
    data = (exported / "lenet5_int8.tflite").read_bytes().replace(b'"crc32"', b'"other"')
    model.write_bytes(data)
    run = run_runner("-m", model, digits / "a.pgm", python=python)
    assert run.returncode == 2
    assert run.stderr == (
        f"runner.py: {model}: not a model of this project (no checksum): use `make export`\n"
    )


@pytest.mark.parametrize("content", [b"", b"rubbish", b"\x08\x08" * 50])
def test_damaged_onnx_is_one_line_and_exit_2(content, digits, tmp_path):
    model = tmp_path / "model.onnx"
    model.write_bytes(content)
    run = run_runner("-m", model, digits / "a.pgm")
    assert run.returncode == 2
    (line,) = run.stderr.splitlines()
    assert str(model) in line


def test_model_with_another_input_is_refused_by_its_shape(exported, digits, tmp_path):
    model = Path(shutil.copy(exported / "lenet5_fp32.tflite", tmp_path / "model.tflite"))

    def widen(flatbuffer):
        graph = flatbuffer.subgraphs[0]
        graph.tensors[graph.inputs[0]].shape = [1, 32, 32, 3]

    broken.rewrite_tflite(model, widen)
    run = run_runner("-m", model, digits / "a.pgm")
    assert run.returncode == 2
    assert str(model) in run.stderr.splitlines()[-1]


def test_unknown_type_and_missing_model_are_named(digits, tmp_path):
    other = tmp_path / "model.pt"
    other.write_bytes(b"x")
    for model, reason in ((other, "unknown type of model"), (tmp_path / "no.tflite", "no such")):
        run = run_runner("-m", model, digits / "a.pgm")
        assert run.returncode == 2
        assert f"{model}: {reason}" in run.stderr


def test_no_runtime_says_what_to_install(exported, digits, bare_python):
    run = run_runner("-m", exported / "lenet5_int8.onnx", digits / "a.pgm", python=bare_python)
    assert run.returncode == 2
    assert run.stderr.startswith("runner.py: onnxruntime: not usable")
    assert run.stderr.endswith(": pip install onnxruntime\n")


def test_forced_runtime_that_does_not_read_the_file_is_refused(exported, digits):
    run = run_runner(
        "-m", exported / "lenet5_int8.onnx", "--runtime", "ai-edge-litert", digits / "a.pgm"
    )
    assert run.returncode == 2
    assert "ai-edge-litert does not read .onnx files" in run.stderr


# --- The command --------------------------------------------------------------------------------


def test_predict_prints_name_label_probability_and_latency(exported, digits, mnist):
    run = run_runner("-m", exported / "lenet5_int8.tflite", digits / "a.pgm", digits / "c.pgm")
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert len(lines) == 2
    match = re.fullmatch(rf"{digits}/a\.pgm  (\d)  \d+\.\d %  \d+\.\d ms", lines[0])
    assert match[1] == str(mnist.test.labels[0])


def test_json_is_one_object_a_line_with_the_keys_of_the_contract(exported, digits):
    run = run_runner("predict", "--json", "-k", "3", "-m", exported / MODELS[0], digits)
    rows = [json.loads(line) for line in run.stdout.splitlines()]
    assert [Path(row["file"]).name for row in rows] == ["a.pgm", "b.npy", "c.pgm"]
    for row in rows:
        assert set(row) == {"file", "label", "probability", "top", "latency_ms"}
        assert len(row["top"]) == 3
        assert row["top"][0] == {"label": row["label"], "probability": row["probability"]}


@pytest.fixture
def number(mnist, tmp_path):
    """A picture of two digits side by side, dark on light, and what they are."""
    picture = np.full((200, 400), 220, np.uint8)
    for left, image in ((50, mnist.test.images[0]), (250, mnist.test.images[1])):
        picture[44:156, left : left + 112] -= np.kron(image, np.ones((4, 4), np.uint8)) // 2
    return write_pgm(tmp_path / "number.pgm", picture), "".join(map(str, mnist.test.labels[:2]))


def test_two_digits_are_not_answered_as_one(exported, number):
    run = run_runner("-m", exported / MODELS[1], number[0])
    assert run.returncode == 2
    assert run.stderr == f"runner.py: {number[0]}: several digits (2): use --all\n"


def test_all_digits_are_read_in_order_with_their_boxes(exported, number):
    path, label = number
    run = run_runner("--all", "--json", "-m", exported / MODELS[1], path)
    assert run.returncode == 0, run.stderr
    row = json.loads(run.stdout)
    assert row["label"] == label
    assert [digit["label"] for digit in row["digits"]] == list(label)
    product = row["digits"][0]["probability"] * row["digits"][1]["probability"]
    assert row["probability"] == pytest.approx(product)
    first, second = (digit["box"] for digit in row["digits"])
    assert 50 <= first[0] < first[2] <= 162 < 250 <= second[0] < second[2] <= 362
    text = run_runner("--all", "-m", exported / MODELS[1], path).stdout
    assert text.startswith(f"{path}  {label}  ")


def test_answer_below_the_threshold_is_unsure_and_tells_its_guess(exported, digits, mnist):
    arguments = ("--min-confidence", "1", "-m", exported / "lenet5_fp32.tflite", digits / "a.pgm")
    text, rows = run_runner(*arguments), run_runner("--json", *arguments)
    assert text.returncode == 0, text.stderr
    match = re.fullmatch(rf"{digits}/a\.pgm  unsure \((\d)  \d+\.\d %\)  \d+\.\d ms\n", text.stdout)
    assert match[1] == str(mnist.test.labels[0])
    row = json.loads(rows.stdout)
    assert row["unsure"] is True
    assert row["label"] == match[1]
    assert row["probability"] < 1


def test_answer_at_or_above_the_threshold_is_sure(exported, digits):
    arguments = ("--json", "-m", exported / MODELS[1], digits / "a.pgm")
    row = json.loads(run_runner(*arguments).stdout)
    at = ("--min-confidence", repr(row["probability"]))
    assert "unsure" not in json.loads(run_runner(*at, *arguments).stdout)


def test_bad_file_is_reported_and_the_rest_go_on(exported, digits, tmp_path):
    empty = tmp_path / "empty.pgm"
    empty.touch()
    run = run_runner(
        "--json", "-m", exported / MODELS[1], empty, tmp_path / "missing.png", digits / "a.pgm"
    )
    assert run.returncode == 2
    assert len([line for line in run.stderr.splitlines() if line.startswith("runner.py: ")]) == 2
    rows = [json.loads(line) for line in run.stdout.splitlines()]
    assert ["error" in row for row in rows] == [True, True, False]


def test_name_that_cannot_be_is_reported_and_the_rest_go_on(exported, digits):
    run = run_runner("-m", exported / MODELS[1], "x" * 300, digits / "a.pgm")
    assert run.returncode == 2
    assert run.stderr == f"runner.py: {'x' * 300}: cannot be read (File name too long)\n"
    assert len(run.stdout.splitlines()) == 1


def test_a_file_larger_than_the_limit_is_refused():
    assert idx.read_stream(io.BytesIO(b"x" * 100), "-", 100) == b"x" * 100
    with pytest.raises(FileError, match="-: larger than"):
        idx.read_stream(io.BytesIO(b"x" * 101), "-", 100)


def test_output_that_is_full_is_one_line(exported):
    command = [sys.executable, ROOT / "device" / "runner.py", "info", "-m", exported / MODELS[1]]
    with Path("/dev/full").open("w") as full:
        run = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1] == "runner.py: the output: No space left on device"
    assert "Traceback" not in run.stderr


def test_standard_input_and_idx_are_read(exported, digits, mnist):
    picture = (digits / "a.pgm").read_bytes()
    run = run_runner("-m", exported / MODELS[1], "-", input=picture, text=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split()[1].decode() == str(mnist.test.labels[0])


def test_accuracy_of_the_whole_test_set_is_what_parity_found(exported, mnist, tmp_path):
    header = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (1000, 28, 28))
    images, labels = tmp_path / "i-idx3-ubyte", tmp_path / "l-idx1-ubyte"
    images.write_bytes(header + mnist.test.images[:1000].tobytes())
    labels.write_bytes(b"\0\0\x08\x01\0\0\x03\xe8" + mnist.test.labels[:1000].tobytes())
    run = run_runner("accuracy", "-m", exported / MODELS[2], images, labels)
    assert run.returncode == 0, run.stderr
    reference = json.loads((exported / "parity.json").read_text())["reference"]["accuracy"]
    assert f"{round(reference * 1000)} of 1000 correct" in run.stdout


@pytest.mark.parametrize("form", ["npz", "idx", "pictures"])
def test_accuracy_reads_what_the_pipeline_reads_and_a_folder_per_class(
    exported, mnist, tmp_path, form
):
    images, labels = mnist.test.images[:20], mnist.test.labels[:20]
    right = int((Classifier(exported / MODELS[1]).predict(images).labels == labels).sum())
    if form == "npz":
        np.savez(tmp_path / "set.npz", x_test=images.astype(np.int64), y_test=labels)
    elif form == "idx":
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            path = tmp_path / f"t10k-{name}-ubyte.gz"
            path.write_bytes(gzip.compress(header + array.tobytes()))
    else:
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = tmp_path / "test" / str(label) / f"{i}.pgm"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_pgm(path, image)
        path.with_name("damaged.png").write_bytes(b"\x89PNG")
        path.with_name("Thumbs.db").write_bytes(b"")
    run = run_runner("accuracy", "-m", exported / MODELS[1], tmp_path)
    assert run.returncode == 0, run.stderr
    assert f"{right} of {21 if form == 'pictures' else 20} correct" in run.stdout
    assert ("refused pictures: 1" in run.stdout) == (form == "pictures")


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda folder: None, "no folders of pictures"),
        (lambda folder: (folder / "cat").mkdir(), "not a class of the model"),
        (lambda folder: (folder / "1").mkdir(), "no pictures in it"),
        (lambda folder: (folder / "a.npz").write_bytes(b"PK"), "not an .npz"),
        (lambda folder: np.savez(folder / "a.npz", x_test=np.zeros((1, 28, 28), object)), "x_test"),
    ],
)  # fmt: skip
def test_a_labelled_set_that_cannot_be_used_is_one_line(exported, tmp_path, make, part):
    make(tmp_path)
    run = run_runner("accuracy", "-m", exported / MODELS[1], tmp_path)
    assert run.returncode == 2
    assert part in run.stderr
    assert run.stderr.count("\n") == 1


def test_what_is_no_picture_in_a_folder_is_skipped_with_a_count(exported, mnist, tmp_path):
    write_pgm(tmp_path / "a.pgm", mnist.test.images[0])
    for name in ("Thumbs.db", "README", "labels.txt"):
        (tmp_path / name).write_text("no picture")
    (tmp_path / "b").write_bytes((tmp_path / "a.pgm").read_bytes())  # its content tells
    run = run_runner("-m", exported / MODELS[1], tmp_path)
    assert run.returncode == 0
    assert len(run.stdout.splitlines()) == 2
    assert run.stderr == f"runner.py: {tmp_path}: 3 files that are not pictures were skipped\n"


def test_info_names_model_runtime_versions_and_machine(exported):
    run = run_runner("info", "-m", exported / MODELS[1], python=DEVICE_PYTHON)
    assert run.returncode == 0, run.stderr
    for word in ("lenet5_int8.tflite", "ai-edge-litert", "uint8", "numpy", "python", "machine"):
        assert word in run.stdout


def test_every_command_has_help():
    for command in ("predict", "info", "verify", "accuracy"):
        run = run_runner(command, "--help")
        assert run.returncode == 0
        assert "--model" in run.stdout


@pytest.mark.parametrize("command", ["info", "verify"])
def test_options_may_stand_before_the_command(command, exported):
    before = run_runner("-m", exported / MODELS[1], command)
    after = run_runner(command, "-m", exported / MODELS[1])
    assert (before.returncode, before.stdout, before.stderr) == (
        after.returncode,
        after.stdout,
        after.stderr,
    )


def test_a_file_named_like_a_command_may_follow_a_picture(exported, digits, tmp_path):
    shutil.copy(digits / "a.pgm", tmp_path / "info")
    run = run_runner("-m", exported / MODELS[1], digits / "a.pgm", "info", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert len(run.stdout.splitlines()) == 2


# --- What a hostile tester found ----------------------------------------------------------------


def onnx_model(path, output, nodes, batch="batch", classes=10):
    """An ONNX model of our input, with our checksum, whose answer is made by the given nodes."""
    import onnx
    from onnx import TensorProto, helper

    ins = [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 32, 32, 1])]
    outs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, [batch, classes])]
    zeros = helper.make_tensor(
        "zeros", TensorProto.FLOAT, [1024, classes], bytes(4096 * classes), True
    )
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [-1, 1024])
    graph = helper.make_graph(nodes, "g", ins, outs, [zeros, shape])
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    onnx.helper.set_model_props(model, {"checksum": json.dumps({seal.KEY: seal.DIGITS})})
    path.write_bytes(seal.seal(model.SerializeToString()))
    return path


def linear(*further, last="logits"):
    from onnx import helper

    flat = helper.make_node("Reshape", ["image", "shape"], ["flat"])
    return [flat, helper.make_node("MatMul", ["flat", "zeros"], [last]), *further]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch": 1}, "not float32 of any batch"),
        ({"batch": 8}, "not float32 of any batch"),
        ({"classes": 0}, "not one row of probabilities"),
    ],
)
def test_an_onnx_model_of_another_form_is_refused(options, said, tmp_path):
    model = onnx_model(tmp_path / "m.onnx", "logits", linear(), **options)
    with pytest.raises(InputError, match=re.escape(said)):
        Classifier(model)


def test_a_model_that_answers_nan_is_an_error_and_no_guess(digits, tmp_path):
    from onnx import helper

    nan = helper.make_node("Div", ["logits", "logits"], ["nan"])
    model = onnx_model(tmp_path / "m.onnx", "nan", linear(nan))
    run = run_runner("-m", model, "--json", digits / "a.pgm")
    assert run.returncode == 2
    assert "its outputs are not probabilities" in json.loads(run.stdout)["error"]


@pytest.mark.parametrize("one", [True, False], ids=["classify", "predict"])
def test_a_model_without_a_softmax_is_refused(one, mnist, tmp_path):
    classifier = Classifier(onnx_model(tmp_path / "m.onnx", "logits", linear()))
    with pytest.raises(InputError, match="end the model with a softmax"):
        if one:
            classifier.classify(mnist.test.images[0])
        else:
            classifier.predict(mnist.test.images[:3])


def test_an_altered_onnx_file_is_refused(exported, tmp_path):
    data = bytearray((exported / "lenet5_int8.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    model = tmp_path / "m.onnx"
    model.write_bytes(data)
    with pytest.raises(InputError, match="wrong checksum"):
        Classifier(model)


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("--threads", ("0", "65", "99999999999", "x")),  # more crash a runtime
        ("--min-confidence", ("-0.1", "1.1", "nan", "x")),
        ("--top-k", ("0",)),
        ("--stable", ("0",)),
    ],
)
def test_an_option_outside_its_range_is_bad_usage(exported, digits, option, values):
    for value in values:
        run = run_runner(f"{option}={value}", "-m", exported / MODELS[1], digits / "a.pgm")
        assert run.returncode == 2
        assert option in run.stderr
        assert "Traceback" not in run.stderr


def test_black_images_of_an_idx_file_hold_no_digit(exported, tmp_path):
    path = tmp_path / "black-ubyte"
    path.write_bytes(
        b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (1, 28, 28)) + bytes(784)
    )
    run = run_runner("-m", exported / MODELS[1], path)
    assert run.returncode == 2
    assert f"{path}[0]: no digit found" in run.stderr


def test_names_that_do_not_print_are_written_as_escapes_and_the_others_go_on(
    exported, mnist, tmp_path
):
    folder = os.fsencode(tmp_path)
    for name in (b"a\xff.pgm", b"b\n.pgm", b"c.pgm"):
        Path(os.fsdecode(folder + b"/" + name)).write_bytes(
            b"P5\n28 28\n255\n" + mnist.test.images[0].tobytes()
        )
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    run = run_runner("-m", exported / MODELS[1], tmp_path, env=environment)
    assert run.returncode == 0, run.stderr
    names = [line.partition("  ")[0].rpartition("/")[2] for line in run.stdout.splitlines()]
    assert names == ["a\\udcff.pgm", "b\\n.pgm", "c.pgm"]


def test_closed_standard_input_is_one_line(exported):
    command = f"exec {sys.executable} {ROOT}/device/runner.py -m {exported}/{MODELS[1]} - <&-"
    run = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert run.returncode == 2
    assert "runner.py: -: standard input is closed" in run.stderr


def test_with_standard_error_closed_nothing_but_answers_is_written(exported, tmp_path):
    model = exported / MODELS[0]
    shutil.copy(ROOT / "device" / "runner.py", tmp_path)
    np.save(tmp_path / "a.npy", np.zeros((28, 28), np.uint8))
    for program, arguments in (
        (ROOT / "device" / "runner.py", f"-m {model} --json none.png {tmp_path}/a.npy"),
        (tmp_path / "runner.py", f"{model} none.npy"),
        (ROOT / "device" / "runner.py", f"bench --json -m {tmp_path}/none.onnx"),
    ):
        command = f"exec {sys.executable} {program} {arguments} 2>&-"
        run = subprocess.run(command, shell=True, capture_output=True, text=True)
        assert run.returncode == 2
        assert all("error" in json.loads(line) for line in run.stdout.splitlines())


def test_without_numpy_the_runner_says_so_in_one_line(tmp_path):
    (tmp_path / "numpy.py").write_text("raise ImportError('none here')")
    run = run_runner("info", env={"PYTHONPATH": str(tmp_path)})
    assert run.returncode == 2
    assert run.stderr == "runner.py: numpy cannot be imported (none here): pip install numpy\n"


def test_tflite_runtime_with_numpy_2_is_one_line(exported, monkeypatch):
    monkeypatch.setattr(runner.np, "__version__", "2.4.0")
    with pytest.raises(InputError, match=r"needs numpy 1, not 2.4.0: pip install 'numpy<2'"):
        Classifier(exported / MODELS[1], "tflite-runtime")


def test_what_is_no_array_is_refused(classifier):
    for images in ([[1]], None, "x", 3):
        with pytest.raises(InputError, match="images of"):
            classifier.predict(images)
        with pytest.raises(InputError, match="images of"):
            classifier.classify(images)


def test_labels_that_the_model_has_no_class_for_are_refused(exported, tmp_path):
    images, labels = tmp_path / "images-ubyte", tmp_path / "labels-ubyte"
    images.write_bytes(b"\0\0\x08\x03" + b"\0\0\0\1\0\0\0\x1c\0\0\0\x1c" + bytes(784))
    labels.write_bytes(b"\0\0\x08\x01\0\0\0\1\xff")
    run = run_runner("accuracy", "-m", exported / MODELS[1], images, labels)
    assert run.returncode == 2
    assert "label 255; the model has 10 classes" in run.stderr
