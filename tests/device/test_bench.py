"""The benchmark is honest: known times come out right, nothing unmeasured is said."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import DEVICE_PYTHON, ROOT, run_runner, run_stage
from device.bench_rounds import Cell, Effort, Session, Subject

from device import bench, bench_command, bench_rounds, bench_rows, machine, runner
from pipeline.progress import progress

SMALL = Effort(launches=2, rounds=3, calls=4, offline_rounds=2, cold_starts=2)


# --- Timing ---------------------------------------------------------------------------------


def test_durations_are_what_the_clock_says_around_each_call():
    ticks = iter([100, 150, 1000, 1007, 2000, 2300])
    seen = []
    times = bench.time_calls(seen.append, [("a",), ("b",)], 3, lambda: next(ticks))
    assert times == [50, 7, 300]
    assert seen == ["a", "b", "a"]


def test_calls_that_take_too_long_end_the_burst():
    ticks = iter([0, 6 * 10**8, 10**9, 16 * 10**8])
    times_ns = bench.time_calls(int, [()], 9, lambda: next(ticks), limit_ns=10**9)
    assert times_ns == [6 * 10**8, 6 * 10**8]


def test_setting_the_input_is_outside_the_timed_part():
    events = []

    def clock():
        events.append("clock")
        return 0

    def invoke():
        events.append("invoke")

    bench.time_calls(invoke, [("x",)], 1, clock, set_input=lambda image: events.append("set"))
    assert events == ["set", "clock", "invoke", "clock"]


class BusyClassifier:
    """Answers after a known time, as far as this machine's own clock can tell."""

    def __init__(self, busy_ns):
        self.busy_ns, self.taken_ns, self.session, self.batch = busy_ns, [], self, 8

    def predict(self, image):
        start = time.perf_counter_ns()
        while time.perf_counter_ns() - start < self.busy_ns:
            pass
        self.taken_ns.append(time.perf_counter_ns() - start)

    def prepare(self, images):
        return images[..., np.newaxis]

    def run_batch(self, images):
        self.predict(images)


@pytest.mark.parametrize("batch", [1, 8])
def test_a_runtime_that_takes_a_known_time_comes_out_right_within_5_percent(batch):
    classifier = BusyClassifier(200_000)
    images = np.zeros((4, 28, 28), np.uint8)
    times_ns = bench.Timing(classifier, images, None).burst(batch, 50)["call"]
    # The call by its own account: whatever else the machine does is in both.
    own_ns = classifier.taken_ns[-50:]
    assert np.median(times_ns) == pytest.approx(np.median(own_ns), rel=0.05)
    assert np.median(times_ns) >= 200_000


def test_accuracy_ends_at_its_limit_and_says_of_how_many_images_it_is():
    classifier = BusyClassifier(0)
    classifier.run_batch = lambda images: np.eye(10)[[3] * len(images)]
    images, labels = np.zeros((10, 28, 28), np.uint8), np.array([3, 3, 3, 1, 3, 3, 3, 3, 3, 3])
    timing = bench.Timing(classifier, images, labels)
    assert timing.accuracy(4, 10, float("inf")) == {"accuracy": 0.9, "images": 10}
    assert timing.accuracy(4, 10, 0) == {"accuracy": 0.75, "images": 4}
    unlabelled = bench.Timing(classifier, images, None)
    assert unlabelled.accuracy(4, 10, 0) == {"accuracy": None, "images": 0}


def test_timer_overhead_is_measured():
    assert 0 < bench.timer_overhead_ns() < 100_000


# --- Figures --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("percent", "expected"), [(50, 5), (90, 9), (99, 10), (100, 10), (10, 1), (1, 1), (51, 6)]
)
def test_nearest_rank_percentiles_of_one_to_ten(percent, expected):
    assert bench_rows.percentile(range(1, 11), percent) == expected


def test_summary_of_hand_computed_times():
    times_ns = [4000, 1000, 2000, 3000, 90_000]
    assert bench_rows.summarize_us(times_ns) == {
        "min": 1.0,
        "p50": 3.0,
        "p90": 90.0,
        "p99": 90.0,
        "mean": 20.0,
    }


# Ranks of the interval of a median, e.g. Conover, Practical Nonparametric Statistics, table A3.
@pytest.mark.parametrize(("n", "rank"), [(6, 1), (8, 1), (9, 2), (10, 2), (20, 6), (30, 10)])
def test_interval_of_a_median_has_the_tabled_ranks(n, rank):
    assert bench_rows.median_ci95(range(1, n + 1)) == (rank, n + 1 - rank)


