"""Reading what `make bench` wrote, here or on a device: a file that may come from anywhere.

The pair in an `Annotated` is the range of a number, or of the length of a list.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, TypedDict

from device.bench.rows import SCHEMA_VERSION
from pipeline.config import from_table
from pipeline.files import UserError

Positive = Annotated[float, (1e-9, 1e15)]
NonNegative = Annotated[float, (0.0, 1e15)]  # that may be rounded to zero
AtLeastOne = Annotated[int, (1, 2**53)]
Rounds = Annotated[list[Positive], (1, 10**6)]
ConfidenceInterval = Annotated[list[Positive], (2, 2)]  # of 95 % confidence


class State(TypedDict):
    """What changes on a machine; None where it does not tell."""

    load_1min: float | None
    clock_mhz: float | None
    temperature_c: float | None
    throttled: int | None  # the bits of `vcgencmd get_throttled`


class Host(TypedDict):
    """The machine, and its state before and after."""

    board: str
    cpu: str
    cores: AtLeastOne
    isa_flags: list[str]
    governor: str
    system: str
    python: str
    numpy: str
    before: State
    after: State


class Method(TypedDict):
    """How it was measured."""

    baseline: str | None  # None: no row has a figure
    launches: AtLeastOne
    rounds_per_launch: AtLeastOne
    calls_per_round: AtLeastOne
    images: AtLeastOne
    pinned_core: int
    timer_overhead_ns: float | None
    p90_confidence: str
    seconds: float
    interrupted: bool
    notes: list[str]  # what the figures mean


class LatencyUs(TypedDict):
    """Of the timed calls, in us; percentiles by nearest rank."""

    min: Positive
    p50: Positive
    p90: Positive
    p99: Positive
    mean: Positive


ColdStart = TypedDict(  # in ms, medians; a class could not have the key "import"
    "ColdStart",
    {
        "interpreter": NonNegative,
        "import": NonNegative,
        "load": NonNegative,
        "first": NonNegative,
        "total": Positive,
        "processes": AtLeastOne,
    },
)


class BenchRow(TypedDict):
    """One subject with one number of threads and one batch.

    Its figures may be used if its status is "ok". If it is "not_run", they are None.
    """

    artifact: str
    runtime: str
    threads: AtLeastOne
    batch: AtLeastOne
    status: str  # "ok", "invalid" or "not_run"
    reason: str
    sha256: str | None
    runtime_version: str | None
    size_bytes: AtLeastOne | None
    accuracy: Annotated[float, (0.0, 1.0)] | None
    calls: AtLeastOne | None
    latency_us: LatencyUs | None
    invoke_us: LatencyUs | None
    quantiles_us: Annotated[list[Positive], (101, 101)] | None  # the 0th to the 100th
    throughput_ips: Positive | None
    rounds_us: Annotated[list[Rounds], (1, 10**6)] | None  # their medians, by launch
    cold_start_ms: ColdStart | None
    peak_rss_mib: Positive | None
    ratio_to_baseline: Positive | None
    ratio_ci95: ConfidenceInterval | None


class BenchResult(TypedDict):
    """The whole file."""

    schema_version: int
    host: Host
    method: Method
    rows: list[BenchRow]


FIGURES = (  # that a row has, all or none
    *("runtime_version", "size_bytes", "calls", "latency_us", "quantiles_us", "throughput_ips"),
    "rounds_us",
)


def read_result(path: Path) -> dict[str, Any]:
    """Read a result, such as bench.json, and check all of it.

    Raises:
        UserError: It is missing, of another version, or anything else.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: missing; `make bench` writes such a file") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path}: not JSON; name a file that `make bench` wrote") from None
    return check_result(value, str(path))


def check_result(value: Any, where: str) -> dict[str, Any]:
    """Check all that a result holds; an error calls it `where`.

    Raises:
        UserError: It is not a result of this version; the message says where it differs.
    """
    if not isinstance(value, dict) or value.get("schema_version") != SCHEMA_VERSION:
        raise UserError(f"{where}: not a result of this version's `make bench`; measure again")
    result: dict[str, Any] = {**from_table(BenchResult, value, where)}
    for i, row in enumerate(result["rows"]):
        missing = [key for key in FIGURES if row[key] is None]
        if missing and (row["status"] == "ok" or len(missing) < len(FIGURES)):
            raise UserError(f"{where}: rows[{i}]: {missing[0]} is missing; measure again")
    return result
