"""Read what the stages wrote, and keep apart what is not of this model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from export import to_onnx, to_tflite
from pipeline.artifacts import (
    ACCURACY_JSON,
    BENCH_JSON,
    BENCH_PI_JSON,
    CONVERTED,
    DEVICES_FOLDER,
    FLOAT_MODEL,
    INT8_TFLITE,
    NATIVE_SOURCE,
    NATIVE_WASM,
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
from pipeline.parity.check import one_runtime_each, read_probabilities
from pipeline.parity.judge import ParityRow
from pipeline.parity.layer_noise import TensorNoise
from pipeline.pi_test.matrix import PiCell
from pipeline.studies.photos import NoDigitRow, PhotoRow, PhotoTiming
from pipeline.studies.robustness import RobustnessRow
from pipeline.train.training import require_float_model

T = TypeVar("T")


@dataclass(frozen=True)
class Source(Generic[T]):
    """One source of the report."""

    value: T | None  # None: it cannot be shown
    problem: str = ""  # why it cannot be shown, and which command makes it


@dataclass(frozen=True)
class ReportData:
    """What is known of one model."""

    version: str  # of the project
    commit: str | None  # of the source tree that exported the models; None: unknown
    tools: dict[str, str]  # versions by package
    data: Dataset
    training: dict[str, Any]  # what `train.json` holds
    hashes: dict[str, str]  # of the float model and each artifact that is there, by name
    sizes_bytes: dict[str, int]  # likewise
    contracts: dict[str, dict[str, Any]]  # input and output of each artifact, by name
    parity: Source[dict[str, Any]]  # of each file what it holds
    probabilities: Source[dict[str, Probabilities]]  # by "artifact@runtime"
    bench: Source[dict[str, Any]]
    device: Source[dict[str, Any]]  # `bench-pi.json`, the same of a device
    robustness: Source[dict[str, Any]]
    pi: Source[dict[str, Any]]
    boards: Source[list[dict[str, Any]]]  # a receipt a device, `devices/HOST.json`
    photos: Source[dict[str, Any]]
    seeds: Source[dict[str, Any]]  # `docs/accuracy.json`: the same recipe with other seeds

    @property
    def int8(self) -> Probabilities | None:
        """What the int8 TFLite file gave for the test images; None if that is not known."""
        return one_runtime_each(self.probabilities.value or {}).get(INT8_TFLITE)

    def label(self, index: int) -> str:
        """The true class of a test image."""
        return self.data.label_names[self.data.test.labels[index]]


def gather(folder: Path, data: Dataset, seeds: Path = ACCURACY_JSON) -> ReportData:
    """Read everything that there is; a source that is missing, damaged or of another model says so.

    Args:
        folder: The artifacts.
        data: The data set.
        seeds: `docs/accuracy.json`.

    Raises:
        UserError: There is no trained model, or it is not of this data set.
    """
    training = read_json(folder / TRAIN_JSON, "history", "label_names", "model_sha256")
    require_float_model(folder / FLOAT_MODEL, training)
    require_trained_on(data, training)
    all_names = (FLOAT_MODEL, *CONVERTED, NATIVE_SOURCE, NATIVE_WASM)
    names = [name for name in all_names if (folder / name).is_file()]
    hashes = {name: sha256(folder / name) for name in names}
    results = {name: read(folder / name, form, hashes) for name, form in RESULTS.items()}
    parity = results[PARITY_JSON]
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
        bench=results[BENCH_JSON],
        device=results[BENCH_PI_JSON],
        robustness=results[ROBUSTNESS_JSON],
        pi=results[PI_MATRIX_JSON],
        boards=gather_boards(folder / DEVICES_FOLDER),
        photos=results[PHOTOS_JSON],
        seeds=gather_seeds(seeds, str(training["recipe"]), data),
    )


# --- Files of results ---------------------------------------------------------------------------


def _parity_models(parity: dict[str, Any]) -> dict[str, str]:
    reference = parity["reference"]
    judged = {row["artifact"]: row["sha256"] for row in parity["rows"] if row["sha256"]}
    return {reference["artifact"]: reference["sha256"], **judged}


def _bench_models(bench: dict[str, Any]) -> dict[str, str]:
    rows = check_result(bench, "bench")["rows"]
    return {row["artifact"]: row["sha256"] or "" for row in rows if row["latency_us"]}


def _robustness_models(robustness: dict[str, Any]) -> dict[str, str]:
    return {FLOAT_MODEL: "", INT8_TFLITE: "", **robustness.get("models", {})}


def _pi_models(matrix: dict[str, Any]) -> dict[str, str]:
    return {cell["artifact"]: "" for cell in matrix["cells"]} | dict(matrix.get("models", {}))


def _photo_models(photos: dict[str, Any]) -> dict[str, str]:
    return {photos["model"]: photos.get("model_sha256") or ""}


def _keys(row: type[Any]) -> Collection[str]:
    return [field.name for field in dataclasses.fields(row)]


@dataclass(frozen=True)
class ResultFile:
    """What a file of results must hold."""

    command: str  # that makes it
    models: Callable[[dict[str, Any]], dict[str, str]]  # name -> SHA-256; "" where it says none
    keys: Collection[str] = ()
    row_keys: Mapping[str, Collection[str]] = field(default_factory=dict)  # by the list's name


RESULTS = {
    PARITY_JSON: ResultFile(
        "make export",
        _parity_models,
        ("status", "reference", "budget"),
        {"rows": _keys(ParityRow), "layers": _keys(TensorNoise)},
    ),
    BENCH_JSON: ResultFile("make bench", _bench_models),
    BENCH_PI_JSON: ResultFile("make bench-pi PI=user@host", _bench_models),
    ROBUSTNESS_JSON: ResultFile(
        "make robustness", _robustness_models, row_keys={"rows": _keys(RobustnessRow)}
    ),
    PI_MATRIX_JSON: ResultFile(
        "make pi-test", _pi_models, ("status", "bundle"), {"cells": _keys(PiCell)}
    ),
    PHOTOS_JSON: ResultFile(
        "make photos",
        _photo_models,
        ("model", "accuracy", "raw_resize_accuracy", "refused_share"),
        {"digits": _keys(PhotoRow), "empties": _keys(NoDigitRow), "timings": _keys(PhotoTiming)},
    ),
}
RECEIPT = ("board", "system", "python", "time", "bundle_sha256", "throttled", "rows", "choice")
RECEIPT_ROW = {"artifact", "runtime", "runtime_version", "verified", "reason", "latency_us"}
SEEDS = ResultFile(
    "make accuracy",
    lambda _: {},  # they are other models
    ("machine", "data_sha256", "recipe"),
    {
        "recipes": (
            *("recipe", "artifacts", "seeds", "mean_test_accuracy", "sd", "ci95"),
            *("wild", "non_digits_sure"),
        )
    },
)


def read(path: Path, form: ResultFile, hashes: Mapping[str, str]) -> Source[dict[str, Any]]:
    """Read a file of results, and refuse it if it is of other models than those that are there.

    Args:
        path: The file.
        form: What it must hold.
        hashes: The SHA-256 of each model that is there, by name.
    """
    if not path.is_file():
        return Source(None, f"not measured: run `{form.command}`")
    damaged = f"{path.name} is damaged or of another version: run `{form.command}` again"
    try:
        value = read_json(path, *form.keys, *form.row_keys)
        for name, needed in form.row_keys.items():
            if not all(row.keys() >= set(needed) for row in value[name]):
                return Source(None, damaged)
        measured = form.models(value)
    except (UserError, KeyError, TypeError, ValueError, AttributeError):
        return Source(None, damaged)
    here = {Path(name).name: digest for name, digest in hashes.items()}
    known = {Path(name).name: digest for name, digest in measured.items()}
    known = {name: digest for name, digest in known.items() if name in here}
    if not all(known.values()):
        return Source(None, damaged)
    for name, digest in known.items():
        if digest != here[name]:
            return Source(
                None,
                f"{path.name} is of another run: it measured a {name} with SHA-256 {digest[:12]}, "
                f"the present one has {here[name][:12]}: run `{form.command}` again",
            )
    return Source(value)


# --- The models -----------------------------------------------------------------------------------


def contract(folder: Path, name: str) -> dict[str, Any]:
    """Name, shape and type of an artifact's input and output; empty if it is damaged."""
    path = folder / (INT8_TFLITE if name.startswith("native/") else name)  # made from TFLite
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
    other = Source[dict[str, Probabilities]](
        None, f"{path.name} is not of this {PARITY_JSON}: run `make export`"
    )
    for row in parity["rows"]:
        got = values.get(f"{row['artifact']}@{row['runtime']}")
        if got is None and row["accuracy"] is None:
            continue
        if got is None or reference is None or not got.shape == reference.shape == shape:
            return other
        flips = np.flatnonzero(got.argmax(axis=1) != reference.argmax(axis=1))
        if flips.tolist() != [flip["index"] for flip in row["flips"]]:
            return other
    return Source(values)


def gather_boards(folder: Path) -> Source[list[dict[str, Any]]]:
    """The receipts of devices; they are of a bundle, not of a model, and name it by its SHA-256."""
    paths = sorted(folder.glob("*.json"))
    if not paths:
        return Source(None, "no device has sent a receipt: run `make deploy PI=user@host`")
    receipts = []
    for path in paths:
        try:
            receipts.append(read_json(path, *RECEIPT))
            if not all(row.keys() >= RECEIPT_ROW for row in receipts[-1]["rows"]):
                raise UserError
        except (UserError, AttributeError, TypeError):
            return Source(None, f"{path} is damaged or of another version: delete it, deploy again")
    return Source(receipts)


def gather_seeds(path: Path, recipe: str, data: Dataset) -> Source[dict[str, Any]]:
    """The accuracy over several seeds."""
    seeds = read(path, SEEDS, {})
    if seeds.value is None:
        return seeds
    if seeds.value["data_sha256"] != data.sha256:
        return Source(None, f"{path.name} is of another data set: run `make accuracy`")
    if recipe not in [block["recipe"] for block in seeds.value["recipes"]]:
        return Source(None, f"not measured: run `make accuracy RECIPES={recipe}`")
    return seeds
