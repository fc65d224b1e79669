"""The fast loop computes Keras's network, and its schedule has the documented shape."""

import dataclasses
import functools

import numpy as np
import pytest

from pipeline import config, data
from pipeline.data import preprocess
from pipeline.train import epochs, lenet5


def test_logits_are_those_of_the_keras_network(mnist):
    import keras

    keras.utils.set_random_seed(0)
    model = lenet5.build()
    rng = np.random.default_rng(0)
    weights = [w + rng.normal(0, 0.05, w.shape).astype(np.float32) for w in model.get_weights()]
    model.set_weights(weights)
    images = mnist.train.images[:50]
    z = np.asarray(epochs.logits(weights, images))
    probabilities = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, model(preprocess(images)), atol=1e-5)


@pytest.mark.parametrize("length", [1, 5])
def test_rate_rises_through_one_epoch_and_falls_to_zero(length):
    recipe = dataclasses.replace(
        config.load_recipe("best"), epochs=length, batch_size=10, learning_rate=0.01
    )
    rates, decays = epochs.schedule(recipe, 1009)
    assert rates.shape == decays.shape == (length, 100)
    assert rates[0, 0] == pytest.approx(0.0001)
    assert (np.diff(rates[0]) > 0).all()
    assert rates.max() == pytest.approx(0.01)
    assert length == 1 or rates[-1, -1] < 1e-5


def test_average_forgets_the_first_weights_quickly():
    recipe = dataclasses.replace(config.load_recipe("best"), epochs=40, batch_size=100)
    _, decays = epochs.schedule(recipe, 55_000)
    assert decays[0, 0] == pytest.approx(0.1)
    assert decays[-1, -1] == pytest.approx(recipe.ema_decay)
    assert (np.diff(decays.ravel()) >= 0).all()


@pytest.mark.parametrize(
    ("accuracies", "images", "selected"),
    [
        ([0.9], 100, 0),
        ([0.90, 0.95, 0.94, 0.90], 100, 2),  # standard error 0.0218: 0.94 is near, 0.90 is not
        ([0.90, 0.95, 0.94, 0.90], 10_000, 1),  # standard error 0.0022
        ([0.5, 1.0, 0.999], 100, 1),  # no error at 1.0, so no standard error either
    ],
)
def test_selected_epoch_is_the_latest_within_a_standard_error(accuracies, images, selected):
    assert epochs.select_epoch(accuracies, images) == selected


def test_training_that_diverges_at_once_does_not_end_with_the_first_weights(mnist):
    few = {
        name: data.Split(split.images[:400], split.labels[:400])
        for name in ("train", "validation")
        for split in [getattr(mnist, name)]
    }
    recipe = dataclasses.replace(
        config.load_recipe("best"), epochs=1, batch_size=4, learning_rate=10.0, weight_decay=1.0
    )
    model = lenet5.build()
    split = dataclasses.replace(mnist, **few)
    draw = functools.partial(epochs.distort, recipe, split)
    history, weights = epochs.fit(model.get_weights(), recipe, split, draw)
    assert np.isnan(history["validation_loss"]).all()
    assert not all(np.isfinite(weight).all() for weight in weights)
