"""The compiled C is judged file by file, on every processor that can run here."""

import json
import subprocess

import pytest
from helpers import judge_only, need

from pipeline import native
from pipeline.parity import binaries
from pipeline.parity.binaries import HERE, BinaryRow, judge_binaries, processors_of, verdict


@pytest.fixture(scope="module")
def promised(exported, mnist):
    """100 images and the outputs that the C must give for them."""
    images = mnist.test.images[:100]
    return images, native.read_golden(exported / "native/golden.bin", mnist.test.images[:1000])[
        :100
    ]


@pytest.fixture(autouse=True)
def one_pi(monkeypatch):
    judge_only(monkeypatch, "aarch64", "cortex-a53")


def judged(folder, promised):
    rows = judge_binaries(folder, *promised, "avx2")
    return {(row.file, row.processor): row for row in rows}


def test_every_file_is_judged_on_every_processor_with_its_own_kernels(exported):
    need("qemu-aarch64", "qemu-x86_64")
    rows = json.loads((exported / "parity.json").read_text())["binaries"]
    ran = {(r["file"].split("/")[1], r["processor"]): r["kernels"] for r in rows if r["kernels"]}
    assert ran["aarch64", "cortex-a53"] == "neon"
    assert ran["aarch64", "cortex-a76"] == "neondot"
    assert ran["x86_64", "Nehalem"] == "sse2"
    assert {r["status"] for r in rows if r["file"].endswith("/lenet5")} == {"pass"}


def test_a_file_of_another_source_fails_and_the_others_do_not(artifacts, promised):
    victim = "native/aarch64/lenet5_int8.so"
    with (artifacts / victim).open("ab") as stream:
        stream.write(b"x")
    rows = judged(artifacts, promised).values()
    assert {row.file: row.status for row in rows if row.kernels or row.status == "fail"} == {
        "native/aarch64/lenet5": "pass",
        victim: "fail",
    }
    assert "not what native/lenet5_int8.c compiles to" in {r.file: r.reason for r in rows}[victim]


@pytest.mark.parametrize("line", ["#error\n", "__attribute__((used, retain)) int more = 1;\n"])
def test_source_that_was_changed_after_compiling_fails_every_file(artifacts, promised, line):
    with (artifacts / "native/lenet5_int8.c").open("a") as source:
        source.write(line)
    assert {row.status for row in judged(artifacts, promised).values()} == {"fail"}


def test_one_wrong_instruction_in_kernels_that_do_not_run_here_fails(artifacts, promised):
    need("qemu-aarch64")
    source = artifacts / "native/lenet5_int8.c"
    right, wrong = "vqrdmulhq_s32(", "vqdmulhq_s32("  # of NEON alone: it does not round
    assert right in source.read_text()
    source.write_text(source.read_text().replace(right, wrong, 1))
    native.build(source.parent, source.parent)
    row = judged(artifacts, promised)["native/aarch64/lenet5", "cortex-a53"]
    assert row.status == "fail"
    assert "of 100 outputs equal (neon kernels)" in row.reason


def test_processor_without_emulator_is_not_run_and_says_what_to_install(
    exported, promised, monkeypatch
):
    monkeypatch.setattr(native.shutil, "which", lambda program: None)
    row = judged(exported, promised)["native/aarch64/lenet5", "cortex-a53"]
    assert (row.status, row.reason) == ("not_run", "no qemu-aarch64 here: apt install qemu-user")


@pytest.mark.parametrize(
    ("code", "stdout", "stderr", "status"),
    [
        (0, "9 of 9 outputs equal (neon kernels)\n", "", "pass"),
        (1, "9 of 9 outputs equal (neon kernels)\n", "", "fail"),
        (0, "8 of 9 outputs equal (neon kernels)\n", "", "fail"),
        (0, "9 of 9 outputs equal (neon kernels)\n8 of 9\n", "", "fail"),
        (0, "1\n9 of 9 outputs equal (neon kernels)\n", "", "fail"),
        (0, "", "", "fail"),
        (-4, "", "qemu: uncaught target signal 4 (Illegal instruction)\n", "fail"),
    ],
)
def test_only_all_outputs_and_exit_code_0_are_a_pass(code, stdout, stderr, status):
    row = BinaryRow("native/aarch64/lenet5", "", "cortex-a53", "", "pass", "")
    done = subprocess.CompletedProcess([], code, stdout, stderr)
    assert verdict(row, done).status == status


@pytest.mark.parametrize(
    ("processor", "kernels", "status"),
    [(HERE, "avx2", "pass"), (HERE, "", "not_run"), ("", "avx2", "not_run")],
)
def test_a_library_passes_only_if_parity_ran_it_here(processor, kernels, status):
    row = BinaryRow("native/x86_64/lenet5_int8.so", "", processor, "", "pass", "")
    judged = binaries._library(row, kernels)
    assert (judged.status, judged.kernels) == (status, kernels if status == "pass" else "")
    assert bool(judged.reason) == (status != "pass")


def test_every_file_has_a_row_a_processor_and_this_machine_is_one(monkeypatch):
    monkeypatch.setattr(binaries, "PROCESSORS", {"aarch64": ("a", "b"), "x86_64": ("c",)})
    monkeypatch.setattr(binaries, "this_architecture", lambda: "x86_64")
    assert processors_of("native/aarch64/lenet5") == ["a", "b"]
    assert processors_of("native/x86_64/lenet5") == [HERE, "c"]
    assert processors_of("native/aarch64/lenet5_int8.so") == [""]
    assert processors_of("native/x86_64/lenet5_int8.so") == [HERE]
