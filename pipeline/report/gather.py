"""Read what the stages wrote, and keep apart what is not of this model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from export import to_onnx, to_tflite
from pipeline.artifacts import (
    ACCURACY_JSON,
    BENCH_JSON,
    BENCH_PI_JSON,
    CONVERTED,
    FLOAT_MODEL,
    FP32_TFLITE,
    INT8_TFLITE,
    NATIVE_SOURCE,
    PARITY_JSON,
    PHOTOS_JSON,
    PI_MATRIX_JSON,
    PROBABILITIES,
    ROBUSTNESS_JSON,
    TRAIN_JSON,
    project_version,
    tool_versions,
)
from pipeline.bench.result import check_result
from pipeline.data import Dataset, Probabilities, require_trained_on
from pipeline.files import UserError, read_json, sha256
from pipeline.parity.check import read_probabilities
from pipeline.parity.judge import ParityRow
from pipeline.parity.layer_noise import TensorNoise
from pipeline.pi_test.matrix import PiCell
from pipeline.report.weights import LayerWeights, read_weights
from pipeline.studies.photos import NoDigitRow, PhotoRow, PhotoTiming
from pipeline.train.training import require_float_model

T = TypeVar("T")
ROBUSTNESS_KEYS = ("distortion", "strength", "unit", "n", "accuracy")


@dataclass(frozen=True)
class Source(Generic[T]):
    """One source of the report.

    Attributes:
        value: What it holds; None: it cannot be shown.
        problem: Why it cannot be shown, and which command makes it; "" if it can.
        doubt: What a reader must know of a value that is shown; "" if nothing.
    """

    value: T | None
    problem: str = ""
    doubt: str = ""


@dataclass(frozen=True)
class ReportData:
    """What is known of one model.

    Attributes:
        version: Of the project.
        commit: Of the source tree that exported the models; None: unknown.
        tools: Versions by package.
        data: The data set that the model was trained and tested on.
        training: What `train.json` holds.
        hashes, sizes_bytes: Of the float model and of each artifact that is there, by name.
        contracts: Source and output of each artifact, by name.
        parity: What `parity.json` holds.
        probabilities: Of every test image, by "artifact@runtime" and of the float model.
        weights: Of each layer, before and after quantization.
        bench: What `bench.json` holds.
        device: What `bench-pi.json` holds, the same of a device.
        robustness, pi, photos: What these files hold.
        seeds: What `docs/accuracy.json` holds: the same recipe with other seeds.
    """

    version: str
    commit: str | None
    tools: dict[str, str]
    data: Dataset
    training: dict[str, Any]
    hashes: dict[str, str]
    sizes_bytes: dict[str, int]
    contracts: dict[str, dict[str, Any]]
    parity: Source[dict[str, Any]]
    probabilities: Source[dict[str, Probabilities]]
    weights: Source[tuple[LayerWeights, ...]]
    bench: Source[dict[str, Any]]
    device: Source[dict[str, Any]]
    robustness: Source[dict[str, Any]]
    pi: Source[dict[str, Any]]
    photos: Source[dict[str, Any]]
    seeds: Source[dict[str, Any]]


def gather(folder: Path, data: Dataset, seeds: Path = ACCURACY_JSON) -> ReportData:
    """Read everything that there is.

    Args:
        folder: The artifacts.
        data: The data set.
        seeds: `docs/accuracy.json`.

    Returns:
        The report's content; a source that is missing, damaged or of another model says so.

    Raises:
        UserError: There is no trained model, or it is not of this data set.
    """
    training = read_json(folder / TRAIN_JSON, "history", "label_names", "model_sha256")
    require_float_model(folder / FLOAT_MODEL, training)
    require_trained_on(data, training)
    names = [n for n in (FLOAT_MODEL, *CONVERTED, NATIVE_SOURCE) if (folder / n).is_file()]
    hashes = {name: sha256(folder / name) for name in names}
    parity = read(
        folder / PARITY_JSON,
        "make export",
        hashes,
        parity_models,
        ("status", "reference", "budget"),
        {"rows": _keys(ParityRow), "layers": _keys(TensorNoise)},
    )
    bench = read(folder / BENCH_JSON, "make bench", hashes, bench_models, (), {})
    device = read(
        folder / BENCH_PI_JSON, "make bench-pi PI=user@host", hashes, bench_models, (), {}
    )
    robustness = read(
        folder / ROBUSTNESS_JSON,
        "make robustness",
        hashes,
        robustness_models,
        (),
        {"rows": ROBUSTNESS_KEYS},
    )
    pi = read(
        folder / PI_MATRIX_JSON,
        "make pi-test",
        hashes,
        pi_models,
        ("status", "bundle"),
        {"cells": _keys(PiCell)},
    )
    photos = read(
        folder / PHOTOS_JSON,
        "make photos",
        hashes,
        photo_models,
        ("model", "accuracy", "raw_resize_accuracy", "refused_share"),
        {"digits": _keys(PhotoRow), "empties": _keys(NoDigitRow), "timings": _keys(PhotoTiming)},
    )
    return ReportData(
        version=project_version(),
        commit=exported_commit(folder),
        tools=tool_versions(),
        data=data,
        training=training,
        hashes=hashes,
        sizes_bytes={name: (folder / name).stat().st_size for name in names},
        contracts={name: contract(folder, name) for name in names if name != FLOAT_MODEL},
        parity=parity,
        probabilities=gather_probabilities(folder / PROBABILITIES, data, parity.value),
        weights=gather_weights(folder),
        bench=bench,
        device=device,
        robustness=robustness,
        pi=pi,
        photos=photos,
        seeds=gather_seeds(seeds, str(training["recipe"]), data),
    )


def _keys(row: type[Any]) -> set[str]:
    return {field.name for field in dataclasses.fields(row)}


def read(
    path: Path,
    command: str,
    hashes: Mapping[str, str],
    models: Callable[[dict[str, Any]], dict[str, str]],
    keys: Sequence[str],
    row_keys: Mapping[str, Collection[str]],
) -> Source[dict[str, Any]]:
    """Read a file of results, and refuse it if it is of other models than those that are there.

    Args:
        path: The file.
        command: What makes it.
        hashes: The SHA-256 of each model that is there, by name.
        models: It tells the SHA-256 that the file says it measured, by name.
        keys: What the file must have.
        row_keys: What each row of its lists must have, by the list's name.
    """
    if not path.is_file():
        return Source(None, f"not measured: run `{command}`")
    damaged = f"{path.name} is damaged or of another version: run `{command}` again"
    try:
        value = read_json(path, *keys, *row_keys)
        for name, needed in row_keys.items():
            if not all(row.keys() >= set(needed) for row in value[name]):
                return Source(None, damaged)
        measured = models(value)
    except (UserError, KeyError, TypeError, ValueError, AttributeError):
        return Source(None, damaged)
    here = {Path(name).name: digest for name, digest in hashes.items()}
    known = {Path(name).name: digest for name, digest in measured.items()}
    known = {name: digest for name, digest in known.items() if name in here}
    for name, digest in known.items():
        if digest and digest != here[name]:
            return Source(
                None,
                f"{path.name} is of another run: it measured a {name} with SHA-256 {digest[:12]}, "
                f"the present one has {here[name][:12]}: run `{command}` again",
            )
    if not all(known.values()):
        doubt = f"{path.name} does not say by hash which models it measured; they may be others."
        return Source(value, doubt=doubt)
    return Source(value)


def parity_models(parity: dict[str, Any]) -> dict[str, str]:
    """The SHA-256 of each model that parity judged, and of its reference."""
    reference = parity["reference"]
    judged = {row["artifact"]: row["sha256"] for row in parity["rows"] if row["sha256"]}
    return {reference["artifact"]: reference["sha256"], **judged}


def bench_models(bench: dict[str, Any]) -> dict[str, str]:
    """The SHA-256 of each model that was timed; "" where the file does not say.

    Raises:
        UserError: It is no result of a benchmark.
    """
    rows = check_result(bench, "bench")["rows"]
    return {row["artifact"]: row["sha256"] or "" for row in rows if row["latency_us"]}


def robustness_models(robustness: dict[str, Any]) -> dict[str, str]:
    """The SHA-256 of the two models that read distorted images; "" where it does not say."""
    both = {FLOAT_MODEL: "", INT8_TFLITE: ""}
    return both | dict(robustness.get("models", {}))


def pi_models(matrix: dict[str, Any]) -> dict[str, str]:
    """The SHA-256 of each model of the bundle; "" where the file does not say."""
    return {cell["artifact"]: "" for cell in matrix["cells"]} | dict(matrix.get("models", {}))


def photo_models(photos: dict[str, Any]) -> dict[str, str]:
    """The SHA-256 of the model that read the photographs, by its name."""
    return {photos["model"]: photos.get("model_sha256") or ""}


def contract(folder: Path, name: str) -> dict[str, Any]:
    """Name, shape and type of an artifact's input and output; empty if it is damaged."""
    path = folder / (INT8_TFLITE if name == NATIVE_SOURCE else name)  # C is made from TFLite
    describe = to_tflite.describe if path.suffix == ".tflite" else to_onnx.describe
    try:
        return describe(path)
    except Exception:  # flatbuffers and onnx raise a dozen kinds for damaged files
        return {}


