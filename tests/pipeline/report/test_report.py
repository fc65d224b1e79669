"""The report: complete, of one model only, and the same each time."""

import json
import os
import re

import numpy as np
import pytest
from example_results import change, seed_figures
from helpers import run_stage

from pipeline.artifacts import NATIVE_WASM
from pipeline.config import load_parity_budget
from pipeline.files import UserError
from pipeline.parity.judge import Limits, limits
from pipeline.report import (
    draw,
    first_screen,
    measured_sections,
    model_card,
    model_sections,
    plots,
    write,
)
from pipeline.report.gather import RESULTS, gather
from pipeline.report.page import with_code
from pipeline.studies import accuracy

PLOTS = {"loss", "accuracy", "confusion-int8", "latency", "device-latency", "robustness"}
COMMANDS = {form.name: form.command for form in RESULTS.values()}
MEASURED = {name: command for name, command in COMMANDS.items() if name != "parity.json"}
INT8, FLOAT = (limits(is_float, 0.996, load_parity_budget()) for is_float in (False, True))


def section(folder, title):
    """The HTML of one section."""
    page = (folder / "report.html").read_text()
    parts = re.split(r"(?=<section )", page)
    return next(part for part in parts if f">{title}</h2>" in part)


# --- What is on it --------------------------------------------------------------------------------


def test_complete_results_give_every_figure_and_no_section_without_data(measured, small):
    page = (measured / "report.html").read_text()
    assert set(re.findall(r'<figure id="plot-([a-z0-9-]+)"', page)) == PLOTS
    assert gather(measured, small, seeds=measured / "none.json").problems.keys() == {"seeds"}


def test_every_axis_has_a_label(measured, small, monkeypatch):
    figures = {}
    monkeypatch.setattr(plots, "to_svg", lambda figure, name, _: figures.update({name: figure}))
    report = gather(measured, small)
    for _, needed, describe in write.SECTIONS:
        if needed != "seeds":
            describe(report)
    assert set(figures) == PLOTS
    for name, figure in figures.items():
        for axes in figure.axes:
            assert axes.get_xlabel(), name
            assert axes.get_ylabel() or not len(axes.get_yticks()), name


def test_gallery_shows_every_flipped_and_every_misread_image_and_no_other(
    measured, small, monkeypatch
):
    with np.load(measured / "probabilities.npz") as archive:
        answers = np.stack([archive[name].argmax(axis=1) for name in archive.files])
    flipped = (answers != answers[0]).any(axis=0)
    wanted = np.flatnonzero(flipped | (answers != small.test.labels).any(axis=0))
    shown = re.findall(r"\(image (\d+)\)</b>", section(measured, "What it reads wrongly"))
    assert sorted(map(int, shown)) == wanted.tolist()
    assert len(shown) > 10
    monkeypatch.setattr(model_sections, "MAX_PICTURES", 3)
    gallery = model_sections.errors(gather(measured, small))
    assert len(gallery.pictures) == 3
    assert f"{len(shown) - 3} more are left out" in gallery.text[-1]


def used(allowed, loss_db=None, **figures):
    """The share of each budget that a row uses, by what its bar says."""
    row = {"agreement": 1.0, "n": 10_000, "max_abs_dp": 0.0, "delta_pp": 0.0, **figures}
    bars = model_sections.budget_bars(row, allowed, loss_db, 3.0)
    return {bar.label: round(bar.used, 2) for bar in bars}


def test_bars_show_how_much_of_each_budget_is_used():
    flips, loss, noise = "3 flips of 10", "0.04 pp of 0.10 lost", "noise 1.5 of 3.0 dB"
    got = used(INT8, 1.5, agreement=0.9997, delta_pp=-0.04)
    assert got == {flips: 0.3, loss: 0.4, noise: 0.5}
    assert used(FLOAT, max_abs_dp=2e-5) == {"0 flips of 0": 0.0, "max |dp| 20.0%": 0.2}
    got = used(FLOAT, agreement=0.9997, max_abs_dp=0.05)
    assert got == {"3 flips of 0": 2.0, "max |dp| 50000.0%": 500.0}
    got = used(Limits(0.0, 0.0, 0.0), delta_pp=-1.0)
    assert got == {"0 flips of 0": 0.0, "max |dp| 0.0%": 0.0, "1.00 pp of 0.00 lost": 2.0}


def test_a_loss_of_nothing_can_be_drawn():
    assert plots.loss({"epoch": [1, 2], "train_loss": [0.1, 0.0], "validation_loss": [0.2, 0.0]})


