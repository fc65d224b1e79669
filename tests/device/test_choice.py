"""Which model and runtime are used: the receipt's fastest, else the first that can run here."""

import hashlib
import json
import os
import re
import time
import zlib
from types import SimpleNamespace

import pytest
from bench.processes import BenchSubject
from bench.rounds import Measurement

from device import commands, receipt, runner
from export import seal

RUNTIME = {".c": "native", ".onnx": "onnxruntime", ".tflite": "ai-edge-litert"}


# --- What can run here --------------------------------------------------------------------------


def test_usable_runtimes_are_those_installed_the_fastest_first(tmp_path, monkeypatch):
    model = tmp_path / "m.tflite"
    assert runner.usable_runtimes(model)[0] == "ai-edge-litert"
    (tmp_path / "tflite_runtime.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    assert runner.usable_runtimes(model) == ["ai-edge-litert", "tflite-runtime"]
    assert runner.usable_runtimes(model.with_suffix(".onnx")) == ["onnxruntime"]
    assert runner.usable_runtimes(model.with_suffix(".txt")) == []


def test_c_model_is_usable_where_it_was_compiled(tmp_path):
    assert runner.usable_runtimes(tmp_path / "m.c") == []
    library = runner.native_library(tmp_path / "m.c")
    library.parent.mkdir()
    library.write_text("")
    assert runner.usable_runtimes(tmp_path / "m.c") == ["native"]


@pytest.mark.parametrize(
    ("machine", "largest", "folder"),
    [
        ("aarch64", 2**63 - 1, "aarch64"),
        ("aarch64", 2**31 - 1, "armv7"),  # a 32-bit system
        ("aarch64", 2**32, "aarch64"),
        ("armv6l", 2**31 - 1, "armv6"),
        ("armv7l", 2**31 - 1, "armv7"),
        ("armv8l", 2**31 - 1, "armv7"),
        ("x86_64", 2**31 - 1, "x86_64"),
    ],
)
def test_library_is_that_of_this_machine(machine, largest, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(runner.os, "uname", lambda: SimpleNamespace(machine=machine))
    monkeypatch.setattr(runner, "sys", SimpleNamespace(maxsize=largest))
    assert runner.native_library(tmp_path / "m.c") == tmp_path / folder / "m.so"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder in place of the runner's."""
    monkeypatch.setattr(commands, "HERE", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("present", "runtime", "chosen"),
    [
        (["lenet5_int8.onnx", "lenet5_int8.tflite"], "auto", "lenet5_int8.tflite"),
        (["lenet5_int8.onnx", "lenet5_int8.tflite"], "onnxruntime", "lenet5_int8.onnx"),
        (["lenet5_fp32.onnx", "lenet5_int8.onnx"], "auto", "lenet5_int8.onnx"),
        (["a.txt", "c.onnx", "b.onnx"], "auto", "b.onnx"),
        (["native/lenet5_int8.c", "lenet5_int8.onnx"], "auto", "lenet5_int8.onnx"),  # not compiled
        (["native/lenet5_int8.c", "lenet5_int8.onnx"], "native", "native/lenet5_int8.c"),
    ],
)
def test_without_a_receipt_the_first_model_that_can_run_is_taken(present, runtime, chosen, here):
    (here / "native").mkdir()
    for name in present:
        (here / name).write_text("")
    assert commands.default_model(runtime) == (here / chosen, runtime)


@pytest.mark.parametrize(
    ("present", "runtime", "message"),
    [
        ([], "auto", "no model in {}: name one with --model"),
        (["a.onnx"], "native", "no model for native in {}: name one with --model"),
        (["b.c"], "auto", "no runtime for b.c: pip install ai-edge-litert"),
        (["b.c", "a.c"], "auto", "no runtime for b.c: pip install ai-edge-litert"),
    ],
)
def test_where_nothing_can_run_one_line_says_what_to_do(present, runtime, message, here):
    for name in present:
        (here / name).write_text("")
    with pytest.raises(ValueError) as caught:
        commands.default_model(runtime)
    assert str(caught.value) == message.format(here)


def test_the_receipts_choice_comes_first_unless_a_runtime_is_named(here, monkeypatch):
    (here / "a.onnx").write_text("")
    monkeypatch.setattr("manifest.chosen", lambda: ("model", "native"))
    assert commands.default_model("auto") == ("model", "native")
    assert commands.default_model("onnxruntime") == (here / "a.onnx", "onnxruntime")


# --- Checksums ----------------------------------------------------------------------------------


def test_model_with_any_byte_altered_is_refused(tmp_path):
    path = tmp_path / "m.onnx"
    sealed = seal.seal(b'before {"crc32": "00000000"} after')
    path.write_bytes(sealed)
    assert runner.read_model(path) == sealed
    for i in range(len(sealed)):
        path.write_bytes(sealed[:i] + bytes([sealed[i] ^ 1]) + sealed[i + 1 :])
        with pytest.raises(runner.InputError, match=r"m\.onnx: (damaged|not a model of this)"):
            runner.read_model(path)
    path.write_bytes(sealed.replace(b"crc32", b"CRC32"))
    with pytest.raises(runner.InputError, match=r"no checksum\): use `make export`"):
        runner.read_model(path)


@pytest.mark.parametrize("places", [0, 2])
def test_file_without_one_place_for_the_checksum_is_not_sealed(places):
    with pytest.raises(ValueError, match=f"{places} places for a checksum"):
        seal.seal(b'{"crc32": "00000000"}' * places)


@pytest.mark.parametrize("code", [b"", b"code"])
def test_library_is_refused_if_it_is_missing_or_its_checksum_is_wrong(code, tmp_path):
    library = tmp_path / "m.so"
    with pytest.raises(runner.InputError, match=r"\.so: not compiled for this machine: make -C na"):
        runner.check_library(library)
    sealed = code + (zlib.crc32(code) + (len(code) << 32)).to_bytes(8, "little")
    library.write_bytes(sealed)
    runner.check_library(library)
    one_bit = [sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :] for at in range(-8, -1)]
    for wrong in (sealed[:-1], sealed + b"\0", *one_bit, b"", b"1234567"):
        library.write_bytes(wrong)
        with pytest.raises(runner.InputError, match=r"\.so: damaged; compile it or copy it again"):
            runner.check_library(library)


# --- The receipt --------------------------------------------------------------------------------


@pytest.fixture
def judged(tmp_path, monkeypatch):
    """A function that judges models, given as NAME: (why not verified, us a call or why none)."""
    monkeypatch.setattr(receipt, "HERE", tmp_path)
    (tmp_path / "bundle.sha256").write_text("abc")
    monkeypatch.setattr(receipt, "board_name", lambda: "Pi")

    def judge(throttling=(), bits=None, **models):
        monkeypatch.setattr(receipt, "read_throttled", lambda: bits)

        def prove(subject):
            reason = models[subject.artifact.stem][0]
            row = {"artifact": subject.file, "runtime": subject.runtime, "runtime_version": "1"}
            times = {"latency_us": None, "invoke_us": None}
            return {**row, "verified": not reason, "reason": reason, **times}

        def time_those(subjects):
            benchmark = SimpleNamespace(measurements=[], failed={})
            for subject in subjects:
                us = models[subject.artifact.stem][1]
                if us is None:
                    benchmark.failed[subject] = "would not start"
                    continue
                about = {"runtime_version": "1", "size_bytes": 1}
                measured = Measurement(subject, 1, 1, about)
                if isinstance(us, str):
                    measured.reason = us
                elif us:
                    measured.launches = [[{"call": [1000 * us], "invoke": [500 * us]}]]
                many = Measurement(subject, 1, 8, about, [[{"call": [1], "invoke": [1]}]])
                benchmark.measurements += [measured, many]
            for measured, name in zip(benchmark.measurements, throttling, strict=False):
                measured.throttling = name
            return benchmark

        monkeypatch.setattr(receipt, "prove", prove)
        monkeypatch.setattr(receipt, "time_those", time_those)
        return receipt.judge([BenchSubject(tmp_path / f"{n}.onnx", "onnxruntime") for n in models])

    return judge


def test_the_fastest_of_those_that_answer_right_is_chosen(judged):
    said = judged(a=("", 30), wrong=("differs", 1), b=("", 20), c=("", 40))
    assert said["choice"] == {"artifact": "b.onnx", "runtime": "onnxruntime"}
    times = [(row["latency_us"], row["invoke_us"]) for row in said["rows"]]
    assert times == [(30, 15), (None, None), (20, 10), (40, 20)]
    assert [row["verified"] for row in said["rows"]] == [True, False, True, True]


@pytest.mark.parametrize(
    ("us", "reason"), [(None, "would not start"), ("crashed", "crashed"), (0, "could not be timed")]
)
def test_what_cannot_be_timed_is_not_chosen_and_says_why(us, reason, judged):
    said = judged(a=("", us), b=("", 20))
    assert said["choice"]["artifact"] == "b.onnx"
    assert [row["reason"] for row in said["rows"]] == [reason, ""]
    assert judged(a=("", us))["choice"] is None
    assert judged(a=("differs", 1))["choice"] is None


def test_receipt_says_what_it_is_of(judged, monkeypatch):
    moment = time.struct_time((2026, 1, 2, 3, 4, 5, 4, 2, 0))
    monkeypatch.setattr(time, "gmtime", lambda: moment)
    said = judged(a=("", 30))
    about = {"schema_version": 1, "board": "Pi", "bundle_sha256": "abc", "throttled": None}
    assert said.items() >= about.items()
    assert said["time"] == "2026-01-02T03:04:05Z"
    assert said.keys() - about.keys() == {"system", "python", "time", "rows", "choice"}


def test_receipt_tells_what_throttled_the_machine(judged):
    models = {"a": ("", 30), "b": ("", 20)}
    assert judged(**models, throttling=["throttled"])["throttled"] is None  # nothing tells it
    assert judged(**models, throttling=["", "", "throttled"], bits=0)["throttled"] == "throttled"
    assert judged(**models, bits=0)["throttled"] == ""
    assert judged(bits=0)["throttled"] == ""


def test_receipt_is_shown_as_a_table_with_the_choice(judged):
    said = judged(a=("", 30), b=("a\nb", 1), bits=0, throttling=["hot"])
    said["rows"][1]["runtime_version"] = None
    lines = receipt.format_receipt(said).splitlines()
    assert [re.split(" {2,}", line.strip()) for line in lines] == [
        ["artifact", "runtime", "version", "us an image"],
        ["a.onnx", "onnxruntime", "1", "30.0"],
        ["b.onnx", "onnxruntime", r"not used: a\nb"],
        ["while it was timed, this machine had: hot"],
        ["chosen: a.onnx on onnxruntime"],
    ]
    assert len(receipt.format_receipt(judged(b=("wrong", 1))).splitlines()) == 2


def test_receipt_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path, synced = tmp_path / "device.json", []

    def keep(descriptor):
        synced.append((path.exists(), os.fstat(descriptor).st_size))

    monkeypatch.setattr(receipt.os, "fsync", keep)
    receipt.write(path, {"board": "é", "rows": []})
    assert synced == [(False, path.stat().st_size)]  # a power cut after the rename harms nothing
    assert path.read_text("utf-8") == json.dumps({"board": "é", "rows": []}, indent=2) + "\n"
    with pytest.raises(TypeError):
        receipt.write(path, {"board": {1}})
    assert "rows" in path.read_text()
    assert [file.name for file in tmp_path.iterdir()] == ["device.json"]


CHOICE = {"artifact": "a.onnx", "runtime": "onnxruntime"}


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """A function that runs `receipt` where judging chooses this; (exit code, output, subjects)."""
    monkeypatch.setattr(receipt, "HERE", tmp_path)
    monkeypatch.setattr(receipt, "usable_runtimes", lambda model: [RUNTIME[model.suffix]])
    models, files = ("a.onnx", "b.tflite"), ("runner.py", "golden.npz", "a.onnx", "b.tflite")
    for name in files:
        (tmp_path / name).write_text("")
    empty = {"sha256": hashlib.sha256(b"").hexdigest()}
    manifest = {"schema_version": 1, "files": dict.fromkeys(files, empty)}
    manifest["models"] = {name: {"tolerance": 0.1} for name in models}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))

    def run_it(choice):
        asked = []

        def judge(subjects):
            asked.extend((subject.artifact, subject.runtime) for subject in subjects)
            return {"rows": [], "throttled": "", "choice": choice}

        monkeypatch.setattr(receipt, "judge", judge)
        return receipt.run(None), capsys.readouterr().out.splitlines(), asked

    return run_it