def exported_commit(folder: Path) -> str | None:
    """The commit that the int8 TFLite file says it was exported at."""
    try:
        commit = to_tflite.read_metadata(folder / INT8_TFLITE).get("source_commit")
    except Exception:  # flatbuffers raises a dozen kinds for damaged files
        return None
    return str(commit) if commit else None


def gather_probabilities(
    path: Path, data: Dataset, parity: Mapping[str, Any] | None
) -> Source[dict[str, Probabilities]]:
    """Every artifact's outputs, if they are those that parity judged.

    The file holds no hash, but parity counted in it: the same images must be flipped.
    """
    if parity is None:
        return Source(None, "there is no valid parity.json to check them by: run `make export`")
    try:
        values = read_probabilities(path)
    except UserError:
        return Source(None, f"{path.name} is missing or damaged: run `make export`")
    reference = values.get(FLOAT_MODEL)
    shape = (len(data.test), data.classes)
    for row in parity["rows"]:
        got = values.get(f"{row['artifact']}@{row['runtime']}")
        if got is None and row["accuracy"] is None:
            continue
        if got is None or reference is None or not got.shape == reference.shape == shape:
            return Source(None, f"{path.name} is not of this parity.json: run `make export`")
        flips = np.flatnonzero(got.argmax(axis=1) != reference.argmax(axis=1))
        if flips.tolist() != [flip["index"] for flip in row["flips"]]:
            return Source(None, f"{path.name} is not of this parity.json: run `make export`")
    return Source(values)


