"""The parity stage: every artifact on every runtime, against the float model on all test images."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from packaging.markers import Marker

from export import to_tflite
from pipeline import artifacts
from pipeline.classify import Outputs, classify_apart
from pipeline.config import ParityBudget, load_parity_budget
from pipeline.data import Dataset, Images, Probabilities, preprocess, require_trained_on
from pipeline.data import load as load_data
from pipeline.files import UserError, atomic_path, read_json, sha256, write_json
from pipeline.parity import layer_noise
from pipeline.parity.binaries import BinaryRow, judge_binaries
from pipeline.parity.c_layers import LayersRow, judge_layers
from pipeline.parity.c_numbers import wrong_numbers
from pipeline.parity.judge import (
    FROM_C,
    SAME_BITS_AS,
    ParityRow,
    format_table,
    judge,
    overall_status,
    too_few,
    with_bits,
    with_c,
    with_layers,
)
from pipeline.progress import progress
from pipeline.train.lenet5 import import_tensorflow
from pipeline.train.training import load_model, require_float_model

NOISE_IMAGES = 256


@dataclass(frozen=True)
class ParityResult:
    """The parity of a folder of artifacts; `parity.json` holds it."""

    status: str  # of all rows, by `overall_status`
    reference: dict[str, Any]  # artifact, accuracy, n, sha256
    rows: tuple[ParityRow, ...]  # one an artifact and runtime
    binaries: tuple[BinaryRow, ...]  # what the C was compiled to
    layers: tuple[layer_noise.TensorNoise, ...]  # of the int8 artifacts
    c_layers: tuple[LayersRow, ...]  # of the C, one a processor
    budget: ParityBudget  # what the rows were judged by


def run(args: argparse.Namespace) -> int:
    """Run the stage and print its table; 1 if parity did not pass."""
    budget = load_parity_budget(args.budget)
    result = check_parity(args.out, load_data(args.data), budget)
    print(format_table(asdict(result)))
    for row in result.rows:
        if row.status != "pass":
            allowed = " (allowed)" if row.allowed else ""
            print(f"{row.artifact} on {row.runtime}: {row.status}{allowed}: {row.reason}")
    for binary in result.binaries:
        on = f" on {binary.processor}" if binary.processor else ""
        verdict = "same bits" if binary.status == "pass" else binary.status
        print(f"{binary.file}{on}: {verdict}: {binary.reason or binary.kernels}")
    doubt = too_few(result.reference["n"], result.reference["accuracy"], budget)
    print(f"parity: {result.status}{doubt}")
    return 0 if result.status == "pass" else 1


def check_parity(folder: Path, data: Dataset, budget: ParityBudget) -> ParityResult:
    """Run every artifact in a folder on every runtime over all test images and judge it.

    `parity.json`, `probabilities.npz` and `exciting.npz` join the artifacts.

    Raises:
        UserError: The reference itself cannot run, or is not the model that training wrote.
    """
    test, todo = data.test, artifacts.subjects()
    n = len(test)
    with progress("parity") as report:
        report(0, len(todo), artifacts.FLOAT_MODEL)
        reference = _reference(folder, data)
        report(0, len(todo), "the C, layer by layer")
        c_layers, exciting = judge_layers(folder, test.images)
        numbers = wrong_numbers(folder / artifacts.NATIVE_SOURCE, folder / artifacts.INT8_TFLITE)
        images = np.concatenate([test.images, exciting])
        given: dict[artifacts.Subject, Outputs | str] = {}
        for i, subject in enumerate(todo):
            report(i, len(todo), f"{subject.artifact} on {subject.runtime}")
            path = folder / subject.artifact
            given[subject] = classify_apart(path, subject.runtime, subject.python, images)
        report(len(todo), len(todo), "the compiled C, and the noise of layers")
        ran = {(s.artifact, s.runtime): got for s, got in given.items() if not isinstance(got, str)}
        promised, native = ran.get(SAME_BITS_AS), ran.get((artifacts.NATIVE_SOURCE, "native"))
        rows = [
            with_bits(_judge(subject, folder, got, reference, data, budget), got, promised)
            for subject, got in given.items()
        ]
        of_c = promised or native  # what the compiled C must answer
        binaries = _binaries(folder, rows, images, native, of_c)
        layers = _layers(folder, rows, test.images)
    judged = with_c(with_layers(rows, layers, budget), numbers, c_layers)
    result = ParityResult(
        status=overall_status(judged, binaries),
        reference={
            "artifact": artifacts.FLOAT_MODEL,
            "sha256": sha256(folder / artifacts.FLOAT_MODEL),
            "accuracy": float((reference.argmax(axis=1) == test.labels).mean()),
            "n": n,
        },
        rows=judged,
        binaries=binaries,
        layers=layers,
        c_layers=c_layers,
        budget=budget,
    )
    answers = {"@".join(who): got.probabilities for who, got in ran.items()}
    with atomic_path(folder / artifacts.PROBABILITIES) as temporary:
        first = {key: values[:n] for key, values in answers.items()}
        np.savez(temporary, **{artifacts.FLOAT_MODEL: reference}, **first)  # type: ignore[arg-type]
    with atomic_path(folder / artifacts.EXCITING) as temporary:
        last: dict[str, Any] = {key: values[n:] for key, values in answers.items()}
        np.savez(temporary, images=exciting, outputs=of_c.raw[n:] if of_c else (), **last)
    write_json(folder / artifacts.PARITY_JSON, asdict(result))
    return result


def _reference(folder: Path, data: Dataset) -> Probabilities:
    """The float model's probabilities, after checking that it is the model to compare with."""
    path, training = folder / artifacts.FLOAT_MODEL, read_json(folder / artifacts.TRAIN_JSON)
    require_float_model(path, training)
    require_trained_on(data, training)
    got = classify_apart(path, "keras", Path(sys.executable), data.test.images)
    if isinstance(got, str):
        raise UserError(got)
    shape = got.probabilities.shape
    if shape != (len(data.test), data.classes) or not np.isfinite(got.probabilities).all():
        raise UserError(f"{path}: its outputs {shape} do not fit {data.source}; train it again")
    return got.probabilities


