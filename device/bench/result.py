"""The form of a result, such as bench.json. `pipeline/bench/result.py` checks files against it.

The pair in an `Annotated` is the range of a number, or of the length of a list.
"""

from __future__ import annotations

from typing import Annotated, List, Literal, Tuple, TypedDict

SCHEMA_VERSION = 3

Positive = Annotated[float, (1e-9, 1e15)]
Count = Annotated[int, (1, 2**53)]
Share = Annotated[float, (0.0, 1.0)]
Interval = Tuple[Positive, Positive]  # of 95 % confidence


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
    terms: dict[str, str]  # what the figures of a row mean


class Latency(TypedDict):
    """Of the timed calls, in us; percentiles by nearest rank."""

    min: Positive
    p50: Positive
    p90: Positive
    p99: Positive
    mean: Positive


# In ms, medians of some processes. A class could not have the key "import".
ColdStart = TypedDict(
    "ColdStart",
    {
        "interpreter": float,
        "import": float,
        "load": float,
        "first": float,
        "total": float,
        "processes": Count,
    },
)


class Rounds(TypedDict):
    """The rounds' median latencies in us, and over the launches their median."""

    p50_us: Annotated[List[Annotated[List[Positive], (1, 10**6)]], (1, 10**6)]  # by launch
    median_us: Positive
    p50_ci95_us: Interval | None


class RowName(TypedDict):
    """What every row has."""

    artifact: str
    runtime: str
    threads: Count
    batch: Count
    reason: str
    sha256: str | None


class BenchRow(RowName):
    """A row that was measured; its figures may be used if its status is "ok"."""

    status: Literal["ok", "invalid"]
    runtime_version: str
    accuracy: Share | None
    calls: Count
    latency_us: Latency
    invoke_us: Latency | None
    quantiles_us: Annotated[List[Positive], (101, 101)]  # the 0th to the 100th
    throughput_ips: Positive
    rounds: Rounds
    cold_start_ms: ColdStart | None
    peak_rss_mib: Positive | None
    size_bytes: Count
    ratio_to_baseline: Positive | None
    ratio_ci95: Interval | None


class NotRunRow(RowName):
    """A row that could not be measured has no figure."""

    status: Literal["not_run"]
    runtime_version: None
    accuracy: None
    calls: None
    latency_us: None
    invoke_us: None
    quantiles_us: None
    throughput_ips: None
    rounds: None
    cold_start_ms: None
    peak_rss_mib: None
    size_bytes: None
    ratio_to_baseline: None
    ratio_ci95: None


class BenchResult(TypedDict):
    """The whole file."""

    schema_version: int
    host: Host
    method: Method
    rows: list[NotRunRow | BenchRow]
