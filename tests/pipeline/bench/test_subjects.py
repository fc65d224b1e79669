"""What is timed on the development machine beside what the runner does."""

import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

from device.bench.processes import Worker
from device.bench.rounds import FULL, Effort
from pipeline.bench import measure
from pipeline.bench.variants import runtime_of, variants


def test_litert_is_timed_without_its_delegate_and_without_amx_where_the_processor_has_it():
    litert = "ai-edge-litert"
    assert variants("onnxruntime", ["amx_int8"]) == ()
    assert variants(litert, ["sse2"]) == (f"{litert} without XNNPACK",)
    assert variants(litert, ["amx_int8"])[1:] == (f"{litert} without AMX",)
    assert {runtime_of(v) for v in variants(litert, ["amx_int8"])} == {litert}


def test_keras_is_the_baseline_and_takes_a_share_of_the_calls_unless_all_are_asked_for(tmp_path):
    for effort, share in ((Effort(), 0.2), (FULL, 1.0)):
        keras, *others = measure.subjects(tmp_path, effort)
        assert (keras.runtime, keras.share) == ("keras", share)
        assert {subject.share for subject in others} == {1.0}


ASK_FOR_AMX = """
import ctypes, errno
from pipeline.bench import amx
amx.deny()
libc = ctypes.CDLL(None, use_errno=True)
for operation in (0x1023, 0x1024):  # ARCH_REQ_XCOMP_PERM, and another
    libc.syscall(*map(ctypes.c_long, (158, operation, 18)))
    print(errno.errorcode[ctypes.get_errno()])
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="AMX is of x86-64")
def test_linux_refuses_amx_and_nothing_else_to_a_process_that_is_kept_from_it():
    command = [sys.executable, "-c", ASK_FOR_AMX]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    refused, other = run.stdout.split()
    assert refused == "EPERM"
    assert other != "EPERM"


@pytest.mark.parametrize("runtime", ["keras", "ai-edge-litert without XNNPACK"])
def test_what_exists_here_alone_is_timed_and_reads_the_images_right(
    runtime, exported, mnist, tmp_path
):
    images = tmp_path / "images.npz"
    np.savez(images, images=mnist.test.images[:300], labels=mnist.test.labels[:300])
    subjects = measure.subjects(exported, Effort())
    subject = next(s for s in subjects if s.runtime == runtime)
    worker = Worker(subject, 1, "any", images)
    try:
        assert worker.receive()["size_bytes"] == subject.artifact.stat().st_size
        burst = worker.ask(batch=1, calls=3)
        assert len(burst["call"]) == 3
        assert ("invoke" in burst) == (runtime != "keras")
        assert worker.ask()["accuracy"] > 0.7
    finally:
        worker.stop()
