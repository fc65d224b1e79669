"""What a benchmark says in words, and what it says of two: from figures made up by hand."""

import json
import re

import pytest
from example_results import not_run, result, row
from helpers import run_stage

from pipeline import __main__ as pipeline_main
from pipeline.bench import compare
from pipeline.bench import run as bench
from pipeline.bench.findings import findings
from pipeline.files import UserError, only_one_run

FP32, INT8 = "lenet5_fp32.tflite", "lenet5_int8.tflite"


def test_float_that_is_faster_is_what_to_ship_and_int8_is_said_to_be_smaller():
    said = findings(
        result(
            row("lenet5.keras", "keras", 1000.0),
            row(FP32, "tflite-runtime", 20.0),
            row(INT8, "tflite-runtime", 50.0),
        )
    )
    assert said[:4] == [
        "The fastest is lenet5_fp32.tflite on tflite-runtime: a median of 20.0 µs for an image.",
        "The smallest is lenet5_int8.tflite, 72.0 kB, 3.5 times smaller; on tflite-runtime, where "
        "it is fastest, it takes 2.5 times (95 % CI 2.5 to 2.5) as long.",
        "lenet5.keras on keras takes 50 times (95 % CI 50 to 50) as long as "
        "lenet5_fp32.tflite on tflite-runtime.",
        "On tflite-runtime int8 takes 2.5 times (95 % CI 2.5 to 2.5) as long as float32 "
        "(lenet5_int8.tflite).",
    ]


def test_int8_that_is_faster_is_what_to_ship():
    said = findings(result(row(FP32, "ai-edge-litert", 90.0), row(INT8, "ai-edge-litert", 30.0)))
    assert said[0].startswith("The fastest is lenet5_int8")
    assert any(line.startswith("On ai-edge-litert float32 takes 3 times") for line in said)
    assert not any("smallest" in line for line in said)


def test_a_difference_that_the_rounds_do_not_show_is_not_claimed():
    noisy = row(INT8, "ai-edge-litert", 20.0)
    noisy["rounds_us"] = [[us] for us in (18.0, 22.0, 19.0, 21.0, 20.0, 18.5, 21.5)]
    said = findings(result(row(FP32, "ai-edge-litert", 20.0), noisy))
    assert any("take the same time" in line for line in said)
    assert "it is not shown that" in said[0]


@pytest.mark.parametrize(
    "bad",
    [row("int8", "tflite-runtime", 1.0, status="invalid"), not_run("int8", "tflite-runtime", "")],
)
def test_what_was_not_validly_measured_is_never_recommended(bad):
    said = findings(result(row(FP32, "tflite-runtime", 20.0), bad))
    assert not any("int8" in line for line in said)
    assert findings(result(bad)) == []


def test_what_reads_far_worse_than_the_best_is_named_and_left_out():
    wrong = row(INT8, "ai-edge-litert", 1.0, accuracy=0.119)
    said = findings(result(row(FP32, "ai-edge-litert", 20.0), wrong))
    assert said[0] == (
        "lenet5_int8.tflite on ai-edge-litert reads only 11.90% of the images right: it is left "
        "out of all that follows."
    )
    assert not any("int8" in line for line in said[1:])
    unlabelled = row(INT8, "ai-edge-litert", 1.0, accuracy=None)
    assert "is lenet5_int8" in findings(result(unlabelled))[0]


def test_what_no_device_can_run_is_never_recommended():
    start = dict.fromkeys(("interpreter", "import", "load", "first", "total"), 5.0)
    small = {"size_bytes": 1, "cold_start_ms": start, "peak_rss_mib": 1.0}
    said = findings(
        result(row("lenet5.keras", "keras", 1.0, **small), row(FP32, "ai-edge-litert", 20.0))
    )
    assert "is lenet5_fp32.tflite on ai-edge-litert: a median of 20.0 µs" in said[0]
    assert not any("keras" in line for line in said if "as long as" not in line)


def test_the_size_of_the_c_model_is_said_to_be_its_compiled_librarys():
    native = row("native/lenet5_int8.c", "native", 30.0, size_bytes=70_000)
    said = findings(result(row(FP32, "tflite-runtime", 20.0), native))
    assert "The smallest is native/lenet5_int8.c, 70.0 kB as a compiled library, 3.6 " in said[1]


