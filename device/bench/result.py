"""What a result, such as bench.json, holds. `pipeline/bench/result.py` checks files against it.

The pair in an `Annotated` is the range of a number, or of the length of a list.
"""

from __future__ import annotations

from typing import Annotated, List, TypedDict

SCHEMA_VERSION = 3
COLD_START_PARTS = ("interpreter", "import", "load", "first")

Positive = Annotated[float, (1e-9, 1e15)]
Part = Annotated[float, (0.0, 1e15)]  # that may be rounded to zero
Count = Annotated[int, (1, 2**53)]
Rounds = Annotated[List[Positive], (1, 10**6)]
Interval = Annotated[List[Positive], (2, 2)]  # of 95 % confidence


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
    cores: Count
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
    launches: Count
    rounds_per_launch: Count
    calls_per_round: Count
    images: Count
    pinned_core: int
    timer_overhead_ns: float | None
    p90_confidence: str
    seconds: float
    interrupted: bool
    notes: list[str]  # what the figures mean


class Latency(TypedDict):
    """Of the timed calls, in us; percentiles by nearest rank."""

    min: Positive
    p50: Positive
    p90: Positive
    p99: Positive
    mean: Positive


ColdStart = TypedDict(  # in ms, medians; a class could not have the key "import"
    "ColdStart",
    {
        "interpreter": Part,
        "import": Part,
        "load": Part,
        "first": Part,
        "total": Positive,
        "processes": Count,
    },
)


class BenchRow(TypedDict):
    """One subject with one number of threads and one batch.

    Its figures may be used if its status is "ok". If it is "not_run", they are None.
    """

    artifact: str
    runtime: str
    threads: Count
    batch: Count
    status: str  # "ok", "invalid" or "not_run"
    reason: str
    sha256: str | None
    runtime_version: str | None
    size_bytes: Count | None
    accuracy: Annotated[float, (0.0, 1.0)] | None
    calls: Count | None
    latency_us: Latency | None
    invoke_us: Latency | None
    quantiles_us: Annotated[List[Positive], (101, 101)] | None  # the 0th to the 100th
    throughput_ips: Positive | None
    rounds_us: Annotated[List[Rounds], (1, 10**6)] | None  # their medians, by launch
    cold_start_ms: ColdStart | None
    peak_rss_mib: Positive | None
    ratio_to_baseline: Positive | None
    ratio_ci95: Interval | None


class BenchResult(TypedDict):
    """The whole file."""

    schema_version: int
    host: Host
    method: Method
    rows: list[BenchRow]
