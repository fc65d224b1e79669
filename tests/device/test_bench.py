"""The benchmark is honest: known times come out right, nothing unmeasured is said."""

import json
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import DEVICE_PYTHON, HAS_TFLITE_RUNTIME, ROOT, run_runner, write_script

from device.bench import machine, processes, rows, worker
from device.bench.processes import BenchSubject, Worker, WorkerError
from device.bench.rounds import Benchmark, Effort, Measurement
from device.runner import Classifier
from pipeline.artifacts import NATIVE_SOURCE
from pipeline.bench.result import check_result
from pipeline.files import sha256
from pipeline.progress import progress

SMALL = Effort(launches=2, rounds=3, calls=4, offline_rounds=2, cold_starts=2)


# --- Timing ---------------------------------------------------------------------------------


def test_durations_are_what_the_clock_says_around_each_call(monkeypatch):
    ticks = iter([100, 150, 1000, 1007, 2000, 2300])
    monkeypatch.setattr(worker.time, "perf_counter_ns", lambda: next(ticks))
    seen = []
    times = worker.time_calls(seen.append, [("a",), ("b",)], 3)
    assert times == [50, 7, 300]
    assert seen == ["a", "b", "a"]


def test_each_kind_of_call_is_timed_by_itself_with_the_images_of_its_batch():
    seen = {name: [] for name in ("classify", "predict", "invoke")}
    loaded = worker.Loaded(*(calls.append for calls in seen.values()), about=dict)
    loaded = loaded._replace(invoke=lambda: (seen["invoke"].append(None), time.sleep(2e-3)))
    images = np.arange(worker.INPUTS * 784, dtype=np.uint32).reshape(-1, 28, 28)
    times_ns = worker.time_burst(loaded, images, 1, 4)
    assert [len(times_ns[kind]) for kind in ("call", "invoke")] == [4, 4]
    assert min(times_ns["invoke"]) >= 2e6 > min(times_ns["call"])
    assert list(worker.time_burst(loaded, images, 64, 4)) == ["call"]
    # One more each, at first, that is not timed.
    assert [x.shape for x in seen["classify"]] == [(28, 28)] * 5
    assert [x.shape for x in seen["predict"]] == [(64, 28, 28)] * 5
    assert len(seen["invoke"]) == 5
    for calls in (seen["classify"], seen["predict"]):
        assert not np.array_equal(calls[-1], calls[-2])
    assert list(worker.time_burst(loaded._replace(invoke=None), images, 1, 4)) == ["call"]


def test_a_batch_on_the_c_is_shared_out_over_threads_that_answer_at_once_and_in_order(
    exported, mnist
):
    classifier, images = Classifier(exported / NATIVE_SOURCE), mnist.test.images[:9]
    both_are_there = threading.Barrier(2, timeout=60)

    def predict(part):
        both_are_there.wait()
        return classifier.predict(part)

    found = worker.shared_out(predict, 2)(images)
    for got, wanted in zip(found, classifier.predict(images), strict=True):
        np.testing.assert_array_equal(got, wanted)
    subject = BenchSubject(exported / NATIVE_SOURCE, "native")
    assert (subject.batches(1), subject.batches(2)) == ((1, 8, 64, 256), (8, 64, 256))


# --- Figures --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("percent", "expected"),
    [(50, 5), (90, 9), (99, 10), (100, 10), (10, 1), (1, 1), (0, 1), (51, 6)],
)
def test_nearest_rank_percentiles_of_one_to_ten(percent, expected):
    assert rows.percentile(range(1, 11), percent) == expected


def test_summary_of_hand_computed_times():
    expected = {"min": 1.0, "p50": 3.0, "p90": 90.0, "p99": 90.0, "mean": 20.0}
    assert rows.summarize_us([4000, 1000, 2000, 3000, 90_000]) == expected
    times_ns = [1000 * us for us in range(200, 0, -1)]
    assert rows.quantiles_us(times_ns) == [1.0, *range(2, 201, 2)]


# Ranks of the interval of a median, e.g. Conover, Practical Nonparametric Statistics, table A3.
@pytest.mark.parametrize(("n", "rank"), [(6, 1), (8, 1), (9, 2), (10, 2), (20, 6), (30, 10)])
def test_interval_of_a_median_has_the_tabled_ranks(n, rank):
    assert rows.median_ci95(range(1, n + 1)) == (rank, n + 1 - rank)
    assert rows.median_ci95([1, 2, 3, 4, 5]) is None


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (0.000654, "1,530 times faster"),
        (1.4, "1.4 times slower"),
        (0.998, "as fast"),
        (1.003, "as fast"),
        (1.006, "1.01 times slower"),
    ],
)
def test_ratios_are_told_in_words(ratio, words):
    assert rows.faster_or_slower(ratio) == words


