"""A result may come from a stranger: it is right in every part, or refused in one line."""

import copy
import json

import pytest
from example_results import START, latency, not_run, result, row
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.bench import compare
from pipeline.bench import run as bench
from pipeline.bench.result import check_result, read_result
from pipeline.files import UserError
from pipeline.report import measured_sections

GOOD = result(
    row("lenet5.keras", "keras", 1000.0),
    row(
        "lenet5_int8.onnx",
        "onnxruntime",
        20.0,
        cold_start_ms=START,
        peak_rss_mib=30.0,
        invoke_us=latency(19.0),
        ratio_ci95=[0.019, 0.021],
    ),
    row("lenet5_int8.onnx", "onnxruntime", 900.0, threads=2, batch=64, ratio_to_baseline=None),
    row("lenet5_fp32.onnx", "onnxruntime", 30.0, status="invalid", reason="under-voltage"),
    not_run("lenet5_int8.tflite", "tflite-runtime", "not installed"),
)


def places(value, *path):
    """The paths to all that a JSON value holds."""
    pairs = {dict: lambda: value.items(), list: lambda: enumerate(value)}
    for key, part in pairs.get(type(value), list)():
        yield (*path, key)
        yield from places(part, *path, key)


def part(value, path):
    for key in path:
        value = value[key]
    return value


# One quantile stands for all.
PLACES = [p for p in places(GOOD) if p[-2:-1] != ("quantiles_us",) or p[-1] == 0]
NUMBERS = [-1, 0, 10**400, 1e-320, 1.7e308, float("nan"), float("inf")]
EVIL = [None, True, *NUMBERS, "", "\x1b[2J", "a\nb"]
VALUES = st.recursive(
    st.sampled_from(EVIL) | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)


@st.composite
def damaged(draw):
    """A good result in which some values are others, are missing or are too many."""
    value = copy.deepcopy(GOOD)
    for *path, last in draw(st.lists(st.sampled_from(PLACES), min_size=1, max_size=3)):
        try:
            holder = part(value, path)
            change = draw(st.sampled_from(["replace", "remove", "add", "swap"]))
            if change == "replace":
                holder[last] = draw(VALUES)
            elif change == "remove":
                del holder[last]
            elif change == "swap":  # of two values, each right in its own place
                holder[last] = copy.deepcopy(part(value, draw(st.sampled_from(PLACES))))
            elif isinstance(holder, dict):
                holder[draw(st.text())] = draw(VALUES)
            else:
                holder.append(draw(VALUES))
        except (KeyError, IndexError, TypeError, AttributeError):  # an earlier change took it away
            continue
    return value


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damaged())
def test_a_damaged_result_is_refused_in_one_line_or_can_be_shown_and_compared(tmp_path, value):
    path = tmp_path / "b.json"
    path.write_text(json.dumps(value))
    try:
        got = read_result(path)
    except UserError as error:
        assert str(error).startswith(f"{path}: ")
        assert str(error).isprintable()
        return
    assert bench.format_markdown(got)
    for before, after in ((got, GOOD), (GOOD, got)):
        try:
            assert compare.format_changes(compare.compare(before, after, 10.0))
        except UserError as error:
            assert "no model and runtime are in both results" in str(error)


@pytest.mark.parametrize("figure", [1e-9, 1e15])
def test_what_lies_at_the_ends_of_the_ranges_can_be_drawn(figure):
    value = copy.deepcopy(GOOD)
    row = value["rows"][1]
    row |= {"artifact": "$\\frac{", "rounds_us": [[figure]], "quantiles_us": [figure] * 101}
    row |= {"latency_us": dict.fromkeys(row["latency_us"], figure), "accuracy": 0}
    row |= {"cold_start_ms": {**dict.fromkeys(START, figure), "processes": 1}}
    row |= dict.fromkeys(("throughput_ips", "peak_rss_mib", "ratio_to_baseline"), figure)
    assert measured_sections.describe_bench(check_result(value, "b.json"), "latency").plots


def test_a_good_result_is_read_as_it_is(tmp_path):
    path = tmp_path / "b.json"
    path.write_text(json.dumps(GOOD))
    assert read_result(path) == GOOD


def test_no_part_may_be_missing_or_another_kind_of_value():
    value = copy.deepcopy(GOOD)
    for *path, last in PLACES:
        holder = part(value, path)
        right = holder[last]
        for wrong in ([[]], {"a": []}, float("nan"), 10**400, "\x1b[2J"):
            holder[last] = wrong
            with pytest.raises(UserError) as refusal:
                check_result(value, "b.json")
            assert len(str(refusal.value)) < 600
        if isinstance(last, str):
            del holder[last]
            with pytest.raises(UserError):
                check_result(value, "b.json")
        holder[last] = right


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cores": "two"}, "host: cores is 'two', not of type int"),
        ({"cores": 0}, "host: cores is 0, not within 1..9007199254740992"),
        ({"cpu": "\x1b[2J"}, "host: cpu is '\\x1b[2J', which does not print"),
        ({"colour": 1}, "host: unknown key 'colour'; known: board, cpu, "),
    ],
)
def test_a_refusal_names_what_is_wrong(tmp_path, change, said):
    path = tmp_path / "b.json"
    path.write_text(json.dumps({**GOOD, "host": {**GOOD["host"], **change}}))
    with pytest.raises(UserError) as refusal:
        read_result(path)
    assert str(refusal.value).startswith(f"{path}: {said}")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"schema_version": 2}', b"1" * 5000],
)
def test_a_file_that_is_no_result_or_of_an_older_version_is_refused_in_a_line(content, tmp_path):
    path = tmp_path / "b.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"not JSON|not a result of") as refusal:
        read_result(path)
    assert str(refusal.value).startswith(f"{path}: not ")