def _judge(
    subject: artifacts.Subject,
    folder: Path,
    got: Outputs | str,
    reference: Probabilities,
    data: Dataset,
    budget: ParityBudget,
) -> ParityRow:
    path = folder / subject.artifact
    digest = sha256(path) if path.is_file() else ""
    who = (subject.artifact, subject.runtime)
    if isinstance(got, str):
        for allowance in budget.allowed_not_run:
            if allowance.runtime == subject.runtime and Marker(allowance.when).evaluate():
                reason = f"{allowance.reason} ({got})"
                return ParityRow(*who, "", digest, "not_run", reason, allowed=True)
        return ParityRow(*who, "", digest, "not_run", got)
    answers = got.probabilities[: len(data.test)]  # those to the exciting images have no labels
    reasons, figures = judge(subject, data.test.labels, reference, answers, budget)
    if not subject.is_float and not _is_int8(path, got):
        reasons.append("it is not an int8 model")
    if subject.artifact not in FROM_C and _label_names(path) != [*data.label_names]:
        reasons.append(f"the names of its labels are not those of {data.source}")
    status = "fail" if reasons else "pass"
    return ParityRow(*who, got.runtime_version, digest, status, "; ".join(reasons), **figures)


def _is_int8(path: Path, got: Outputs) -> bool:
    """Whether the outputs are int8; of ONNX, whether every product is of dequantized int8.

    A float file under an int8 name would agree with the float model in everything.
    """
    if path.suffix != ".onnx":
        return got.raw.dtype == np.int8
    import onnx

    graph = onnx.load(path).graph
    dequantized = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear"}
    products = [n for n in graph.node if n.op_type in ("Conv", "Gemm", "MatMul")]
    return bool(products) and all(dequantized.issuperset(node.input[:2]) for node in products)


def _label_names(path: Path) -> Any:
    """The names of the classes by a model's own metadata; None where it names none."""
    import onnx

    try:
        if path.suffix == ".tflite":
            return to_tflite.read_metadata(path).get("labels")
        properties = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
        return json.loads(properties["labels"])
    except (ValueError, KeyError):
        return None


def _binaries(
    folder: Path,
    rows: Sequence[ParityRow],
    images: Images,
    native: Outputs | None,
    promised: Outputs | None,
) -> tuple[BinaryRow, ...]:
    """A row for each file that the C was compiled to; none if nothing tells what to expect."""
    if promised is None or promised.raw.dtype != np.int8:
        return ()
    passed = any(row.artifact == artifacts.NATIVE_SOURCE and row.status == "pass" for row in rows)
    kernels = native.runtime_version if native and passed else ""
    return tuple(judge_binaries(folder, images, promised.raw.view(np.int8), kernels))


def _layers(
    folder: Path, rows: Sequence[ParityRow], images: Images
) -> tuple[layer_noise.TensorNoise, ...]:
    """Noise by layer of the int8 artifacts that ran, against the float model."""
    # Not of one that ran on tflite-runtime alone, which cannot be loaded in this process.
    ran = {row.artifact for row in rows if row.n and row.runtime != "tflite-runtime"}
    import_tensorflow()
    weights = load_model(folder / artifacts.FLOAT_MODEL).get_weights()
    samples = preprocess(images[:NOISE_IMAGES])  # float32 (256, 32, 32, 1)
    return tuple(
        noise
        for artifact in (artifacts.INT8_TFLITE, artifacts.INT8_ONNX)
        if artifact in ran
        for noise in layer_noise.measure(folder / artifact, weights, samples)
    )


# --- What later stages read of it ---------------------------------------------------------------


def read_probabilities(path: Path) -> dict[str, Probabilities]:
    """What parity kept of all outputs: float32 (N, classes) by "artifact@runtime".

    Raises:
        UserError: The file is missing or damaged.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return dict(archive)
    except Exception:  # zipfile and numpy raise a dozen kinds for damaged files
        raise UserError(f"{path}: missing or damaged; delete it and run `make export`") from None


def one_runtime_each(probabilities: dict[str, Probabilities]) -> dict[str, Probabilities]:
    """Of all probabilities by "artifact@runtime", one set an artifact: its first runtime's."""
    first: dict[str, Probabilities] = {}
    for key, values in probabilities.items():
        artifact, _, runtime = key.partition("@")
        if runtime:
            first.setdefault(artifact, values)
    return first
