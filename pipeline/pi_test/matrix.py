"""What ran on which Raspberry Pi, how it is judged, and the tables of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.data import Images, Labels, Probabilities
from pipeline.table import markdown_table


@dataclass(frozen=True)
class PiCell:
    """One artifact in one environment."""

    os: str
    arch: str
    cpu: str
    python: str
    runtime: str
    version: str
    artifact: str
    loads: bool | None = None  # whether the runtime loads the artifact; None: not tried
    status: str = "not_run"  # "pass", "fail" or "not_run"
    reason: str = ""  # why it is not "pass"
    n: int = 0  # test images classified
    accuracy: float | None = None  # on these, 0..1
    agreement: float | None = None  # share with the label that this machine gives
    bit_identical: bool | None = None  # whether all probabilities are equal, to the last bit
    max_abs_dp: float | None = None  # the greatest difference of a probability
    seconds: float | None = None  # wall-clock time of verifying and classifying under emulation


@dataclass(frozen=True)
class PiMatrix:
    """What `pi-matrix.json` holds."""

    status: str  # the worst of all cells: "fail", "not_run" or "pass"
    bundle: str  # its name
    bundle_sha256: str
    models: dict[str, str]  # the SHA-256 of each model in it, by name
    cells: tuple[PiCell, ...]  # one an artifact and environment


@dataclass(frozen=True)
class PiReference:
    """What a Pi's answers are compared with."""

    images: Images  # the test images
    labels: Labels
    probabilities: Mapping[str, Probabilities]  # of this machine, by "artifact@runtime"
    budget: Mapping[str, Any]  # `ParityBudget` as parity.json holds it
    golden: bytes = b""  # for `lenet5 --verify`: all test images and the outputs that C must give
    float_images: int | None = None  # how many of them the float models classify; None: all


def judge(cell: PiCell, got: Probabilities, reference: PiReference) -> PiCell:
    """Compare a Pi's probabilities with those of the same runtime on this machine.

    `got` is float32 (n, classes), of the first n test images.

    Returns:
        The cell with its figures; "pass" if as many labels agree as parity's budget asks for.
    """
    n = len(got)
    predicted = got.argmax(axis=1)
    cell = replace(cell, n=n, accuracy=float((predicted == reference.labels[:n]).mean()))
    expected = reference.probabilities.get(f"{cell.artifact}@{cell.runtime}")
    if expected is None:
        return replace(cell, reason=f"{cell.runtime} did not run here: nothing to compare with")
    expected = expected[:n]
    if got.shape != expected.shape or not np.isfinite(got).all():
        return replace(cell, status="fail", reason=f"outputs of {got.shape}, or not finite")
    agreement = float((predicted == expected.argmax(axis=1)).mean())
    kind = "int8" if "int8" in cell.artifact else "float"
    least = float(reference.budget[f"{kind}_min_agreement"])
    enough = agreement >= least
    return replace(
        cell,
        status="pass" if enough else "fail",
        reason="" if enough else f"agreement {agreement:.2%} with this machine, below {least:.2%}",
        agreement=agreement,
        bit_identical=got.tobytes() == expected.tobytes(),
        max_abs_dp=float(np.abs(got - expected).max()),
    )


def worst(statuses: Iterable[str]) -> str:
    """The worst status: "fail", "not_run" or "pass"."""
    return min(statuses, key=("fail", "not_run", "pass").index, default="pass")


def format_cells(matrix: PiMatrix) -> str:
    header = ["system", "artifact", "processor", "runtime", "status", "n", "accuracy"]
    header += ["agreement", "bits or max dp", "seconds"]
    rows = []
    for cell in matrix.cells:
        runtime = f"{cell.runtime} {cell.version}".strip()
        figures = [""] * 4
        if cell.agreement is not None:
            bits = "identical" if cell.bit_identical else f"{cell.max_abs_dp:.1e}"
            figures = [f"{cell.accuracy:.2%}", f"{cell.agreement:.2%}", bits, f"{cell.seconds:.0f}"]
        where = [f"{cell.os}/{cell.arch}", cell.artifact, cell.cpu, runtime, cell.status]
        rows.append([*where, str(cell.n), *figures])
    return markdown_table(header, rows)


def format_matrix(matrix: Mapping[str, Any], parity: Mapping[str, Any]) -> str:
    """The table of `matrix_table` in Markdown, narrow: a cell passed unless it says otherwise."""
    (artifact, runtime, _, *systems), rows = matrix_table(matrix, parity)
    header = [artifact, runtime, *(system.partition(",")[0] for system in systems)]
    ran = [row for row in rows if set(row[3:]) != {"-"}]
    cells = [[row[0].replace("lenet5_", ""), row[1], *row[3:]] for row in ran]
    short = [[cell.replace("pass, ", "").replace("max |dp| ", "") for cell in r] for r in cells]
    return markdown_table(header, short)


def describe(cells: Sequence[Mapping[str, Any]]) -> str:
    """The worst of the cells of a system's processors."""
    text = worst(cell["status"] for cell in cells)
    if all(cell["bit_identical"] for cell in cells):
        return f"{text}, same bits"
    differences = [cell["max_abs_dp"] for cell in cells if cell["max_abs_dp"] is not None]
    return f"{text}, max |dp| {max(differences):.1e}" if differences else text


def matrix_table(
    matrix: Mapping[str, Any], parity: Mapping[str, Any]
) -> tuple[list[str], list[list[str]]]:
    """Which artifact runs on which runtime, Python and architecture, as a header and rows.

    `pi-matrix.json` tells it of the Pis, `parity.json` of the development machine.
    """
    here = "development machine"
    results = {(row["artifact"], row["runtime"]): {here: row["status"]} for row in parity["rows"]}
    found: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for cell in matrix["cells"]:
        minor_version = ".".join(cell["python"].split(".")[:2])
        system = f"{cell['os']} {cell['arch']}, Python {minor_version}"
        found.setdefault((cell["artifact"], cell["runtime"], system), []).append(cell)
    for (artifact, runtime, system), cells in found.items():
        results.setdefault((artifact, runtime), {})[system] = describe(cells)
    systems = dict.fromkeys([here, *(system for *_, system in found)])
    rows = [
        [*subject, *(t.get(system, "-") for system in systems)] for subject, t in results.items()
    ]
    return ["artifact", "runtime", *systems], rows
