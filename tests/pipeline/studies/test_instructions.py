"""The instructions an image on each Pi's processor: none more than committed, and on the pages."""

import json

from helpers import absent, need, run_program

from pipeline.artifacts import DOCS
from pipeline.studies import instructions


def test_no_kernel_set_needs_more_instructions_than_committed(exported):
    need("qemu-aarch64", "qemu-arm", "qemu-system-arm")
    if "-plugin" not in run_program("qemu-aarch64", "--help").stdout:
        absent("qemu-aarch64 takes no plugins")
    rows = json.loads(instructions.INSTRUCTIONS_JSON.read_text())["rows"]
    committed = [row for row in rows if "kernels" in row]  # the others are not ours
    golden = (exported / "native" / "golden.bin").read_bytes()
    now = instructions.count_all(exported / "native" / "lenet5_int8.c", golden)
    assert {row["processor"] for row in committed} == {count.processor for count in now}
    for count, row in zip(now, committed, strict=True):
        assert count.instructions <= row["instructions"] * 1.03, row


def test_pages_show_the_committed_counts_of_our_c_and_of_every_runtime():
    rows = json.loads(instructions.INSTRUCTIONS_JSON.read_text())["rows"]
    ours = [instructions.Count(**row) for row in rows if "kernels" in row]
    others = [instructions.RuntimeCount(**row) for row in rows if "runtime" in row]
    assert instructions.format_tables(ours, others) in instructions.PAGE.read_text("utf-8")
    boards = (DOCS / "deploy.md").read_text("utf-8")
    assert [count for count in ours if f"| {count.instructions:,} |" not in boards] == []