def test_the_first_screen_says_what_to_ship_and_five_figures(measured, small):
    report = gather(measured, small)
    verdict, figures = first_screen.verdict(report), first_screen.figures(report)
    assert (verdict.ships, verdict.title) == (True, "Ship it: lenet5_int8.c, compiled.")
    assert len(figures) == 5
    assert figures["Boards proven"][0] == "1"
    assert figures["Time for an image, here"] == (
        "2 µs",
        "lenet5_int8.c, compiled; next: lenet5_fp32.tflite on ai-edge-litert, 9 times as long",
    )


@pytest.mark.parametrize(
    ("name", "key"),
    [("parity.json", "rows"), ("parity.json", "binaries"), ("pi-matrix.json", "cells")],
)
def test_one_failed_row_is_enough_not_to_ship(folder, small, name, key):
    first, *others = json.loads((folder / name).read_text())[key]
    failed = {**first, "status": "fail", "reason": "broken"}
    change(folder / name, **{key: [failed, *others]})
    verdict = first_screen.verdict(gather(folder, small))
    assert not verdict.ships
    assert verdict.reasons[0].endswith(" failed: broken.")


def test_an_artifact_that_was_allowed_not_to_run_is_named_beside_the_verdict(folder, small):
    first, *others = json.loads((folder / "parity.json").read_text())["rows"]
    idle = {**first, "status": "not_run", "reason": "no such runtime", "allowed": True}
    change(folder / "parity.json", rows=[idle, *others])
    verdict = first_screen.verdict(gather(folder, small))
    assert verdict.ships
    assert verdict.reasons[1].endswith("did not run: no such runtime.")


def test_the_page_claims_the_same_bits_in_the_browser_only_if_parity_found_them(folder, small):
    rows = json.loads((folder / "parity.json").read_text())["rows"]
    module = next(row for row in rows if row["artifact"] == NATIVE_WASM)
    for figures, claim in (
        ({"bit_identical": True}, "it gave the same bits as lenet5_int8.tflite on tflite-runtime."),
        ({"bit_identical": None}, "it agreed with the float model within the budget."),
        ({"status": "fail"}, "Parity has not confirmed its answers."),
    ):
        module |= figures
        change(folder / "parity.json", rows=rows)
        assert draw.takeaway(gather(folder, small)).endswith(claim)


def test_a_board_on_which_nothing_is_right_is_enough_not_to_ship(folder, small):
    change(folder / "devices" / "pi.json", choice=None)
    assert not first_screen.verdict(gather(folder, small)).ships


def test_without_parity_it_is_not_known_whether_to_ship(folder, small):
    (folder / "parity.json").unlink()
    (folder / "bench.json").unlink()
    report = gather(folder, small)
    assert first_screen.verdict(report).title == "Do not ship: parity is not known."
    values = [value for value, _ in first_screen.figures(report).values()]
    assert values[:3] == ["?", "?", "?"]


def test_boards_are_told_by_their_receipts_and_a_stale_or_damaged_one_is_named(folder, small):
    (row,) = measured_sections.boards(gather(folder, small)).tables[0].rows
    name = "lenet5_int8.tflite on tflite-runtime"
    assert row[:4] == ("Raspberry Pi 4, bookworm", "1 of 1", name, "210")
    device = folder / "devices" / "pi.json"
    receipt = json.loads(device.read_text())
    stale = {**receipt, "rows": [{**receipt["rows"][0], "sha256": "f" * 64}]}
    (folder / "devices" / "stale.json").write_text(json.dumps(stale))
    boards = measured_sections.boards(gather(folder, small))
    assert boards.takeaway.startswith("1 of 1 boards")
    assert boards.text[0].startswith("stale.json is of another run")
    (folder / "devices" / "stale.json").unlink()
    device.write_text("{}")
    assert "pi.json is damaged" in gather(folder, small).problems["boards"]


def test_a_throttled_row_is_in_the_table_but_in_no_plot_and_not_on_the_card(folder, small):
    rows = json.loads((folder / "bench.json").read_text())["rows"]
    native = next(row for row in rows if row["runtime"] == "native")
    native |= {"status": "invalid", "reason": "under-voltage"}
    change(folder / "bench.json", rows=rows)
    report = gather(folder, small)
    speed = measured_sections.speed(report)
    assert any(row[1:4] == ["native", "", "invalid"] for row in speed.tables[0].rows)
    assert any("under-voltage" in line for line in speed.text)
    assert all("int8.c, native" not in plot.svg for plot in speed.plots)
    card = model_card.text(report)
    assert "| onnxruntime |" in card
    assert "| native |" not in card


def test_axis_ends_before_a_row_that_is_far_from_the_others():
    assert plots.axis_limit([20.0, 30.0, 9000.0]) == 30.0
    assert plots.axis_limit([20.0]) == 20.0


