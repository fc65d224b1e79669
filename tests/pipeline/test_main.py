"""The command line: every stage is listed, can be called, and is what the Makefile calls."""

import importlib
import re

import pytest
from helpers import ROOT, run_stage

from pipeline.__main__ import STAGES


@pytest.mark.parametrize("stage", STAGES)
def test_stage_lives_in_the_module_of_its_name_and_can_be_called(stage):
    module = STAGES[stage][0]
    name = {"import": "importing"}.get(stage, stage.replace("-", "_"))  # `import` is Python's
    assert name in module.split(".")
    assert callable(importlib.import_module(module).run)


def test_help_lists_every_stage_with_what_it_does():
    run = run_stage("--help")
    assert run.returncode == 0
    text = " ".join(run.stdout.split())
    for stage, (_, what) in STAGES.items():
        assert f"{stage} {what}" in text


def test_makefile_calls_every_stage():
    makefile = (ROOT / "Makefile").read_text()
    calls = " ".join(line for line in makefile.splitlines() if "$(STAGE)" in line)
    for stage in STAGES.keys() - {"data"}:
        assert re.search(rf"[ ,]{stage}[ ,)]", calls), stage


@pytest.mark.parametrize("arguments", [[], ["none"], ["photos", "--seed", "1"], ["pi-test"]])
def test_bad_usage_exits_with_2(arguments):
    assert run_stage(*arguments).returncode == 2
