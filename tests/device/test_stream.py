"""A stream of frames on standard input: each is answered by itself, in a line, at once."""

import importlib
import io
import json
import os
import struct
import subprocess
import sys

import numpy as np
import pytest
from drawings import encoded
from helpers import ROOT, run_program, write_script
from PIL import Image

RUNNER = ROOT / "device" / "runner.py"


@pytest.fixture
def split(monkeypatch):
    """A function: the frames of data that comes in pieces of so many bytes."""
    monkeypatch.syspath_prepend(RUNNER.parent)  # where modules import each other by plain names
    stream = importlib.import_module("stream")

    def frames(data, size=7):
        source = io.BytesIO(data)
        return list(stream.Splitter(lambda: source.read(size)).frames())

    return frames


GREY = Image.fromarray(np.arange(64 * 48, dtype=np.uint8).reshape(48, 64))
FRAMES = [encoded(GREY, kind) for kind in ("JPEG", "PNG", "PPM")]  # of grey levels: a PGM


@pytest.mark.parametrize("size", [1, 1000, 10**6])
def test_frames_of_each_kind_are_cut_apart_however_they_arrive(split, size):
    assert split(b"".join(FRAMES * 2), size) == FRAMES * 2


def test_a_thumbnail_in_a_jpeg_is_no_frame_of_its_own(split):
    jpeg = FRAMES[0]
    exif = b"\xff\xe1" + struct.pack(">H", 2 + len(jpeg)) + jpeg
    whole = jpeg[:2] + exif + jpeg[2:]
    assert split(whole + whole) == [whole, whole]


@pytest.mark.parametrize("kind", [0, 1])
def test_what_is_cut_off_or_no_frame_costs_no_other_frame(split, kind):
    one = FRAMES[kind]
    broken = one[: len(one) // 2]
    assert split(one + broken + one + one)[-2:] == [one, one]
    assert split(one + b"garbage" + one) == [one, b"garbage", one]
    assert split(b"garbage" + one + b"\n" + one) == [b"garbage", one, one]


@pytest.mark.parametrize("data", [b"", b"\0" * 99, b"P2\n1 1\n255\n7\n", b"GIF89a" + FRAMES[0]])
def test_what_is_no_stream_comes_whole(split, data):
    assert split(data) == [data]


def test_what_a_camera_appends_to_a_picture_and_the_second_picture_of_a_phone_are_left_out(split):
    assert split(FRAMES[0] + b"appended") == [FRAMES[0]]
    mpf = b"\xff\xe2" + struct.pack(">H", 6) + b"MPF\0"
    phone = FRAMES[0][:2] + mpf + FRAMES[0][2:] + FRAMES[0]
    assert split(phone) == [phone]


class Reading:
    """`runner.py -` with a pipe that stays open."""

    def __init__(self, model):
        command = [sys.executable, RUNNER, "--json", "-m", model, "-"]
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        self.process = subprocess.Popen(command, **pipes)

    def send(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def answer(self):
        return json.loads(self.process.stdout.readline())

    def end(self, data=b""):
        out, errors = self.process.communicate(data)
        rows = [json.loads(line) for line in out.splitlines()]
        return self.process.returncode, rows, errors.decode()


@pytest.fixture
def read(exported):
    """Start `runner.py -`; what is still running at the end is killed."""
    started = []

    def start():
        started.append(Reading(exported / "lenet5_int8.tflite"))
        return started[-1]

    yield start
    for reading in started:
        reading.process.kill()
        reading.process.communicate()


@pytest.fixture(scope="module")
def seen(mnist):
    """Two digits and a blank sheet as JPEG frames."""
    images = [
        255 - np.pad(np.kron(image, np.ones((6, 6), np.uint8)), 40)
        for image in (mnist.test.images[0], mnist.test.images[1])
    ]
    blank = np.full((248, 248), 230, np.uint8)
    return [encoded(Image.fromarray(image), "JPEG") for image in (*images, blank)]


def test_each_frame_is_answered_before_the_next_comes_and_a_bad_one_is_reported(read, seen):
    seven, two, blank = seen
    reading = read()
    labels = []
    for data in (seven, blank, two):
        reading.send(data)
        labels.append(reading.answer()["label"])
    assert labels[1] is None  # an answer, no error
    assert None not in (labels[0], labels[2])
    code, rows, errors = reading.end(seven[:900] + seven)
    assert "error" in rows[0]
    assert rows[1]["label"] == labels[0]
    assert errors == f"runner.py: {rows[0]['error']}\n"
    assert code == 2


def test_of_frames_that_come_faster_than_they_are_answered_the_last_is_answered(read, seen):
    code, rows, _ = read().end(seen[0] * 300 + seen[2])
    assert code == 0
    assert len(rows) < 200
    assert rows[-1]["label"] is None


def test_one_picture_without_a_digit_is_an_error_still(read, seen):
    code, rows, errors = read().end(seen[2])
    assert code == 2
    assert errors == f"runner.py: {rows[0]['error']}\n"


def test_a_file_is_read_to_its_end_and_stable_prints_what_holds_and_is_new(
    exported, seen, tmp_path
):
    seven, two, blank = seen
    order = [seven, seven, two, seven, seven, seven, two, two, blank, blank, blank, two, two]
    path = tmp_path / "stream.mjpeg"
    path.write_bytes(b"".join(order))
    command = [sys.executable, RUNNER, "--json", "-m", exported / "lenet5_int8.tflite"]

    def labels(*options, name="-"):
        with path.open("rb") as file:
            run = subprocess.run([*command, name, *options], stdin=file, capture_output=True)
        assert run.returncode == 0, run.stderr
        return [json.loads(line)["label"] for line in run.stdout.splitlines()]

    all_labels = labels()
    assert len(all_labels) == len(order)
    assert labels(name=path) == all_labels
    a, b = all_labels[0], all_labels[2]
    assert labels("--stable", "2") == ([a, b, None, b] if a != b else [a, None, a])
    assert labels("--stable", "3") == [a, None]


def test_the_state_of_the_board_is_said_once_and_when_it_changes(tmp_path):
    write_script(tmp_path / "vcgencmd", f"echo throttled=$(cat {tmp_path}/bits)")
    code = (
        "import stream, pathlib, sys\n"
        "watch, bits = stream.Watch(print), pathlib.Path(sys.argv[1])\n"
        "for text in ('0x50005', '0x50005', '0x50000', '0x0'):\n"
        "    bits.write_text(text); watch.due_s = 0; watch.look()\n"
    )
    path = f"{tmp_path}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": RUNNER.parent}
    run = run_program(sys.executable, "-c", code, tmp_path / "bits", env=environment)
    assert run.stdout.splitlines() == [
        "this machine: under-voltage, throttled",
        "this machine: neither throttled nor under-voltage",
    ]