def gather_weights(folder: Path) -> Source[tuple[LayerWeights, ...]]:
    """The weights of the two TFLite files."""
    try:
        paths = (folder / FP32_TFLITE, folder / INT8_TFLITE)
        return Source(tuple(read_weights(*paths)))
    except (ValueError, RuntimeError) as error:
        return Source(None, f"the TFLite files cannot be compared ({error}): run `make export`")


def gather_seeds(path: Path, recipe: str, data: Dataset) -> Source[dict[str, Any]]:
    """The accuracy over several seeds, which are other models by intention."""
    keys = ["recipe", "artifacts", "seeds", "mean_test_accuracy", "sd", "ci95"]
    keys += ["wild", "non_digits_sure"]
    needed = ("machine", "data_sha256", "recipe")
    seeds = read(path, "make accuracy", {}, lambda value: {}, needed, {"recipes": keys})
    if seeds.value is None:
        return seeds
    if seeds.value["data_sha256"] != data.sha256:
        return Source(None, f"{path.name} is of another data set: run `make accuracy`")
    names = [block["recipe"] for block in seeds.value["recipes"]]
    if recipe in names:
        return seeds
    doubt = f"These are of {', '.join(names)}; the model of this page is of recipe {recipe}."
    return dataclasses.replace(seeds, doubt=doubt)
