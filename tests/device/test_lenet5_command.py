"""The lenet5 command: what it prints of each form of image, and what it refuses in one line."""

import gzip
import json
import os
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from helpers import idx_bytes, run_program
from native_helpers import SANITIZERS, build_command

from pipeline.artifacts import this_architecture


@pytest.fixture(scope="session")
def command(lenet5):
    """The lenet5 command for this machine, with sanitizers."""
    return build_command(lenet5, lenet5.source.with_name("lenet5"), "-O2", *SANITIZERS)


def pgm(image):
    return b"P5\n# a comment\n28 28\n255\n" + image.tobytes()


@pytest.mark.parametrize("kind", ["pgm", "raw", "idx"])
def test_command_prints_label_and_probability(kind, command, lenet5, tmp_path):
    images = lenet5.images[: 1 if kind == "pgm" else 4]  # for the fourth, two labels tie
    contents = {"pgm": pgm(images[0]), "raw": images.tobytes(), "idx": idx_bytes(images)}
    path = tmp_path / f"digits.{kind}"
    path.write_bytes(contents[kind])
    done = run_program(command, path)
    expected = [
        f"{path}\t{index}\t{output.argmax()}\t{(int(output.max()) + 128) / 256:.4f}"
        for index, output in enumerate(lenet5.outputs[: len(images)])
    ]
    assert (done.returncode, done.stdout.splitlines()) == (0, expected)


def test_command_writes_what_would_steer_a_terminal_as_escapes(command, lenet5, tmp_path):
    path = tmp_path / "a\n\x1b[2J\x9b\u00fc"
    path.write_bytes(pgm(lenet5.images[0]))
    for name, said in ((path, "stdout"), (path.with_name(path.name + "b"), "stderr")):
        text = getattr(run_program(command, name), said)
        assert text.startswith(f"{tmp_path}/a\\x0a\\x1b[2J\\xc2\\x9b\u00fc")
        assert text.count("\n") == 1


@pytest.mark.parametrize(
    ("contents", "problem"),
    [
        (b"", "empty"),
        (b"P5\n28 28\n255\n" + b"x" * 783, "cut short"),
        (b"P5\n28 28\n255\n" + b"x" * 785, "followed by more"),
        (b"P5\n32 32\n255\n" + b"x" * 1024, "wrong size"),
        (b"P5\n28 28\n65535\n" + b"x" * 1568, "not 255"),
        (b"P5\n28 28", "damaged PGM"),
        (b"P2\n28 28\n255\n", "neither"),
        (idx_bytes(np.zeros((2, 28, 28), np.uint8))[:-1], "does not match"),
        (struct.pack(">IIII", 0x803, 1, 27, 28) + b"x" * 756, "wrong size"),
        (struct.pack(">I", 0x803), "cut short"),
        (gzip.compress(b"x", mtime=0), "gunzip"),
    ],
)
def test_bad_image_is_one_line_and_exit_code_2(contents, problem, command, tmp_path):
    path = tmp_path / "bad"
    path.write_bytes(contents)
    done = run_program(command, path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"{path}: ")
    assert problem in done.stderr


def test_missing_image_and_bad_usage_are_exit_code_2(command):
    for arguments in (["none"], [], ["--verify"], ["--unknown"], ["--bench", "a", "b"]):
        done = run_program(command, *arguments)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_what_cannot_be_read_or_written_is_named_with_the_reason_and_costs_no_other(
    command, lenet5, tmp_path
):
    large, good, empty = (tmp_path / name for name in ("large", "good", "empty"))
    large.touch()
    os.truncate(large, (64 << 20) + 1)
    good.write_bytes(pgm(lenet5.images[0]))
    empty.write_bytes(idx_bytes(np.zeros((0, 28, 28), np.uint8)))
    done = run_program(command, "none", tmp_path, large, good)
    assert (done.returncode, done.stdout.count("\n")) == (2, 1)
    assert done.stderr.splitlines() == [
        "none: no such file",
        f"{tmp_path}: is a folder",
        f"{large}: file is larger than 64 MiB",
    ]
    done = run_program(command, "--bench", empty)
    assert (done.returncode, done.stderr) == (2, f"{empty}: no images in the file\n")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([command, good], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (2, "standard output: cannot be written\n")


def test_verify_tells_a_changed_output_by_exit_code_1(command, golden, tmp_path):
    changed = bytearray(golden.read_bytes())
    changed[-1] ^= 1
    path = tmp_path / "changed.bin"
    path.write_bytes(changed)
    done = run_program(command, "--verify", path)
    assert done.returncode == 1
    assert done.stdout.startswith("599 of 600 outputs equal")
    path.write_bytes(changed[:-1])
    assert run_program(command, "--verify", path).returncode == 2


def test_bench_reports_latency_as_json(compiled):
    result = json.loads(run_program(compiled / this_architecture() / "lenet5", "--bench").stdout)
    assert set(result) == {"kernels", "n", "latency_us", "throughput_ips"}
    assert 0 < result["latency_us"]["min"] <= result["latency_us"]["p50"]
