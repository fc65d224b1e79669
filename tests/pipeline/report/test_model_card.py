"""The model card: the accuracies of parity, and what is misread and how often."""

import json
import re

import numpy as np
from helpers import HAS_TFLITE_RUNTIME

try:
    import yaml
except ModuleNotFoundError:  # on Python 3.13 mutmut brings the other
    import yaml_ft as yaml

from pipeline.report import model_card, model_sections
from pipeline.report.gather import gather


def front_matter(folder):
    """The model card's metadata, and its text."""
    _, matter, body = (folder / "MODEL_CARD.md").read_text().split("---\n", 2)
    return yaml.safe_load(matter), body


def test_model_card_holds_the_accuracies_of_parity(measured):
    matter, body = front_matter(measured)
    parity = json.loads((measured / "parity.json").read_text())
    (result,) = matter["model-index"][0]["results"]
    values = {metric["name"]: metric["value"] for metric in result["metrics"]}
    for row in (parity["reference"], *parity["rows"]):
        assert row["accuracy"] in (values[f"Accuracy of {row['artifact']}"], None)  # not run
    assert result["dataset"]["name"] == result["dataset"]["type"] == "small0"
    assert "datasets" not in matter
    assert "not MNIST" in body
    assert re.search(r"minutes on \d+ cores of a processor", body)


def test_model_card_tells_what_is_misread_and_how_often(measured, small):
    report = gather(measured, small)
    with np.load(measured / "probabilities.npz") as archive:
        runtime = "tflite-runtime" if HAS_TFLITE_RUNTIME else "ai-edge-litert"
        read = archive[f"lenet5_int8.tflite@{runtime}"].argmax(axis=1)
    wrong = np.flatnonzero(read != small.test.labels)
    assert sorted(model_sections.misreadings(report)) == [(i, read[i]) for i in wrong]
    most = [n for _, _, n in model_sections.mistakes(report)]
    assert most == sorted(most, reverse=True)
    assert sum(most) == len(wrong)
    body = front_matter(measured)[1]
    assert "| {} | {} | {} |".format(*model_sections.mistakes(report)[0]) in body
    assert f"The {min(len(wrong), 60)} misread test images" in body


def test_mnist_is_known_by_its_hash(mnist):
    assert mnist.sha256 == model_card.MNIST_SHA256
