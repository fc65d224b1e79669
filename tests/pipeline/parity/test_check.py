"""What of a file, its outputs and the reference is judged; no artifact is run."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pipeline import config
from pipeline.artifacts import Subject
from pipeline.classify import Outputs
from pipeline.data import Dataset, Split
from pipeline.files import UserError, sha256
from pipeline.parity import check, judge
from pipeline.parity.judge import ParityRow

BUDGET = config.load_parity_budget()
FLOAT = Subject("lenet5_fp32.onnx", "onnxruntime", Path("python"), True)
INT8 = Subject("lenet5_int8.onnx", "onnxruntime", Path("python"), False)
RAW = np.zeros((4, 10), np.int8)
RIGHT = np.eye(10, dtype=np.float32)[:4]  # of the labels 0 to 3
GOT = Outputs(RIGHT, RIGHT, "1.2")


@pytest.fixture
def data():
    images, labels = np.zeros((4, 28, 28), np.uint8), np.arange(4, dtype=np.uint8)
    split = Split(images, labels)
    return Dataset(split, split, split, tuple("0123456789"), Path("digits"), "abc")


@pytest.fixture
def judged(data, tmp_path):
    """A function that judges what a file in tmp_path answered."""

    def judge_file(subject, got=GOT, budget=BUDGET):
        return check._judge(subject, tmp_path, got, RIGHT, data, budget)

    return judge_file


# --- A file -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("runtime", "when", "allowed"),
    [
        ("onnxruntime", "python_version > '3'", True),
        ("onnxruntime", "python_version < '3'", False),
        ("tflite-runtime", "python_version > '3'", False),
    ],
)
def test_an_allowance_holds_for_its_runtime_and_while_its_condition_does(
    runtime, when, allowed, judged, tmp_path
):
    allowance = config.AllowedNotRun(reason="none", runtime=runtime, when=when)
    (tmp_path / INT8.artifact).write_bytes(b"a model")
    who = (INT8.artifact, INT8.runtime, "", sha256(tmp_path / INT8.artifact), "not_run")
    row = judged(INT8, "crashed", replace(BUDGET, allowed_not_run=(allowance,)))
    reason = "none (crashed)" if allowed else "crashed"
    assert row == ParityRow(*who, reason, allowed=allowed)


def test_missing_file_has_no_hash(judged):
    row = ParityRow(INT8.artifact, INT8.runtime, "", "", "not_run", "x: missing")
    assert judged(INT8, "x: missing") == row


def write_onnx(path, quantized, labels=tuple("0123456789")):
    """Three products; `quantized` tells of each of their six inputs whether it was int8."""
    nodes = []
    for i, is_int8 in enumerate(quantized):
        kind = "DequantizeLinear" if is_int8 else "Identity"
        nodes.append(helper.make_node(kind, [f"in{i}", "s"][: 1 + is_int8], [f"x{i}"]))
    for product, i in (("Conv", 0), ("Gemm", 2), ("MatMul", 4)):
        bias = ["bias"] * (product == "Conv")
        nodes.append(helper.make_node(product, [f"x{i}", f"x{i + 1}", *bias], [f"y{i}"]))
    put = helper.make_tensor_value_info("in0", TensorProto.FLOAT, [1])
    model = helper.make_model(helper.make_graph(nodes, "g", [put], [put]))
    helper.set_model_props(model, {"labels": json.dumps(labels)} if labels else {})
    onnx.save(model, path)


@pytest.mark.parametrize(
    "floats", [[], [0], [1], [2], [3], [4], [5], [0, 1, 2, 3]], ids=lambda floats: f"float{floats}"
)
def test_onnx_is_int8_only_if_each_input_of_each_product_is(floats, tmp_path):
    path = tmp_path / "lenet5_int8.onnx"
    write_onnx(path, [i not in floats for i in range(6)])
    assert check._is_int8(path, Outputs(RIGHT, RAW, "1")) is (not floats)


def test_tflite_and_c_are_int8_by_what_they_answer(tmp_path):
    for name in ("lenet5_int8.tflite", "native/lenet5_int8.c"):
        assert check._is_int8(tmp_path / name, Outputs(RIGHT, RAW, "1"))
        assert not check._is_int8(tmp_path / name, GOT)


@pytest.mark.parametrize(
    ("labels", "passes"),
    [("0123456789", True), ("0125436789", False), ("012345678", False), (None, False)],
)
def test_labels_in_a_models_metadata_must_be_the_data_sets(labels, passes, judged, tmp_path):
    write_onnx(tmp_path / INT8.artifact, [True] * 6, labels and tuple(labels))
    row = judged(INT8)
    assert (row.status, row.runtime_version) == ("pass" if passes else "fail", "1.2")
    assert row.sha256 == sha256(tmp_path / INT8.artifact)
    assert row.reason == ("" if passes else "the names of its labels are not those of digits")
    assert (row.n, row.accuracy, row.agreement) == (4, 1.0, 1.0)


def test_every_reason_is_given(judged, tmp_path):
    write_onnx(tmp_path / INT8.artifact, [False] * 6, tuple("987"))
    wrong = RIGHT[[0, 0, 0, 0]]
    row = judged(INT8, Outputs(wrong, wrong, "1"))
    assert row.accuracy == 0.25
    *others, kind, names = row.reason.split("; ")
    assert len(others) == 2
    assert kind == "it is not an int8 model"
    assert names == "the names of its labels are not those of digits"


def test_float_models_need_not_be_int8_and_the_c_names_no_labels(judged, tmp_path):
    write_onnx(tmp_path / FLOAT.artifact, [False] * 6)
    assert judged(FLOAT).status == "pass"
    for artifact in judge.FROM_C:
        subject = Subject(artifact, "any", Path("python"), False)
        assert judged(subject).reason == "it is not an int8 model"
        assert judged(subject, Outputs(RIGHT, RAW, "1")).status == "pass"


# --- The reference, and the layers --------------------------------------------------------------

ONE_NAN = RIGHT.copy()
ONE_NAN[1, 1] = np.nan


@pytest.mark.parametrize(
    ("sha256_of_data", "answer", "said"),
    [
        ("abc", RIGHT, None),
        ("of another set", RIGHT, "not the data set"),
        ("abc", ONE_NAN, "do not fit"),
        ("abc", RIGHT[:, :9], "do not fit"),
        ("abc", None, r"^crashed \(signal 11\)$"),
    ],
)
def test_reference_of_other_data_or_without_probabilities_is_refused(
    sha256_of_data, answer, said, data, tmp_path, monkeypatch
):
    model, checked = tmp_path / "lenet5.keras", []

    def classify_apart(path, runtime, python, images):
        right = (path, runtime) == (model, "keras") and python.is_file()
        if not right or images is not data.test.images or answer is None:
            return "crashed (signal 11)"
        return SimpleNamespace(probabilities=answer)

    monkeypatch.setattr(check, "require_float_model", lambda *a: checked.append(a))
    monkeypatch.setattr(check, "classify_apart", classify_apart)
    training = {"data_sha256": sha256_of_data}
    (tmp_path / "train.json").write_text(json.dumps(training))
    if said is None:
        assert check._reference(tmp_path, data) is answer
        assert checked == [(model, training)]
    else:
        with pytest.raises(UserError, match=said):
            check._reference(tmp_path, data)


def test_layers_are_measured_on_256_images_of_each_int8_file_that_ran_here(
    data, tmp_path, monkeypatch
):
    seen = []
    model = SimpleNamespace(get_weights=lambda: "weights")
    monkeypatch.setattr(check, "import_tensorflow", lambda: None)
    monkeypatch.setattr(check, "load_model", {tmp_path / "lenet5.keras": model}.get)
    monkeypatch.setattr(
        check.layer_noise, "measure", lambda *a: seen.append((*a[:2], a[2].shape)) or ()
    )
    rows = [
        ParityRow("lenet5_int8.onnx", "onnxruntime", "1", "", "pass", "", n=300),
        ParityRow("lenet5_int8.tflite", "tflite-runtime", "1", "", "pass", "", n=300),
        ParityRow("lenet5_int8.tflite", "ai-edge-litert", "1", "", "not_run", "", n=0),
    ]
    check._layers(tmp_path, rows, np.zeros((300, 28, 28), np.uint8))
    assert seen == [(tmp_path / "lenet5_int8.onnx", "weights", (256, 32, 32, 1))]
