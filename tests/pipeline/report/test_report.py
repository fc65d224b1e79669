"""The report: complete, of one model only, safe, the same each time, and readable in a browser."""

import base64
import functools
import http.server
import io
import json
import os
import re
import shutil
import threading
import tomllib
from html.parser import HTMLParser

import numpy as np
import pytest
from chromium import Chromium
from conftest import HAS_TFLITE_RUNTIME, ROOT, need, run_runner, run_stage
from example_results import seed_figures, write_measured
from PIL import Image

try:
    import yaml
except ModuleNotFoundError:  # on Python 3.13 mutmut brings the other
    import yaml_ft as yaml

from device.bench.rows import three_figures
from device.photo.form import in_mnist_form
from pipeline import data
from pipeline.artifacts import NATIVE_SOURCE, NATIVE_WASM
from pipeline.config import load_parity_budget
from pipeline.files import UserError
from pipeline.parity.judge import Limits, limits
from pipeline.report import (
    first_screen,
    measured_sections,
    model_card,
    model_sections,
    plots,
    write,
)
from pipeline.report.gather import RESULTS, gather
from pipeline.studies import accuracy

PLOTS = {"loss", "accuracy", "confusion-int8", "latency", "device-latency", "robustness"}
COMMANDS = {form.name: form.command for form in RESULTS.values()}
MEASURED = {name: command for name, command in COMMANDS.items() if name != "parity.json"}
INT8, FLOAT = (limits(is_float, 0.996, load_parity_budget()) for is_float in (False, True))
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    r"$\frac{",
    "{{ 7 * 7 }}",
    "]]></svg><iframe src=http://example.com>",
    "a|b\\`*_",
    "n" * 300,
    "\u0645\u06cc\u200c\u0631\u0648\u062f",  # Persian; a joiner keeps its halves apart
    "漢字",
    "--- # &amp;",
]


@pytest.fixture(scope="session")
def small(small_data):
    return data.load(small_data)


@pytest.fixture(scope="session")
def measured(exported, small, tmp_path_factory):
    """A folder with all results of one model, and the report of it. Read only."""
    folder = tmp_path_factory.mktemp("report") / "artifacts"
    shutil.copytree(exported, folder)
    write_measured(folder)
    threshold = {"threshold": 0.9, "test": {"coverage": 0.5, "error": 0.0}}
    change(folder / "train.json", confidence=threshold)  # so small a data set has none
    write.write(folder, small)
    return folder


@pytest.fixture
def folder(measured, tmp_path):
    """A copy of `measured` that a test may change."""
    return shutil.copytree(measured, tmp_path / "artifacts")


@pytest.fixture(scope="module")
def browser():
    need("chromium")
    with Chromium() as chromium:
        yield chromium


def change(path, **values):
    """Replace some values of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


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


@pytest.mark.parametrize(("name", "key"), [("parity.json", "rows"), ("pi-matrix.json", "cells")])
def test_one_failed_row_is_enough_not_to_ship(folder, small, name, key):
    first, *others = json.loads((folder / name).read_text())[key]
    failed = {**first, "status": "fail", "reason": "broken"}
    change(folder / name, **{key: [failed, *others]})
    verdict = first_screen.verdict(gather(folder, small))
    assert not verdict.ships
    assert verdict.reasons[0].endswith("broken")


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


def test_boards_are_told_by_their_receipts_and_a_damaged_one_is_named(folder, small):
    (row,) = measured_sections.boards(gather(folder, small)).tables[0].rows
    name = "lenet5_int8.tflite on tflite-runtime"
    assert row[:4] == ("Raspberry Pi 4, bookworm", "1 of 1", name, "210")
    (folder / "devices" / "pi.json").write_text("{}")
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


@pytest.mark.parametrize(
    ("value", "text"), [(9222.6, "9,220"), (18.44, "18.4"), (0.000244, "0.000244"), (0.0, "0")]
)
def test_numbers_have_three_digits_and_no_exponent(value, text):
    assert three_figures(value) == text


def test_seeds_are_told_recipe_by_recipe_if_they_are_of_this_data_and_recipe(
    measured, small, tmp_path
):
    path = tmp_path / "accuracy.json"
    figures = [seed_figures(0.99), seed_figures(0.97)]
    tiny, best = (
        accuracy.describe([accuracy.summarise(recipe, 50, figures)], small)
        for recipe in ("tiny", "best")
    )
    path.write_text(json.dumps(tiny))
    seeds = measured_sections.seeds(gather(measured, small, seeds=path))
    assert seeds.tables[0].caption == "Recipe tiny, 2 seeds"
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


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (of_another_model, "is of another run: it measured a lenet5"),
        (of_no_model, "is damaged or of another version"),
        (lambda text: text[: len(text) // 2], "is damaged or of another version"),
        *(
            (lambda text, content=content: content, "is damaged or of another version")
            for content in ("", "[]", "{}", '{"rows": [{}], "layers": 3}')
        ),
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
        assert line in page
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


# --- Model card -----------------------------------------------------------------------------------


def front_matter(folder):
    """The model card's metadata, and its text."""
    _, matter, body = (folder / "MODEL_CARD.md").read_text().split("---\n", 2)
    return yaml.safe_load(matter), body


