"""Judging an artifact by its outputs and the budget: no file is read here and nothing is run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.artifacts import FLOAT_MODEL, INT8_TFLITE, NATIVE_SOURCE, NATIVE_WASM, Subject
from pipeline.classify import Outputs
from pipeline.config import ParityBudget
from pipeline.data import Labels, Probabilities
from pipeline.parity.binaries import BinaryRow
from pipeline.parity.c_layers import LayersRow
from pipeline.parity.layer_noise import TensorNoise
from pipeline.parity.statistics import mcnemar_exact_p, paired_counts, paired_difference_ci95
from pipeline.table import markdown_table

FROM_C = (NATIVE_SOURCE, NATIVE_WASM)
SAME_BITS_AS = (INT8_TFLITE, "tflite-runtime")  # what these two promise (ADR 7)
MAX_SCALE = 10.0  # how far a poor reference can stretch the int8 budget
FULL_TEST = 10_000  # images; on fewer, what a good model changes scatters more
ROUNDING = 1e-9  # a share that meets its limit must not fail by a float's last bit


@dataclass(frozen=True)
class Flip:
    """A test image to which artifact and reference give different labels."""

    index: int  # of the image in the test set
    label: int  # the true class
    reference: int  # what the float model gives
    got: int  # what the artifact gives


@dataclass(frozen=True)
class ParityRow:
    """What parity found for one artifact on one runtime."""

    artifact: str
    runtime: str
    runtime_version: str
    sha256: str  # of the artifact
    status: str  # "pass", "fail" or "not_run"
    reason: str  # why it is not "pass"
    allowed: bool = False  # whether a not_run is allowed here
    n: int = 0  # images compared
    accuracy: float | None = None  # 0..1
    delta_pp: float | None = None  # accuracy less the reference's, in percentage points
    delta_ci95_pp: tuple[float, float] | None = None  # its 95 % interval, paired
    mcnemar_p: float | None = None  # exact two-sided p of 'equally often right'
    agreement: float | None = None  # share of images with the reference's label, 0..1
    max_abs_dp: float | None = None  # greatest difference of a probability
    mean_abs_dp: float | None = None  # mean difference
    flips: tuple[Flip, ...] = ()  # the images that do not agree
    bit_identical: bool | None = None  # of `FROM_C`: as `SAME_BITS_AS`, if that ran


@dataclass(frozen=True)
class Limits:
    """What the budget allows one artifact; None: no limit."""

    disagreement: float  # share of images with another label than the reference's, 0..1
    max_abs_dp: float | None  # greatest difference of a probability
    loss_pp: float | None  # accuracy lost, in percentage points


def limits(
    is_float: bool, reference_accuracy: float, budget: ParityBudget, images: int = FULL_TEST
) -> Limits:
    """What the budget allows a float or an int8 artifact, by the float model's accuracy, 0..1."""
    if is_float:
        return Limits(1.0 - budget.float_min_agreement, budget.float_max_abs_dp, None)
    scale = float(np.clip((1.0 - reference_accuracy) / budget.reference_error, 1.0, MAX_SCALE))
    disagreement = (1.0 - budget.int8_min_agreement) * scale
    loss = budget.int8_max_loss_pp / 100 * scale
    return Limits(allowed_share(disagreement, images), None, 100 * allowed_share(loss, images))


def allowed_share(share: float, images: int) -> float:
    """The share of a test set that may change, where `share` of `FULL_TEST` images may.

    On fewer images a model that is just within the budget may, by chance, be over it. So as many
    may change as such a model exceeds once in 20 times, but never more than of the full test.
    """
    from scipy.stats import poisson

    if images >= FULL_TEST:
        return share
    return float(min(poisson.ppf(0.95, share * images), share * FULL_TEST)) / images


