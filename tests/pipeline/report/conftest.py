"""All results of one small model, the report of them, and a browser to read it in."""

import shutil

import pytest
from chromium import Chromium
from example_results import change, write_measured
from helpers import need

from pipeline import data
from pipeline.report import write


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
