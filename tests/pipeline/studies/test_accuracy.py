"""Means over seeds against a hand-computed table; what is finished is not made again."""

import dataclasses
import json
import re
import shutil

import pytest
from example_results import seed_figures
from helpers import ROOT

from pipeline import config
from pipeline.artifacts import ACCURACY_JSON, ACCURACY_MD, CONVERTED
from pipeline.studies import accuracy
from pipeline.train import key

SEEDS = [
    seed_figures(0.995, 0.994, 1),
    seed_figures(0.996, 0.996, 2),
    seed_figures(0.997, 0.998, 3),
]


def test_summary_of_a_hand_computed_table():
    block = accuracy.summarise("best", 50, SEEDS)
    assert block["mean_test_accuracy"] == pytest.approx(0.996)
    assert block["sd"] == pytest.approx(0.001)
    # t(0.975, 2) = 4.302653; half the interval is t * sd / sqrt(3)
    assert block["ci95"] == pytest.approx((0.996 - 0.00248414, 0.996 + 0.00248414))
    int8 = block["artifacts"]["lenet5_int8.tflite"]
    assert int8["mean_test_accuracy"] == pytest.approx(0.996)
    assert int8["sd"] == pytest.approx(0.002)
    assert int8["mean_loss_pp"] == pytest.approx(0.0, abs=1e-9)
    assert int8["mean_agreement"] == pytest.approx(0.9995)
    assert int8["mean_calibration_error"] == pytest.approx(0.004)
    assert block["mean_seconds"] == pytest.approx(20.0)
    assert block["wild"]["hooked ones"] == pytest.approx({"float": 0.9, "int8": 0.8})
    assert block["non_digits_sure"]["letters"] == pytest.approx({"float": 0.9, "int8": 0.8})


def test_page_shows_errors_and_an_interval_around_their_mean(mnist):
    described = accuracy.describe([accuracy.summarise("best", 50, SEEDS)], mnist)
    assert described.keys() >= {"recipe", "seeds", "mean_test_accuracy", "sd", "ci95", "artifacts"}
    page = accuracy.render(described)
    assert "took 20 s a seed; the teachers, which all seeds share, took 20 minutes before" in page
    assert f"{len(mnist.test):,} test images" in page
    assert "3 seeds" in page
    assert "0.400%" in page
    assert "0.152% to 0.648%" in page  # 1 - 0.996 -+ 0.00248


def test_committed_page_is_that_of_the_committed_figures():
    figures = json.loads(ACCURACY_JSON.read_text())
    assert ACCURACY_MD.read_text() == accuracy.render(figures)


RECIPE = config.load_recipe("best")


def test_key_of_a_seed_changes_with_each_setting_and_with_the_data(mnist):
    first = key.training_key(RECIPE, mnist)
    assert key.training_key(RECIPE, mnist) == first
    assert key.training_key(RECIPE, dataclasses.replace(mnist, sha256="another")) != first
    blurred = dataclasses.replace(RECIPE.augmentation, blur=0.9)
    for change in ({"seed": 99}, {"epochs": 1}, {"augmentation": blurred}):
        assert key.training_key(dataclasses.replace(RECIPE, **change), mnist) != first


@pytest.fixture
def make_seed(tmp_path, monkeypatch, mnist):
    """A function that makes one seed in a copy of the tree, and returns what it had to do."""
    tree = tmp_path / "tree"
    for name in ("pipeline", "export", "device"):
        shutil.copytree(ROOT / name, tree / name)
    shutil.copy(ROOT / "requirements.lock", tree)
    monkeypatch.setattr(key, "ROOT", tree)
    made = []
    monkeypatch.setattr(accuracy, "train", lambda *_: made.append("train"))
    monkeypatch.setattr(accuracy.export, "convert", lambda name, *_: made.append(name))
    monkeypatch.setattr(accuracy.native, "generate", lambda *_: made.append("native"))
    monkeypatch.setattr(accuracy.parity, "check_parity", lambda *_: made.append("parity"))

    def make(recipe=RECIPE):
        made.clear()
        accuracy.make("best", recipe, mnist, tmp_path / "seed", tmp_path / "teachers")
        return list(made)

    make.tree = tree
    return make


JUDGE = [*CONVERTED, "native", "parity"]


def test_finished_seed_is_not_made_again(make_seed):
    assert make_seed() == ["train", *JUDGE]
    assert make_seed() == []
    assert make_seed(dataclasses.replace(RECIPE, epochs=1)) == ["train", *JUDGE]


def test_another_split_of_the_data_retrains(make_seed):
    make_seed()
    path = make_seed.tree / "pipeline" / "data.py"
    text = path.read_text()
    other = re.sub(r"^SPLIT_SEED = \d+", "SPLIT_SEED = 7", text, flags=re.MULTILINE)
    for content in (other, text):  # then, what lies there is of the other split
        assert path.read_text() != content
        path.write_text(content)
        assert make_seed() == ["train", *JUDGE]


@pytest.mark.parametrize(
    ("changed", "work"),
    [
        ("pipeline/config.py", ["train", *JUDGE]),
        ("pipeline/train/outliers.py", ["train", *JUDGE]),
        ("pipeline/train/distillation.py", ["train", *JUDGE]),
        ("pipeline/train/temperature.py", ["train", *JUDGE]),
        ("requirements.lock", ["train", *JUDGE]),
        ("export/to_tflite.py", JUDGE),
        ("export/c_templates/common.c.in", JUDGE),
        ("device/native/binding.c", JUDGE),
        ("device/requirements.lock", JUDGE),
        ("pipeline/classify.py", JUDGE),
        ("pipeline/parity/budget.toml", JUDGE),
        ("pipeline/parity/statistics.py", JUDGE),
        ("pipeline/report/page.py", []),
        ("pipeline/studies/accuracy.py", []),
    ],
)
def test_changed_file_remakes_what_it_decides(make_seed, changed, work):
    make_seed()
    with (make_seed.tree / changed).open("a") as stream:
        stream.write("\n# changed\n")
    assert make_seed() == work