def test_what_all_cores_gain_is_said_of_the_most_images_a_second():
    native = ("native/lenet5_int8.c", "native", 10.0)
    for one, two, gain in (
        (200_000.0, 380_000.0, "1.9 times as many as"),
        (1e5, 1.01e5, "no more than"),
    ):
        batches = [
            row(*native, batch=256, threads=threads, throughput_ips=ips)
            for threads, ips in ((1, one), (2, two))
        ]
        said = findings(result(row(*native), *batches))
        assert any(line.endswith(f"256 and 2 threads, {gain} with one thread.") for line in said)


# --- Before and after -----------------------------------------------------------------------


def compared(*pairs, **method):
    """The changes from the first row of each pair to the second; None: there is none."""
    before, after = (result(*filter(None, rows)) for rows in zip(*pairs, strict=True))
    after["method"] |= method
    return compare.compare(before, after, max_regression_pct=10.0)


@pytest.mark.parametrize(
    ("after_us", "rounds_us", "threads", "percent", "verdict"),
    [
        (100.0, None, 1, 0, ""),
        (109.0, None, 1, 9, ""),
        (112.0, None, 1, 12, "regressed"),
        (50.0, None, 1, -50, ""),
        # noise: the interval holds 0
        (150.0, (80.0, 90.0, 150.0, 150.0, 150.0, 200.0, 300.0), 1, 50, ""),
        # too few launches for an interval
        (150.0, (150.0,) * 5, 1, 50, "cannot be judged"),
        (105.0, (105.0,) * 5, 1, 5, ""),
        # all cores wait for whatever else the machine does
        (450.0, None, 2, 350, ""),
    ],
)
def test_a_row_regresses_beyond_what_is_allowed_if_its_rounds_show_it(
    after_us, rounds_us, threads, percent, verdict
):
    after = row(FP32, "r", after_us, threads=threads)
    after["rounds_us"] = [[us] for us in rounds_us] if rounds_us else after["rounds_us"]
    (change,) = compared((row(FP32, "r", 100.0, threads=threads), after))
    assert (change.percent, change.verdict) == (pytest.approx(percent), verdict)


def test_interval_of_a_change_is_from_the_ends_of_both():
    # 99 to 101 before, 198 to 202 after
    (change,) = compared((row(FP32, "r", 100.0), row(FP32, "r", 200.0)))
    assert change.percent_ci == pytest.approx((100 * (198 / 101 - 1), 100 * (202 / 99 - 1)))


def test_rows_without_a_valid_figure_are_told_by_their_status():
    a, b, c = (row(FP32, runtime, 100.0) for runtime in "abc")
    throttled = {**b, "status": "invalid", "reason": "under-voltage"}
    new = row(INT8, "new", 100.0)
    changes = compared((a, not_run(FP32, "a", "none")), (b, throttled), (c, None), (None, new))
    assert [(change.key[1], change.before, change.after, change.verdict) for change in changes] == [
        ("a", changes[0].before, "not_run", "regressed"),
        ("b", changes[1].before, "invalid", "cannot be judged"),
        ("c", changes[2].before, "missing", "regressed"),
        ("new", "missing", changes[3].after, ""),
    ]
    _, lacking = compared((a, a), (b, None), interrupted=True)
    assert (lacking.after, lacking.verdict) == ("interrupted", "cannot be judged")


def test_results_without_a_row_in_common_cannot_be_compared():
    with pytest.raises(UserError, match="no model and runtime are in both results"):
        compared((row(FP32, "r", 100.0), row(INT8, "r", 100.0)))


@pytest.mark.parametrize("percent", ["nan", "inf", "-1", "ten"])
def test_a_limit_that_cannot_be_meant_is_refused(percent, capsys):
    with pytest.raises(SystemExit) as stop:
        pipeline_main.main(["bench", "--max-regression", percent])
    assert stop.value.code == 2
    assert "--max-regression" in capsys.readouterr().err


def test_showing_a_result_needs_no_lock_and_leaves_the_output_folder_as_it_is(tmp_path, capsys):
    shown, timings = tmp_path / "b.json", tmp_path / "timings.json"
    shown.write_text(json.dumps(result(row(FP32, "tflite-runtime", 20.0))))
    timings.write_text('{"bench": 300.0}')
    with only_one_run(tmp_path):
        assert pipeline_main.main(["bench", "--out", str(tmp_path), "--show", str(shown)]) == 0
    assert "a median of 20.0 µs" in capsys.readouterr().out
    assert timings.read_text() == '{"bench": 300.0}'


