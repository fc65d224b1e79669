"""What may be packed, and what the manifest says of it: small files, no model is run."""

import io
from pathlib import Path

import numpy as np
import pytest

from pipeline.artifacts import NATIVE_SOURCE
from pipeline.bundle import pack
from pipeline.data import Dataset, Split
from pipeline.files import UserError, sha256
from pipeline.native import BINARIES


@pytest.fixture
def judged(tmp_path):
    """A folder of three models and the compiled C, and what parity said of them."""
    names = ("lenet5.keras", "lenet5_fp32.onnx", "lenet5_int8.onnx")
    for name in names:
        (tmp_path / name).write_text(name)
    reference, *artifacts = ({"artifact": n, "sha256": sha256(tmp_path / n)} for n in names)
    rows = [{**a, "status": "pass", "allowed": False, "runtime": "onnxruntime"} for a in artifacts]
    binaries = []
    for name in BINARIES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
        binaries.append({"file": name, "sha256": sha256(tmp_path / name), "status": "pass"})
    parity = {"status": "pass", "reference": reference, "rows": rows, "binaries": binaries}
    return tmp_path, parity


def test_what_passed_as_it_is_may_be_packed(judged):
    pack.check_may_be_packed(*judged)


@pytest.mark.parametrize(
    "name", ["lenet5.keras", "lenet5_fp32.onnx", "lenet5_int8.onnx", BINARIES[0], BINARIES[-1]]
)
@pytest.mark.parametrize("gone", [True, False])
def test_changed_or_missing_file_may_not_be_packed(judged, name, gone):
    path = judged[0] / name
    path.unlink() if gone else path.write_text("other")
    with pytest.raises(UserError, match=f"{name}: changed since parity"):
        pack.check_may_be_packed(*judged)


@pytest.mark.parametrize(
    ("status", "message"),
    [("fail", "lenet5_int8.onnx failed"), ("not_run", "lenet5_int8.onnx passed on no runtime")],
)
def test_artifact_that_did_not_pass_may_not_be_packed(judged, status, message):
    folder, parity = judged
    parity["rows"][1]["status"] = status
    with pytest.raises(UserError, match=message):
        pack.check_may_be_packed(folder, parity)


def test_artifact_that_need_not_run_here_is_no_obstacle(judged):
    folder, parity = judged
    parity["rows"][1] |= {"status": "not_run", "allowed": True}
    pack.check_may_be_packed(folder, parity)
    parity["rows"].append({**parity["rows"][0], "status": "fail"})  # elsewhere it passed
    with pytest.raises(UserError, match=r"fp32\.onnx failed"):
        pack.check_may_be_packed(folder, parity)


def test_compiled_file_that_parity_did_not_see_may_not_be_packed(judged):
    folder, parity = judged
    del parity["binaries"][2]
    with pytest.raises(UserError, match=f"says nothing of {BINARIES[2]}"):
        pack.check_may_be_packed(folder, parity)


@pytest.mark.parametrize("status", ["fail", "not_run", None])
def test_overall_status_must_be_pass(judged, status):
    folder, parity = judged
    with pytest.raises(
        UserError, match=rf"parity\.json: parity is {status!r}; only what passed is packed"
    ):
        pack.check_may_be_packed(folder, {**parity, "status": status})


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("lenet5_fp32.onnx", 1e-4), ("lenet5_int8.tflite", 0.0625), (NATIVE_SOURCE, 0.0)],
)
def test_tolerance_is_that_of_the_models_kind(name, tolerance):
    assert pack.tolerance(name) == tolerance