@pytest.mark.parametrize(
    ("value", "text"), [(9222.6, "9,220"), (18.44, "18.4"), (0.000244, "0.000244"), (0.0, "0")]
)
def test_numbers_have_three_digits_and_no_exponent(value, text):
    assert rows.three_figures(value) == text


def measurement(name, launches_ns, threads=1, batch=1, **values):
    """All calls of a round took the same time; a launch is a time or several."""
    launches = [
        [{"call": [ns] * 3} for ns in (launch if isinstance(launch, list) else [launch])]
        for launch in launches_ns
    ]
    about = {"runtime_version": "1.0", "size_bytes": 72_000, "timer_overhead_ns": 70}
    subject = BenchSubject(Path(name), "runtime")
    return Measurement(subject, threads, batch, about, launches=launches, **values)


def test_ratio_is_taken_within_rounds_so_that_a_drift_of_the_machine_cancels():
    drift = [1, 2, 4, 8, 16, 32, 64]
    base = measurement("a.onnx", [1000 * d for d in drift])
    row = rows.measured_row(measurement("b.onnx", [3000 * d for d in drift]), base, [])
    assert (row["ratio_to_baseline"], row["ratio_ci95"]) == (3.0, (3.0, 3.0))
    assert (row["latency_us"]["min"], row["latency_us"]["p99"]) == (3.0, 192.0)


def test_the_interval_of_a_ratio_is_of_the_launches_not_of_their_many_rounds():
    base = measurement("a.onnx", [[1000] * 50] * 6)
    other = measurement("b.onnx", [[1000 * factor] * 50 for factor in (2, 3, 4, 5, 6, 7)])
    row = rows.measured_row(other, base, [])
    assert row["ratio_to_baseline"] == 4.5
    assert row["ratio_ci95"] == (2.0, 7.0)
    five = measurement("b.onnx", [[2000] * 50] * 5)
    assert rows.measured_row(five, base, [])["ratio_ci95"] is None


def test_throughput_counts_the_images_of_a_batch():
    row = rows.measured_row(measurement("b.onnx", [64_000, 128_000], batch=64), None, [])
    assert row["throughput_ips"] == pytest.approx(64 / 96e-6, abs=0.1)


@pytest.mark.parametrize(
    ("found", "failed", "reason"),
    [
        ({"throttling": "under-voltage"}, 0, "under-voltage"),
        ({"reason": "crashed (signal 11)"}, 0, "crashed (signal 11)"),
        ({}, 2, "2 of 3 cold starts failed"),
    ],
)
def test_throttled_or_crashed_rows_are_invalid_and_say_why(found, failed, reason):
    start = dict.fromkeys(("interpreter", "import", "load", "first", "total"), 5.0)
    cold = [{**start, "peak_rss_mib": 9.0}, *[{}] * failed]
    row = rows.measured_row(measurement("a", [1], **found), None, cold)
    assert (row["status"], row["reason"]) == ("invalid", reason)
    assert row["cold_start_ms"]["processes"] == 1


# --- The state of the machine ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (0, 0, ""),
        (None, None, ""),
        (0x50000, 0x50000, ""),  # long ago
        (0, 0x40000, "throttled"),  # came and went
        (0x4, 0x40004, "throttled"),
        (0x10000, 0x50001, "under-voltage, throttled"),
        (0, 0x8, "soft temperature limit"),
    ],
)
def test_throttling_between_two_states(before, after, why):
    states = [{"throttled": before}, {"throttled": after}]
    assert machine.throttling_between(*states) == why


@pytest.mark.parametrize(
    ("answer", "bits"),
    [
        ("throttled=0x0", 0),
        ("throttled=0x50005", 0x50005),
        ("throttled=", None),
        ("VCHI initialization failed", None),
    ],
)
def test_vcgencmd_is_asked_where_there_is_one(tmp_path, monkeypatch, answer, bits):
    write_script(tmp_path / "vcgencmd", f'[ "$1" = get_throttled ] && echo "{answer}"')
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert machine.machine_state()["throttled"] == bits


# --- Rounds ---------------------------------------------------------------------------------


def benchmark(*subjects, images=(), labels=()):
    return Benchmark(subjects, SMALL, np.asarray(images), np.asarray(labels), progress)


class Recorder:
    """Stands for a worker: it notes when it is asked."""

    def __init__(self, name, log, dies_in_round=None):
        self.name, self.log, self.dies_in_round, self.asked = name, log, dies_in_round, 0
        self.subject = BenchSubject(Path(name), "runtime")

    def ask(self, **request):
        self.asked += 1
        if self.asked == self.dies_in_round:
            raise WorkerError("crashed (signal 11)")
        self.log.append(self.name)
        return {"call": [1000]}


