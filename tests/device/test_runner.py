"""The device runner: as a library and as a command, with good input and with rubbish."""

import gzip
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import broken
import numpy as np
import onnx
import pytest
from helpers import DEVICE_PYTHON, ROOT, idx_bytes, run_runner
from onnx import TensorProto, helper

from device import runner
from device.runner import Classifier, InputError
from export import seal

INT8 = "lenet5_int8.tflite"
MODELS = ["lenet5_fp32.tflite", INT8, "lenet5_fp32.onnx", "lenet5_int8.onnx"]
RUNNER = ROOT / "device" / "runner.py"


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
    return Classifier(exported / request.param)


@pytest.fixture(scope="session")
def int8(exported):
    return Classifier(exported / INT8)


@pytest.fixture
def run(exported):
    """Run the command with the int8 model, and what else is named."""
    return lambda *arguments, **how: run_runner("-m", exported / INT8, *arguments, **how)


# --- The library ----------------------------------------------------------------------------


def test_padded_and_float_images_give_what_bytes_give(classifier, mnist):
    images = mnist.test.images[:50]
    labels, probabilities = classifier.predict(images)
    assert (labels.shape, probabilities.shape) == ((50,), (50, 10))
    assert (labels.dtype, probabilities.dtype) == (np.int64, np.float32)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-5)
    for other in (np.pad(images, ((0, 0), (2, 2), (2, 2))), images / np.float32(255), images / 255):
        np.testing.assert_array_equal(classifier.predict(other).probabilities, probabilities)


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
    with ThreadPoolExecutor(4) as pool:
        got = pool.map(lambda i: (i, classifier.classify(images[i])), list(range(400)) * 4)
        assert all(answer == expected[i] for i, answer in got)


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


def onnx_model(path, nodes, batch="batch", classes=10):
    """An ONNX model of our input, with our checksum, that answers `y` of the nodes."""
    floats = TensorProto.FLOAT
    ins = [helper.make_tensor_value_info("image", floats, [batch, 32, 32, 1])]
    outs = [helper.make_tensor_value_info("y", floats, [batch, classes])]
    zeros = helper.make_tensor("zeros", floats, [1024, classes], bytes(4096 * classes), True)
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [-1, 1024])
    flat = helper.make_node("Reshape", ["image", "shape"], ["flat"])
    logits = helper.make_node("MatMul", ["flat", "zeros"], ["logits"])
    graph = helper.make_graph([flat, logits, *nodes], "g", ins, outs, [zeros, shape])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.helper.set_model_props(model, {"checksum": json.dumps({seal.KEY: seal.DIGITS})})
    path.write_bytes(seal.seal(model.SerializeToString()))


SOFTMAX = helper.make_node("Softmax", ["logits"], ["y"])
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
        ("m.onnx", lambda path: onnx_model(path, [SOFTMAX], batch=1), "onnxruntime refuses it"),
        ("m.onnx", lambda path: onnx_model(path, [SOFTMAX], batch=8), "onnxruntime refuses it"),
        ("m.onnx", lambda path: onnx_model(path, [NO_SOFTMAX], classes=0), "with a softmax"),
        ("m.onnx", lambda path: onnx_model(path, [NO_SOFTMAX]), "end the model with a softmax"),
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
    onnx_model(model, nodes)
    classifier = Classifier(model)
    for answer in (classifier.classify, lambda image: classifier.predict(image[np.newaxis])):
        with pytest.raises(InputError, match="its outputs are not probabilities"):
            answer(mnist.test.images[0])
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


def test_no_runtime_says_what_to_install(exported, digits, bare_python):
    run = run_runner("-m", exported / "lenet5_int8.onnx", digits / "a.pgm", python=bare_python)
    assert run.returncode == 2
    assert run.stderr.startswith("runner.py: onnxruntime: not usable")
    assert run.stderr.endswith(": pip install onnxruntime\n")


def test_tflite_runtime_with_numpy_2_is_one_line(exported, monkeypatch):
    monkeypatch.setattr(runner.np, "__version__", "2.4.0")
    with pytest.raises(InputError, match=r"No module named 'tflite_runtime'\): pip install"):
        Classifier(exported / INT8, "tflite-runtime")  # it is not in this environment
    monkeypatch.setattr(runner, "find_spec", lambda _: "there")
    with pytest.raises(InputError, match=r"needs numpy 1, not 2.4.0: pip install 'numpy<2'"):
        Classifier(exported / INT8, "tflite-runtime")


# --- The command --------------------------------------------------------------------------------


