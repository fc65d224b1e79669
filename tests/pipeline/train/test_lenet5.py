"""The network is the published one."""

import pytest

from pipeline.train import lenet5


def test_parameters_are_the_published_ones_layer_by_layer():
    model = lenet5.build()
    counted = {layer.name: layer.count_params() for layer in model.layers if layer.count_params()}
    assert counted == {"C1": 156, "C3": 2_416, "C5": 48_120, "F6": 10_164, "OUTPUT": 850}
    assert model.count_params() == 61_706
    assert len(lenet5.PUBLISHED_PARAMETERS) == 7


def test_input_and_flatten_bear_the_published_names():
    model = lenet5.build()
    assert model.input.name == "INPUT"
    assert "FLATTEN" in [layer.name for layer in model.layers]
    assert model.input_shape == (None, 32, 32, 1)


def test_another_number_of_classes_changes_the_output_layer_alone():
    model = lenet5.build(classes=26)
    assert model.output_shape == (None, 26)
    assert model.count_params() == 61_706 - 850 + 26 * 85


def test_a_network_with_another_layer_is_refused():
    import keras

    wrong = keras.Sequential([keras.Input((32, 32, 1)), keras.layers.Flatten(name="FLATTEN")])
    with pytest.raises(ValueError, match="layer C1"):
        lenet5.check_parameters(wrong, 10)
