"""Every artifact x every runtime x every test image, against the float model."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from packaging.markers import Marker

from pipeline.classify import Outputs, classify_apart
from pipeline.config import AllowedNotRun, ParityBudget
from pipeline.data import Dataset, Labels, preprocess, require_trained_on
from pipeline.files import ROOT, UserError, atomic_path, read_json, sha256, write_json
from pipeline.parity import layer_noise
from pipeline.parity.statistics import mcnemar_exact_p, paired_counts, paired_difference_ci95
from pipeline.progress import progress
from pipeline.table import markdown_table

REFERENCE = "lenet5.keras"
SAME_BITS_AS = ("lenet5_int8.tflite", "tflite-runtime")  # what the C file promises (ADR 7)
DEVICE_PYTHON = ROOT / ".venv-device" / "bin" / "python"
NOISE_IMAGES = 256
MIN_LAYERS = 8  # of a LeNet-5 whose layers could all be compared
MAX_SCALE = 10.0  # how far a poor reference can stretch the int8 budget
ROUNDING = 1e-9  # a share that meets its limit must not fail by a float's last bit

Probabilities = NDArray[np.float32]  # (N, classes), 0..1


@dataclass(frozen=True)
class Subject:
    """One artifact on one runtime.

    Attributes:
        artifact: The file's name.
        runtime: The runtime's name.
        python: The interpreter of the environment that has the runtime.
        is_float: Whether the float budget applies, else int8's.
    """

    artifact: str
    runtime: str
    python: Path
    is_float: bool


@dataclass(frozen=True)
class Flip:
    """A test image to which artifact and reference give different labels.

    Attributes:
        index: Of the image in the test set.
        label: The true class.
        reference, got: What the two predict.
    """

    index: int
    label: int
    reference: int
    got: int


@dataclass(frozen=True)
class Row:
    """What parity found for one artifact on one runtime.

    Attributes:
        artifact, runtime, runtime_version: What ran.
        sha256: Of the artifact.
        status: "pass", "fail" or "not_run".
        reason: Why it is not "pass".
        allowed: Whether a not_run is allowed here.
        n: Images compared.
        accuracy: 0..1.
        delta_pp: Accuracy less the reference's, in percentage points.
        delta_ci95_pp: Its 95 % confidence interval for paired proportions.
        mcnemar_p: Exact two-sided p of 'equally often right'.
        agreement: Share of images with the reference's label, 0..1.
        max_abs_dp, mean_abs_dp: Differences of all probabilities.
        flips: The images that do not agree.
        bit_identical: Of the C file: whether every output is that of `SAME_BITS_AS`, to the last
            bit; None where that did not run.
    """

    artifact: str
    runtime: str
    runtime_version: str
    sha256: str
    status: str
    reason: str
    allowed: bool = False
    n: int = 0
    accuracy: float | None = None
    delta_pp: float | None = None
    delta_ci95_pp: tuple[float, float] | None = None
    mcnemar_p: float | None = None
    agreement: float | None = None
    max_abs_dp: float | None = None
    mean_abs_dp: float | None = None
    flips: tuple[Flip, ...] = ()
    bit_identical: bool | None = None


@dataclass(frozen=True)
class Limits:
    """What the budget allows one artifact; None: no limit.

    Attributes:
        disagreement: Share of images with another label than the reference's, 0..1.
        max_abs_dp: Greatest difference of a probability.
        loss_pp: Accuracy lost, in percentage points.
    """

    disagreement: float
    max_abs_dp: float | None
    loss_pp: float | None


@dataclass(frozen=True)
class ParityResult:
    """The parity of a folder of artifacts; `parity.json` holds it.

    Attributes:
        status: "fail" if any row failed; else "not_run" if a row that is not allowed to be
            missing did not run; else "pass".
        reference: artifact, accuracy, n, sha256.
        rows: One an artifact and runtime.
        layers: Signal-to-quantization-noise ratio of each tensor of the int8 artifacts.
        budget: What the rows were judged by.
    """

    status: str
    reference: dict[str, Any]
    rows: tuple[Row, ...]
    layers: tuple[layer_noise.TensorNoise, ...]
    budget: ParityBudget


def subjects(device_python: Path = DEVICE_PYTHON) -> tuple[Subject, ...]:
    """What parity judges: every artifact on every runtime that reads its kind."""
    here = Path(sys.executable)
    return (
        Subject("lenet5_fp32.tflite", "tflite-runtime", device_python, True),
        Subject("lenet5_fp32.tflite", "ai-edge-litert", here, True),
        Subject("lenet5_int8.tflite", "tflite-runtime", device_python, False),
        Subject("lenet5_int8.tflite", "ai-edge-litert", here, False),
        Subject("native/lenet5_int8.c", "native", here, False),
        Subject("lenet5_fp32.onnx", "onnxruntime", here, True),
        Subject("lenet5_int8.onnx", "onnxruntime", here, False),
    )


def check_parity(
    folder: Path, data: Dataset, budget: ParityBudget, device_python: Path = DEVICE_PYTHON
) -> ParityResult:
    """Run every artifact on every runtime over all test images and judge it.

    Args:
        folder: It holds the artifacts; `parity.json` and `probabilities.npz` are written to it.
        data: The data set; only its test split is used.
        budget: How far an artifact may be from the reference.
        device_python: The interpreter of the device environment.

    Returns:
        What `parity.json` holds.

    Raises:
        UserError: The reference itself cannot run, or is not the model that training wrote.
    """
    test = data.test
    probabilities: dict[str, Probabilities] = {}
    promised: Outputs | None = None
    rows: list[Row] = []
    todo = subjects(device_python)
    with progress("parity") as report:
        report(0, len(todo), REFERENCE)
        reference = _reference(folder, data)
        for i, subject in enumerate(todo):
            report(i, len(todo), f"{subject.artifact} on {subject.runtime}")
            path = folder / subject.artifact
            got = classify_apart(path, subject.runtime, subject.python, test.images)
            row = _judge(subject, folder, got, reference, test.labels, budget)
            rows.append(with_bits(row, got, promised))
            if isinstance(got, Outputs):
                if (subject.artifact, subject.runtime) == SAME_BITS_AS:
                    promised = got
                probabilities[f"{subject.artifact}@{subject.runtime}"] = got.probabilities
        report(len(todo), len(todo), "layer by layer")
    layers = tuple(_layers(folder, rows, test.images))
    judged = with_layers(rows, layers, budget)
    result = ParityResult(
        status=_overall(judged),
        reference={
            "artifact": REFERENCE,
            "sha256": sha256(folder / REFERENCE),
            "accuracy": float((reference.argmax(axis=1) == test.labels).mean()),
            "n": len(test),
        },
        rows=judged,
        layers=layers,
        budget=budget,
    )
    with atomic_path(folder / "probabilities.npz") as temporary:
        np.savez(temporary, **{REFERENCE: reference}, **probabilities)  # type: ignore[arg-type]
    write_json(folder / "parity.json", asdict(result))
    return result


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
        Why it fails (empty: it passes), and the figures of `Row` by name.
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
    return _over_budget(figures, limits(subject.is_float, accuracy, budget)), figures


def limits(is_float: bool, reference_accuracy: float, budget: ParityBudget) -> Limits:
    """What the budget allows an artifact.

    Args:
        is_float: Whether it is a float artifact.
        reference_accuracy: The float model's, 0..1.
        budget: The budget.
    """
    if is_float:
        return Limits(1.0 - budget.float_min_agreement, budget.float_max_abs_dp, None)
    scale = float(np.clip((1.0 - reference_accuracy) / budget.reference_error, 1.0, MAX_SCALE))
    disagreement = (1.0 - budget.int8_min_agreement) * scale
    return Limits(disagreement, None, budget.int8_max_loss_pp * scale)


def _over_budget(figures: dict[str, Any], allowed: Limits) -> list[str]:
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


def with_bits(row: Row, got: Outputs | str, promised: Outputs | None) -> Row:
    """Fail the row of the C file if any output is not, to the last bit, the promised one.

    Args:
        row: Judged by the int8 budget.
        got: What it gave.
        promised: What `SAME_BITS_AS` gave, if it ran.

    Returns:
        The row; of any other artifact as it was.
    """
    if row.runtime != "native" or isinstance(got, str) or promised is None:
        return row
    if got.raw.shape == promised.raw.shape and got.raw.dtype == promised.raw.dtype:
        different = int((got.raw != promised.raw).any(axis=1).sum())
    else:
        different = len(got.raw)
    if not different:
        return replace(row, bit_identical=True)
    reason = f"{different} outputs are not, bit for bit, those of {' on '.join(SAME_BITS_AS)}"
    reasons = "; ".join(filter(None, [row.reason, reason]))
    return replace(row, status="fail", reason=reasons, bit_identical=False)


def with_layers(
    rows: Sequence[Row], layers: Sequence[layer_noise.TensorNoise], budget: ParityBudget
) -> tuple[Row, ...]:
    """Fail the rows of an int8 artifact with a layer that is noisier than the budget.

    Labels can survive what damages every layer: weights cast without rounding change no more
    labels than good ones, but lose 10 dB. An int8 artifact whose layers could not be measured
    has not been checked and fails as well. The C file has no layers to look into; it is compared
    with the TFLite file bit by bit instead.

    Args:
        rows: Judged by their outputs.
        layers: The noise of each layer of the int8 artifacts.
        budget: The limit.

    Returns:
        The rows, in the same order.
    """
    judged = []
    for row in rows:
        reason = ""
        if "int8" in row.artifact and row.runtime != "native" and row.status != "not_run":
            own = [noise for noise in layers if noise.artifact == row.artifact]
            worst = min(own, key=lambda noise: noise.sqnr_db, default=None)
            if worst is None or len(own) < MIN_LAYERS:
                reason = "its layers could not be compared with the float artifact's"
            elif worst.sqnr_db < budget.int8_min_sqnr_db:
                reason = (
                    f"layer {worst.tensor!r} has a signal-to-noise ratio of "
                    f"{worst.sqnr_db:.1f} dB, below {budget.int8_min_sqnr_db:.1f} dB"
                )
        if reason:
            reasons = "; ".join(filter(None, [row.reason, reason]))
            row = replace(row, status="fail", reason=reasons)
        judged.append(row)
    return tuple(judged)


def _judge(
    subject: Subject,
    folder: Path,
    got: Outputs | str,
    reference: Probabilities,
    labels: Labels,
    budget: ParityBudget,
) -> Row:
    path = folder / subject.artifact
    digest = sha256(path) if path.is_file() else ""
    if isinstance(got, str):
        reason, allowed = got, False
        for allowance in budget.allowed_not_run:
            if allowance.runtime == subject.runtime and holds(allowance):
                reason, allowed = f"{allowance.reason} ({got})", True
        return Row(
            subject.artifact, subject.runtime, "", digest, "not_run", reason, allowed=allowed
        )
    reasons, figures = judge(subject, labels, reference, got.probabilities, budget)
    if not subject.is_float and not is_int8(path, got):
        reasons.append("it is not an int8 model")
    status = "fail" if reasons else "pass"
    return Row(
        subject.artifact,
        subject.runtime,
        got.runtime_version,
        digest,
        status,
        "; ".join(reasons),
        **figures,
    )


def holds(allowance: AllowedNotRun) -> bool:
    """Whether what an allowance is for is so on this machine."""
    if allowance.when_missing:
        return shutil.which(allowance.when_missing) is None
    return Marker(allowance.when).evaluate()


def is_int8(path: Path, got: Outputs) -> bool:
    """Whether a file is what its name says: a float file under it would be at par with itself.

    Args:
        path: A TFLite or C file, whose outputs then are int8; or ONNX, in which every convolution
            and matrix product then works on dequantized int8.
        got: What it gave.
    """
    if path.suffix != ".onnx":
        return got.raw.dtype == np.int8
    import onnx

    graph = onnx.load(path).graph
    dequantized = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear"}
    products = [n for n in graph.node if n.op_type in ("Conv", "Gemm", "MatMul")]
    return bool(products) and all(dequantized.issuperset(node.input[:2]) for node in products)


def _overall(rows: Sequence[Row]) -> str:
    if any(row.status == "fail" for row in rows):
        return "fail"
    if any(row.status == "not_run" and not row.allowed for row in rows):
        return "not_run"
    return "pass"


def _reference(folder: Path, data: Dataset) -> Probabilities:
    """The float model's probabilities, after checking that it is the model to compare with."""
    path = folder / REFERENCE
    training = read_json(folder / "train.json")
    if not path.is_file():
        raise UserError(f"{path}: missing; run `make export`")
    if training.get("model_sha256") != sha256(path):
        raise UserError(f"{path}: not the file that train.json tells of; delete it and retrain")
    require_trained_on(data, training)
    got = classify_apart(path, "keras", Path(sys.executable), data.test.images)
    if isinstance(got, str):
        raise UserError(got)
    shape = got.probabilities.shape
    if shape != (len(data.test), data.classes) or not np.isfinite(got.probabilities).all():
        raise UserError(f"{path}: its outputs {shape} do not fit {data.source}")
    return got.probabilities


