"""The sections on the model and its artifacts: what was built, and how alike they are."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.artifacts import FLOAT_MODEL, INT8_TFLITE
from pipeline.config import ParityBudget
from pipeline.parity.check import one_runtime_each
from pipeline.parity.judge import Limits, limits, table_cells
from pipeline.report import plots
from pipeline.report.first_screen import failed_binaries, parity_in_words
from pipeline.report.gather import ReportData
from pipeline.report.page import Bar, Picture, Section, Table, named, problem

MAX_PICTURES = 1000  # of a bad model: more would make the page too large to open


def built(report: ReportData) -> Section:
    training, data = report.training, report.data
    test = training["confidence"]["test"]
    threshold = "none: there are too few validation images, or too many errors"
    if report.threshold:
        threshold = f"{report.threshold:.2f}: {test['coverage']:.2%} of the test images are "
        threshold += f"answered, and {test['error']:.3%} of these wrongly"
    facts = {
        "recipe": f"{training['recipe']}, seed {training['seed']}",
        "parameters": f"{training['parameters']:,}",
        "training": f"{training['epochs']:g} epochs, {training['steps']:,} steps",
        "images": f"{len(data.train):,} to train on, {len(data.validation):,} to select by, "
        f"{len(data.test):,} to test on",
        "expected calibration error": f"{training['test_calibration_error']:.2%}",
        "confidence threshold": threshold,
        "classes": ", ".join(data.label_names),
        "data set, SHA-256": data.sha256,
        "made with": ", ".join(map(" ".join, report.tools.items())),
    }
    files = [
        (name, f"{size / 1000:.1f}", report.hashes[name])
        for name, size in report.sizes_bytes.items()
    ]
    commit = f"commit {report.commit}" if report.commit else "an unknown commit"
    return Section(
        f"These {len(files)} files are of version {report.version}, {commit}.",
        tables=(
            Table("Model, data and tools", ("what", "value"), list(facts.items())),
            Table("Files", ("file", "size, kB", "SHA-256"), files),
        ),
    )


def training(report: ReportData) -> Section:
    result = report.training
    takeaway = (
        f"{result['seconds'] / 60:.1f} minutes of training gave {result['val_accuracy']:.2%} on "
        f"the validation images, which chose the model, and {result['test_accuracy']:.2%} on the "
        "test images, which chose nothing."
    )
    history = result["history"]
    return Section(takeaway, plots=(plots.loss(history), plots.accuracy(history)))


def parity(report: ReportData) -> Section:
    result = report.parity
    budget = ParityBudget(**{**result["budget"], "allowed_not_run": ()})
    header, (first, *others) = table_cells(result)
    rows: list[Sequence[str | tuple[Bar, ...]]] = [[*first, ""]]
    for row, cells in zip(result["rows"], others, strict=True):
        rows.append([*cells, _budget_cell(row, result, budget)])
    missing = [problem(named(row), row) for row in result["rows"] if row["status"] != "pass"]
    failed = failed_binaries(result)
    runs = sum(row["status"] != "not_run" for row in result["binaries"])
    return Section(
        parity_in_words(result),
        text=(
            "'same bits' means that every output is, bit for bit, tflite-runtime's. The compiled "
            f"C passed {runs - len(failed)} of {runs} runs, here and on emulated processors.",
            *missing,
            *failed,
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
    own = [layer for layer in result["layers"] if layer["artifact"] == row["artifact"]]
    loss_db = max(map(_loss_db, own), default=None)
    return tuple(budget_bars(row, allowed, loss_db, budget.int8_max_sqnr_loss_db))


def _loss_db(layer: Mapping[str, Any]) -> float:
    """How much noisier a layer is than an ideal quantization."""
    return float(layer["ideal_sqnr_db"] - layer["sqnr_db"])


def budget_bars(
    row: Mapping[str, Any], allowed: Limits, worst_loss_db: float | None, max_loss_db: float
) -> Iterator[Bar]:
    """A bar for each budget of a row of `parity.json`: how much of it is used.

    `worst_loss_db` is the noisiest layer's, against an ideal quantization; None for an artifact
    without layers to judge.
    """
    flips, most = round((1.0 - row["agreement"]) * row["n"]), allowed.disagreement * row["n"]
    most = 0.0 if most < 0.5 else most  # no flip at all is allowed
    yield Bar(f"{flips} flips of {most:.0f}", _share(flips, most))
    if allowed.max_abs_dp is not None:
        share = _share(row["max_abs_dp"], allowed.max_abs_dp)
        yield Bar(f"max |dp| {share:.1%}", share)
    if allowed.loss_pp is not None:
        loss_pp = max(0.0, -row["delta_pp"])
        share = _share(loss_pp, allowed.loss_pp)
        yield Bar(f"{loss_pp:.2f} pp of {allowed.loss_pp:.2f} lost", share)
    if worst_loss_db is not None:
        loss_db = max(0.0, worst_loss_db)
        yield Bar(f"noise {loss_db:.1f} of {max_loss_db:.1f} dB", _share(loss_db, max_loss_db))


def _share(used: float, allowed: float) -> float:
    """How much of a budget is used; where nothing is allowed, anything is twice too much."""
    if allowed == 0:
        return 2.0 if used else 0.0
    return used / allowed


def errors(report: ReportData) -> Section:
    """Every test image that an artifact reads otherwise than the float model, or wrongly."""
    outputs = report.probabilities
    labels, names = report.data.test.labels, report.data.label_names
    probabilities = {FLOAT_MODEL: outputs[FLOAT_MODEL], **one_runtime_each(outputs)}
    answers = np.stack([values.argmax(axis=1) for values in probabilities.values()])
    flipped = np.flatnonzero((answers != answers[0]).any(axis=0))
    wrong = np.flatnonzero((answers != labels).any(axis=0))
    misread = np.setdiff1d(wrong, flipped)
    pictures = []
    for i in [*flipped, *misread][:MAX_PICTURES]:
        title = f"{'flipped: ' if i in flipped else ''}{report.label(i)} (image {i})"
        said: dict[int, tuple[list[str], float]] = {}  # by the answer: who gives it, how sure first
        for artifact, values in probabilities.items():
            row = values[i]
            who, _ = said.setdefault(int(row.argmax()), ([], float(row.max())))
            who.append(plots.short(artifact).replace("keras", "float"))
        lines = [
            f"{', '.join(who) + ':' if len(said) > 1 else 'read as'} {names[read]}, {share:.1%}"
            for read, (who, share) in said.items()
        ]
        pictures.append(Picture(report.data.test.images[i], title, lines))
    text = [
        f"On {len(flipped)} images, marked 'flipped', some artifact disagrees with the float "
        f"model. All misread {len(misread)} others alike; their percentage is the float model's."
    ]
    left_out = len(flipped) + len(misread) - len(pictures)
    if left_out:
        text.append(f"{left_out} more are left out of this page.")
    if report.int8 is None:
        return Section(f"{INT8_TFLITE} ran on no runtime.", text=text, pictures=pictures)
    takeaway = f"int8 reads {len(misreadings(report)):,} of {len(labels):,} test images wrongly"
    for label, read, n in mistakes(report)[:1]:
        takeaway += f", most often a {label} as {read} ({n} times)"
    int8 = report.int8.argmax(axis=1)
    plot = plots.confusion(INT8_TFLITE, labels, int8, names)
    return Section(f"{takeaway}.", text=text, plots=(plot,), pictures=pictures)


def misreadings(report: ReportData) -> list[tuple[int, int]]:
    """Test images that int8 reads wrongly, and as what, the surest first."""
    if report.int8 is None:
        return []
    read = report.int8.argmax(axis=1)
    wrong = np.flatnonzero(read != report.data.test.labels)
    surest = wrong[np.argsort(-report.int8[wrong].max(axis=1), kind="stable")]
    return [(int(i), int(read[i])) for i in surest]


def mistakes(report: ReportData) -> list[tuple[str, str, int]]:
    """Which class int8 reads as which, and how often, the most frequent first."""
    names = report.data.label_names
    pairs = collections.Counter((report.label(i), names[read]) for i, read in misreadings(report))
    return [(*pair, n) for pair, n in pairs.most_common()]


def noise(report: ReportData) -> Section:
    result = report.parity
    if not result["layers"]:
        return Section("No layer could be compared: run `make export`.")
    worst = max(result["layers"], key=_loss_db)
    takeaway = (
        f"The noisiest layer, {worst['tensor']} of {worst['artifact']}, has a signal-to-noise "
        f"ratio {max(0, _loss_db(worst)):.1f} dB below an ideal quantization's; the budget is "
        f"{result['budget']['int8_max_sqnr_loss_db']:.1f} dB."
    )
    artifacts = dict.fromkeys(layer["artifact"] for layer in result["layers"])
    by_tensor: dict[str, dict[str, str]] = {}
    for layer in result["layers"]:
        cell = f"{layer['sqnr_db']:.1f} of {layer['ideal_sqnr_db']:.1f}"
        by_tensor.setdefault(layer["tensor"], {})[layer["artifact"]] = cell
    rows = [
        (tensor, *(of.get(artifact, "") for artifact in artifacts))
        for tensor, of in by_tensor.items()
    ]
    caption = "Signal-to-noise ratio, and that of an ideal quantization, dB"
    return Section(
        takeaway, tables=(Table(caption, ("layer", *map(plots.short, artifacts)), rows),)
    )