def too_few(images: int, reference_accuracy: float, budget: ParityBudget) -> str:
    """What to add to a verdict by test images that are too few to judge int8; else nothing.

    If none of n answers differs, up to 3 / n of all may (95 %, the rule of three).
    """
    wanted = math.ceil(3 / max(limits(False, reference_accuracy, budget).disagreement, 1e-6))
    if images >= wanted:
        return ""
    return f", but {images} test images are few: it takes {wanted:,} to see what the budget forbids"


def judge(
    subject: Subject,
    labels: Labels,
    reference: Probabilities,
    got: Probabilities,
    budget: ParityBudget,
) -> tuple[list[str], dict[str, Any]]:
    """Compare one artifact's probabilities with the reference's.

    Args:
        subject: What ran; it tells which budget applies.
        labels: uint8 (N,), the true classes.
        reference: float32 (N, classes).
        got: float32 (N, classes).
        budget: The limits.

    Returns:
        Why it fails (empty: it passes), and the figures of `ParityRow` by name.
    """
    if got.shape != reference.shape:
        return [f"outputs of shape {got.shape}, not {reference.shape}"], {}
    if not np.isfinite(got).all():
        return ["NaN or infinity among the probabilities"], {}
    predicted, expected = got.argmax(axis=1), reference.argmax(axis=1)
    counts = paired_counts(labels, expected, predicted)
    lower, upper = paired_difference_ci95(counts)
    differences = np.abs(got - reference)
    figures: dict[str, Any] = {
        "n": counts.n,
        "accuracy": (counts.both + counts.only_got) / counts.n,
        "delta_pp": 100 * (counts.only_got - counts.only_reference) / counts.n,
        "delta_ci95_pp": (100 * lower, 100 * upper),
        "mcnemar_p": mcnemar_exact_p(counts),
        "agreement": float((predicted == expected).mean()),
        "max_abs_dp": float(differences.max()),
        "mean_abs_dp": float(differences.mean()),
        "flips": tuple(
            Flip(int(i), int(labels[i]), int(expected[i]), int(predicted[i]))
            for i in np.flatnonzero(predicted != expected)
        ),
    }
    accuracy = float((expected == labels).mean())
    return _over_budget(figures, limits(subject.is_float, accuracy, budget, counts.n)), figures


def _over_budget(figures: Mapping[str, Any], allowed: Limits) -> list[str]:
    agreement, loss_pp = figures["agreement"], -figures["delta_pp"]
    max_abs_dp = figures["max_abs_dp"]
    least = 1.0 - allowed.disagreement
    reasons = []
    if agreement < least - ROUNDING:
        reasons.append(f"agreement {agreement:.2%}, below {least:.2%}")
    if allowed.max_abs_dp is not None and max_abs_dp > allowed.max_abs_dp:
        reasons.append(f"max |dp| {max_abs_dp:.1e}, above {allowed.max_abs_dp:.1e}")
    if allowed.loss_pp is not None and loss_pp > allowed.loss_pp + ROUNDING:
        reasons.append(f"accuracy {loss_pp:.2f} pp lower, {allowed.loss_pp:.2f} pp is allowed")
    return reasons


def with_bits(row: ParityRow, got: Outputs | str, promised: Outputs | None) -> ParityRow:
    """Fail a row of `FROM_C` if an output is not, to the last bit, that of `SAME_BITS_AS`."""
    if row.artifact not in FROM_C or isinstance(got, str) or promised is None:
        return row
    if got.raw.shape == promised.raw.shape and got.raw.dtype == promised.raw.dtype:
        different = int((got.raw != promised.raw).any(axis=1).sum())
    else:
        different = len(got.raw)
    if not different:
        return replace(row, bit_identical=True)
    reason = f"{different} outputs are not, bit for bit, those of {' on '.join(SAME_BITS_AS)}"
    return replace(_failed(row, reason), bit_identical=False)