def test_model_card_holds_the_accuracies_of_parity(measured):
    matter, body = front_matter(measured)
    parity = json.loads((measured / "parity.json").read_text())
    (result,) = matter["model-index"][0]["results"]
    values = {metric["name"]: metric["value"] for metric in result["metrics"]}
    for row in (parity["reference"], *parity["rows"]):
        assert row["accuracy"] in (values[f"Accuracy of {row['artifact']}"], None)  # not run
    assert result["dataset"]["name"] == result["dataset"]["type"] == "small0"
    assert "datasets" not in matter
    assert "MNIST" not in body


def test_model_card_tells_what_is_misread_and_how_often(measured, small):
    report = gather(measured, small)
    with np.load(measured / "probabilities.npz") as archive:
        runtime = "tflite-runtime" if HAS_TFLITE_RUNTIME else "ai-edge-litert"
        read = archive[f"lenet5_int8.tflite@{runtime}"].argmax(axis=1)
    wrong = np.flatnonzero(read != small.test.labels)
    assert sorted(model_sections.misreadings(report)) == [(i, read[i]) for i in wrong]
    most = [n for _, _, n in model_sections.mistakes(report)]
    assert most == sorted(most, reverse=True)
    assert sum(most) == len(wrong)
    body = front_matter(measured)[1]
    assert "| {} | {} | {} |".format(*model_sections.mistakes(report)[0]) in body
    assert f"The {min(len(wrong), 60)} misread test images" in body


def test_mnist_is_known_by_its_hash(mnist):
    assert mnist.sha256 == model_card.MNIST_SHA256


# --- In a browser ---------------------------------------------------------------------------------


class Links(HTMLParser):
    """Collects what a page refers to."""

    def __init__(self):
        super().__init__()
        self.targets = []

    def handle_starttag(self, tag, attributes):
        assert tag not in ("iframe", "object", "embed", "base"), tag
        assert tag != "script" or attributes == [("type", "module")]  # our own, named by its hash
        for name, value in attributes:
            assert not name.startswith("on"), name
            if name in ("src", "href", "xlink:href", "srcset", "action", "data"):
                self.targets.append(value)


def test_the_page_refers_to_nothing_outside_itself(measured):
    page = (measured / "report.html").read_text()
    links = Links()
    links.feed(page)
    assert all(target.startswith(("#", "data:")) for target in links.targets)
    assert "@import" not in page
    named = re.findall(r"url\(['\"]?([^)]*)\)", page)
    assert all(target.startswith("#") for target in named)
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert {t[1:] for t in (*links.targets, *named) if t.startswith("#")} <= set(ids)


def test_plots_take_every_colour_from_the_page(measured):
    for svg in re.findall(r"<svg.*?</svg>", (measured / "report.html").read_text(), re.DOTALL):
        assert not re.search(r"#[0-9a-f]{6}\b", svg)
        assert 'role="img"' in svg
        assert re.search(r'aria-label="[^"]{30,}"', svg)