def test_seeds_are_told_if_they_are_of_this_data_and_recipe(measured, small, tmp_path):
    path = tmp_path / "accuracy.json"
    figures = [seed_figures(0.99, 0.99), seed_figures(0.97, 0.97)]
    blocks = [accuracy.summarise(recipe, 50, figures) for recipe in ("best", "tiny")]
    best, tiny = accuracy.describe(blocks[:1], small), accuracy.describe(blocks, small)
    path.write_text(json.dumps(tiny))
    seeds = measured_sections.seeds(gather(measured, small, seeds=path))
    assert seeds.takeaway.startswith("With 2 seeds, recipe tiny reads 2.00% of the test images")
    assert seeds.tables[0].rows[0][:3] == ["lenet5.keras", "2.000%", "1.414%"]
    assert seeds.tables[1].rows == [["hooked ones", "90.0%", "80.0%"]]
    for value, problem in (
        ({**tiny, "data_sha256": "other"}, "accuracy.json is of another data set"),
        ({**tiny, "recipes": [{"recipe": "tiny"}]}, "accuracy.json is damaged"),
        (best, "not measured: run `make accuracy RECIPES=tiny`"),
    ):
        path.write_text(json.dumps(value))
        assert gather(measured, small, seeds=path).problems["seeds"].startswith(problem)


# --- Of one model only ----------------------------------------------------------------------------


def test_a_missing_result_says_which_command_makes_it(folder, small):
    for name in MEASURED:
        (folder / name).unlink()
    problems = gather(folder, small).problems
    for member, form in RESULTS.items():
        if form.name in MEASURED:
            assert problems[member] == f"not measured: run `{form.command}`"


def of_another_model(text):
    digest = re.search("[0-9a-f]{64}", text.replace("0" * 64, "")).group()
    return text.replace(digest, "f" * 64)


def of_no_model(text):
    results = json.loads(text)
    for key in ("models", "model_sha256"):
        results.pop(key, None)
    for row in results.get("rows", []):
        row |= {"sha256": None} if "sha256" in row else {}
    return json.dumps(results)


DAMAGED = "is damaged or of another version"


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (of_another_model, "is of another run: it measured a lenet5"),
        (of_no_model, DAMAGED),
        (lambda text: text[: len(text) // 2], DAMAGED),
        (lambda text: "", DAMAGED),
        (lambda text: "[]", DAMAGED),
        (lambda text: "{}", DAMAGED),
        (lambda text: '{"rows": [{}], "layers": 3}', DAMAGED),
    ],
)
def test_a_result_that_is_damaged_or_of_another_model_is_refused(folder, small, spoil, problem):
    for form in RESULTS.values():
        path = folder / form.name
        path.write_text(spoil(path.read_text()))
    problems = gather(folder, small).problems
    for member, form in RESULTS.items():
        assert f"{form.name} {problem}" in problems[member]
        assert f"run `{form.command}`" in problems[member]


def test_probabilities_of_another_run_are_refused(folder, small):
    path = folder / "probabilities.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays["lenet5_int8.onnx@onnxruntime"] = arrays["lenet5_int8.onnx@onnxruntime"][::-1]
    np.savez(path, **arrays)
    problem = gather(folder, small).problems["probabilities"]
    assert "probabilities.npz is not of this parity.json" in problem


def test_a_page_of_damaged_results_shows_what_is_left_and_says_so(folder, small_data):
    for name in (*COMMANDS, "probabilities.npz", "lenet5_int8.tflite"):
        (folder / name).write_bytes(b"damaged")
    (folder / "lenet5_fp32.onnx").unlink()
    run = run_stage("report", "--data", small_data, "--out", folder)
    assert run.returncode == 0, run.stderr
    page = (folder / "report.html").read_text()
    for name, command in COMMANDS.items():
        line = f"{name} is damaged or of another version: run `{command}` again"
        assert line in run.stdout
        assert str(with_code(line)) in page
    assert set(re.findall(r'<figure id="plot-([a-z0-9-]+)"', page)) == {"loss", "accuracy"}


def test_another_data_set_and_another_float_model_are_refused(folder, small, mnist):
    with pytest.raises(UserError, match="not the data set"):
        write.write(folder, mnist)
    with (folder / "lenet5.keras").open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(UserError, match="its SHA-256 is not the one in"):
        write.write(folder, small)


def test_the_same_results_give_the_same_bytes(folder, measured, small_data):
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    run = run_stage("report", "--data", small_data, "--out", folder, env=environment)
    assert run.returncode == 0, run.stderr
    for name in ("report.html", "MODEL_CARD.md", "figures/misread.png"):
        assert (folder / name).read_bytes() == (measured / name).read_bytes()