def recorded_rounds(names, count, **dies_in_round):
    log, bench = [], benchmark()
    pairs = [(Recorder(n, log, dies_in_round.get(n)), measurement(n, [[]])) for n in names]
    for _ in range(count):
        bench.run_round(pairs, 1)
    return log, [pair[1] for pair in pairs]


def test_every_round_asks_each_once_in_a_new_random_order():
    log, measurements = recorded_rounds("abcd", 60)
    orders = ["".join(log[i : i + 4]) for i in range(0, 240, 4)]
    assert all(sorted(order) == list("abcd") for order in orders)
    assert len(set(orders)) > 12  # of 24
    first = [order[0] for order in orders]
    assert all(5 <= first.count(name) <= 30 for name in "abcd")
    assert [len(m.bursts) for m in measurements] == [60] * 4


def test_a_worker_that_dies_leaves_its_finished_rounds_and_the_others_go_on():
    _, (a, b) = recorded_rounds("ab", 5, b=3)
    assert len(a.bursts) == 5
    assert len(b.bursts) == 2
    assert b.reason == "crashed (signal 11)"


def test_a_worker_that_does_not_answer_is_given_up_with_its_reason(tmp_path, monkeypatch):
    (tmp_path / "hangs.py").write_text("import time\ndef main(*_): time.sleep(60)\n")
    subject = BenchSubject(Path("a"), "runtime", folder=tmp_path, module="hangs")
    monkeypatch.setattr(processes, "PATIENCE_S", 0.2)
    hanging = Worker(subject, 1, "any", tmp_path)
    for answer in (hanging.receive, lambda: hanging.ask(batch=1)):
        with pytest.raises(WorkerError, match="hung: no answer for"):
            answer()
    hanging.stop()
    assert processes.time_cold_start(subject) == {}


def test_throttling_during_the_cold_starts_makes_the_rows_that_tell_of_them_invalid(monkeypatch):
    bench = benchmark()
    bench.measurements = [measurement("a", [1]), measurement("a", [1], batch=8)]
    states = iter([{"throttled": 0}, {"throttled": 0x40000}])
    monkeypatch.setattr(machine, "machine_state", lambda: next(states))
    bench.run_cold_starts()
    throttling = [m.throttling for m in bench.measurements]
    assert throttling == ["throttled, during the cold starts", ""]


def test_an_interrupted_round_counts_for_nobody():
    class Interrupted(Recorder):
        def ask(self, **request):
            raise KeyboardInterrupt

    pairs = [(kind("a", []), measurement("a", [[]])) for kind in (Recorder, Interrupted)]
    with pytest.raises(KeyboardInterrupt):
        benchmark().run_round(pairs, 1)
    assert [len(m.bursts) for _, m in pairs] == [0, 0]


# --- Real models, real runtimes -------------------------------------------------------------

ROW_KEYS = {"artifact", "runtime", "runtime_version", "threads", "batch", "status", "reason"}
ROW_KEYS |= {"latency_us", "invoke_us", "throughput_ips", "cold_start_ms", "peak_rss_mib"}
ROW_KEYS |= {"size_bytes", "ratio_to_baseline", "ratio_ci95", "accuracy", "calls"}