CONTRAST = """
(() => {
  const channel = v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = color => {
    const [r, g, b] = color.match(/[0-9.]+/g).map(Number);
    return .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b);
  };
  const paper = light(getComputedStyle(document.body).backgroundColor);
  const contrasts = [...document.querySelectorAll("svg text, p, td, th, figcaption, caption")]
    .map(element => {
      const style = getComputedStyle(element);
      const ink = light(element.closest("svg") ? style.fill : style.color);
      return (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05);
    });
  return Math.min(...contrasts);
})()
"""
WIDE_TABLES = """
[...document.querySelectorAll("table")]
  .filter(table => table.offsetWidth > table.parentElement.clientWidth)
  .map(table => table.innerText)
"""
SMALL_PLOTS = """
[...document.querySelectorAll("figure[id^=plot-]")].filter(figure => {
  const box = figure.querySelector("svg").getBoundingClientRect();
  return box.width < 250 || box.height < 100;
}).map(figure => figure.id)
"""


@pytest.mark.parametrize(("width", "dark"), [(360, True), (800, False), (1600, True)])
def test_chromium_shows_all_of_it_without_complaint_or_request(browser, measured, width, dark):
    browser.open((measured / "report.html").as_uri(), width, dark)
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    assert browser.evaluate(WIDE_TABLES) == []
    assert browser.evaluate("document.querySelectorAll('figure[id^=plot-]').length") == len(PLOTS)
    assert browser.evaluate(SMALL_PLOTS) == []
    assert browser.evaluate(CONTRAST) >= 4.5
    assert browser.evaluate(
        "[...document.images].every(image => image.naturalWidth == 28 && image.alt)"
    )
    background = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") != dark
    browser.assert_quiet()


def test_the_page_prints_in_black_on_white(browser, measured):
    browser.open((measured / "report.html").as_uri(), dark=True)
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.evaluate("getComputedStyle(document.body).color") == "rgb(27, 27, 27)"
    assert browser.call("Page.printToPDF")["data"].startswith("JVBERi")  # %PDF in base64


def test_hostile_class_names_stay_text(browser, folder, small_data, tmp_path):
    hostile = shutil.copytree(small_data, tmp_path / "<b>data")
    (hostile / "labels.txt").write_text("\n".join(HOSTILE))
    named = data.load(hostile)
    change(folder / "train.json", data_sha256=named.sha256)  # as if trained on it
    write.write(folder, named)
    page = folder / "report.html"
    Links().feed(page.read_text())
    browser.open(page.as_uri(), 390)
    assert browser.evaluate("document.documentElement.scrollWidth") == 390
    strange = "script:not([type=module]), iframe, main b b"
    assert browser.evaluate(f"document.querySelectorAll('{strange}').length") == 0
    browser.assert_quiet()
    text = browser.evaluate("document.body.innerText")
    for name in (HOSTILE[0], HOSTILE[3], HOSTILE[-1]):
        assert name in text
    matter, body = front_matter(folder)
    assert matter["model-index"][0]["results"][0]["dataset"]["name"] == "<b>data"
    assert not re.search(r"(?<!\\)<", body)


# --- The model in the browser ---------------------------------------------------------------------

DIGITS = tomllib.loads((ROOT / "pipeline" / "studies" / "skeletons.toml").read_text())["digits"]
TWO_FRAMES = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


def open_page(browser, url, sheet):
    """Open a page and wait until one can draw: the module is compiled after the page has loaded."""
    browser.open(url)
    ready = f"document.getElementById('{sheet}').onpointerdown"
    frame = "new Promise(requestAnimationFrame)"
    browser.evaluate(f"(async () => {{ while (!{ready}) await {frame}; }})()")


def draw(browser, name, strokes):
    """Draw points of a box of 1x1 with the mouse."""
    left, top = browser.evaluate(f"""(() => {{
        const canvas = document.getElementById("{name}");
        canvas.scrollIntoView();
        const {{ left, top }} = canvas.getBoundingClientRect();
        return [left + canvas.clientLeft, top + canvas.clientTop];
    }})()""")
    for points in strokes:
        kinds = ["mousePressed", *["mouseMoved"] * len(points), "mouseReleased"]
        for kind, (x, y) in zip(kinds, [points[0], *points, points[-1]], strict=True):
            at = {"x": left + 37 + 150 * x, "y": top + 37 + 150 * y}
            browser.call("Input.dispatchMouseEvent", type=kind, button="left", buttons=1, **at)
    browser.evaluate(TWO_FRAMES)