def with_layers(
    rows: Sequence[ParityRow], layers: Sequence[TensorNoise], budget: ParityBudget
) -> tuple[ParityRow, ...]:
    """Fail the rows of an int8 artifact with a layer that is much noisier than 8 bits must be.

    Labels can survive what damages every layer: weights cast without rounding change no more
    labels than good ones, but lose 10 dB. An int8 artifact whose layers could not be measured
    has not been checked and fails as well. `FROM_C` has no layers to look into; it is compared
    with the TFLite file bit by bit instead.
    """
    limit_db = budget.int8_max_sqnr_loss_db
    judged = []
    for row in rows:
        reason = ""
        if "int8" in row.artifact and row.artifact not in FROM_C and row.status != "not_run":
            own = [noise for noise in layers if noise.artifact == row.artifact]
            noisy = [noise for noise in own if not noise.loss_db <= limit_db]  # or NaN
            if not own:
                reason = "not the float model's layers in int8"
            elif noisy:
                worst = max(noisy, key=lambda noise: noise.loss_db)
                reason = (
                    f"layer {worst.tensor} has a signal-to-noise ratio of {worst.sqnr_db:.1f} dB, "
                    f"{worst.loss_db:.1f} dB below an ideal quantization's; the budget is "
                    f"{limit_db:.1f} dB"
                )
        judged.append(_failed(row, reason) if reason else row)
    return tuple(judged)


def with_c(
    rows: Sequence[ParityRow], numbers: str, c_layers: Sequence[LayersRow]
) -> tuple[ParityRow, ...]:
    """Fail the C's row for a number in its text or a layer on some processor that is wrong.

    Args:
        rows: Of all artifacts.
        numbers: What `c_numbers.wrong_numbers` found; "": nothing.
        c_layers: What `c_layers.judge_layers` found; the first that failed is told.
    """
    failed = [f"{r.reason} ({r.processor}, {r.kernels})" for r in c_layers if r.status == "fail"]
    reasons = "; ".join(filter(None, [numbers, *failed[:1]]))
    return tuple(
        _failed(row, reasons)
        if reasons and row.artifact == NATIVE_SOURCE and row.status != "not_run"
        else row
        for row in rows
    )


def _failed(row: ParityRow, reason: str) -> ParityRow:
    """The row with one more reason to fail."""
    return replace(row, status="fail", reason="; ".join(filter(None, [row.reason, reason])))


def overall_status(rows: Sequence[ParityRow], binaries: Sequence[BinaryRow]) -> str:
    """Of all rows: "fail" if one failed, "not_run" if one that had to run did not, else "pass"."""
    if "fail" in {*(row.status for row in rows), *(row.status for row in binaries)}:
        return "fail"
    if any(row.status == "not_run" and not row.allowed for row in rows):
        return "not_run"
    return "pass"


def table_cells(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """A table of what `parity.json` holds: its header and its rows, the reference's first.

    "same bits": it passed, and every output is tflite-runtime's to the last bit.
    """
    header = ["artifact", "runtime", "status", "accuracy", "delta (95 % CI), pp", "agreement"]
    header += ["max dp"]
    accuracy = f"{result['reference']['accuracy']:.2%}"
    rows = [[FLOAT_MODEL, "keras", "reference", accuracy, *[""] * 3]]
    for row in result["rows"]:
        runtime = f"{row['runtime']} {row['runtime_version']}".strip()
        same_bits = row["status"] == "pass" and row.get("bit_identical")
        figures = [""] * 4
        if row["accuracy"] is not None:
            lower, upper = row["delta_ci95_pp"]
            figures = [
                f"{row['accuracy']:.2%}",
                f"{row['delta_pp']:+.2f} ({lower:+.2f}, {upper:+.2f})",
                f"{row['agreement']:.2%}",
                f"{row['max_abs_dp']:.1e}",
            ]
        status = "same bits" if same_bits else row["status"]
        rows.append([row["artifact"], runtime, status, *figures])
    return header, rows


def format_table(result: Mapping[str, Any]) -> str:
    """The same in Markdown."""
    return markdown_table(*table_cells(result))