@pytest.fixture(scope="module")
def measured(exported, mnist, tmp_path_factory):
    """A small run of two subjects that work and two that do not."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "damaged.onnx").write_bytes(b"damaged")
    bench = benchmark(
        BenchSubject(exported / "lenet5_fp32.onnx", "onnxruntime"),
        BenchSubject(exported / "lenet5_int8.tflite", "ai-edge-litert"),
        BenchSubject(folder / "missing.onnx", "onnxruntime"),
        BenchSubject(folder / "damaged.onnx", "onnxruntime"),
        images=mnist.test.images[:50],
        labels=mnist.test.labels[:50],
    )
    bench.run()
    return rows.describe(bench)


def test_rows_have_the_contracts_keys_and_sensible_figures(measured, exported, mnist):
    assert measured["method"]["baseline"] == "lenet5_fp32.onnx on onnxruntime"
    assert not measured["method"]["interrupted"]
    for row in measured["rows"]:
        assert row.keys() >= ROW_KEYS
    ok = [row for row in measured["rows"] if row["status"] == "ok"]
    single = rows.valid_rows(measured)
    assert [row["artifact"] for row in single] == ["lenet5_fp32.onnx", "lenet5_int8.tflite"]
    for row in ok:
        latency = row["latency_us"]
        assert 0 < latency["min"] <= latency["p50"] <= latency["p90"] <= latency["p99"]
    for row in single:
        assert row["calls"] == SMALL.launches * SMALL.rounds * SMALL.calls
        assert [len(launch) for launch in row["rounds_us"]] == [SMALL.rounds] * 2
        parts = row["cold_start_ms"]
        assert parts["total"] >= max(parts[part] for part in ("import", "load", "first"))
        assert parts["processes"] == SMALL.cold_starts
        assert row["peak_rss_mib"] > 10
        assert row["invoke_us"]["min"] > 0
        assert row["runtime_version"]
        classifier = Classifier(exported / row["artifact"], row["runtime"])  # that is timed
        predicted = classifier.predict(mnist.test.images[:50]).labels
        assert row["accuracy"] == (predicted == mnist.test.labels[:50]).mean()
    assert single[0]["ratio_to_baseline"] == 1.0
    assert {row["batch"] for row in ok} == {1, 8, 64, 256}


def test_what_is_written_is_what_the_report_and_a_comparison_accept(measured, exported):
    written = json.loads(json.dumps(measured))
    assert check_result(written, "bench.json") == written
    hashes = {row["artifact"]: row["sha256"] for row in measured["rows"]}
    assert hashes["lenet5_int8.tflite"] == sha256(exported / "lenet5_int8.tflite")
    assert hashes["missing.onnx"] is None


def test_what_cannot_run_is_not_run_with_its_reason(measured):
    reasons = {"missing.onnx": "no such model", "damaged.onnx": "not a model of this project"}
    not_run = [row for row in measured["rows"] if row["status"] == "not_run"]
    assert [row["artifact"] for row in not_run] == list(reasons)
    for row in not_run:
        assert reasons[row["artifact"]] in row["reason"]
        assert row["latency_us"] is None


def test_tables_show_each_row_and_leave_the_baseline_uncompared(measured):
    onnx, litert, *not_run = rows.table_cells(measured)
    assert onnx[:2] == ["lenet5_fp32.onnx", "onnxruntime"]
    assert onnx[-1] == ""
    assert re.search("as fast|times (faster|slower)$", litert[-1])
    assert [cells[3:] for cells in not_run] == [["not_run", "", "", ""]] * 2
    text = rows.format_result(measured)
    assert "missing.onnx on onnxruntime: not_run: " in text
    assert "baseline: lenet5_fp32.onnx on onnxruntime; each row has at least 24 timed calls" in text


def test_bench_of_the_runner_prints_the_tables_and_exits_0(exported):
    run = run_runner("bench", "--model", exported / NATIVE_SOURCE)
    assert run.returncode == 0, run.stderr
    header, row, *_ = run.stdout.splitlines()
    assert header.startswith("artifact ")
    assert re.match(rf"{NATIVE_SOURCE} +native  +\d+\.\d  +\d", row)  # no accuracy: noise


def test_every_model_of_a_folder_is_timed_on_every_runtime_and_ctrl_c_keeps_the_finished_rounds(
    exported, tmp_path, mnist
):
    for name in ("lenet5_fp32.tflite", "lenet5_int8.onnx"):
        (tmp_path / name).write_bytes((exported / name).read_bytes())
    images, labels = mnist.test.images[:8], mnist.test.labels[:8]
    predicted = Classifier(exported / "lenet5_fp32.tflite").predict(images).labels
    np.savez(tmp_path / "golden.npz", images=images, labels=labels)
    process = subprocess.Popen(
        [DEVICE_PYTHON, ROOT / "device" / "runner.py", "bench", "--json", "--model", tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stderr:
        if re.search(r"1 thread (\d+)/\1 ", line):
            break
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    result = json.loads(output)
    assert result["method"]["interrupted"] is True
    ran = {(row["artifact"], row["runtime"]): row for row in rows.single_rows(result)}
    tflite = ["ai-edge-litert", *(["tflite-runtime"] if HAS_TFLITE_RUNTIME else [])]
    expected = {("lenet5_fp32.tflite", name) for name in tflite}
    assert ran.keys() == expected | {("lenet5_int8.onnx", "onnxruntime")}
    assert {row["calls"] for row in ran.values()} == {6 * 10 * 128}
    accuracy = ran["lenet5_fp32.tflite", tflite[-1]]["accuracy"]
    assert accuracy == (predicted == labels).mean()


def test_a_missing_model_and_damaged_golden_vectors_are_one_line(exported, tmp_path):
    np.savez(tmp_path / "golden.npz", images=np.ones((3, 28, 28), np.uint8))
    (tmp_path / "lenet5_fp32.onnx").write_bytes((exported / "lenet5_fp32.onnx").read_bytes())
    for model, said in (
        (tmp_path, f"{tmp_path}/golden.npz: damaged; unpack the bundle again"),
        (tmp_path / "none.tflite", f"{tmp_path}/none.tflite: no such model; name one with --model"),
    ):
        run = run_runner("bench", "--model", model)
        assert (run.returncode, run.stderr) == (2, f"runner.py: {said}\n")
