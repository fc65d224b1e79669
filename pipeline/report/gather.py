"""Read what the stages wrote, and leave out what is damaged or of another model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
from pipeline.parity.binaries import BinaryRow
from pipeline.parity.check import one_runtime_each, read_probabilities
from pipeline.parity.judge import ParityRow
from pipeline.parity.layer_noise import TensorNoise
from pipeline.pi_test.matrix import PiCell
from pipeline.studies.photos import NoDigitRow, PhotoRow, PhotoTiming
from pipeline.studies.robustness import RobustnessRow
from pipeline.train.training import require_float_model


@dataclass(frozen=True)
class ReportData:
    """What is known of one model; what `problems` names is None."""

    version: str  # of the project
    commit: str | None  # of the source tree that exported the models; None: unknown
    tools: dict[str, str]  # versions by package
    data: Dataset
    training: dict[str, Any]  # what `train.json` holds
    hashes: dict[str, str]  # of the float model and each artifact that is there, by name
    sizes_bytes: dict[str, int]  # likewise
    contracts: dict[str, dict[str, Any]]  # input and output of each artifact, by name
    problems: dict[str, str]  # by member why it cannot be shown, and which command makes it
    parity: Any = None  # of each file what it holds
    probabilities: Any = None  # by "artifact@runtime"
    bench: Any = None
    device: Any = None  # `bench-pi.json`, the same of a device
    robustness: Any = None
    pi: Any = None
    boards: Any = None  # "receipts", one a device, and why others are "refused"
    photos: Any = None
    seeds: Any = None  # of `docs/accuracy.json`: the same recipe with other seeds

    @property
    def threshold(self) -> float:
        """The probability below which an answer is unsure; 0: none could be chosen."""
        return self.training["confidence"]["threshold"] or 0.0

    @property
    def int8(self) -> Probabilities | None:
        """What the int8 TFLite file gave for the test images; None if that is not known."""
        return one_runtime_each(self.probabilities or {}).get(INT8_TFLITE)

    def label(self, index: int) -> str:
        """The true class of a test image."""
        return self.data.label_names[self.data.test.labels[index]]


def gather(folder: Path, data: Dataset, seeds: Path = ACCURACY_JSON) -> ReportData:
    """Read everything that there is.

    Args:
        folder: The artifacts.
        data: The data set.
        seeds: `docs/accuracy.json`.

    Raises:
        UserError: There is no trained model, or it is not of this data set.
    """
    training = read_json(folder / TRAIN_JSON, "history", "confidence", "model_sha256")
    require_float_model(folder / FLOAT_MODEL, training)
    require_trained_on(data, training)
    all_names = (FLOAT_MODEL, *CONVERTED, NATIVE_SOURCE, NATIVE_WASM)
    names = [name for name in all_names if (folder / name).is_file()]
    hashes = {name: sha256(folder / name) for name in names}
    results: dict[str, Any] = {}
    problems: dict[str, str] = {}

    def add(member: str, read_it: Callable[..., Any], *args: Any) -> None:
        try:
            results[member] = read_it(*args)
        except UserError as error:
            problems[member] = str(error)

    for member, form in RESULTS.items():
        add(member, read, folder / form.name, form, hashes)
    add("probabilities", read_outputs, folder / PROBABILITIES, data, results.get("parity"))
    add("boards", read_receipts, folder / DEVICES_FOLDER, hashes)
    add("seeds", read_seeds, seeds, str(training["recipe"]), data)
    return ReportData(
        version=project_version(),
        commit=exported_commit(folder),
        tools=tool_versions(),
        data=data,
        training=training,
        hashes=hashes,
        sizes_bytes={name: (folder / name).stat().st_size for name in names},
        contracts={name: contract(folder, name) for name in names if name != FLOAT_MODEL},
        problems=problems,
        **results,
    )


# --- Files of results ---------------------------------------------------------------------------


def _keys(row: type[Any]) -> Collection[str]:
    return [key.name for key in dataclasses.fields(row)]


@dataclass(frozen=True)
class ResultFile:
    """What a file of results must hold."""

    name: str
    command: str  # that makes it
    keys: Collection[str] = ()
    row_keys: Mapping[str, Collection[str]] = field(default_factory=dict)  # by the list's name
    check: Callable[[dict[str, Any], str], object] = lambda value, where: value


RESULTS = {  # by member of `ReportData`
    "parity": ResultFile(
        PARITY_JSON,
        "make export",
        ("status", "reference", "budget"),
        {
            **{"rows": _keys(ParityRow), "layers": _keys(TensorNoise)},
            "binaries": _keys(BinaryRow),
        },
    ),
    "bench": ResultFile(BENCH_JSON, "make bench", check=check_result),
    "device": ResultFile(BENCH_PI_JSON, "make bench-pi PI=user@host", check=check_result),
    "robustness": ResultFile(
        ROBUSTNESS_JSON, "make robustness", ("models",), {"rows": _keys(RobustnessRow)}
    ),
    "pi": ResultFile(
        PI_MATRIX_JSON, "make pi-test", ("status", "bundle", "models"), {"cells": _keys(PiCell)}
    ),
    "photos": ResultFile(
        PHOTOS_JSON,
        "make photos",
        ("model", "model_sha256", "accuracy", "raw_resize_accuracy", "refused_share"),
        {"digits": _keys(PhotoRow), "empties": _keys(NoDigitRow), "timings": _keys(PhotoTiming)},
    ),
}
RECEIPT = ResultFile(
    "HOST.json",
    "make deploy PI=user@host",
    ("board", "system", "python", "time", "bundle_sha256", "throttled", "choice"),
    {"rows": ("artifact", "runtime", "runtime_version", "verified", "reason", "latency_us")},
)
SEEDS = ResultFile(
    ACCURACY_JSON.name,
    "make accuracy",
    ("data_sha256", "recipe"),
    {
        "recipes": (
            *("recipe", "machine", "artifacts", "seeds", "mean_test_accuracy", "sd", "ci95"),
            *("wild", "non_digits_sure"),
        )
    },
)


def read(path: Path, form: ResultFile, hashes: Mapping[str, str]) -> dict[str, Any]:
    """Read a file of results.

    Args:
        path: The file.
        form: What it must hold.
        hashes: The SHA-256 of each model that is there, by name: the results must be of these.

    Raises:
        UserError: It is missing, damaged or of other models; for a reader of the page.
    """
    if not path.is_file():
        raise UserError(f"not measured: run `{form.command}`")
    here = {Path(name).name: digest for name, digest in hashes.items()}
    try:
        value = read_json(path, *form.keys, *form.row_keys)
        form.check(value, path.name)
        for name, keys in form.row_keys.items():
            if not all(row.keys() >= set(keys) for row in value[name]):
                raise KeyError(name)
        measured = {name: digest for name, digest in models_of(value).items() if name in here}
        if not all(measured.values()):
            raise KeyError("sha256")
    except (UserError, KeyError, TypeError, ValueError, AttributeError):
        message = f"{path.name} is damaged or of another version: run `{form.command}` again"
        raise UserError(message) from None
    for name, digest in measured.items():
        if digest != here[name]:
            raise UserError(
                f"{path.name} is of another run: it measured a {name} with SHA-256 {digest[:12]}, "
                f"the present one has {here[name][:12]}: run `{form.command}` again"
            )
    return value


def models_of(result: Mapping[str, Any]) -> dict[str, str]:
    """The SHA-256 of each model that a result has figures of, by file name; "" if it says none."""
    rows = [result.get("reference", {}), *result.get("rows", ()), *result.get("cells", ())]
    found = {
        row["artifact"]: row.get("sha256") or ""
        for row in rows
        if "sha256" in row and (row.get("latency_us") or row.get("accuracy") is not None)
    }
    if "model" in result:
        found[result["model"]] = result["model_sha256"] or ""
    return {Path(name).name: digest for name, digest in (found | result.get("models", {})).items()}


def read_outputs(
    path: Path, data: Dataset, parity: Mapping[str, Any] | None
) -> dict[str, Probabilities]:
    """Every artifact's outputs by "artifact@runtime", if they are those that parity judged.

    The file holds no hash, but parity counted in it: the same images must be flipped.
    """
    if parity is None:
        raise UserError("there is no valid parity.json to check them by: run `make export`")
    try:
        values = read_probabilities(path)
    except UserError:
        raise UserError(f"{path.name} is missing or damaged: run `make export`") from None
    reference = values.get(FLOAT_MODEL)
    shape = (len(data.test), data.classes)
    other = UserError(f"{path.name} is not of this {PARITY_JSON}: run `make export`")
    for row in parity["rows"]:
        got = values.get(f"{row['artifact']}@{row['runtime']}")
        if got is None and row["accuracy"] is None:
            continue
        if got is None or reference is None or not got.shape == reference.shape == shape:
            raise other
        flips = np.flatnonzero(got.argmax(axis=1) != reference.argmax(axis=1))
        if flips.tolist() != [flip["index"] for flip in row["flips"]]:
            raise other
    return values


def read_receipts(folder: Path, hashes: Mapping[str, str]) -> dict[str, list[Any]]:
    """The receipts of devices that have these models, and why the others are refused."""
    found: dict[str, list[Any]] = {"receipts": [], "refused": []}
    for path in sorted(folder.glob("*.json")):
        try:
            found["receipts"].append(read(path, RECEIPT, hashes))
        except UserError as error:
            found["refused"].append(str(error))
    if not found["receipts"]:
        none = f"no device has sent a receipt: run `{RECEIPT.command}`"
        raise UserError("; ".join(found["refused"]) or none)
    return found


def read_seeds(path: Path, recipe: str, data: Dataset) -> dict[str, Any]:
    """The accuracy over several seeds; these are other models of the same recipe."""
    seeds = read(path, SEEDS, {})
    if seeds["data_sha256"] != data.sha256:
        raise UserError(f"{path.name} is of another data set: run `{SEEDS.command}`")
    for block in seeds["recipes"]:
        if block["recipe"] == recipe:
            return dict(block)
    raise UserError(f"not measured: run `{SEEDS.command} RECIPES={recipe}`")


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
