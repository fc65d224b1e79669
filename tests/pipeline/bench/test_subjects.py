"""What is timed on the development machine beside what the runner does."""

import numpy as np

from device.bench.processes import Worker
from device.bench.rounds import FULL, Effort
from pipeline.bench import measure


def test_keras_is_the_baseline_and_takes_a_share_of_the_calls_unless_all_are_asked_for(tmp_path):
    for effort, share in ((Effort(), 0.2), (FULL, 1.0)):
        keras, *others = measure.subjects(tmp_path, effort)
        assert (keras.runtime, keras.share) == ("keras", share)
        assert {subject.share for subject in others} == {1.0}


def test_keras_is_timed_as_the_others_are_and_reads_the_images_right(exported, mnist, tmp_path):
    images = tmp_path / "images.npz"
    np.savez(images, images=mnist.test.images[:300], labels=mnist.test.labels[:300])
    keras = next(measure.subjects(exported, Effort()))
    worker = Worker(keras, 1, "any", images)
    try:
        assert worker.receive()["size_bytes"] == keras.artifact.stat().st_size
        burst = worker.ask(batch=1, calls=3)
        assert len(burst["call"]) == 3
        assert "invoke" not in burst
        assert worker.ask()["accuracy"] > 0.7
    finally:
        worker.stop()
