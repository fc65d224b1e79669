"""The runner's command line: pictures in, a line each out, and one line for what is wrong."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import commands
import numpy as np
import pytest
from drawings import write_pgm
from helpers import DEVICE_PYTHON, ROOT, idx_bytes, run_program, run_runner

INT8 = "lenet5_int8.tflite"
RUNNER = ROOT / "device" / "runner.py"


def test_each_picture_is_a_line_and_a_bad_one_costs_no_other(run, digits, mnist, tmp_path):
    (tmp_path / "empty.pgm").touch()
    good, bad = digits / "a.pgm", [tmp_path / "empty.pgm", tmp_path / "no.png", "x" * 300]
    done = run(*bad, good, digits / "c.pgm")
    assert done.returncode == 2
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    match = re.fullmatch(rf"{re.escape(str(good))}  (\d)  \d+\.\d %  \d+\.\d ms", lines[0])
    assert match[1] == str(mnist.test.labels[0])
    errors = done.stderr.splitlines()
    for error, name in zip(errors, bad, strict=True):
        assert error.startswith(f"runner.py: {name}: ")
    assert errors[2].endswith(": cannot be read (File name too long)")


def test_json_is_one_object_a_line_with_the_keys_of_the_contract(run, digits):
    done = run("--json", "-k", "3", "none.png", digits)
    error, *rows = map(json.loads, done.stdout.splitlines())
    assert error == {"file": "none.png", "error": done.stderr.strip().removeprefix("runner.py: ")}
    assert [Path(row["file"]).name for row in rows] == ["a.pgm", "b.npy", "c.pgm"]
    for row in rows:
        assert set(row) == {"file", "label", "probability", "top", "latency_ms"}
        assert len(row["top"]) == 3
        assert row["top"][0] == {"label": row["label"], "probability": row["probability"]}


def test_several_digits_are_read_in_order_with_their_boxes_and_never_as_one(run, mnist, tmp_path):
    picture = np.full((200, 400), 220, np.uint8)  # dark on light
    for left, image in ((50, mnist.test.images[0]), (250, mnist.test.images[1])):
        picture[44:156, left : left + 112] -= np.kron(image, np.ones((4, 4), np.uint8)) // 2
    path = write_pgm(tmp_path / "number.pgm", picture)
    refused, read = run(path), run("--all", "--json", path)
    assert refused.returncode == 2
    assert refused.stderr == f"runner.py: {path}: several digits (2): use --all\n"
    assert read.returncode == 0, read.stderr
    row = json.loads(read.stdout)
    assert row["label"] == "".join(map(str, mnist.test.labels[:2]))
    assert [digit["label"] for digit in row["digits"]] == list(row["label"])
    product = row["digits"][0]["probability"] * row["digits"][1]["probability"]
    assert row["probability"] == pytest.approx(product)
    first, second = (digit["box"] for digit in row["digits"])
    assert 50 <= first[0] < first[2] <= 162 < 250 <= second[0] < second[2] <= 362


def test_answers_carry_the_names_that_the_labels_have():
    predictions = SimpleNamespace(probabilities=np.float32([[0.25, 0.75]]))
    model = SimpleNamespace(predict=lambda images: predictions, classify=lambda image: (1, 0.5))
    image, names = np.zeros((28, 28), np.uint8), ["no", "yes"]
    found = commands.answer_digit(model, image, names, 2)
    assert [answer["label"] for answer in found["top"]] == ["yes", "no"]
    found = commands.answer_digits(model, [(image, (0, 0, 1, 1))] * 2, names, 1)
    assert (found["label"], found["digits"][0]["label"]) == ("yesyes", "yes")
    assert found["probability"] == 0.25


def test_an_answer_that_becomes_unsure_is_another_answer(monkeypatch, capsys):
    sure = iter([0.9, 0.9, 0.4, 0.4])
    frames = [("frame", np.eye(28, dtype=np.uint8))] * 4
    monkeypatch.setattr(commands, "load", lambda args: None)
    monkeypatch.setattr("manifest.label_names", lambda classifier: [])
    monkeypatch.setattr("samples.read_samples", lambda *_: frames)
    monkeypatch.setattr(
        commands, "answer_digit", lambda *_: {"label": "7", "probability": next(sure)}
    )
    commands.run(["-", "-m", "model", "--stable", "2", "--min-confidence", "0.5"])
    first, second = capsys.readouterr().out.splitlines()
    assert ("unsure" in first, "unsure" in second) == (False, True)


def test_an_answer_below_the_threshold_is_unsure_and_tells_its_guess(run, int8, mnist, tmp_path):
    images = mnist.test.images[:8]
    (tmp_path / "eight-ubyte").write_bytes(idx_bytes(images))
    labels, probabilities = int8.predict(images)
    sure = probabilities.max(axis=1)
    arguments = ("--min-confidence", repr(float(np.median(sure[:7]))), tmp_path / "eight-ubyte")
    text, rows = run(*arguments), run("--json", *arguments)
    assert text.returncode == 0, text.stderr
    for i, row in enumerate(map(json.loads, rows.stdout.splitlines())):
        below = sure[i] < np.median(sure[:7])  # one of them is at it, which is enough
        assert row.get("unsure", False) == below
        guess = rf"{labels[i]}  \d+\.\d %"
        said = text.stdout.splitlines()[i]
        assert re.search(rf"  unsure \({guess}\)  " if below else f"  {guess}  ", said)


def test_output_that_is_full_is_one_line(exported):
    command = [sys.executable, RUNNER, "info", "-m", exported / INT8]
    with Path("/dev/full").open("w") as full:
        run = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1] == "runner.py: the output: No space left on device"
    assert "Traceback" not in run.stderr


def test_a_reader_that_goes_away_and_ctrl_c_end_a_command_without_a_word(
    exported, monkeypatch, capsys
):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, RUNNER, "info", "-m", exported / INT8]
    run = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (run.returncode, run.stderr) == (0, b"")

    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "run", interrupted)
    assert commands.main(["info"]) == 130
    assert capsys.readouterr() == ("", "")


def test_what_is_no_picture_in_a_folder_is_skipped_with_a_count(run, mnist, tmp_path):
    write_pgm(tmp_path / "a.pgm", mnist.test.images[0])
    for name in ("Thumbs.db", "README", "labels.txt"):
        (tmp_path / name).write_text("no picture")
    for name in ("b", "b.pnm"):  # their content tells
        (tmp_path / name).write_bytes((tmp_path / "a.pgm").read_bytes())
    done = run(tmp_path)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 3
    assert done.stderr == f"runner.py: {tmp_path}: 3 files that are not pictures were skipped\n"


def test_an_empty_name_is_not_this_folder(run, digits):
    done = run("", cwd=digits)
    assert done.returncode == 2
    assert "no name of a file" in done.stderr


def test_info_names_model_runtime_versions_and_machine_and_options_may_stand_first(run):
    before, after = run("info", python=DEVICE_PYTHON), run("--threads", "1", "info")
    assert before.returncode == after.returncode == 0, before.stderr + after.stderr
    for word in (INT8, "ai-edge-litert", "uint8", "numpy", "python", "machine"):
        assert word in before.stdout
        assert word in after.stdout


def test_every_command_has_help():
    code = """
