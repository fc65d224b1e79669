"""The temperature is the one that made the labels, and folding it changes confidence alone."""

import numpy as np
import pytest

from pipeline.data import preprocess
from pipeline.train import lenet5, temperature


def test_temperature_that_made_the_labels_is_found():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, 10))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)  # drawn from softmax(logits)
    for factor in (0.5, 1.0, 3.0):
        found = temperature.find_temperature(logits * factor, labels)
        assert found == pytest.approx(factor, rel=0.03)


def test_cross_entropy_of_a_hand_computed_table():
    logits = np.log([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]) + 100
    expected = -(np.log(0.25) + np.log(0.8)) / 2
    assert temperature.cross_entropy(logits, np.array([1, 2])) == pytest.approx(expected)


def test_folding_divides_the_logits_and_keeps_the_labels(mnist):
    import keras

    keras.utils.set_random_seed(0)
    model = lenet5.build()
    images = preprocess(mnist.train.images[:50])
    before = np.asarray(model(images))
    temperature.fold_temperature(model, 0.25)
    after = np.asarray(model(images))
    powered = before**4
    np.testing.assert_allclose(after, powered / powered.sum(axis=1, keepdims=True), atol=1e-5)
    assert (before.argmax(axis=1) == after.argmax(axis=1)).all()


def test_calibration_error_of_a_hand_computed_table():
    # Bin 0.9: two images, one right: |0.5 - 0.9| * 2/4. Bin 0.6: two, both right: |1 - 0.6| * 2/4.
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    labels = np.array([0, 1, 1, 1])
    found = temperature.expected_calibration_error(probabilities, labels, bins=10)
    assert found == pytest.approx(0.4)
