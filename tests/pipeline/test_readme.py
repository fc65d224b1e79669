"""The README tells what the committed results say, and every command that there is."""

import json
import re

import pytest
from helpers import ROOT

from pipeline import readme
from pipeline.table import insert_generated


@pytest.fixture(scope="module")
def results():
    return json.loads((ROOT / readme.RESULTS).read_text())


@pytest.mark.parametrize("name", readme.PAGES)
def test_generated_part_of_a_page_is_that_of_the_committed_results(name, results):
    page = (ROOT / name).read_text()
    assert insert_generated(page, readme.generated(name, results), "make readme", name) == page
    tables = [line for line in page.splitlines() if line[:1] == "|"]
    assert max(map(len, tables)) <= 120


def test_readme_fits_its_page():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_committed_results_are_of_the_default_recipe_and_passed(results):
    assert results["train"]["recipe"] == "best"
    assert results["parity"]["status"] == "pass"
    assert results["parity"]["reference"]["n"] == 10_000


def test_every_make_target_that_the_readme_names_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)", (ROOT / "README.md").read_text()))
    assert named <= targets


def test_every_relative_link_of_the_readme_leads_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / target).exists(), target
