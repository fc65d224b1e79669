"""Training is the published recipe, or the default one, and repeats bit for bit."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT, run_stage

from pipeline import config

SHORT_EPOCHS = """
kind = "epochs"
seed = 3
epochs = 2
batch_size = 50
learning_rate = 0.003
weight_decay = 0.01
ema_decay = 0.9
non_digits = 0.05
[augmentation]
hooked_ones = 0.1
crossed_sevens = 0.1
curled_nines = 0.1
rotation_degrees = 12.0
scale = 0.12
fill = 0.1
shear = 0.15
shift_px = 2.0
elastic_px = 1.0
stroke = 0.2
blur = 0.1
contrast = 0.2
coarse = 0.1
erase = 0.05
noise = 0.05
"""


AFTER_ANOTHER_SEED = """
import dataclasses, sys
from pathlib import Path
from pipeline.config import load_recipe
from pipeline.data import load
from pipeline.train.lenet5 import import_tensorflow
recipe, data, out = load_recipe(sys.argv[1]), load(Path(sys.argv[2])), Path(sys.argv[3])
import_tensorflow()
from pipeline.train.training import train
for seed in (recipe.seed + 1, recipe.seed):
    train("short", dataclasses.replace(recipe, seed=seed), data, out, out / "teachers")
"""


@pytest.fixture(scope="module")
def few_data(mnist, tmp_path_factory):
    """A folder with 3,000 training and 500 test images."""
    arrays = {}
    for part, split, n in (("train", mnist.train, 3_000), ("test", mnist.test, 500)):
        arrays |= {f"x_{part}": split.images[:n], f"y_{part}": split.labels[:n]}
    folder = tmp_path_factory.mktemp("few")
    np.savez(folder / "few.npz", **arrays)
    return folder


@pytest.fixture(scope="module")
def short_runs(few_data, tmp_path_factory):
    """The same short run of the epochs recipe, twice, in processes of their own."""
    folder = tmp_path_factory.mktemp("short")
    recipe = folder / "short.toml"
    recipe.write_text(SHORT_EPOCHS)
    runs = []
    for name in ("first", "second"):
        out = folder / name
        run = run_stage("train", "--recipe", recipe, "--data", few_data, "--out", out, cwd=ROOT)
        assert run.returncode == 0, run.stderr
        runs.append((out, run))
    return runs


def test_same_seed_gives_the_same_files_whatever_the_time(short_runs):
    first, second = (out / "lenet5.keras" for out, _ in short_runs)
    assert first.read_bytes() == second.read_bytes()


def weights(folder):
    import keras

    model = keras.saving.load_model(folder / "lenet5.keras", compile=False)
    return [np.asarray(w) for w in model.get_weights()]


def test_a_seed_gives_the_same_weights_after_another_one_in_the_same_process(
    short_runs, few_data, tmp_path
):
    out, _ = short_runs[0]
    arguments = (out.parent / "short.toml", few_data, tmp_path)
    subprocess.run([sys.executable, "-c", AFTER_ANOTHER_SEED, *arguments], check=True, cwd=ROOT)
    for a, b in zip(weights(out), weights(tmp_path), strict=True):
        assert a.tobytes() == b.tobytes()


def test_training_prints_plain_lines_and_no_warning_when_the_output_is_no_terminal(short_runs):
    _, run = short_runs[0]
    assert re.search(r"^train 2/2  loss 0\.\d+  validation accuracy \d", run.stdout, re.MULTILINE)
    assert "\x1b" not in run.stdout
    assert run.stderr == ""


def test_train_json_holds_the_keys_of_the_contract(short_runs):
    out, _ = short_runs[0]
    result = json.loads((out / "train.json").read_text())
    keys = {"recipe", "seed", "parameters", "epochs", "steps", "seconds"}
    assert keys | {"val_accuracy", "test_accuracy", "history"} <= set(result)
    assert result["parameters"] == 61_706
    assert result["epochs"] == 2
    assert len(result["history"]["validation_accuracy"]) == 2
    assert result["val_accuracy"] in [
        pytest.approx(accuracy) for accuracy in result["history"]["validation_accuracy"]
    ]
    assert 0.7 < result["test_accuracy"] <= 1.0


def test_cookbook_prints_the_published_lines_the_summary_and_draws_three_figures(
    few_data, tmp_path
):
    recipe = tmp_path / "short.toml"
    text = (config.RECIPES / "cookbook.toml").read_text()
    recipe.write_text(re.sub(r"steps = \d+", "steps = 15", text))
    out = tmp_path / "out"
    run = run_stage("train", "--recipe", recipe, "--data", few_data, "--out", out)
    assert run.returncode == 0, run.stderr
    lines = re.findall(
        r"^Epoch # (\d+)\. Train Loss: \d\.\d\d\. Train Acc \(Test Acc\): \d\.\d\d \(\d\.\d\d\)$",
        run.stdout,
        re.MULTILINE,
    )
    assert lines == ["5", "10", "15"]
    assert "Total params: 61,706" in run.stdout
    for name in ("loss", "accuracy", "digits"):
        assert (out / "figures" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
