"""What ran on which Raspberry Pi, how it is judged, and the tables of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.data import Images, Labels, Probabilities
from pipeline.table import markdown_table


@dataclass(frozen=True)
class PiCell:
    """One artifact in one environment.

    Attributes:
        os, arch, cpu, python, runtime, version, artifact: What ran.
        loads: Whether the runtime loads the artifact; None: not tried.
        status: "pass", "fail" or "not_run".
        reason: Why it is not "pass".
        n: Test images classified.
        accuracy: On these, 0..1.
        agreement: Share of them with the label that the same runtime gives on this machine.
        bit_identical: Whether all their probabilities are the same, to the last bit.
        max_abs_dp: The greatest difference of a probability.
        seconds: Wall-clock time of verifying and classifying under emulation.
    """

    os: str
    arch: str
    cpu: str
    python: str
    runtime: str
    version: str
    artifact: str
    loads: bool | None = None
    status: str = "not_run"
    reason: str = ""
    n: int = 0
    accuracy: float | None = None
    agreement: float | None = None
    bit_identical: bool | None = None
    max_abs_dp: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class PiMatrix:
    """What `pi-matrix.json` holds.

    Attributes:
        status: "fail" if a cell failed; else "not_run" if one did not run; else "pass".
        bundle, bundle_sha256: What was tested.
        models: The SHA-256 of each model in it, by name.
        cells: One an artifact and environment.
    """

    status: str
    bundle: str
    bundle_sha256: str
    models: dict[str, str]
    cells: tuple[PiCell, ...]


@dataclass(frozen=True)
class PiReference:
    """What a Pi's answers are compared with.

    Attributes:
        images: uint8 (N, 28, 28), the test images.
        labels: uint8 (N,), their classes.
        probabilities: float32 (N, classes) of this machine, by "artifact@runtime".
        budget: `ParityBudget` as parity.json holds it.
        golden: For `lenet5 --verify`: all test images and the outputs that C must give.
    """

    images: Images
    labels: Labels
    probabilities: Mapping[str, Probabilities]
    budget: Mapping[str, Any]
    golden: bytes = b""


def judge(cell: PiCell, got: Probabilities, reference: PiReference) -> PiCell:
    """Compare a Pi's probabilities with those of the same runtime on this machine.

    Args:
        cell: What ran.
        got: float32 (n, classes) of the first n test images.
        reference: What to compare with.

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


def exit_code(matrix: PiMatrix, allowed: Collection[str]) -> int:
    """0 if every cell passed or was allowed not to run, else 1.

    Args:
        matrix: What ran.
        allowed: Environments that may be missing, such as "bookworm/armhf/onnxruntime" or any
            beginning of it.
    """
    for cell in matrix.cells:
        name = f"{cell.os}/{cell.arch}/{cell.runtime}"
        excused = any(f"{name}/".startswith(f"{prefix}/") for prefix in allowed)
        if cell.status == "fail" or (cell.status == "not_run" and not excused):
            return 1
    return 0


def describe(cell: PiCell) -> str:
    """A cell in a line: status and reason, or what was compared."""
    if cell.agreement is None or cell.accuracy is None:
        return f"{cell.status}: {cell.reason}"
    bits = "bit-identical" if cell.bit_identical else f"max |dp| {cell.max_abs_dp:.1e}"
    reason = f": {cell.reason}" if cell.reason else ""
    return (
        f"{cell.status}{reason}; {cell.n} images, accuracy {cell.accuracy:.2%}, "
        f"agreement {cell.agreement:.2%}, {bits}, {cell.seconds:.0f} s"
    )


def format_cells(matrix: PiMatrix) -> str:
    """The cells as a table for the terminal."""
    header = ["system", "artifact", "Python", "runtime", "status", "n", "accuracy"]
    header += ["agreement", "bits or max dp", "seconds"]
    rows = []
    for cell in matrix.cells:
        runtime = f"{cell.runtime} {cell.version}".strip()
        row = [f"{cell.os}/{cell.arch}", cell.artifact, cell.python, runtime, cell.status]
        if cell.agreement is None or cell.accuracy is None:
            rows.append([*row, str(cell.n), "", "", "", ""])
            continue
        bits = "identical" if cell.bit_identical else f"{cell.max_abs_dp:.1e}"
        row += [str(cell.n), f"{cell.accuracy:.2%}", f"{cell.agreement:.2%}", bits]
        rows.append([*row, f"{cell.seconds:.0f}"])
    return markdown_table(header, rows)


def format_matrix(matrix: Mapping[str, Any], parity: Mapping[str, Any]) -> str:
    """The table of `matrix_table` in Markdown."""
    header, rows = matrix_table(matrix, parity)
    return markdown_table(header, [[cell.replace("|", "\\|") for cell in row] for row in rows])


def matrix_table(
    matrix: Mapping[str, Any], parity: Mapping[str, Any]
) -> tuple[list[str], list[list[str]]]:
    """Which artifact runs on which runtime, Python and architecture.

    Args:
        matrix: What `pi-matrix.json` holds.
        parity: What `parity.json` holds, for the development machine.

    Returns:
        The header, and a row an artifact and runtime with a column a system; "-" where nothing
        was tested.
    """
    here = "development machine"
    results: dict[tuple[str, str], dict[str, str]] = {}
    systems = [here]
    for row in parity["rows"]:
        results.setdefault((row["artifact"], row["runtime"]), {})[here] = row["status"]
    for cell in matrix["cells"]:
        minor_version = ".".join(cell["python"].split(".")[:2])
        system = f"{cell['os']} {cell['arch']}, Python {minor_version}"
        if system not in systems:
            systems.append(system)
        text = cell["status"]
        if cell["bit_identical"]:
            text += ", same bits"
        elif cell["max_abs_dp"] is not None:
            text += f", max |dp| {cell['max_abs_dp']:.1e}"
        results.setdefault((cell["artifact"], cell["runtime"]), {})[system] = text
    rows = [
        [*subject, *(found.get(system, "-") for system in systems)]
        for subject, found in results.items()
    ]
    return ["artifact", "runtime", *systems], rows