def test_fewer_than_six_values_have_no_interval():
    assert bench_rows.median_ci95([1, 2, 3, 4, 5]) is None


def cell(name, launches_ns, threads=1, batch=1, **values):
    """A cell in which all calls of a round took the same time; a launch is a time or several."""
    launches = [
        [{"call": [ns] * 3} for ns in (launch if isinstance(launch, list) else [launch])]
        for launch in launches_ns
    ]
    subject = Subject(Path(name), "runtime")
    return Cell(subject, threads, batch, "1.0", 72_000, 70, launches=launches, **values)


def test_ratio_is_taken_within_rounds_so_that_a_drift_of_the_machine_cancels():
    drift = [1, 2, 4, 8, 16, 32, 64]
    base = cell("a.onnx", [1000 * d for d in drift])
    row = bench_rows.describe_cell(cell("b.onnx", [3000 * d for d in drift]), base, [])
    assert row["ratio_to_baseline"] == 3.0
    assert row["ratio_ci95"] == (3.0, 3.0)
    assert row["latency_us"]["min"] == 3.0
    assert row["latency_us"]["p99"] == 192.0


def test_the_interval_of_a_ratio_is_of_the_launches_not_of_their_many_rounds():
    base = cell("a.onnx", [[1000] * 50] * 6)
    other = cell("b.onnx", [[1000 * factor] * 50 for factor in (2, 3, 4, 5, 6, 7)])
    row = bench_rows.describe_cell(other, base, [])
    assert row["ratio_to_baseline"] == 4.5
    assert row["ratio_ci95"] == (2.0, 7.0)
    assert row["rounds"]["p50_ci95_us"] == (2.0, 7.0)
    five = cell("b.onnx", [[2000] * 50] * 5)
    assert bench_rows.describe_cell(five, base, [])["ratio_ci95"] is None


def test_cold_starts_that_fail_make_a_row_invalid():
    start = dict.fromkeys(("interpreter", "import", "load", "first", "total"), 5.0)
    cold = [{**start, "peak_rss_mib": 9.0}, {}, {}]
    base = cell("a", [1])
    row = bench_rows.describe_cell(base, base, cold)
    assert (row["status"], row["reason"]) == ("invalid", "2 of 3 cold starts failed")
    assert row["cold_start_ms"]["processes"] == 1


def test_throughput_counts_the_images_of_a_batch():
    row = bench_rows.describe_cell(cell("b.onnx", [64_000, 128_000], batch=64), None, [])
    assert row["throughput_ips"] == pytest.approx(64 / 96e-6, abs=0.1)


def test_throttled_or_crashed_rows_are_invalid_and_say_why():
    throttled = bench_rows.describe_cell(cell("a", [1], throttling="under-voltage"), None, [])
    crashed = bench_rows.describe_cell(cell("a", [1], reason="crashed (signal 11)"), None, [])
    assert (throttled["status"], throttled["reason"]) == ("invalid", "under-voltage")
    assert (crashed["status"], crashed["reason"]) == ("invalid", "crashed (signal 11)")


def test_confidence_of_p90_is_by_the_fewest_calls_that_were_made():
    many, few = cell("a", [1]), cell("b", [1])
    many.launches, few.launches = [[{"call": [1] * 24_576}]], [[{"call": [1] * 8_000}] * 2]
    offline = cell("a", [1], threads=2)
    said = [
        bench_rows.describe_method(bench_rounds.FULL, "any", cells)["p90_confidence"]
        for cells in ([many, few, offline], [many, offline], [])
    ]
    rule = "the 24,576 of MLPerf's rule for p90 at 99 % confidence"
    assert said == [
        f"16,000, the fewest calls of a row, are below {rule}",
        f"24,576, the fewest calls of a row, reach {rule}",
        f"0, the fewest calls of a row, are below {rule}",
    ]


# --- The state of the machine ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("throttled=0x0\n", 0),
        ("throttled=0x50005\n", 0x50005),
        ("throttled=0xE0000", 0xE0000),
        ("VCHI initialization failed", None),
        ("throttled=", None),
        ("", None),
    ],
)
def test_answer_of_vcgencmd(text, bits):
    assert machine.parse_throttled(text) == bits


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