def test_each_picture_is_a_line_and_a_bad_one_costs_no_other(run, digits, mnist, tmp_path):
    (tmp_path / "empty.pgm").touch()
    good, bad = digits / "a.pgm", [tmp_path / "empty.pgm", tmp_path / "no.png", "x" * 300]
    done = run(*bad, good, digits / "c.pgm")
    assert done.returncode == 2
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    match = re.fullmatch(rf"{re.escape(str(good))}  (\d)  \d+\.\d %  \d+\.\d ms", lines[0])
    assert match[1] == str(mnist.test.labels[0])
    errors = done.stderr.splitlines()
    for error, name in zip(errors, bad, strict=True):
        assert error.startswith(f"runner.py: {name}: ")
    assert errors[2].endswith(": cannot be read (File name too long)")


def test_json_is_one_object_a_line_with_the_keys_of_the_contract(run, digits):
    done = run("--json", "-k", "3", "none.png", digits)
    error, *rows = map(json.loads, done.stdout.splitlines())
    assert error == {"file": "none.png", "error": done.stderr.strip().removeprefix("runner.py: ")}
    assert [Path(row["file"]).name for row in rows] == ["a.pgm", "b.npy", "c.pgm"]
    for row in rows:
        assert set(row) == {"file", "label", "probability", "top", "latency_ms"}
        assert len(row["top"]) == 3
        assert row["top"][0] == {"label": row["label"], "probability": row["probability"]}


def test_several_digits_are_read_in_order_with_their_boxes_and_never_as_one(run, mnist, tmp_path):
    picture = np.full((200, 400), 220, np.uint8)  # dark on light
    for left, image in ((50, mnist.test.images[0]), (250, mnist.test.images[1])):
        picture[44:156, left : left + 112] -= np.kron(image, np.ones((4, 4), np.uint8)) // 2
    path = write_pgm(tmp_path / "number.pgm", picture)
    refused, read = run(path), run("--all", "--json", path)
    assert refused.returncode == 2
    assert refused.stderr == f"runner.py: {path}: several digits (2): use --all\n"
    assert read.returncode == 0, read.stderr
    row = json.loads(read.stdout)
    assert row["label"] == "".join(map(str, mnist.test.labels[:2]))
    assert [digit["label"] for digit in row["digits"]] == list(row["label"])
    product = row["digits"][0]["probability"] * row["digits"][1]["probability"]
    assert row["probability"] == pytest.approx(product)
    first, second = (digit["box"] for digit in row["digits"])
    assert 50 <= first[0] < first[2] <= 162 < 250 <= second[0] < second[2] <= 362


def test_an_answer_below_the_threshold_is_unsure_and_tells_its_guess(run, int8, mnist, tmp_path):
    images = mnist.test.images[:8]
    (tmp_path / "eight-ubyte").write_bytes(idx_bytes(images))
    labels, probabilities = int8.predict(images)
    sure = probabilities.max(axis=1)
    arguments = ("--min-confidence", repr(float(np.median(sure[:7]))), tmp_path / "eight-ubyte")
    text, rows = run(*arguments), run("--json", *arguments)
    assert text.returncode == 0, text.stderr
    for i, row in enumerate(map(json.loads, rows.stdout.splitlines())):
        below = sure[i] < np.median(sure[:7])  # one of them is at it, which is enough
        assert row.get("unsure", False) == below
        guess = rf"{labels[i]}  \d+\.\d %"
        said = text.stdout.splitlines()[i]
        assert re.search(rf"  unsure \({guess}\)  " if below else f"  {guess}  ", said)


def test_output_that_is_full_is_one_line(exported):
    command = [sys.executable, RUNNER, "info", "-m", exported / INT8]
    with Path("/dev/full").open("w") as full:
        run = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1] == "runner.py: the output: No space left on device"
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("form", ["npz", "idx", "two files", "pictures"])
def test_accuracy_reads_what_the_pipeline_reads_and_a_folder_per_class(
    run, int8, mnist, tmp_path, form
):
    images, labels = mnist.test.images[:20], mnist.test.labels[:20]
    right, given = int((int8.predict(images).labels == labels).sum()), [tmp_path]
    if form == "npz":
        np.savez(tmp_path / "set.npz", x_test=images.astype(np.int64), y_test=labels)
    elif form == "pictures":
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = tmp_path / "test" / str(label) / f"{i}.pgm"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_pgm(path, image)
        path.with_name("damaged.png").write_bytes(b"\x89PNG")
        path.with_name("Thumbs.db").write_bytes(b"")
    else:
        given = [tmp_path / f"t10k-{name}-ubyte.gz" for name in ("images-idx3", "labels-idx1")]
        for path, array in zip(given, (images, labels), strict=True):
            path.write_bytes(gzip.compress(idx_bytes(array)))
        given = given if form == "two files" else [tmp_path]
    done = run("accuracy", *given)
    assert done.returncode == 0, done.stderr
    assert f"{right} of {21 if form == 'pictures' else 20} correct" in done.stdout
    assert ("refused pictures: 1" in done.stdout) == (form == "pictures")


