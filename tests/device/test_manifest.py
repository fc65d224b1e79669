"""What lies beside the models is refused if it is damaged, and decides what is used."""

import hashlib
import json
import re
from types import SimpleNamespace

import bench.machine
import numpy as np
import pytest
from runner import InputError

from device import manifest

SOUND = {"schema_version": 1, "files": {}, "models": {}}


@pytest.mark.parametrize(
    ("model", "folder"),
    [
        ("b/m.onnx", "b"),
        ("b/native/m.c", "b"),
        ("b/native/x86_64/m.so", "b"),
        ("b/native/x/y/m.c", "b/native/x/y"),
    ],
)
def test_folder_of_a_bundle_is_the_models_or_the_one_around_native(model, folder, tmp_path):
    assert manifest.bundle_folder(tmp_path / model) == tmp_path / folder


def test_manifest_is_read_and_none_is_none(tmp_path):
    assert manifest.read_manifest(tmp_path) is None
    (tmp_path / "manifest.json").write_text(json.dumps({**SOUND, "labels": ["é"]}), "utf-8")
    assert manifest.read_manifest(tmp_path) == {**SOUND, "labels": ["é"]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b"[" * 100_000,
        *(json.dumps({**SOUND, key: []}).encode() for key in ("files", "models")),
        *(json.dumps({k: v for k, v in SOUND.items() if k != key}).encode() for key in SOUND),
    ],
)
def test_manifest_of_another_form_is_damaged(content, tmp_path):
    path = tmp_path / "manifest.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"^{re.escape(str(path))}: damaged; unpack the bundle"):
        manifest.read_manifest(tmp_path)


@pytest.mark.parametrize("version", [0, 2, "1"])
def test_manifest_of_another_version_is_told(version, tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({**SOUND, "schema_version": version}))
    with pytest.raises(InputError, match=f"schema version {version!r}, not 1; use the runner of"):
        manifest.read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("labels", "names"),
    [(["a", "b"], ["a", "b"]), (["a"], ["0", "1"]), ("ab", ["0", "1"]), ([7, 8], ["7", "8"])],
)
def test_labels_are_the_manifests_if_it_has_one_a_class(labels, names, tmp_path):
    classifier = SimpleNamespace(model=SimpleNamespace(path=tmp_path / "m.onnx"), classes=2)
    assert manifest.label_names(classifier) == ["0", "1"]
    (tmp_path / "manifest.json").write_text(json.dumps({**SOUND, "labels": labels}))
    assert manifest.label_names(classifier) == names


GOLDEN = {
    "images": np.zeros((3, 28, 28), np.uint8),
    "labels": np.array([1, 2], np.uint8),
    "m.onnx": np.ones((3, 10), np.float32),
}


def test_golden_vectors_are_read_as_they_were_written(tmp_path):
    np.savez(tmp_path / "golden.npz", **GOLDEN)
    read = manifest.read_golden(tmp_path)
    assert read.keys() == GOLDEN.keys()
    np.testing.assert_equal(read, GOLDEN)
    for n in (1, 3):  # all images may have a label, one must
        np.savez(tmp_path / "golden.npz", **{**GOLDEN, "labels": np.zeros(n, np.uint8)})
        assert len(manifest.read_golden(tmp_path)["labels"]) == n


@pytest.mark.parametrize(
    "change",
    [
        {"images": None},
        {"labels": None},
        {"images": GOLDEN["images"].astype(np.int8)},
        {"labels": GOLDEN["labels"].astype(np.int8)},
        {"labels": GOLDEN["labels"][:, None]},
        {"labels": GOLDEN["labels"][:0]},
        {"labels": np.zeros(4, np.uint8)},
        {"images": GOLDEN["images"][..., None]},
        {"images": GOLDEN["images"][:, 1:]},
        {"m.onnx": GOLDEN["m.onnx"].astype(np.float64)},
    ],
)
def test_golden_vectors_of_another_form_are_damaged(change, tmp_path):
    arrays = {n: array for n, array in {**GOLDEN, **change}.items() if array is not None}
    np.savez(tmp_path / "golden.npz", **arrays)
    with pytest.raises(InputError, match=r"golden\.npz: damaged; unpack the bundle again"):
        manifest.read_golden(tmp_path)


def test_no_code_in_the_golden_vectors_is_run(tmp_path):
    class Touch:
        def __reduce__(self):
            return (tmp_path / "made").touch, ()

    np.savez(tmp_path / "golden.npz", **{**GOLDEN, "m.onnx": np.array([Touch()])})
    with pytest.raises(InputError, match=r"golden\.npz: damaged"):
        manifest.read_golden(tmp_path)
    assert not (tmp_path / "made").exists()


def test_bundle_is_known_by_the_installers_digest_or_by_its_manifest(tmp_path):
    (tmp_path / "manifest.json").write_bytes(b"{}")
    assert manifest.bundle_sha256(tmp_path) == hashlib.sha256(b"{}").hexdigest()
    (tmp_path / "bundle.sha256").write_text("abc\n")
    assert manifest.bundle_sha256(tmp_path) == "abc"


@pytest.fixture
def receipt(tmp_path, monkeypatch):
    """A folder in place of the runner's, and a receipt that chose the model in it."""
    monkeypatch.setattr(manifest, "HERE", tmp_path)
    monkeypatch.setattr(bench.machine, "board_name", lambda: "Pi")
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "m.onnx").write_text("")
    return {
        "schema_version": 1,
        "bundle_sha256": manifest.bundle_sha256(tmp_path),
        "board": "Pi",
        "choice": {"artifact": "m.onnx", "runtime": "onnxruntime"},
    }


def test_the_receipts_choice_is_taken(receipt, tmp_path, capsys):
    assert manifest.chosen() is None
    (tmp_path / "device.json").write_text(json.dumps(receipt))
    assert manifest.chosen() == (tmp_path / "m.onnx", "onnxruntime")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"schema_version": 2}, "of schema version 2, not 1"),
        ({"bundle_sha256": "0" * 64}, "of another bundle"),
        ({"board": "Pi 9"}, "of another machine, Pi 9"),
        ({"choice": {"artifact": "no.onnx", "runtime": "onnxruntime"}}, "chose no.onnx on onnx"),
        ({"choice": {"artifact": "m.onnx", "runtime": "native"}}, "chose m.onnx on native, which"),
        ({"choice": {"artifact": "m.onnx"}}, "damaged"),
        ({"choice": None}, "damaged"),
        ({"choice": {"artifact": 7, "runtime": "native"}}, "damaged"),
    ],
)
def test_a_receipt_that_is_not_of_this_place_is_not_used_and_one_line_says_why(
    change, reason, receipt, tmp_path, capsys
):
    path = tmp_path / "device.json"
    path.write_text(json.dumps({**receipt, **change}))
    assert manifest.chosen() is None
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"runner.py: {path}: not used: {reason}")
    assert line.endswith("; make a new one with: runner.py receipt")


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"[" * 100_000])
def test_a_damaged_receipt_is_not_used(content, receipt, tmp_path, capsys):
    (tmp_path / "device.json").write_bytes(content)
    assert manifest.chosen() is None
    assert "not used: damaged; " in capsys.readouterr().err
