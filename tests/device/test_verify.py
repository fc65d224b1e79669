"""`verify` on a small bundle put together here: every way to differ is told."""

import hashlib
import json
import re
import shutil

import numpy as np
import pytest
from commands import build_parser
from dense_onnx import write_dense
from runner import HERE, Classifier, InputError

from device import verify

MODEL = "lenet5_fp32.onnx"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    weights = np.random.default_rng(0).normal(0, 0.05, (1024, 10))
    return write_dense(tmp_path_factory.mktemp("model") / MODEL, weights=weights)


@pytest.fixture(scope="module")
def expected(model):
    """uint8 (12, 28, 28) images and the model's own probabilities, float32 (12, 10)."""
    images = np.random.default_rng(1).integers(0, 256, (12, 28, 28), np.uint8)
    return images, Classifier(model).predict(images).probabilities


@pytest.fixture
def bundle(model, expected, tmp_path, capsys):
    """A function that writes a bundle with some things changed and verifies one of its models.

    It returns the exit code and what was printed.
    """
    shutil.copy(model, tmp_path)
    (tmp_path / "runner.py").write_text("# the runner")
    images, probabilities = expected

    def verify_it(*options, name=MODEL, golden=probabilities, tolerance=1e-4, files=None, **others):
        arrays = {"images": images, "labels": np.zeros(12, np.uint8), MODEL: golden, **others}
        np.savez(tmp_path / "golden.npz", **{n: a for n, a in arrays.items() if a is not None})
        hashes = {n: sha256(tmp_path / n) for n in ("runner.py", "golden.npz", MODEL)}
        tolerances = dict.fromkeys((*others, MODEL), tolerance)
        content = {
            "schema_version": 1,
            "files": {n: {"sha256": value} for n, value in {**hashes, **(files or {})}.items()},
            "models": {n: {"tolerance": value} for n, value in tolerances.items()},
        }
        (tmp_path / "manifest.json").write_text(json.dumps(content))
        arguments = ["verify", "--model", str(tmp_path / name), *options]
        return verify.run(build_parser().parse_args(arguments)), capsys.readouterr().out

    return verify_it


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fails_with(said, line):
    code, stdout = said
    assert (code, stdout.splitlines()[-1]) == (1, "FAIL")
    assert line in stdout.splitlines()


def test_equal_answers_pass_and_name_the_model(bundle):
    code, stdout = bundle()
    assert code == 0
    assert re.fullmatch(rf"ok       {MODEL} on onnxruntime [0-9.]+\nPASS\n", stdout)


@pytest.mark.parametrize(("difference", "passes"), [(0.9e-3, True), (1.1e-3, False)])
def test_probabilities_may_differ_by_the_tolerance_and_no_more(
    bundle, expected, difference, passes
):
    golden = expected[1].copy()
    golden[3, 4] += difference
    said = bundle(golden=golden, tolerance=1e-3)
    if passes:
        assert said[0] == 0
    else:
        fails_with(said, f"differs  {MODEL}: probabilities differ by 0.0011, over 0.001")


def test_a_difference_of_exactly_the_tolerance_is_none():
    zeros = np.zeros((1, 2), np.float32)
    assert verify.compare(zeros, zeros + np.float32([0.0, -0.5]), 0.5) == []


def test_another_label_fails_though_the_tolerance_covers_the_difference(bundle, expected):
    golden, label = expected[1].copy(), expected[1][5].argmax()
    golden[5] = 0.0
    golden[5, (label + 1) % 10] = 0.5
    said = bundle(golden=golden, tolerance=0.9999999)
    fails_with(said, f"differs  {MODEL}: golden image 5 is {label}, not {(label + 1) % 10}")
    assert said[1].count("\n") == 2


def test_nan_among_the_golden_outputs_fails(bundle, expected):
    golden = expected[1].copy()
    golden[2, 9] = np.nan
    fails_with(bundle(golden=golden), f"differs  {MODEL}: probabilities differ by nan, over 0.0001")


@pytest.mark.parametrize("shape", [(12, 9), (11, 10)])
def test_golden_outputs_of_another_shape_fail(bundle, expected, shape):
    golden = expected[1][: shape[0], : shape[1]]
    fails_with(
        bundle(golden=golden), f"differs  {MODEL}: golden outputs of shape {shape}, not (12, 10)"
    )


@pytest.mark.parametrize("tolerance", [-1e-9, 1.0, float("nan"), "x", [], 10**400])
def test_tolerance_that_is_none_is_a_damaged_manifest(bundle, tolerance):
    with pytest.raises(InputError, match=r"manifest\.json: damaged; unpack the bundle again"):
        bundle(tolerance=tolerance)


