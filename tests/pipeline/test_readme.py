"""The README tells what the committed results say, and every command that there is."""

import json
import re

from conftest import ROOT

from pipeline import readme


def test_readme_tables_are_those_of_the_committed_results():
    results = json.loads((ROOT / readme.RESULTS).read_text())
    text = (ROOT / readme.README).read_text()
    assert readme.insert(text, readme.render(results)) == text


def test_committed_results_are_of_the_default_recipe_and_passed():
    results = json.loads((ROOT / readme.RESULTS).read_text())
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