@pytest.mark.parametrize(
    ("after_us", "cpu", "code", "said"),
    [(20.0, "one", 0, "20.00"), (30.0, "one", 1, "regressed"), (20.0, "two", 0, "two machines")],
)
def test_stage_bench_compares_two_files_and_exits_1_on_a_regression(
    tmp_path, capsys, after_us, cpu, code, said
):
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    before.write_text(json.dumps(result(row(FP32, "r", 20.0))))
    after.write_text(json.dumps(result(row(FP32, "r", after_us), cpu=cpu)))
    arguments = ["--out", str(tmp_path), "--show", str(after), "--compare", str(before)]
    assert pipeline_main.main(["bench", *arguments]) == code
    output = capsys.readouterr().out
    assert said in output
    assert ("regressed" in output, "two machines" in output) == (bool(code), cpu == "two")


def test_a_row_that_did_not_run_has_its_status_for_a_time_and_its_reason_below_the_table():
    text = bench.format_markdown(result(not_run(FP32, "r", "no such model")))
    assert re.search(r"\| lenet5_fp32.tflite \| r +\| +\| not_run \| +\| +\| +\|", text)
    assert "not_run: no such model" in text


def test_markdown_of_a_run_without_any_round_tells_no_timer_overhead():
    nothing = result()
    assert "a timed call of nothing takes 70 ns." in bench.format_markdown(nothing)
    nothing["method"] |= {"timer_overhead_ns": None, "baseline": None}
    assert "None" not in bench.format_markdown(nothing)


def test_stage_bench_refuses_a_comparison_with_a_missing_file_before_it_measures(tmp_path):
    run = run_stage("bench", "--out", tmp_path, "--compare", tmp_path / "none.json")
    assert run.returncode == 2
    assert run.stderr.splitlines() == [
        f"pipeline: {tmp_path}/none.json: missing; `make bench` writes such a file"
    ]


# --- What is kept ---------------------------------------------------------------------------


@pytest.fixture
def stage_bench(tmp_path, monkeypatch, capsys):
    """Run the stage in this process, in a folder with a complete bench.json, as if it measured."""

    def run(measured):
        monkeypatch.setattr(bench, "measure", lambda *_: measured)
        monkeypatch.setattr(bench, "load_data", lambda _: None)
        (tmp_path / "bench.json").write_text("complete")
        code = pipeline_main.main(["bench", "--out", str(tmp_path)])
        return code, capsys.readouterr()

    return run


def test_a_finished_run_replaces_the_earlier_result(stage_bench, tmp_path):
    measured = result(row(FP32, "r", 20.0))
    code, said = stage_bench(measured)
    assert (code, said.err) == (0, "")
    assert json.loads((tmp_path / "bench.json").read_text()) == measured


def test_an_interrupted_run_leaves_the_complete_result_and_says_where_its_own_is(
    stage_bench, tmp_path
):
    measured = result(row(FP32, "r", 20.0))
    measured["method"]["interrupted"] = True
    code, said = stage_bench(measured)
    assert code == 130
    assert "interrupted: the figures are of the rounds until then" in said.out
    assert f"in {tmp_path}/bench-interrupted.json" in said.err
    assert (tmp_path / "bench.json").read_text() == "complete"
    assert json.loads((tmp_path / "bench-interrupted.json").read_text()) == measured


def test_a_run_in_which_nothing_worked_writes_nothing(stage_bench, tmp_path):
    code, said = stage_bench(result(row(FP32, "r", 20.0, status="invalid", reason="hot")))
    assert code == 1
    assert "invalid: hot" in said.out
    assert "no row is ok" in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]


def test_figures_that_cannot_be_written_have_been_shown(stage_bench, tmp_path, monkeypatch):
    def full_disk(path, value):
        raise UserError(f"{path}: cannot be written")

    monkeypatch.setattr(bench, "write_json", full_disk)
    code, said = stage_bench(result(row(FP32, "tflite-runtime", 20.0)))
    assert code == 2
    assert "a median of 20.0 µs" in said.out
    assert "bench.json: cannot be written" in said.err