def press(browser, key):
    for kind in ("keyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key=key)


def answer(browser):
    return browser.evaluate("document.getElementById('draw-answer').textContent")


def png(browser, name):
    return base64.b64decode(
        browser.evaluate(f"document.getElementById('{name}').toDataURL().split(',')[1]")
    )


def seen(browser):
    """The 28x28 grey levels that the model sees."""
    return np.asarray(Image.open(io.BytesIO(png(browser, "draw-seen"))))[..., 0].astype(int)


def test_a_drawn_digit_is_prepared_and_answered_as_runner_does(browser, measured, tmp_path):
    open_page(browser, (measured / "report.html").as_uri(), "draw-sheet")
    answers, paths = [], []
    for digit, forms in DIGITS.items():
        browser.evaluate("document.getElementById('draw-clear').click()")
        draw(browser, "draw-sheet", next(iter(forms.values())))
        answers.append(answer(browser).removeprefix("unsure: ")[0])
        paths.append(tmp_path / f"{digit}.png")
        paths[-1].write_bytes(png(browser, "draw-sheet"))
        ink = np.asarray(Image.open(paths[-1]))[..., 3]
        strokes = ((ink / 255 - 0.2) / 0.6).clip(0, 1)  # device/photo has to search for them
        prepared = in_mnist_form(strokes).astype(int)
        assert np.abs(seen(browser) - prepared).max() <= 1, digit
    run = run_runner("--model", measured / NATIVE_SOURCE, "--json", *paths)
    assert [json.loads(line)["label"] for line in run.stdout.splitlines()] == answers
    browser.assert_quiet()


def test_test_images_are_answered_as_parity_recorded_and_unsure_below_the_threshold(
    browser, measured
):
    open_page(browser, (measured / "report.html").as_uri(), "draw-sheet")
    with np.load(measured / "probabilities.npz") as archive:
        probabilities = archive[f"{NATIVE_WASM}@wasmtime"]
    threshold = float(browser.evaluate("document.getElementById('draw').dataset.threshold"))
    titles = browser.evaluate(
        "[...document.querySelectorAll('#draw-images button')].map(button => button.title)"
    )
    assert len(titles) == 10
    for i, title in enumerate(titles):
        browser.evaluate(f"document.querySelectorAll('#draw-images button')[{i}].click()")
        row = probabilities[int(title.split("image ")[1].rstrip(")"))]
        unsure = row.max() < threshold
        expected = f"unsure: {row.argmax()}? " if unsure else f"{row.argmax()}, "
        assert answer(browser).startswith(f"{expected}{100 * row.max():.1f} %, in ")
    shares = browser.evaluate(
        "[...document.querySelectorAll('#draw-bars output')].map(output => output.textContent)"
    )
    assert shares == [f"{100 * share:.1f} %" for share in row]


def test_keyboard_alone_draws_undoes_and_clears(browser, measured):
    open_page(browser, (measured / "report.html").as_uri(), "draw-sheet")
    browser.evaluate("document.getElementById('draw-sheet').focus()")
    for key in (" ", *["ArrowDown"] * 8, " ", "ArrowRight", "ArrowRight", " ", "ArrowUp"):
        press(browser, key)
    two_strokes = answer(browser)
    assert two_strokes
    press(browser, "Backspace")
    one_stroke = seen(browser)
    assert (one_stroke.max(axis=1) > 0).sum() == 20  # rows: a 1 as high as the box
    press(browser, "Delete")
    assert answer(browser) == ""
    assert seen(browser).max() == 0


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_example_page_of_the_bundle_answers_over_http(browser, measured, tmp_path):
    web = shutil.copytree(ROOT / "device" / "web", tmp_path / "web")
    shutil.copy(measured / NATIVE_WASM, web)
    serve = functools.partial(Quiet, directory=web)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/index.html"
        open_page(browser, url, "sheet")
        draw(browser, "sheet", DIGITS["1"]["plain"])
        assert browser.evaluate("document.getElementById('answer').textContent").endswith(" %")
        server.shutdown()
    browser.assert_quiet()
