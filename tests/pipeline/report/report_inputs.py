"""Results of every kind for a folder of artifacts, small and with figures that are known."""

import json
from dataclasses import asdict
from pathlib import Path

from pipeline.files import sha256, write_json
from pipeline.pi_test.matrix import PiCell, PiMatrix
from pipeline.studies import photos

P50_US = {
    "keras": 9000.0,
    "tflite-runtime": 20.0,
    "ai-edge-litert": 18.0,
    "onnxruntime": 50.0,
    "native": 2.0,
}


def write_measured(folder):
    """Write a small result of each measurement, of the artifacts that are there."""
    training = json.loads((folder / "train.json").read_text())
    training["confidence"]["threshold"] = 0.9  # so small a data set has none
    write_json(folder / "train.json", training)
    write_json(folder / "bench.json", bench(folder))
    write_json(folder / "bench-pi.json", {**bench(folder), "rows": bench(folder)["rows"][1:]})
    write_json(folder / "robustness.json", robustness(folder))
    write_json(folder / "photos.json", photo_results(folder))
    write_json(folder / "pi-matrix.json", pi_matrix(folder))
    write_json(folder / "devices" / "pi.json", receipt())


def bench(folder):
    parity = json.loads((folder / "parity.json").read_text())
    subjects = [("lenet5.keras", "keras", parity["reference"]["accuracy"])]
    subjects += [
        (row["artifact"], row["runtime"], row["accuracy"])
        for row in parity["rows"]
        if row["runtime"] in P50_US
    ]
    rows = [bench_row(folder, *subject) for subject in subjects]
    name = {**rows[1], "runtime": "absent", "status": "not_run", "reason": "none"}
    kept = ("artifact", "runtime", "threads", "batch", "status", "reason", "sha256")
    rows.append({key: name[key] if key in kept else None for key in name})
    rows.append({**rows[2], "threads": 2, "batch": 64, "ratio_to_baseline": None})
    state = dict.fromkeys(("load_1min", "clock_mhz", "temperature_c", "throttled"))
    return {
        "schema_version": 3,
        "host": {
            **{"board": "b", "cpu": "a processor", "cores": 2, "isa_flags": ["neon", "crc32"]},
            **{"governor": "", "system": "s", "python": "3.11", "numpy": "2.4"},
            **{"before": state, "after": state},
        },
        "method": {
            **{"baseline": "lenet5.keras on keras", "launches": 6, "rounds_per_launch": 1},
            **{"calls_per_round": 17, "images": 2000, "pinned_core": 1, "timer_overhead_ns": 70},
            **{"p90_confidence": "c", "seconds": 9, "interrupted": False},
            "notes": ["image in, label out"],
        },
        "rows": rows,
    }


def bench_row(folder, artifact, runtime, accuracy):
    p50 = P50_US[runtime]
    latency_us = {"min": p50 - 1, "p50": p50, "p90": p50 + 1, "p99": p50 + 9, "mean": p50}
    return {
        "artifact": Path(artifact).name,
        "sha256": sha256(folder / artifact),
        "runtime": runtime,
        "runtime_version": "1.0",
        "threads": 1,
        "batch": 1,
        "status": "ok",
        "reason": "",
        "accuracy": accuracy,
        "calls": 100,
        "rounds_us": [[p50]] * 6,
        "latency_us": latency_us,
        "invoke_us": None if runtime == "keras" else latency_us,
        "quantiles_us": [p50 - 1] * 50 + [p50] + [p50 + 9] * 50,
        "throughput_ips": 1e6 / p50,
        "cold_start_ms": {
            "interpreter": 20,
            "import": 50,
            "load": 4,
            "first": 1,
            "total": 75,
            "processes": 20,
        },
        "peak_rss_mib": 40.0,
        "size_bytes": (folder / artifact).stat().st_size,
        "ratio_to_baseline": p50 / 9000,
        "ratio_ci95": [p50 / 9100, p50 / 8900],
    }


def receipt():
    row = {
        **{"artifact": "lenet5_int8.tflite", "runtime": "tflite-runtime"},
        **{"runtime_version": "2.14.0", "verified": True, "reason": ""},
        **{"latency_us": 210.0, "invoke_us": 190.0},
    }
    return {
        **{"schema_version": 1, "board": "Raspberry Pi 4", "system": "bookworm", "python": "3.11"},
        **{"time": "2026-01-01T00:00:00Z", "bundle_sha256": "0" * 64, "throttled": ""},
        **{"rows": [row], "choice": {key: row[key] for key in ("artifact", "runtime")}},
    }


def robustness(folder):
    strengths = [("none", "", 0)]
    for name, unit in (("rotation", "degrees"), ("shift", "pixels"), ("noise", "of full ink")):
        strengths += [(name, unit, 1), (name, unit, 2)]
    return {
        "models": {n: sha256(folder / n) for n in ("lenet5.keras", "lenet5_int8.tflite")},
        "rows": [
            {
                "distortion": name,
                "strength": strength,
                "unit": unit,
                "n": 2000,
                "accuracy": {"float": 0.96 - 0.1 * strength, "int8": 0.95 - 0.1 * strength},
            }
            for name, unit, strength in strengths
        ],
    }


def photo_results(folder):
    name = "lenet5_int8.tflite"
    digits = (
        photos.PhotoRow("pencil", 20, 4, 19, 0),
        photos.PhotoRow("marker", 20, 15, 20, 0),
    )
    empties = (photos.NoDigitRow("blank paper", 20, 20),)
    timings = (photos.PhotoTiming("PNG", 4000, 3000, 20_000_000, 180.0, 26.0),)
    measured = photos.PhotoBench(name, sha256(folder / name), 1, digits, empties, timings)
    return photos.as_json(measured)


def pi_matrix(folder):
    name = "lenet5_int8.tflite"
    cell = PiCell("bookworm", "arm64", "cortex-a76", "3.11.2", "tflite-runtime", "2.14.0", name)
    ran = {"loads": True, "status": "pass", "n": 2000, "accuracy": 0.95, "agreement": 1.0}
    done = PiCell(
        **{**asdict(cell), **ran, "bit_identical": True, "max_abs_dp": 0.0, "seconds": 9.0}
    )
    matrix = PiMatrix("pass", "bundle.tar.gz", "0" * 64, {name: sha256(folder / name)}, (done,))
    return asdict(matrix)
