"""`runner.py accuracy`: labelled sets in every form, and what is said of those of no use."""

import gzip

import numpy as np
import pytest
from drawings import write_pgm
from helpers import idx_bytes


@pytest.mark.parametrize("form", ["npz", "idx", "two files", "pictures"])
def test_accuracy_reads_what_the_pipeline_reads_and_a_folder_per_class(
    run, int8, mnist, tmp_path, form
):
    images, labels = mnist.test.images[:20], mnist.test.labels[:20]
    right, given = int((int8.predict(images).labels == labels).sum()), [tmp_path]
    if form == "npz":
        np.savez(tmp_path / "set.npz", x_test=images.astype(np.int64), y_test=labels)
    elif form == "pictures":
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = tmp_path / "test" / str(label) / f"{i}.pgm"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_pgm(path, image)
        path.with_name("damaged.png").write_bytes(b"\x89PNG")
        path.with_name("Thumbs.db").write_bytes(b"")
    else:
        given = [tmp_path / f"t10k-{name}-ubyte.gz" for name in ("images-idx3", "labels-idx1")]
        for path, array in zip(given, (images, labels), strict=True):
            path.write_bytes(gzip.compress(idx_bytes(array)))
        given = given if form == "two files" else [tmp_path]
    done = run("accuracy", *given)
    assert done.returncode == 0, done.stderr
    assert f"{right} of {21 if form == 'pictures' else 20} correct" in done.stdout
    assert ("refused pictures: 1" in done.stdout) == (form == "pictures")


def label_255(folder):
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(np.zeros((1, 28, 28), np.uint8)))
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(np.array([255], np.uint8)))


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda folder: folder.rmdir(), "no such file or folder"),
        (lambda folder: None, "no folders of pictures"),
        (lambda folder: (folder / "cat").mkdir(), "not a class of the model"),
        (lambda folder: (folder / "1").mkdir(), "no pictures in it"),
        (lambda folder: (folder / "a.npz").write_bytes(b"PK"), "not an .npz"),
        (lambda folder: np.savez(folder / "a.npz", x_test=np.zeros((1, 28, 28), object)), "x_test"),
        (label_255, "label 255; the model has 10 classes"),
    ],
)  # fmt: skip
def test_a_labelled_set_that_cannot_be_used_is_one_line(run, tmp_path, make, part):
    make(tmp_path)
    done = run("accuracy", tmp_path)
    assert done.returncode == 2
    assert part in done.stderr
    assert done.stderr.count("\n") == 1