def _layers(
    folder: Path, rows: list[Row], images: NDArray[np.uint8]
) -> list[layer_noise.TensorNoise]:
    """Noise by layer of the int8 artifacts that ran, where the float one to compare with passed."""
    ran = {
        row.artifact
        for row in rows
        if row.runtime != "tflite-runtime"  # its process is not this one
        and (row.status == "pass" or (row.n and "int8" in row.artifact))
    }
    samples = preprocess(images[:NOISE_IMAGES])
    noise: list[layer_noise.TensorNoise] = []
    if {"lenet5_fp32.tflite", "lenet5_int8.tflite"} <= ran:
        noise += layer_noise.measure_tflite(
            folder / "lenet5_fp32.tflite", folder / "lenet5_int8.tflite", samples
        )
    if {"lenet5_fp32.onnx", "lenet5_int8.onnx"} <= ran:
        noise += layer_noise.measure_onnx(
            folder / "lenet5_fp32.onnx", folder / "lenet5_int8.onnx", samples
        )
    return noise


def format_table(result: dict[str, Any]) -> str:
    """The rows of a `parity.json` as a Markdown table."""
    header = ["artifact", "runtime", "status", "accuracy", "delta (95 % CI), pp", "agreement"]
    header += ["max abs dp", "McNemar p"]
    reference = result["reference"]
    cells = [[REFERENCE, "keras", "reference", f"{reference['accuracy']:.2%}", "", "", "", ""]]
    for row in result["rows"]:
        runtime = f"{row['runtime']} {row['runtime_version']}".strip()
        same = " (same bits as tflite-runtime)" if row.get("bit_identical") else ""
        line = [row["artifact"], runtime, row["status"] + same]
        if row["accuracy"] is None:
            line += [""] * 5
        else:
            lower, upper = row["delta_ci95_pp"]
            line += [
                f"{row['accuracy']:.2%}",
                f"{row['delta_pp']:+.2f} ({lower:+.2f} to {upper:+.2f})",
                f"{row['agreement']:.2%}",
                f"{row['max_abs_dp']:.1e}",
                f"{row['mcnemar_p']:.2f}",
            ]
        cells.append(line)
    return markdown_table(header, cells)