def test_every_model_is_judged_on_its_runtimes_and_the_choice_is_kept(run, tmp_path):
    code, lines, asked = run(CHOICE)
    wanted = [("a.onnx", "onnxruntime"), ("b.tflite", "ai-edge-litert")]
    assert asked == [(tmp_path / name, runtime) for name, runtime in wanted]
    assert (code, lines[-2:]) == (0, ["chosen: a.onnx on onnxruntime", "PASS"])
    assert json.loads((tmp_path / "device.json").read_text())["choice"] == CHOICE


def test_where_nothing_answers_right_no_receipt_is_written(run, tmp_path):
    code, lines, _ = run(None)
    assert (code, lines[-1]) == (1, "FAIL")
    assert not (tmp_path / "device.json").exists()


def test_altered_files_fail_before_any_model_is_run(run, tmp_path):
    (tmp_path / "a.onnx").write_text("x")
    (tmp_path / "b.tflite").unlink()
    assert run(CHOICE) == (
        1,
        [
            "differs  a.onnx: altered; its SHA-256 is not the manifest's",
            "differs  b.tflite: missing; unpack the bundle again",
            "FAIL",
        ],
        [],
    )
    assert not (tmp_path / "device.json").exists()


def test_without_a_runtime_one_line_says_so(run, monkeypatch):
    monkeypatch.setattr(receipt, "usable_runtimes", lambda model: [])
    with pytest.raises(ValueError, match=r"^no model could be run: install a runtime$"):
        run(None)
