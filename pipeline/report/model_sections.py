"""The sections on the model and its artifacts: what was built, and how alike they are."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.artifacts import FLOAT_MODEL, INT8_TFLITE
from pipeline.config import ParityBudget
from pipeline.data import Probabilities
from pipeline.parity.check import one_runtime_each
from pipeline.parity.judge import Limits, limits, table_cells
from pipeline.report import plots
from pipeline.report.gather import ReportData
from pipeline.report.page import Bar, Picture, Section, Table

MAX_PICTURES = 1000  # of a bad model: more would make the page too large to open


def built(report: ReportData) -> Section:
    training, data = report.training, report.data
    facts = {
        "recipe": f"{training['recipe']}, seed {training['seed']}",
        "parameters": f"{training['parameters']:,}",
        "training": f"{training['epochs']:g} epochs, {training['steps']:,} steps, "
        f"{training['seconds']:.0f} s",
        "images": f"{len(data.train):,} to train on, {len(data.validation):,} to select by, "
        f"{len(data.test):,} to test on",
        "validation accuracy": f"{training['val_accuracy']:.2%}",
        "test accuracy": f"{training['test_accuracy']:.2%}",
        "expected calibration error": f"{training['test_calibration_error']:.2%}",
        **_threshold(training),
        "classes": ", ".join(data.label_names),
        "version": report.version,
        "commit": report.commit or "unknown: exported outside a git repository",
        "data set, SHA-256": data.sha256,
        **report.tools,
    }
    files = [
        (name, f"{size / 1000:.1f}", report.hashes[name])
        for name, size in report.sizes_bytes.items()
    ]
    return Section(
        "Files, hashes and versions",
        f"{len(files)} files of version {report.version}, commit {report.commit or 'unknown'}.",
        tables=(
            Table("Model, data and tools", ("what", "value"), list(facts.items())),
            Table("Files", ("file", "size, kB", "SHA-256"), files),
        ),
    )


def _threshold(training: Mapping[str, Any]) -> dict[str, str]:
    """The confidence below which an answer is unsure; nothing for a model without one."""
    if "confidence" not in training:
        return {}
    threshold, test = training["confidence"]["threshold"], training["confidence"]["test"]
    if threshold is None:
        return {"confidence threshold": "none: too few validation images, or too many errors"}
    text = (
        f"{threshold:.2f}: {test['coverage']:.2%} of the test images are answered, "
        f"{test['error']:.3%} of these wrongly"
    )
    return {"confidence threshold": text}


def training(report: ReportData) -> Section:
    result = report.training
    takeaway = (
        f"{result['seconds'] / 60:.1f} minutes of training gave {result['val_accuracy']:.2%} on "
        f"the validation images, which chose the model, and {result['test_accuracy']:.2%} on the "
        "test images, which chose nothing."
    )
    history = result["history"]
    return Section("Training", takeaway, plots=(plots.loss(history), plots.accuracy(history)))


def parity(report: ReportData) -> Section:
    title = "Parity with the float model"
    result = report.parity.value
    if result is None:
        return Section(title, problem=report.parity.problem)
    reference = result["reference"]
    budget = ParityBudget(**{**result["budget"], "allowed_not_run": ()})
    header, (first, *others) = table_cells(result)
    rows: list[Sequence[str | tuple[Bar, ...]]] = [[*first, ""]]
    for row, cells in zip(result["rows"], others, strict=True):
        rows.append([*cells, _budget_cell(row, result, budget)])
    missing = [row for row in result["rows"] if row["status"] != "pass"]
    return Section(
        title,
        f"Parity: {result['status']}: {len(result['rows']) - len(missing)} of "
        f"{len(result['rows'])} artifacts and runtimes answer {reference['n']:,} test images as "
        f"{reference['artifact']} does, within the budget.",
        text=(
            "Each ran in a process of its own. 'same bits': every output is tflite-runtime's.",
            *(f"{r['artifact']} on {r['runtime']}: {r['status']}: {r['reason']}" for r in missing),
        ),
        tables=(Table("Parity by artifact and runtime", [*header, "budget used"], rows),),
    )


def _budget_cell(
    row: Mapping[str, Any], result: Mapping[str, Any], budget: ParityBudget
) -> str | tuple[Bar, ...]:
    """The bars of a row of `parity.json`; "" where nothing was compared."""
    if row["accuracy"] is None:
        return ""
    reference = result["reference"]
    allowed = limits("int8" not in row["artifact"], reference["accuracy"], budget, reference["n"])
    own = [
        layer["ideal_sqnr_db"] - layer["sqnr_db"]
        for layer in result["layers"]
        if layer["artifact"] == row["artifact"]
    ]
    return tuple(budget_bars(row, allowed, max(own, default=None), budget.int8_max_sqnr_loss_db))


def budget_bars(
    row: Mapping[str, Any], allowed: Limits, worst_loss_db: float | None, max_loss_db: float
) -> Iterator[Bar]:
    """A bar for each budget of a row of `parity.json`: how much of it is used.

    `worst_loss_db` is the noisiest layer's, against an ideal quantization; None for an artifact
    without layers to judge.
    """
    flips = round((1.0 - row["agreement"]) * row["n"])
    if allowed.disagreement * row["n"] < 0.5:  # no flip at all is allowed
        yield Bar(f"{flips} flips of 0", 2.0 if flips else 0.0)
    else:
        most = allowed.disagreement * row["n"]
        yield Bar(f"{flips} flips of {most:.0f}", flips / most)
    if allowed.max_abs_dp is not None:
        share = _share(row["max_abs_dp"], allowed.max_abs_dp)
        yield Bar(f"max |dp| {share:.1%}", share)
    if allowed.loss_pp is not None:
        loss_pp = max(0.0, -row["delta_pp"])
        share = _share(loss_pp, allowed.loss_pp)
        yield Bar(f"{loss_pp:.2f} pp of {allowed.loss_pp:.2f} lost", share)
    if worst_loss_db is not None:
        loss_db = max(0.0, worst_loss_db)
        share = _share(loss_db, max_loss_db)
        yield Bar(f"noise {loss_db:.1f} of {max_loss_db:.1f} dB", share)


def _share(used: float, allowed: float) -> float:
    """How much of a budget is used; where nothing is allowed, anything is twice too much."""
    if allowed == 0:
        return 2.0 if used else 0.0
    return used / allowed


def errors(report: ReportData) -> Section:
    """Every test image that an artifact reads otherwise than the float model, or wrongly."""
    title = "What it reads wrongly"
    if report.probabilities.value is None or report.int8 is None:
        problem = report.probabilities.problem or f"{INT8_TFLITE} ran on no runtime"
        return Section(title, problem=problem)
    probabilities = _one_each(report.probabilities.value)
    labels, names = report.data.test.labels, report.data.label_names
    answers = np.stack([values.argmax(axis=1) for values in probabilities.values()])
    int8 = report.int8.argmax(axis=1)
    flipped = np.flatnonzero((answers != answers[0]).any(axis=0))
    wrong = np.flatnonzero((answers != labels).any(axis=0))
    misread = np.setdiff1d(wrong, flipped)
    chosen = [*flipped, *misread][:MAX_PICTURES]
    pictures = []
    for i in map(int, chosen):
        kind = "flipped: " if i in flipped else ""
        lines = _answers(report.probabilities.value, i, names)
        pictures.append(Picture(report.data.test.images[i], f"{kind}{_title(report, i)}", lines))
    missed = collections.Counter(zip(labels, int8, strict=True))
    mistakes = [(pair, n) for pair, n in missed.most_common() if pair[0] != pair[1]]
    takeaway = f"int8 reads {(int8 != labels).sum():,} of {len(labels):,} test images wrongly"
    if mistakes:
        (label, read), n = mistakes[0]
        takeaway += f", most often a {names[label]} as {names[read]} ({n} times)"
    text = [
        f"{len(flipped)} images are flipped, that is read otherwise by some artifact than by the "
        f"float model; {len(misread)} more are misread by all alike, and are shown with the float "
        "model's probability of the answer."
    ]
    left_out = len(flipped) + len(misread) - len(chosen)
    if left_out:
        text.append(f"{left_out} more are left out of this page.")
    plot = plots.confusion("confusion-int8", INT8_TFLITE, labels, int8, names)
    return Section(title, f"{takeaway}.", text=text, plots=(plot,), pictures=pictures)


def _one_each(probabilities: dict[str, Probabilities]) -> dict[str, Probabilities]:
    """The float model's probabilities, then one runtime's of each artifact."""
    return {FLOAT_MODEL: probabilities[FLOAT_MODEL], **one_runtime_each(probabilities)}


def _title(report: ReportData, index: int) -> str:
    return f"{report.label(index)} (image {index})"


def _answers(
    probabilities: dict[str, Probabilities], index: int, names: tuple[str, ...]
) -> list[str]:
    """What an image is read as; where the models differ, a line for each answer and who gives it.

    The probability is that of the first who gives the answer.
    """
    answers: dict[int, list[str]] = {}
    shares: dict[int, float] = {}
    for artifact, values in _one_each(probabilities).items():
        read = int(values[index].argmax())
        answers.setdefault(read, []).append(plots.short(artifact).replace("keras", "float"))
        shares.setdefault(read, float(values[index].max()))
    said = {read: f"{names[read]}, {share:.1%}" for read, share in shares.items()}
    if len(answers) == 1:
        return [f"read as {text}" for text in said.values()]
    return [f"{', '.join(who)}: {said[read]}" for read, who in answers.items()]


def noise(report: ReportData) -> Section:
    title = "Quantization noise by layer"
    result = report.parity.value
    if result is None:
        return Section(title, problem=report.parity.problem)
    if not result["layers"]:
        return Section(title, problem="no layer could be compared: run `make export`")
    keys = ("sqnr_db", "ideal_sqnr_db")
    max_loss_db = result["budget"]["int8_max_sqnr_loss_db"]
    worst = max(result["layers"], key=lambda layer: layer["ideal_sqnr_db"] - layer["sqnr_db"])
    takeaway = (
        f"The noisiest layer, {worst['tensor']} of {worst['artifact']}, is "
        f"{max(0, worst['ideal_sqnr_db'] - worst['sqnr_db']):.1f} dB below an ideal quantization; "
        f"the budget is {max_loss_db:.1f} dB."
    )
    rows = [
        (layer["artifact"], layer["tensor"], *(f"{layer[key]:.1f}" for key in keys))
        for layer in result["layers"]
    ]
    header = ("artifact", "layer", "SQNR, dB", "of an ideal quantization, dB")
    return Section(title, takeaway, tables=(Table("Signal-to-noise ratio", header, rows),))
