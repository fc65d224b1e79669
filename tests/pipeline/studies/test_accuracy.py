"""Means over seeds against a hand-computed table; what is finished is not made again."""

import dataclasses

import pytest

from pipeline import config
from pipeline.artifacts import CONVERTED
from pipeline.studies import accuracy


def _seed(number, float_accuracy, int8_accuracy):
    sure = {"coverage": 0.98, "error": 0.001}
    return {
        "seed": number,
        "seconds": 10.0 * number,
        "val_accuracy": 0.995,
        "confidence": {"threshold": 0.5},
        "parity": "pass",
        "float": {"accuracy": float_accuracy, "calibration_error": 0.002, "sure": sure},
        "artifacts": {
            "lenet5_int8.tflite": {
                "runtime": "tflite-runtime 2.14.0",
                "accuracy": int8_accuracy,
                "loss_pp": 100 * (float_accuracy - int8_accuracy),
                "agreement": 0.9995,
                "calibration_error": 0.004,
                "sure": sure,
            }
        },
        "wild": {"pen": {"float": float_accuracy, "int8": int8_accuracy}},
        "non_digits_sure": {"noise": {"float": 0.1, "int8": 0.2}},
    }


SEEDS = [_seed(1, 0.995, 0.994), _seed(2, 0.996, 0.996), _seed(3, 0.997, 0.998)]


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
    assert block["wild"]["pen"] == pytest.approx({"float": 0.996, "int8": 0.996})
    assert block["non_digits_sure"]["noise"] == pytest.approx({"float": 0.1, "int8": 0.2})


def test_page_shows_errors_and_an_interval_around_their_mean(mnist):
    described = accuracy.describe([accuracy.summarise("best", 50, SEEDS)], mnist)
    assert described.keys() >= {"recipe", "seeds", "mean_test_accuracy", "sd", "ci95", "artifacts"}
    page = accuracy.render({**described, "machine": "a machine"})
    assert "a machine" in page
    assert f"{len(mnist.test):,} test images" in page
    assert "3 seeds" in page
    assert "0.400%" in page
    assert "0.152% to 0.648%" in page  # 1 - 0.996 -+ 0.00248


def test_key_of_a_seed_changes_with_what_decides_its_weights(mnist):
    recipe = config.load_recipe("best")
    key = accuracy.training_key(recipe, mnist)
    assert key == accuracy.training_key(recipe, mnist)
    others = [
        accuracy.training_key(dataclasses.replace(recipe, seed=99), mnist),
        accuracy.training_key(recipe, dataclasses.replace(mnist, sha256="another")),
        accuracy.training_key(
            dataclasses.replace(
                recipe, augmentation=dataclasses.replace(recipe.augmentation, blur=0.9)
            ),
            mnist,
        ),
    ]
    assert len({key, *others}) == 4


def test_finished_seed_is_not_made_again(tmp_path, monkeypatch, mnist):
    made = []
    monkeypatch.setattr(accuracy, "train", lambda *_: made.append("train"))
    monkeypatch.setattr(accuracy.export, "convert", lambda name, *_: made.append(name))
    monkeypatch.setattr(accuracy.native, "generate", lambda *_: made.append("native"))
    monkeypatch.setattr(accuracy.parity, "check_parity", lambda *_: made.append("parity"))
    recipe = config.load_recipe("best")
    for _ in range(2):
        accuracy.make("best", recipe, mnist, tmp_path)
    assert made == ["train", *CONVERTED, "native", "parity"]
    accuracy.make("best", dataclasses.replace(recipe, epochs=1), mnist, tmp_path)
    assert made.count("train") == 2
