"""Each budget at its limit, in small tables computed by hand; no artifact is run."""

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
from pipeline.files import UserError
from pipeline.parity import check, judge
from pipeline.parity.judge import ParityRow

BUDGET = config.load_parity_budget()
FLOAT = Subject("lenet5_fp32.onnx", "onnxruntime", Path("python"), True)
INT8 = Subject("lenet5_int8.onnx", "onnxruntime", Path("python"), False)
NAN, INF = float("nan"), float("inf")


def one_hot(labels):
    return np.eye(10, dtype=np.float32)[labels]


@pytest.mark.parametrize(
    ("difference", "reasons"),
    [
        (0.9e-4, []),
        (1.1e-4, ["max |dp| 1.1e-04, above 1.0e-04"]),
        (-1.1e-4, ["max |dp| 1.1e-04, above 1.0e-04"]),
    ],
)
def test_float_probability_at_its_budget(difference, reasons):
    labels, reference = np.zeros(4, int), np.tile(np.float32([0.9, 0.1]), (4, 1))
    got = reference.copy()
    got[2, 1] += difference
    assert judge.judge(FLOAT, labels, reference, got, BUDGET)[0] == reasons
    assert judge.judge(INT8, labels, reference, got, BUDGET)[0] == []


@pytest.mark.parametrize(
    ("lost", "gained", "passes"),
    # Of 10,000 images, where agreement has no budget: 10 are 0.10 percentage points.
    [(9, 0, True), (10, 0, True), (11, 0, False), (30, 20, True), (31, 20, False), (0, 30, True)],
)
def test_int8_accuracy_at_its_budget(lost, gained, passes):
    labels = np.zeros(10_000, int)
    reference, got = labels.copy(), labels.copy()
    reference[:100] = 1  # errs on 1 %, which stretches nothing
    got[:100] = 1
    got[:gained] = 0
    got[100 : 100 + lost] = 2
    reasons, figures = judge.judge(
        INT8, labels, one_hot(reference), one_hot(got), replace(BUDGET, int8_min_agreement=0.5)
    )
    assert (reasons == []) is passes, reasons
    assert figures["delta_pp"] == pytest.approx((gained - lost) / 100)
    assert figures["accuracy"] == pytest.approx((9_900 + gained - lost) / 10_000)
    low, high = figures["delta_ci95_pp"]
    assert low < figures["delta_pp"] < high
    if passes:
        return
    assert [reason for reason in reasons if "pp" in reason] == reasons


@pytest.mark.parametrize(("flips", "passes"), [(9, True), (10, True), (11, False)])
def test_int8_agreement_at_its_budget(flips, passes):
    labels = np.zeros(10_000, int)
    reference = labels.copy()
    reference[:20] = 1  # wrong; the flips make another wrong label of it, so that nothing is lost
    got = reference.copy()
    got[:flips] = 2
    reasons, figures = judge.judge(INT8, labels, one_hot(reference), one_hot(got), BUDGET)
    assert (reasons == []) is passes
    assert figures["delta_pp"] == 0
    assert figures["flips"][0] == judge.Flip(0, 0, 1, 2)


@pytest.mark.parametrize(
    ("accuracy", "stretch"),
    [(1.0, 1.0), (0.99, 1.0), (0.98, 2.0), (0.9, 10.0), (0.5, 10.0)],
)
def test_int8_budgets_grow_with_the_references_error_and_at_most_tenfold(accuracy, stretch):
    allowed = judge.limits(False, accuracy, BUDGET)
    assert allowed.disagreement == pytest.approx(0.001 * stretch)
    assert allowed.loss_pp == pytest.approx(0.1 * stretch)
    assert allowed.max_abs_dp is None
    assert judge.limits(True, accuracy, BUDGET) == judge.Limits(0.0, 1e-4, None)


def test_a_millionth_over_a_budget_is_over_it():
    labels = np.zeros(1_000, int)
    got = labels.copy()
    got[0] = 1  # agreement 99.9 %
    for agreement, passes in ((0.999, True), (0.999001, False)):
        budget = replace(BUDGET, int8_min_agreement=agreement)
        reasons, _ = judge.judge(INT8, labels, one_hot(labels), one_hot(got), budget)
        assert (reasons == []) is passes


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("subject", [FLOAT, INT8])
def test_one_probability_that_is_no_number_fails(value, subject):
    reference = one_hot(np.zeros(5, int))
    got = reference.copy()
    got[3, 2] = value
    reasons, figures = judge.judge(subject, np.zeros(5, int), reference, got, BUDGET)
    assert (reasons, figures) == (["NaN or infinity among the probabilities"], {})


def outputs(raw):
    return Outputs(np.zeros(raw.shape, np.float32), raw, "1")


RAW = np.arange(50, dtype=np.int8).reshape(5, 10)


@pytest.mark.parametrize(
    ("got", "same"),
    [
        (RAW, True),
        (RAW.astype(np.float32), False),
        (RAW.view(np.uint8), False),
        (RAW[:, :9], False),
        (RAW[:4], False),
        (RAW[:1], False),
        (RAW ^ 1, False),
    ],
)
def test_bits_are_the_same_only_in_the_same_shape_and_type(got, same):
    for artifact in judge.FROM_C:
        row = ParityRow(artifact, "any", "1", "", "pass", "")
        judged = judge.with_bits(row, outputs(got), outputs(RAW))
        assert judged.bit_identical is same
        assert judged.status == ("pass" if same else "fail")


