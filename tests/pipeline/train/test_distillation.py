"""Teachers answer once; what is finished is kept, what is damaged is made again."""

import dataclasses
import os

import numpy as np
import pytest

from pipeline import config
from pipeline.data import Split
from pipeline.train import distillation, epochs

RECIPE = dataclasses.replace(config.load_recipe("max"), epochs=3, batch_size=50)
HOW = config.Distillation(
    teachers=1,
    width=2,
    teacher_epochs=2,
    teacher_weight_decay=0.05,
    pool_epochs=2,
    temperature=2.0,
    share=0.9,
)


@pytest.fixture(scope="module")
def few(mnist):
    parts = {name: getattr(mnist, name) for name in ("train", "validation")}
    return dataclasses.replace(
        mnist, **{name: Split(of.images[:1000], of.labels[:1000]) for name, of in parts.items()}
    )


@pytest.fixture(scope="module")
def folder(few, tmp_path_factory):
    """A folder in which one teacher has answered two epochs."""
    folder = tmp_path_factory.mktemp("distillation") / "teachers"
    distillation.teach(RECIPE, HOW, few, folder)
    return folder


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npz")}


def test_answers_are_the_teachers_on_the_very_images_that_the_network_sees(folder, few):
    draw, _ = distillation.teach(RECIPE, HOW, few, folder)
    with np.load(folder / "teacher-1.npz") as file:
        teacher = [file[str(i)] for i in range(len(file))]
    assert [w.shape for w in teacher[::2]] == [
        (5, 5, 1, 12), (5, 5, 12, 32), (800, 240), (240, 168), (168, 10)
    ]  # fmt: skip
    images, labels, answers = draw(0)
    z = epochs.answer(teacher, images) / HOW.temperature
    softened = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(answers, softened, atol=1e-3)  # float16
    assert (softened.argmax(axis=1) == labels).mean() > 0.5


def test_epochs_come_from_the_pool_in_turn_and_in_a_new_order(folder, few):
    draw, _ = distillation.teach(RECIPE, HOW, few, folder)
    first, second, third = (draw(epoch).images for epoch in range(3))
    assert not np.array_equal(first, third)
    assert np.array_equal(np.unique(first, axis=0), np.unique(third, axis=0))
    assert not np.array_equal(np.unique(first, axis=0), np.unique(second, axis=0))


def test_another_seed_and_share_of_the_network_keep_the_teachers(folder, few):
    before = times(folder)
    other = dataclasses.replace(RECIPE, seed=RECIPE.seed + 1, epochs=7, weight_decay=0.1)
    _, seconds = distillation.teach(other, dataclasses.replace(HOW, share=0.5), few, folder)
    assert times(folder) == before
    assert seconds > 0


def test_only_what_is_damaged_or_missing_is_made_again_and_alike(folder, few):
    before = times(folder)
    content = {name: (folder / name).read_bytes() for name in before}
    os.truncate(folder / "epoch-1.npz", 1000)
    (folder / "epoch-2.npz").unlink()
    distillation.teach(RECIPE, HOW, few, folder)
    after = times(folder)
    assert {name for name in after if after[name] != before[name]} == {"epoch-1.npz", "epoch-2.npz"}
    assert {name: (folder / name).read_bytes() for name in after} == content


def test_other_distortions_make_all_again(folder, few):
    before = times(folder)
    strength = dataclasses.replace(RECIPE.augmentation, blur=0.9)
    other = dataclasses.replace(RECIPE, augmentation=strength)
    distillation.teach(other, HOW, few, folder)
    after = times(folder)
    assert all(after[name] > before[name] for name in before)