def test_vcgencmd_is_asked_where_there_is_one(tmp_path, monkeypatch):
    fake = tmp_path / "vcgencmd"
    fake.write_text('#!/bin/sh\n[ "$1" = get_throttled ] && echo throttled=0x20002\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert machine.machine_state()["throttled"] == 0x20002


# --- What a runtime is kept from ------------------------------------------------------------


def test_litert_is_timed_without_its_delegate_and_without_amx_where_the_processor_has_it():
    litert = "ai-edge-litert"
    assert bench.variants("onnxruntime", ["amx_int8"]) == ("onnxruntime",)
    assert bench.variants(litert, ["sse2"]) == (litert, f"{litert} without XNNPACK")
    assert bench.variants(litert, ["amx_int8"])[2:] == (f"{litert} without AMX",)
    assert {bench.runtime_of(v) for v in bench.variants(litert, ["amx_int8"])} == {litert}


ASK_FOR_AMX = """
import ctypes, errno, sys
sys.path.insert(0, sys.argv[1])
import amx
amx.deny()
libc = ctypes.CDLL(None, use_errno=True)
for operation in (0x1023, 0x1024):  # ARCH_REQ_XCOMP_PERM, and another
    libc.syscall(*map(ctypes.c_long, (158, operation, 18)))
    print(errno.errorcode[ctypes.get_errno()])
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="AMX is of x86-64")
def test_linux_refuses_amx_and_nothing_else_to_a_process_that_is_kept_from_it():
    command = [sys.executable, "-c", ASK_FOR_AMX, ROOT / "device"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    refused, other = run.stdout.split()
    assert refused == "EPERM"
    assert other != "EPERM"


# --- Rounds ---------------------------------------------------------------------------------


class Recorder:
    """Stands for a worker: it notes when it is asked."""

    def __init__(self, name, log, dies_in_round=None):
        self.name, self.log, self.dies_in_round, self.asked = name, log, dies_in_round, 0

    def ask(self, **request):
        self.asked += 1
        if self.asked == self.dies_in_round:
            raise bench_rounds.WorkerError("crashed (signal 11)")
        self.log.append(self.name)
        return {"call": [1000]}


def recorded_session(names, rounds, **options):
    log = []
    session = Session([], SMALL, np.zeros((1, 28, 28), np.uint8), None, machine, progress)
    pairs = [(Recorder(name, log, options.get(name)), cell(name, [[]])) for name in names]
    for _ in range(rounds):
        session.run_round(pairs, 1)
    return log, [pair[1] for pair in pairs]


def test_every_round_asks_each_once_and_the_order_is_shuffled_anew():
    log, cells = recorded_session("abcd", 60)
    rounds = ["".join(log[i : i + 4]) for i in range(0, 240, 4)]
    assert all(sorted(order) == list("abcd") for order in rounds)
    assert len(set(rounds)) > 12  # of 24 orders
    first = [order[0] for order in rounds]
    assert all(5 <= first.count(name) <= 30 for name in "abcd")
    assert [len(c.rounds) for c in cells] == [60] * 4


def test_a_worker_that_dies_leaves_its_finished_rounds_and_the_others_go_on():
    _, (a, b) = recorded_session("ab", 5, b=3)
    assert len(a.rounds) == 5
    assert len(b.rounds) == 2
    assert b.reason == "crashed (signal 11)"


def test_a_worker_that_does_not_answer_is_given_up_with_its_reason(tmp_path, monkeypatch):
    (tmp_path / "hangs.py").write_text("import time\ndef main(*_): time.sleep(60)\n")
    subject = Subject(Path("a"), "runtime", folder=tmp_path, module="hangs")
    monkeypatch.setattr(bench_rounds, "PATIENCE_S", 0.2)
    worker = bench_rounds.Worker(subject, 1, "any", tmp_path)
    for answer in (worker.receive, lambda: worker.ask(batch=1)):
        with pytest.raises(bench_rounds.WorkerError, match="hung: no answer for"):
            answer()
    worker.stop()
    assert bench_rounds.time_cold_start(subject) == {}


def test_throttling_during_the_cold_starts_makes_the_rows_that_tell_of_them_invalid(monkeypatch):
    session = Session([], SMALL, np.zeros((1, 28, 28), np.uint8), None, machine, progress)
    session.cells = [cell("a", [1]), cell("a", [1], batch=8)]
    states = iter([{"throttled": 0}, {"throttled": 0x40000}])
    monkeypatch.setattr(machine, "machine_state", lambda: next(states))
    session.run_cold_starts()
    assert [c.throttling for c in session.cells] == ["throttled, during the cold starts", ""]


def test_an_interrupted_round_counts_for_nobody():
    session = Session([], SMALL, np.zeros((1, 28, 28), np.uint8), None, machine, progress)

    class Interrupted(Recorder):
        def ask(self, **request):
            raise KeyboardInterrupt

    pairs = [(Recorder("a", []), cell("a", [[]])), (Interrupted("b", []), cell("b", [[]]))]
    with pytest.raises(KeyboardInterrupt):
        session.run_round(pairs, 1)
    assert [len(c.rounds) for _, c in pairs] == [0, 0]


# --- Real models, real runtimes -------------------------------------------------------------

ROW_KEYS = {"artifact", "runtime", "runtime_version", "threads", "batch", "status", "reason"}
ROW_KEYS |= {"latency_us", "invoke_us", "throughput_ips", "cold_start_ms", "peak_rss_mib"}
ROW_KEYS |= {"size_bytes", "ratio_to_baseline", "ratio_ci95", "accuracy", "calls"}


@pytest.fixture(scope="module")
def measured(exported, mnist):
    """A small run of two subjects that work and one that does not."""
    subjects = [
        Subject(exported / "lenet5_fp32.onnx", "onnxruntime"),
        Subject(exported / "lenet5_int8.tflite", "ai-edge-litert" + bench.WITHOUT_XNNPACK),
        Subject(exported / "lenet5_fp32.tflite", "ai-edge-litert" + bench.WITHOUT_AMX),
        Subject(exported / "missing.onnx", "onnxruntime"),
    ]
    images, labels = mnist.test.images[:50], mnist.test.labels[:50]
    session = Session(subjects, SMALL, images, labels, machine, progress)
    session.run()
    return bench_rows.describe(session)


def test_rows_have_the_contracts_keys_and_sensible_figures(measured):
    assert measured["method"]["baseline"] == "lenet5_fp32.onnx on onnxruntime"
    assert not measured["method"]["interrupted"]
    for row in measured["rows"]:
        assert row.keys() >= ROW_KEYS
    ok = [row for row in measured["rows"] if row["status"] == "ok"]
    single = [row for row in ok if row["threads"] == row["batch"] == 1]
    models = ["lenet5_fp32.onnx", "lenet5_int8.tflite", "lenet5_fp32.tflite"]
    assert [row["artifact"] for row in single] == models
    for row in ok:
        assert row["accuracy"] > 0.7
        latency = row["latency_us"]
        assert 0 < latency["min"] <= latency["p50"] <= latency["p90"] <= latency["p99"]
    for row in single:
        assert row["calls"] == SMALL.launches * SMALL.rounds * SMALL.calls
        assert [len(launch) for launch in row["rounds"]["p50_us"]] == [SMALL.rounds] * 2
        parts = row["cold_start_ms"]
        assert parts["total"] >= max(parts[part] for part in ("import", "load", "first"))
        assert parts["processes"] == SMALL.cold_starts
        assert row["peak_rss_mib"] > 10
        assert row["accuracy"] > 0.7
        assert row["invoke_us"]["min"] > 0
        assert row["runtime_version"]
    assert single[0]["ratio_to_baseline"] == 1.0
    assert {row["batch"] for row in ok} == {1, 8, 64, 256}


def test_accuracy_is_by_the_calls_that_are_timed(measured, exported, mnist):
    from device.runner import Classifier

    predicted = Classifier(exported / "lenet5_fp32.onnx").predict(mnist.test.images[:50]).labels
    expected = (predicted == mnist.test.labels[:50]).mean()
    rows = [row for row in measured["rows"] if row["artifact"] == "lenet5_fp32.onnx"]
    assert {row["accuracy"] for row in rows if row["accuracy_images"] == 50} == {expected}


def test_what_cannot_run_is_not_run_with_its_reason(measured):
    (row,) = [row for row in measured["rows"] if row["artifact"] == "missing.onnx"]
    assert row["status"] == "not_run"
    assert "no such model" in row["reason"]
    assert row["latency_us"] is None


def test_bench_of_the_runner_times_every_model_of_a_folder_in_the_device_environment(
    exported, tmp_path, device_python
):
    for name in ("lenet5_fp32.tflite", "lenet5_int8.onnx"):
        (tmp_path / name).write_bytes((exported / name).read_bytes())
    run = run_runner("bench", "--json", "--model", tmp_path, python=DEVICE_PYTHON)
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    assert {row["artifact"] for row in result["rows"]} == {"lenet5_fp32.tflite"}  # no onnxruntime
    assert result["rows"][0]["runtime"] == "tflite-runtime"
    assert result["photo"]["find_us"]["p50"] > 0
    assert result["host"]["kernel"]


def test_runner_alone_says_that_bench_needs_the_bundle(exported, tmp_path):
    for path in (ROOT / "device" / "runner.py", exported / "lenet5_fp32.onnx"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    run = run_runner("bench", runner=tmp_path / "runner.py")
    assert run.returncode == 2
    assert "bench works in an unpacked bundle" in run.stderr
    assert len(run.stderr.splitlines()) == 1


GOLDEN = {"images": np.ones((3, 28, 28), np.uint8), "labels": np.arange(3, dtype=np.uint8)}


def test_golden_images_and_labels_are_timed_and_noise_without_labels_where_there_are_none(tmp_path):
    assert bench_command.images_to_time(runner, tmp_path)[1] is None
    np.savez(tmp_path / "golden.npz", **GOLDEN)
    images, labels = bench_command.images_to_time(runner, tmp_path)
    assert (images == GOLDEN["images"]).all()
    assert (labels == GOLDEN["labels"]).all()


def write_golden(path, form):
    """Damaged golden vectors of some form."""
    arrays = {
        "no labels": {"images": GOLDEN["images"]},
        "another shape": {**GOLDEN, "images": np.ones((3, 28), np.uint8)},
        "another type": {**GOLDEN, "images": np.ones((3, 28, 28), np.float32)},
        "fewer labels": {**GOLDEN, "labels": GOLDEN["labels"][1:]},
        "none": {"images": GOLDEN["images"][:0], "labels": GOLDEN["labels"][:0]},
    }
    if form == "an array":
        with path.open("wb") as stream:
            np.save(stream, GOLDEN["images"])
        return
    np.savez(path, **arrays.get(form, GOLDEN))
    data = bytearray(path.read_bytes())
    if form == "cut":
        del data[1000:]
    if form == "altered":
        data[400] ^= 1  # fails its CRC
    path.write_bytes(b"text" if form == "text" else data)


FORMS = ("text", "cut", "altered", "an array", "no labels", "another shape", "another type")


@pytest.mark.parametrize("form", [*FORMS, "fewer labels", "none"])
def test_damaged_golden_vectors_are_an_error_of_one_line(form, tmp_path, capsys):
    write_golden(tmp_path / "golden.npz", form)
    (tmp_path / "lenet5_fp32.onnx").touch()
    assert runner.main(["bench", "--model", str(tmp_path)]) == 2
    said = f"runner.py: {tmp_path}/golden.npz: damaged; unpack the bundle again"
    assert capsys.readouterr().err.splitlines() == [said]


def test_bench_of_the_c_model_looks_for_golden_vectors_in_the_bundles_folder(tmp_path, capsys):
    model = tmp_path / "native" / "lenet5_int8.c"
    library = runner.native_library(model)
    library.parent.mkdir(parents=True)
    for path in (model, library, tmp_path / "golden.npz"):
        path.write_bytes(b"text")
    assert runner.main(["bench", "--model", str(model)]) == 2
    assert f"{tmp_path}/golden.npz: damaged" in capsys.readouterr().err


def test_bench_of_a_missing_model_is_an_error_at_once(tmp_path, capsys):
    assert runner.main(["bench", "--model", str(tmp_path / "none.tflite")]) == 2
    said = f"runner.py: {tmp_path}/none.tflite: no such model"
    assert capsys.readouterr().err.splitlines() == [said]


def test_ctrl_c_keeps_the_finished_rounds(exported, tmp_path):
    (tmp_path / "lenet5_fp32.onnx").write_bytes((exported / "lenet5_fp32.onnx").read_bytes())
    command = [sys.executable, ROOT / "device" / "runner.py", "bench", "--json"]
    process = subprocess.Popen(
        [*command, "--model", tmp_path],
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
    result = json.loads(output)
    assert result["method"]["interrupted"] is True
    assert result["rows"][0]["calls"] == 6 * 10 * 128
    assert "Traceback" not in errors


def test_stage_bench_refuses_a_comparison_with_a_missing_file_before_it_measures(exported):
    run = run_stage("bench", "--out", exported, "--compare", exported / "none.json")
    assert run.returncode == 2
    assert run.stderr.splitlines() == [
        f"pipeline: {exported}/none.json: missing; `make bench` writes such a file"
    ]
