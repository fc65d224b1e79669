"""What is timed on the development machine beside what the runner does."""

import numpy as np
import pytest

from device.bench.processes import Worker
from device.bench.rounds import FULL, Effort
from pipeline.bench import run as bench


def test_keras_is_the_baseline_and_takes_a_share_of_the_calls_unless_all_are_asked_for(tmp_path):
    for effort, share in ((Effort(), 0.2), (FULL, 1.0)):
        keras, *others = bench.subjects(tmp_path, effort)
        assert (keras.runtime, keras.share) == ("keras", share)
        assert {subject.share for subject in others} == {1.0}


@pytest.mark.parametrize(
    ("runtime", "timed"), [("keras", ["call"]), ("wasmtime", ["call", "invoke"])]
)
def test_what_the_runner_has_no_part_in_is_timed_likewise_and_reads_the_images_right(
    exported, mnist, tmp_path, runtime, timed
):
    images = tmp_path / "images.npz"
    np.savez(images, images=mnist.test.images[:300], labels=mnist.test.labels[:300])
    subject = next(s for s in bench.subjects(exported, Effort()) if s.runtime == runtime)
    worker = Worker(subject, 1, "any", images)
    try:
        assert worker.receive()["size_bytes"] == subject.artifact.stat().st_size
        burst = worker.ask(batch=1, calls=3)
        assert {name: len(times_ns) for name, times_ns in burst.items()} == dict.fromkeys(timed, 3)
        assert worker.ask()["accuracy"] > 0.7
    finally:
        worker.stop()
