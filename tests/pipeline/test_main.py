"""The command line: every stage is listed, can be called, and is what the Makefile calls."""

import importlib
import re

import pytest
from conftest import ROOT, run_stage

from pipeline.__main__ import ALL, STAGES


@pytest.mark.parametrize("stage", sorted(STAGES.keys() - {"all"}))
def test_stage_lives_in_the_module_of_its_name_and_can_be_called(stage):
    module = STAGES[stage][0]
    name = {"import": "importing"}.get(stage, stage.replace("-", "_"))  # a word of Python's
    assert name in module.split(".")
    assert callable(importlib.import_module(module).run)


def test_help_lists_every_stage_with_what_it_does():
    run = run_stage("--help")
    assert run.returncode == 0
    text = " ".join(run.stdout.split())
    for stage, (_, what) in STAGES.items():
        assert f"{stage} {what}" in text
    assert set(ALL) < set(STAGES)


def test_makefile_calls_every_stage():
    makefile = (ROOT / "Makefile").read_text()
    called = set(re.findall(r"(?:\$\(STAGE\)|-m pipeline) ([a-z-]+)", makefile))
    assert called == STAGES.keys() - {"data", "all"}


@pytest.mark.parametrize("arguments", [[], ["none"], ["photos", "--seed", "1"], ["pi-test"]])
def test_bad_usage_exits_with_2(arguments):
    assert run_stage(*arguments).returncode == 2