# --- check.py -----------------------------------------------------------------------------------


@pytest.fixture
def data():
    images, labels = np.zeros((4, 28, 28), np.uint8), np.arange(4, dtype=np.uint8)
    split = Split(images, labels)
    return Dataset(split, split, split, tuple("0123456789"), Path("digits"), "abc")


PRESENT = "python_version > '3'"
ABSENT = "python_version < '3'"


@pytest.mark.parametrize(
    ("allowance", "allowed"),
    [
        ({"runtime": "onnxruntime", "when": PRESENT}, True),
        ({"runtime": "onnxruntime", "when": ABSENT}, False),
        ({"runtime": "tflite-runtime", "when": PRESENT}, False),
        ({"runtime": "onnxruntime", "when_missing": "no-such-program"}, True),
        ({"runtime": "onnxruntime", "when_missing": "sh"}, False),
    ],
)
def test_an_allowance_holds_for_its_runtime_and_while_its_condition_does(
    allowance, allowed, data, tmp_path
):
    budget = replace(BUDGET, allowed_not_run=(config.AllowedNotRun(reason="none", **allowance),))
    row = check._judge(INT8, tmp_path, "crashed", None, data, budget)
    assert (row.status, row.allowed) == ("not_run", allowed)
    assert "crashed" in row.reason


def write_onnx(path, quantized, labels=tuple("0123456789")):
    """Two products; `quantized` tells of each of their four inputs whether it was int8."""
    nodes = []
    for i, is_int8 in enumerate(quantized):
        kind = "DequantizeLinear" if is_int8 else "Identity"
        nodes.append(helper.make_node(kind, [f"in{i}", "s"][: 1 + is_int8], [f"x{i}"]))
    nodes += [helper.make_node("MatMul", [f"x{i}", f"x{i + 1}"], [f"y{i}"]) for i in (0, 2)]
    put = helper.make_tensor_value_info("in0", TensorProto.FLOAT, [1])
    model = helper.make_model(helper.make_graph(nodes, "g", [put], [put]))
    helper.set_model_props(model, {"labels": json.dumps(labels)} if labels else {})
    onnx.save(model, path)


@pytest.mark.parametrize(
    "floats", [[], [0], [1], [2], [3], [0, 1], [0, 1, 2, 3]], ids=lambda floats: f"float{floats}"
)
def test_onnx_is_int8_only_if_each_input_of_each_product_is(floats, tmp_path):
    path = tmp_path / "lenet5_int8.onnx"
    write_onnx(path, [i not in floats for i in range(4)])
    assert check._is_int8(path, outputs(RAW)) is (not floats)


def test_tflite_and_c_are_int8_by_what_they_answer(tmp_path):
    for name in ("lenet5_int8.tflite", "native/lenet5_int8.c"):
        assert check._is_int8(tmp_path / name, outputs(RAW))
        assert not check._is_int8(tmp_path / name, outputs(RAW.astype(np.float32)))


@pytest.mark.parametrize(
    ("labels", "passes"),
    [("0123456789", True), ("0125436789", False), ("012345678", False), (None, False)],
)
def test_labels_in_a_models_metadata_must_be_the_data_sets(labels, passes, data, tmp_path):
    write_onnx(tmp_path / INT8.artifact, [True] * 4, labels and tuple(labels))
    probabilities = one_hot(np.arange(4))
    got = Outputs(probabilities, probabilities, "1")
    row = check._judge(INT8, tmp_path, got, probabilities, data, BUDGET)
    assert (row.status == "pass") is passes, row.reason
    assert ("names of its labels are not those of digits" in row.reason) is not passes


@pytest.mark.parametrize("kind", ["data", "nan", "shape", "sound"])
def test_reference_of_other_data_or_without_probabilities_is_refused(
    kind, data, tmp_path, monkeypatch
):
    probabilities = one_hot(np.arange(4))
    if kind == "nan":
        probabilities[1, 1] = NAN
    if kind == "shape":
        probabilities = probabilities[:, :9]
    monkeypatch.setattr(check, "require_float_model", lambda path, training: None)
    monkeypatch.setattr(
        check, "classify_apart", lambda *a: SimpleNamespace(probabilities=probabilities)
    )
    training = {"data_sha256": "of another set" if kind == "data" else data.sha256}
    (tmp_path / "train.json").write_text(json.dumps(training))
    if kind == "sound":
        assert check._reference(tmp_path, data) is probabilities
    else:
        with pytest.raises(UserError, match="not the data set" if kind == "data" else "do not fit"):
            check._reference(tmp_path, data)


def test_layers_are_measured_on_256_images(data, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(check, "import_tensorflow", lambda: None)
    monkeypatch.setattr(check, "load_model", lambda path: SimpleNamespace(get_weights=list))
    monkeypatch.setattr(
        check.layer_noise, "measure", lambda path, weights, images: seen.append(images.shape) or ()
    )
    row = ParityRow("lenet5_int8.onnx", "onnxruntime", "1", "", "pass", "", n=300)
    check._layers(tmp_path, [row], np.zeros((300, 28, 28), np.uint8))
    assert seen == [(256, 32, 32, 1)]
