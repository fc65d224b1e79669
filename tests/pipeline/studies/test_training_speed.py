"""The comparison of training loops runs all of them, and its arithmetic is right."""

import pytest

from pipeline.files import UserError
from pipeline.studies import training_speed


def test_median_and_table_of_hand_made_rounds():
    speeds = training_speed.describe({"a loop": [1000.0, 3000.0, 2000.0]})
    assert speeds == {"a loop": {"median": 2000.0, "rounds": [1000.0, 3000.0, 2000.0]}}
    cells = training_speed.format_speeds(speeds).splitlines()[-1]
    assert "2,000" in cells
    assert "1,000 to 3,000" in cells


def test_every_way_is_timed_in_every_round(mnist):
    speeds = training_speed.measure(mnist, images=256, rounds=2)
    assert list(speeds) == [
        "pipeline/train/epochs.py",
        "model.fit",
        "pipeline/train/augment.py, one thread",
    ]
    assert all(len(of["rounds"]) == 2 and min(of["rounds"]) > 0 for of in speeds.values())


def test_fewer_images_than_a_batch_are_refused(mnist):
    with pytest.raises(UserError, match="128"):
        training_speed.measure(mnist, images=100, rounds=1)
