"""Each budget at its limit, in small tables computed by hand."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from pipeline import config
from pipeline.artifacts import INT8_TFLITE, NATIVE_SOURCE, Subject
from pipeline.classify import Outputs
from pipeline.parity import judge
from pipeline.parity.binaries import BinaryRow
from pipeline.parity.c_layers import LayersRow
from pipeline.parity.judge import ParityRow
from pipeline.parity.layer_noise import TensorNoise
from pipeline.parity.statistics import PairedCounts, paired_difference_ci95

BUDGET = config.load_parity_budget()
FLOAT = Subject("lenet5_fp32.onnx", "onnxruntime", Path("python"), True)
INT8 = Subject("lenet5_int8.onnx", "onnxruntime", Path("python"), False)
NAN, INF = float("nan"), float("inf")


def one_hot(labels):
    return np.eye(10, dtype=np.float32)[labels]


def judge_labels(reference, got, subject=INT8, **budget):
    """The reasons and figures where label 0 is right: labels of the reference, and of a subject."""
    labels, probabilities = np.zeros(len(got), int), (one_hot(reference), one_hot(got))
    return judge.judge(subject, labels, *probabilities, replace(BUDGET, **budget))


def with_label(count, label, first):
    """`count` labels 0, the first of them another."""
    labels = np.zeros(count, int)
    labels[:first] = label
    return labels


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
    reference = with_label(10_000, 1, first=100)  # errs on 1 %, which stretches nothing
    got = reference.copy()
    got[:gained] = 0
    got[100 : 100 + lost] = 2
    reasons, figures = judge_labels(reference, got, int8_min_agreement=0.5)
    assert (reasons == []) is passes, reasons
    assert figures["delta_pp"] == pytest.approx((gained - lost) / 100)
    assert figures["accuracy"] == pytest.approx((9_900 + gained - lost) / 10_000)
    counts = PairedCounts(9_900 - lost, gained, lost, 100 - gained)
    interval = paired_difference_ci95(counts)
    assert figures["delta_ci95_pp"] == pytest.approx(tuple(100 * edge for edge in interval))
    assert all("pp" in reason for reason in reasons)


@pytest.mark.parametrize(
    ("images", "wrong", "flips", "least", "passes"),
    [
        (10_000, 20, 9, 0.999, True),
        (10_000, 20, 10, 0.999, True),
        (10_000, 20, 11, 0.999, False),
        (10_000, 20, 10, 0.999001, False),  # a millionth over the budget is over it
        (1_000, 0, 3, 0.999, True),  # of fewer images, chance allows more
        (1_000, 0, 4, 0.999, False),
    ],
)
def test_int8_agreement_at_its_budget(images, wrong, flips, least, passes):
    # Of a wrong label the flips make another wrong one, so that nothing is lost.
    reference = with_label(images, 1, first=wrong)
    got = reference.copy()
    got[:flips] = 2
    reasons, figures = judge_labels(reference, got, int8_min_agreement=least)
    assert (reasons == []) is passes
    assert figures["delta_pp"] == (0 if wrong else pytest.approx(-100 * flips / images))
    assert figures["flips"][0] == judge.Flip(0, 0, int(wrong > 0), 2)


@pytest.mark.parametrize("wrong", [0, 20])
def test_one_other_label_fails_a_float_artifact_whatever_the_reference(wrong):
    reference = with_label(100, 1, first=wrong)
    got = reference.copy()
    got[50] = 2
    reasons, _ = judge_labels(reference, got, FLOAT, float_max_abs_dp=1.0)
    assert reasons == ["agreement 99.00%, below 100.00%"]


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


@pytest.mark.parametrize(
    ("images", "flips"),  # Poisson's 95 % quantiles of 0.05, 1, 4.16 and 9, the last one capped
    [(50, 0), (1_000, 3), (4_160, 8), (9_000, 10), (10_000, 10), (20_000, 20)],
)
def test_fewer_test_images_allow_for_chance_but_never_more_flips_than_the_full_test(images, flips):
    allowed = judge.limits(False, 1.0, BUDGET, images)
    assert images * allowed.disagreement == pytest.approx(flips)
    assert images * allowed.loss_pp / 100 == pytest.approx(flips)
    assert judge.limits(True, 1.0, BUDGET, images).disagreement == 0.0


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("subject", [FLOAT, INT8])
def test_one_probability_that_is_no_number_fails(value, subject):
    reference = one_hot(np.zeros(5, int))
    got = reference.copy()
    got[3, 2] = value
    reasons, figures = judge.judge(subject, np.zeros(5, int), reference, got, BUDGET)
    assert (reasons, figures) == (["NaN or infinity among the probabilities"], {})


def test_another_shape_fails_with_both_shapes():
    reference = one_hot(np.zeros(5, int))
    got = judge.judge(INT8, np.zeros(5, int), reference, reference[:, :9], BUDGET)
    assert got == (["outputs of shape (5, 9), not (5, 10)"], {})


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
    other = replace(row, artifact="lenet5_int8.onnx", runtime="onnxruntime")
    assert judge.with_bits(other, outputs(got), outputs(RAW)) == other
    assert judge.with_bits(row, outputs(got), None) == row


def test_changed_bits_are_counted():
    got = RAW.copy()
    got[[1, 3], 2] ^= 1
    row = ParityRow("native/lenet5_int8.c", "native", "1", "", "pass", "")
    reason = judge.with_bits(row, outputs(got), outputs(RAW)).reason
    promise = "lenet5_int8.tflite on tflite-runtime"
    assert reason == f"2 outputs are not, bit for bit, those of {promise}"


def row(status, **values):
    return ParityRow("lenet5_int8.onnx", "onnxruntime", "1", "", status, "", **values)


@pytest.mark.parametrize(
    ("rows", "status"),
    [
        ([row("pass"), row("pass")], "pass"),
        ([row("pass"), row("fail"), row("not_run")], "fail"),
        ([row("pass"), row("not_run")], "not_run"),
        ([row("pass"), row("not_run", allowed=True)], "pass"),
    ],
)
def test_a_row_that_did_not_run_is_never_a_pass_unless_allowed(rows, status):
    assert judge.overall_status(rows, []) == status


@pytest.mark.parametrize(
    ("status", "overall"), [("pass", "pass"), ("not_run", "pass"), ("fail", "fail")]
)
def test_a_compiled_file_that_fails_fails_parity(status, overall):
    binary = BinaryRow("native/aarch64/lenet5", "", "cortex-a53", "neon", status, "")
    assert judge.overall_status([row("pass")], [binary]) == overall


def noise_of(*losses_db, artifact="lenet5_int8.onnx"):
    names = ("C1", "S2", "C3")
    return [
        TensorNoise(artifact, n, 40.0 - db, 40.0) for n, db in zip(names, losses_db, strict=False)
    ]


@pytest.mark.parametrize(
    ("loss_db", "budget_db", "status"),
    [
        (-5.0, 2.2, "pass"),
        (2.1, 2.2, "pass"),
        (2.19, 2.2, "pass"),
        (2.3, 2.2, "fail"),
        (np.nan, 2.2, "fail"),
        (2.5, 2.5, "pass"),  # exactly, in binary as well
    ],
)
def test_a_layer_may_lose_its_decibels_against_the_ideal_and_no_more(loss_db, budget_db, status):
    budget = replace(BUDGET, int8_max_sqnr_loss_db=budget_db)
    (judged,) = judge.with_layers([row("pass")], noise_of(0.0, loss_db, 0.0), budget)
    assert judged.status == status
    assert ("layer S2 " in judged.reason) is (status == "fail")


def test_the_noisiest_layer_is_named_with_its_figures():
    passed = replace(row("pass"), reason="")
    failed = replace(row("fail"), reason="agreement 99.00%, below 99.90%")
    said = (
        "layer S2 has a signal-to-noise ratio of 31.0 dB, 9.0 dB below an ideal quantization's; "
        "the budget is 2.2 dB"
    )
    first, second = judge.with_layers([passed, failed], noise_of(4.0, 9.0, 5.0), BUDGET)
    assert (first.status, first.reason) == ("fail", said)
    assert second.reason == f"agreement 99.00%, below 99.90%; {said}"


@pytest.mark.parametrize("layers", [[], noise_of(0.0, artifact="lenet5_int8.tflite")])
def test_an_int8_row_without_its_own_layers_fails(layers):
    (judged,) = judge.with_layers([row("pass")], layers, BUDGET)
    assert (judged.status, judged.reason) == ("fail", "not the float model's layers in int8")


@pytest.mark.parametrize(
    "other",
    [
        row("not_run"),
        ParityRow("lenet5_fp32.onnx", "onnxruntime", "1", "", "pass", ""),
        ParityRow("native/lenet5_int8.c", "native", "avx2", "", "pass", ""),
    ],
)
def test_what_is_float_or_c_or_did_not_run_has_no_layers_to_judge(other):
    assert judge.with_layers([other], [], BUDGET) == (other,)


def test_table_holds_the_reference_and_a_line_a_row():
    rows = [
        asdict(replace(row("pass"), accuracy=0.99, delta_pp=-0.1, agreement=0.995, max_abs_dp=0.25))
        | {"delta_ci95_pp": (-0.2, 0.05), "bit_identical": bits}
        for bits in (True, None)
    ]
    result = {"reference": {"accuracy": 0.991}, "rows": [*rows, asdict(row("not_run"))]}
    header, cells = judge.table_cells(result)
    assert header == [
        *("artifact", "runtime", "status", "accuracy", "delta (95 % CI), pp"),
        *("agreement", "max dp"),
    ]
    figures = ["99.00%", "-0.10 (-0.20, +0.05)", "99.50%", "2.5e-01"]
    assert cells == [
        ["lenet5.keras", "keras", "reference", "99.10%", "", "", ""],
        ["lenet5_int8.onnx", "onnxruntime 1", "same bits", *figures],
        ["lenet5_int8.onnx", "onnxruntime 1", "pass", *figures],
        ["lenet5_int8.onnx", "onnxruntime 1", "not_run", "", "", "", ""],
    ]
    failed = {**rows[0], "status": "fail", "runtime_version": ""}
    assert judge.table_cells({**result, "rows": [failed]})[1][1][1:3] == ["onnxruntime", "fail"]
    assert judge.format_table(result).count("same bits") == 1


@pytest.mark.parametrize(
    ("images", "accuracy", "few"),
    [(2999, 1.0, True), (3000, 1.0, False), (20, 0.5, True), (300, 0.5, False)],
)
def test_so_few_test_images_that_a_forbidden_difference_would_not_show_are_said(
    images, accuracy, few
):
    said = judge.too_few(images, accuracy, BUDGET)
    assert f", but {images} test images are few: it takes " in said if few else said == ""


@pytest.mark.parametrize(
    ("status", "numbers", "layer", "judged", "reason"),
    [
        ("pass", "", "pass", "pass", ""),
        ("pass", "a differs", "pass", "fail", "a differs"),
        ("pass", "", "fail", "fail", "b differs (x, neon)"),
        ("pass", "a", "fail", "fail", "a; b differs (x, neon)"),
        ("not_run", "a", "fail", "not_run", ""),
    ],
)
def test_a_wrong_number_or_layer_fails_the_row_of_the_c_alone(
    status, numbers, layer, judged, reason
):
    c, other = (
        ParityRow(name, "native", "", "", status, "") for name in (NATIVE_SOURCE, INT8_TFLITE)
    )
    rows = judge.with_c(
        [other, c], numbers, [LayersRow(x, "neon", 1, layer, "b differs") for x in "xy"]
    )
    assert rows[0] == other
    assert (rows[1].status, rows[1].reason) == (judged, reason)
