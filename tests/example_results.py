"""Results of every measurement, small and made up by hand."""

import json
from dataclasses import asdict

from pipeline.files import sha256, write_json
from pipeline.pi_test.matrix import PiCell, PiMatrix
from pipeline.studies import photos

# --- Of the benchmark ---------------------------------------------------------------------------

START = dict.fromkeys(("interpreter", "import", "load", "first", "total"), 5.0) | {"processes": 20}
P50_US = {
    **{"keras": 9000.0, "tflite-runtime": 20.0, "ai-edge-litert": 18.0},
    **{"onnxruntime": 50.0, "native": 2.0},
}


def latency(p50_us):
    return dict.fromkeys(("min", "p50", "p90", "p99", "mean"), p50_us)


def row(artifact, runtime, p50_us, **values):
    """A row whose every launch took about the same time, in seven launches of one round."""
    rounds = [[p50_us * factor] for factor in (0.99, 1.0, 1.01, 1.0, 1.0, 0.99, 1.01)]
    return {
        **{"artifact": artifact, "runtime": runtime, "sha256": "0" * 64, "runtime_version": "1.0"},
        **{"threads": 1, "batch": 1, "status": "ok", "reason": "", "accuracy": 0.99, "calls": 100},
        **{"size_bytes": 72_000 if "int8" in artifact else 250_000, "rounds_us": rounds},
        **{"latency_us": latency(p50_us), "invoke_us": None, "throughput_ips": 1e6 / p50_us},
        "quantiles_us": [p50_us * (0.9 + 0.002 * i) for i in range(101)],
        **{"cold_start_ms": None, "peak_rss_mib": None},
        **{"ratio_to_baseline": 1.0, "ratio_ci95": None},
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
            **{"baseline": "lenet5.keras on keras", "launches": 7, "rounds_per_launch": 1},
            **{"calls_per_round": 9, "images": 100, "pinned_core": 1, "timer_overhead_ns": 70.0},
            **{"seconds": 9.0, "p90_confidence": "c", "interrupted": False, "notes": ["n"]},
        },
        "rows": list(rows),
    }


# --- Of every kind, for a folder of artifacts -----------------------------------------------------


def change(path, **values):
    """Replace some values of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def write_measured(folder):
    """Write a small result of each measurement, of the artifacts that are there."""
    measured = bench(folder)
    write_json(folder / "bench.json", measured)
    write_json(folder / "bench-pi.json", {**measured, "rows": measured["rows"][1:]})
    write_json(folder / "robustness.json", robustness(folder))
    write_json(folder / "photos.json", photo_results(folder))
    write_json(folder / "pi-matrix.json", pi_matrix(folder))
    write_json(folder / "devices" / "pi.json", receipt(folder))


def bench(folder):
    parity = json.loads((folder / "parity.json").read_text())
    rows = []
    for judged in ({**parity["reference"], "runtime": "keras"}, *parity["rows"]):
        path, runtime = folder / judged["artifact"], judged["runtime"]
        if runtime in P50_US:
            p50_us = P50_US[runtime]
            figures = {"accuracy": judged["accuracy"], "ratio_to_baseline": p50_us / 9000}
            figures |= {"sha256": sha256(path), "size_bytes": path.stat().st_size}
            figures |= {"cold_start_ms": START, "peak_rss_mib": 40.0}
            rows.append(row(path.name, runtime, p50_us, **figures))
    rows.append(not_run("lenet5_fp32.tflite", "absent", "none"))
    rows.append({**rows[2], "threads": 2, "batch": 64, "ratio_to_baseline": None})
    return result(*rows)


def receipt(folder):
    chosen = {"artifact": "lenet5_int8.tflite", "runtime": "tflite-runtime"}
    verified = {"sha256": sha256(folder / chosen["artifact"]), "runtime_version": "2.14.0"}
    verified |= {"verified": True, "reason": ""}
    return {
        **{"schema_version": 1, "board": "Raspberry Pi 4", "system": "bookworm", "python": "3.11"},
        **{"time": "2026-01-01T00:00:00Z", "bundle_sha256": "0" * 64, "throttled": ""},
        "rows": [{**chosen, **verified, "latency_us": 210.0, "invoke_us": 190.0}],
        "choice": chosen,
    }


def robustness(folder):
    units = {"rotation": "degrees", "shift": "pixels", "noise": "of full ink"}
    strengths = [("none", "", 0), *((*of, s) for of in units.items() for s in (1, 2))]
    return {
        "models": {n: sha256(folder / n) for n in ("lenet5.keras", "lenet5_int8.tflite")},
        "rows": [
            {
                **{"distortion": name, "strength": strength, "unit": unit, "n": 2000},
                "accuracy": {"float": 0.96 - 0.1 * strength, "int8": 0.95 - 0.1 * strength},
            }
            for name, unit, strength in strengths
        ],
    }


def photo_results(folder):
    name = "lenet5_int8.tflite"
    digits = photos.PhotoRow("pencil", 20, 4, 19, 0), photos.PhotoRow("marker", 20, 15, 20, 0)
    empties = (photos.NoDigitRow("blank paper", 20, 20),)
    timings = (photos.PhotoTiming("PNG", 4000, 3000, 20_000_000, 180.0, 26.0),)
    return photos.as_json(folder / name, digits, empties, timings)


def pi_matrix(folder):
    name = "lenet5_int8.tflite"
    cell = PiCell(
        *("bookworm", "arm64", "cortex-a76", "3.11.2", "tflite-runtime", "2.14.0", name),
        **{"loads": True, "status": "pass", "n": 2000, "accuracy": 0.95, "agreement": 1.0},
        **{"bit_identical": True, "max_abs_dp": 0.0, "seconds": 9.0},
    )
    models = {name: sha256(folder / name)}
    return asdict(PiMatrix("pass", "bundle.tar.gz", "0" * 64, models, (cell,)))


def seed_figures(float_accuracy, int8_accuracy, number=1):
    """One seed's part of docs/accuracy.json."""
    sure, shares = {"coverage": 0.98, "error": 0.001}, {"float": 0.9, "int8": 0.8}
    int8 = {"runtime": "tflite-runtime 2.14.0", "accuracy": int8_accuracy, "agreement": 0.9995}
    int8 |= {"loss_pp": 100 * (float_accuracy - int8_accuracy), "calibration_error": 0.004}
    return {
        **{"seed": number, "seconds": 10.0 * number, "teacher_seconds": 1200.0, "parity": "pass"},
        **{"val_accuracy": 0.995, "confidence": {"threshold": 0.5}},
        "float": {"accuracy": float_accuracy, "calibration_error": 0.002, "sure": sure},
        "artifacts": {"lenet5_int8.tflite": {**int8, "sure": sure}},
        **{"wild": {"hooked ones": shares}, "non_digits_sure": {"letters": shares}},
    }
