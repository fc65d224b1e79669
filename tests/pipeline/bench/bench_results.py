"""Results of the benchmark, made up by hand."""


def row(artifact, runtime, p50_us, **values):
    """A row whose every launch took about the same time, in seven launches of one round."""
    rounds = [[p50_us * factor] for factor in (0.99, 1.0, 1.01, 1.0, 1.0, 0.99, 1.01)]
    return {
        "artifact": artifact,
        "runtime": runtime,
        "sha256": "0" * 64,
        "runtime_version": "1.0",
        "threads": 1,
        "batch": 1,
        "status": "ok",
        "reason": "",
        "accuracy": 0.99,
        "calls": 100,
        "quantiles_us": [p50_us] * 101,
        "size_bytes": 72_000 if "int8" in artifact else 250_000,
        "latency_us": dict.fromkeys(("min", "p50", "p90", "p99", "mean"), p50_us),
        "invoke_us": None,
        "throughput_ips": 1e6 / p50_us,
        "cold_start_ms": None,
        "peak_rss_mib": None,
        "ratio_to_baseline": 1.0,
        "ratio_ci95": None,
        "rounds_us": rounds,
        **values,
    }


def not_run(artifact, runtime, reason):
    """A row that has its name alone."""
    nothing = dict.fromkeys(row(artifact, runtime, 1.0))
    name = {"artifact": artifact, "runtime": runtime, "threads": 1, "batch": 1, "sha256": None}
    return {**nothing, **name, "status": "not_run", "reason": reason}


def result(*rows, cpu="one"):
    state = dict.fromkeys(("load_1min", "clock_mhz", "temperature_c", "throttled"))
    return {
        "schema_version": 3,
        "host": {
            **dict.fromkeys(("board", "governor", "system", "numpy"), "x"),
            **{"cpu": cpu, "cores": 2, "isa_flags": ["sse2"], "python": "3.11"},
            **{"before": state, "after": state},
        },
        "method": {
            **{"baseline": "k", "launches": 7, "rounds_per_launch": 1, "calls_per_round": 9},
            **{"images": 100, "pinned_core": 1, "timer_overhead_ns": 70.0, "seconds": 9.0},
            **{"p90_confidence": "c", "interrupted": False, "notes": ["n"]},
        },
        "rows": list(rows),
    }