import commands
for words in ([], *([command] for command in commands.COMMANDS)):
    try:
        commands.main([*words, "--help"])
    except SystemExit as ended:
        print("ended", ended.code)
"""
    run = run_program(sys.executable, "-c", code, cwd=RUNNER.parent, check=True)
    assert "{predict,receipt,verify,info,accuracy,bench}" in run.stdout.splitlines()[0]
    assert run.stdout.count("usage: runner.py ") == run.stdout.count("ended 0") == 7
    assert run.stdout.count("--model MODEL") == 5  # `receipt` takes all


def test_a_file_named_like_a_command_may_follow_a_picture(run, digits, tmp_path):
    shutil.copy(digits / "a.pgm", tmp_path / "info")
    done = run(digits / "a.pgm", "info", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("--threads", ("0", "65")),  # more crash a runtime
        ("--min-confidence", ("-0.1", "1.1", "nan")),
        ("--top-k", ("0",)),
        ("--stable", ("0",)),
    ],
)
def test_an_option_outside_its_range_is_bad_usage(run, digits, option, values):
    for value in values:
        done = run(f"{option}={value}", digits / "a.pgm")
        assert done.returncode == 2
        assert done.stderr.startswith(f"runner.py: {option} ")
        assert done.stderr.count("\n") == 1


def test_images_of_one_grey_of_an_idx_file_hold_no_digit(run, tmp_path):
    path = tmp_path / "black-ubyte"
    grey = np.full((1, 28, 28), 99, np.uint8)
    path.write_bytes(idx_bytes(np.concatenate([np.zeros_like(grey), grey])))
    done = run(path)
    assert done.returncode == 2
    for i in range(2):
        assert f"{path}[{i}]: no digit found" in done.stderr


def test_names_that_do_not_print_are_written_as_escapes_and_the_others_go_on(run, mnist, tmp_path):
    for name in (b"a\xff.pgm", b"b\n.pgm", b"c.pgm", "\u00fc.pgm".encode()):
        write_pgm(tmp_path / os.fsdecode(name), mnist.test.images[0])
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = run(tmp_path, tmp_path / "none\n.pgm", env=ascii_only)
    assert done.returncode == 2
    names = [line.partition("  ")[0].rpartition("/")[2] for line in done.stdout.splitlines()]
    assert names == ["a\\udcff.pgm", "b\\n.pgm", "c.pgm", "\\xfc.pgm"]
    assert done.stderr.startswith(f"runner.py: {tmp_path}/none\\n.pgm: ")


def test_closed_standard_input_is_one_line(exported):
    command = f"exec {sys.executable} {RUNNER} -m {exported}/{INT8} - <&-"
    run = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert run.returncode == 2
    assert "runner.py: -: standard input is closed" in run.stderr


def test_with_standard_error_closed_nothing_but_answers_is_written(exported, tmp_path):
    shutil.copy(RUNNER, tmp_path)
    np.save(tmp_path / "a.npy", np.zeros((28, 28), np.uint8))
    for program, arguments in (
        (RUNNER, f"-m {exported}/{INT8} --json none.png {tmp_path}/a.npy"),
        (tmp_path / "runner.py", f"{exported}/{INT8} none.npy"),
        (RUNNER, f"bench --json -m {tmp_path}/none.onnx"),
    ):
        command = f"exec {sys.executable} {program} {arguments} 2>&-"
        run = subprocess.run(command, shell=True, capture_output=True, text=True)
        assert run.returncode == 2
        assert all("error" in json.loads(line) for line in run.stdout.splitlines())


@pytest.mark.parametrize(
    ("library", "said"),
    [
        ("numpy", "numpy cannot be imported (none here): pip install numpy"),
        ("onnxruntime", "onnxruntime: not usable (none here): pip install onnxruntime"),
    ],
)
def test_a_library_that_cannot_be_imported_is_named_with_what_to_do(
    exported, digits, tmp_path, library, said
):
    (tmp_path / f"{library}.py").write_text("raise ImportError('none here')")
    arguments = ("-m", exported / "lenet5_int8.onnx", digits / "a.pgm")
    run = run_runner(*arguments, env={"PYTHONPATH": str(tmp_path)})
    assert (run.returncode, run.stderr) == (2, f"runner.py: {said}\n")