@pytest.mark.parametrize("tolerance", [0.0, 0.9999])
def test_tolerance_from_0_to_1_is_taken(bundle, tolerance):
    assert bundle(tolerance=tolerance)[0] == 0


def test_model_without_a_promise_is_refused(bundle, tmp_path, model):
    shutil.copy(model, tmp_path / "other.onnx")
    with pytest.raises(InputError, match=r"other\.onnx: not a model of this bundle's manifest"):
        bundle(name="other.onnx")
    with pytest.raises(InputError, match=r"none\.onnx: no such model; name one with --model"):
        bundle(name="none.onnx")
    with pytest.raises(InputError, match=r"manifest\.json: damaged"):  # it has no hash
        bundle("--all", **{"other.onnx": np.zeros(1, np.float32)})
    with pytest.raises(InputError, match=r"golden\.npz: damaged"):  # it has no golden outputs
        bundle(golden=None)


@pytest.mark.parametrize("name", ["runner.py", "golden.npz"])
@pytest.mark.parametrize("entry", [None, 1, {}])
def test_manifest_without_a_hash_of_the_runner_or_the_golden_vectors_is_damaged(
    bundle, tmp_path, name, entry
):
    bundle()
    path = tmp_path / "manifest.json"
    manifest = json.loads(path.read_text())
    files = {**manifest["files"], name: entry}
    manifest["files"] = {name: entry for name, entry in files.items() if entry is not None}
    path.write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"manifest\.json: damaged"):
        verify.read_promises(tmp_path)


def test_folder_without_a_manifest_is_no_bundle(tmp_path):
    with pytest.raises(
        InputError, match=r"verify works in an unpacked bundle; here is no manifest"
    ):
        verify.read_promises(tmp_path)


@pytest.mark.parametrize("name", ["gone.txt", "a\nb", "a\x1b[2J"])
def test_missing_file_and_a_name_that_does_not_print_fail(bundle, tmp_path, name):
    if name != "gone.txt":
        (tmp_path / name).write_bytes(b"")
    said = bundle(files={name: hashlib.sha256(b"").hexdigest()})
    shown = name.replace("\n", "\\n").replace("\x1b", "\\x1b")
    fails_with(said, f"differs  {shown}: missing; unpack the bundle again")
    assert said[1].count("\n") == 2


def test_altered_file_fails_and_no_model_is_run(bundle):
    said = bundle(files={"runner.py": "0" * 64})
    fails_with(said, "differs  runner.py: altered; its SHA-256 is not the manifest's")
    assert said[1].count("\n") == 2


def uncompiled(folder):
    """What a bundle says of a model that no runtime here can read."""
    (folder / "native").mkdir()
    source = folder / "native" / "m.c"
    source.write_text("")
    return {"files": {"native/m.c": sha256(source)}, "native/m.c": np.zeros((12, 10), np.float32)}


def test_what_cannot_run_here_is_told_and_the_rest_decides(bundle, tmp_path):
    changes = uncompiled(tmp_path)
    code, stdout = bundle("--all", name="native/m.c", **changes)
    lines = stdout.splitlines()
    assert (code, lines[0]) == (0, "not run  native/m.c: no runtime installed")
    assert lines[1].startswith(f"ok       {MODEL} on onnxruntime ")
    with pytest.raises(InputError, match="not compiled for this machine"):  # asked for by name
        bundle(name="native/m.c", **changes)


def test_what_differs_is_told_of_every_model(bundle, tmp_path, model, expected):
    shutil.copy(model, tmp_path / "other.onnx")
    wrong = {"golden": expected[1] + np.float32(0.1), "other.onnx": expected[1] - np.float32(0.1)}
    said = bundle("--all", files={"other.onnx": sha256(model)}, **wrong)
    for name in (MODEL, "other.onnx"):
        fails_with(said, f"differs  {name}: probabilities differ by 0.1, over 0.0001")


def test_the_bundle_of_this_runner_is_verified_if_no_model_is_named():
    with pytest.raises(InputError, match=f"{re.escape(str(HERE))}: verify works in an unpacked"):
        verify.run(build_parser().parse_args(["verify", "--all"]))


def test_nothing_run_is_a_failure(bundle, monkeypatch):
    monkeypatch.setattr(verify, "usable_runtimes", lambda model: [])
    said = bundle("--all")
    fails_with(said, "differs  no model could be run: install a runtime")
    assert said[1].startswith(f"not run  {MODEL}: no runtime installed\n")