def label_255(folder):
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(np.zeros((1, 28, 28), np.uint8)))
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(np.array([255], np.uint8)))


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda folder: None, "no folders of pictures"),
        (lambda folder: (folder / "cat").mkdir(), "not a class of the model"),
        (lambda folder: (folder / "1").mkdir(), "no pictures in it"),
        (lambda folder: (folder / "a.npz").write_bytes(b"PK"), "not an .npz"),
        (lambda folder: np.savez(folder / "a.npz", x_test=np.zeros((1, 28, 28), object)), "x_test"),
        (label_255, "label 255; the model has 10 classes"),
    ],
)  # fmt: skip
def test_a_labelled_set_that_cannot_be_used_is_one_line(run, tmp_path, make, part):
    make(tmp_path)
    done = run("accuracy", tmp_path)
    assert done.returncode == 2
    assert part in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_is_no_picture_in_a_folder_is_skipped_with_a_count(run, mnist, tmp_path):
    write_pgm(tmp_path / "a.pgm", mnist.test.images[0])
    for name in ("Thumbs.db", "README", "labels.txt"):
        (tmp_path / name).write_text("no picture")
    (tmp_path / "b").write_bytes((tmp_path / "a.pgm").read_bytes())  # its content tells
    done = run(tmp_path)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr == f"runner.py: {tmp_path}: 3 files that are not pictures were skipped\n"


def test_info_names_model_runtime_versions_and_machine_and_options_may_stand_first(run):
    before, after = run("info", python=DEVICE_PYTHON), run("--threads", "1", "info")
    assert before.returncode == after.returncode == 0, before.stderr + after.stderr
    for word in (INT8, "ai-edge-litert", "uint8", "numpy", "python", "machine"):
        assert word in before.stdout
        assert word in after.stdout


def test_every_command_has_help():
    code = """
import commands
for command in commands.COMMANDS:
    try:
        commands.main([command, "--help"])
    except SystemExit as ended:
        print("ended", ended.code)
"""
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=RUNNER.parent, capture_output=True, text=True, check=True)
    assert run.stdout.count("usage: runner.py ") == run.stdout.count("ended 0") == 6
    assert run.stdout.count("--model MODEL") == 5  # `receipt` takes all


def test_a_file_named_like_a_command_may_follow_a_picture(run, digits, tmp_path):
    shutil.copy(digits / "a.pgm", tmp_path / "info")
    done = run(digits / "a.pgm", "info", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("--threads", ("0", "65")),  # more crash a runtime
        ("--min-confidence", ("-0.1", "1.1", "nan")),
        ("--top-k", ("0",)),
        ("--stable", ("0",)),
    ],
)
def test_an_option_outside_its_range_is_bad_usage(run, digits, option, values):
    for value in values:
        done = run(f"{option}={value}", digits / "a.pgm")
        assert done.returncode == 2
        assert done.stderr.startswith(f"runner.py: {option} ")
        assert done.stderr.count("\n") == 1


def test_black_images_of_an_idx_file_hold_no_digit(run, tmp_path):
    path = tmp_path / "black-ubyte"
    path.write_bytes(idx_bytes(np.zeros((1, 28, 28), np.uint8)))
    done = run(path)
    assert done.returncode == 2
    assert f"{path}[0]: no digit found" in done.stderr


def test_names_that_do_not_print_are_written_as_escapes_and_the_others_go_on(run, mnist, tmp_path):
    for name in (b"a\xff.pgm", b"b\n.pgm", b"c.pgm"):
        write_pgm(tmp_path / os.fsdecode(name), mnist.test.images[0])
    done = run(tmp_path, env={**os.environ, "PYTHONIOENCODING": "utf-8"})
    assert done.returncode == 0, done.stderr
    names = [line.partition("  ")[0].rpartition("/")[2] for line in done.stdout.splitlines()]
    assert names == ["a\\udcff.pgm", "b\\n.pgm", "c.pgm"]


def test_closed_standard_input_is_one_line(exported):
    command = f"exec {sys.executable} {RUNNER} -m {exported}/{INT8} - <&-"
    run = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert run.returncode == 2
    assert "runner.py: -: standard input is closed" in run.stderr


def test_with_standard_error_closed_nothing_but_answers_is_written(exported, tmp_path):
    shutil.copy(RUNNER, tmp_path)
    np.save(tmp_path / "a.npy", np.zeros((28, 28), np.uint8))
    for program, arguments in (
        (RUNNER, f"-m {exported}/{INT8} --json none.png {tmp_path}/a.npy"),
        (tmp_path / "runner.py", f"{exported}/{INT8} none.npy"),
        (RUNNER, f"bench --json -m {tmp_path}/none.onnx"),
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