def test_golden_values_are_of_their_model_and_image():
    images = np.arange(6, dtype=np.uint8).repeat(784).reshape(6, 28, 28)
    split = Split(images, np.arange(6, dtype=np.uint8))
    data = Dataset(split, split, split, tuple("012345"), Path("d"), "")
    probabilities = {
        name: np.float32(np.arange(12).reshape(6, 2) + shift)
        for name, shift in (("a.onnx", 0.1), ("b.tflite", 0.2))
    }
    exciting = {
        "images": np.full((1, 28, 28), 9, np.uint8),
        "a.onnx": np.float32([[5.1, 6.1]]),
        "b.tflite": np.float32([[5.2, 6.2]]),
    }
    packed = pack.golden_archive(data, probabilities, np.array([1, 4]), exciting)
    with np.load(io.BytesIO(packed)) as golden:
        assert golden["labels"].tolist() == [1, 4]
        assert golden["images"][:, 0, 0].tolist() == [1, 4, 9]
        np.testing.assert_allclose(
            golden["a.onnx"], [[2.1, 3.1], [8.1, 9.1], [5.1, 6.1]], rtol=1e-6
        )
        np.testing.assert_allclose(
            golden["b.tflite"], [[2.2, 3.2], [8.2, 9.2], [5.2, 6.2]], rtol=1e-6
        )


def test_exciting_golden_images_are_64_sure_ones_with_their_own_answers():
    sure = np.tile(np.float32([1.0, 0.0]), (100, 1))
    sure[:10] = 0.5
    marks = np.arange(100, dtype=np.uint8)
    archive = {
        "images": marks.repeat(784).reshape(100, 28, 28),
        "outputs": marks[:, None].view(np.int8),
        "lenet5_int8.onnx@onnxruntime": sure,
    }
    taken = pack.choose_exciting(archive, ["lenet5_int8.onnx"])
    shown = taken["images"][:, 0, 0].tolist()
    assert (len(set(shown)), min(shown) >= 10) == (64, True)
    assert taken["outputs"][:, 0].tolist() == shown
    assert taken["lenet5_int8.onnx"].tolist() == sure[shown].tolist()


def test_golden_images_are_those_that_no_tolerance_of_any_model_can_decide():
    def near(margins):
        margins = np.float32(margins)
        return np.stack([0.5 - margins / 2, np.zeros(4, "f4"), 0.5 + margins / 2], axis=1)

    # Twice the tolerance of int8 is 0.125, of float 0.0002.
    values = {
        "lenet5_int8.onnx": near([0.12, 0.13, 0.5, 0.5]),
        "lenet5_fp32.onnx": near([0.5, 0.5, 0.0001, 0.0003]),
    }
    for order in (values, dict(reversed(values.items()))):
        assert pack.choose_golden(order).tolist() == [1, 3]


def test_golden_images_are_256_and_the_same_every_time():
    sure = {"lenet5_fp32.onnx": np.tile(np.float32([1.0, 0.0]), (1_000, 1))}
    chosen = pack.choose_golden(sure)
    assert len(set(chosen.tolist())) == 256
    assert chosen.tolist() == sorted(chosen.tolist()) == pack.choose_golden(sure).tolist()
    assert chosen.max() > 900


def test_manifest_names_the_kernels_that_each_file_was_judged_with():
    rows = [
        {"file": "native/a/lenet5", "status": "pass", "kernels": "sse2"},
        {"file": "native/a/lenet5", "status": "pass", "kernels": "avx2"},
        {"file": "native/a/lenet5", "status": "not_run", "kernels": ""},
        {"file": "native/b/lenet5.so", "status": "not_run", "kernels": ""},
    ]
    source = '{"avx2", network_avx2}; {"sse2", network_sse2}; {"neon", network_neon}'
    assert pack.describe_binaries(rows, source) == {
        "judged": {"native/a/lenet5": ["avx2", "sse2"]},
        "not_judged": {"files": ["native/b/lenet5.so"], "kernels": ["neon"]},
    }


def test_example_picture_is_the_first_test_image_that_every_model_reads_right():
    images = np.arange(4 * 784, dtype=np.uint16).astype(np.uint8).reshape(4, 28, 28)
    labels = np.array([0, 1, 0, 1], np.uint8)
    split = Split(images, labels)
    data = Dataset(split, split, split, ("a", "b"), Path("d"), "")
    right = np.eye(2, dtype=np.float32)[labels]  # (4, 2)
    wrong_at_0, wrong_at_1 = right.copy(), right.copy()
    wrong_at_0[0] = 1 - right[0]
    wrong_at_1[1] = 1 - right[1]
    picture = pack.example_picture(data, {"one": wrong_at_0, "other": wrong_at_1})
    assert picture == b"P5 28 28 255\n" + images[2].tobytes()
