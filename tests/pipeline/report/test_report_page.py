"""The report in a browser: nothing from elsewhere, readable, and the model in it answers."""

import base64
import functools
import http.server
import io
import json
import re
import shutil
import threading
import tomllib
from html.parser import HTMLParser

import numpy as np
import pytest
from example_results import change
from helpers import ROOT, run_runner
from PIL import Image

from device.photo.form import in_mnist_form
from pipeline import data
from pipeline.artifacts import NATIVE_SOURCE, NATIVE_WASM
from pipeline.report import write

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
    assert browser.evaluate("document.querySelectorAll('figure[id^=plot-]').length") == 6
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
    _, matter, body = (folder / "MODEL_CARD.md").read_text().split("---\n", 2)
    assert r'name: "\u003cb\u003edata"' in matter
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


def corner(browser, name):
    """Where on the screen a canvas begins."""
    return browser.evaluate(f"""(() => {{
        const canvas = document.getElementById("{name}");
        canvas.scrollIntoView();
        const {{ left, top }} = canvas.getBoundingClientRect();
        return [left + canvas.clientLeft, top + canvas.clientTop];
    }})()""")


def draw(browser, name, strokes):
    """Draw points of a box of 1x1 with the mouse."""
    left, top = corner(browser, name)
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


def test_a_second_finger_draws_nothing_and_undo_ends_the_stroke(browser, measured):
    open_page(browser, (measured / "report.html").as_uri(), "draw-sheet")
    left, top = corner(browser, "draw-sheet")

    def touch(kind, *fingers):
        points = [{"x": left + x, "y": top + y, "id": i} for i, (x, y) in enumerate(fingers)]
        browser.call("Input.dispatchTouchEvent", type=kind, touchPoints=points)

    touch("touchStart", (112, 37))
    touch("touchStart", (112, 37), (20, 37))
    touch("touchMove", (112, 187), (20, 187))
    browser.evaluate(TWO_FRAMES)
    assert 0 < (seen(browser).max(axis=0) > 0).sum() < 6  # columns: of one upright stroke
    browser.evaluate("document.getElementById('draw-undo').click()")
    touch("touchMove", (60, 100), (20, 100))
    touch("touchEnd")
    browser.evaluate(TWO_FRAMES)
    assert seen(browser).max() == 0
    browser.assert_quiet()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_example_page_of_the_bundle_answers_over_http_and_opened_as_a_file_says_so(
    browser, measured, tmp_path
):
    web = shutil.copytree(ROOT / "device" / "web", tmp_path / "web")
    shutil.copy(measured / NATIVE_WASM, web)
    browser.open((web / "index.html").as_uri())
    said = browser.evaluate("document.getElementById('answer').textContent")
    assert said == "Serve this folder: python3 -m http.server"
    serve = functools.partial(Quiet, directory=web)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/index.html"
        open_page(browser, url, "sheet")
        draw(browser, "sheet", DIGITS["1"]["plain"])
        assert browser.evaluate("document.getElementById('answer').textContent").endswith(" %")
        server.shutdown()
    browser.assert_quiet()
