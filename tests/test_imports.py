"""Imports point one way: pipeline -> export, pipeline -> device; device stands alone."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import DEVICE_PYTHON, ROOT, run_program, run_runner

ALLOWED = {"pipeline": {"pipeline", "export", "device"}, "export": {"export"}, "device": {"device"}}
BLOCKER = """
import sys
for name in ("tensorflow", "keras", "onnx", "tf2onnx", "pipeline", "export"):
    sys.modules[name] = None
import runpy
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def imported(path):
    """The dotted names that a file imports; those relative to device/ are "device"."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from names if node.level == 0 else ["device"]


def packages(path):
    return {name.partition(".")[0] for name in imported(path)}


@pytest.mark.parametrize("package", ALLOWED)
def test_package_imports_only_what_the_design_allows(package):
    for path in (ROOT / package).rglob("*.py"):
        ours = packages(path) & set(ALLOWED)
        assert ours <= ALLOWED[package], f"{path} imports {ours}"


# Data flows down. A module imports those of its own floor and of the floors above it.
FLOORS = (
    ("artifacts", "files", "table", "progress"),
    ("config", "data", "importing"),
    ("train",),
    ("export",),
    ("classify", "wasm"),
    ("native",),
    ("microcontroller",),
    ("parity",),
    ("bundle",),
    ("bench", "studies", "pi_test"),
    ("report", "readme"),
    ("__main__",),
)
FLOOR_OF = {name: number for number, names in enumerate(FLOORS) for name in names}


def test_a_stage_imports_no_later_one():
    for path in (ROOT / "pipeline").rglob("*.py"):
        stage = path.relative_to(ROOT / "pipeline").parts[0].removesuffix(".py")
        for name in imported(path):
            if name.startswith("pipeline."):
                assert FLOOR_OF[name.split(".")[1]] <= FLOOR_OF[stage], f"{path} imports {name}"


def test_device_imports_only_the_standard_library_numpy_and_itself():
    own = {path.stem for path in (ROOT / "device").glob("*.py")} | {"bench", "photo", "device"}
    assert not own & set(sys.stdlib_module_names)
    known = set(sys.stdlib_module_names) | {"numpy", "PIL"} | own
    for path in (ROOT / "device").rglob("*.py"):
        others = packages(path) - known
        assert not others, f"{path} imports {others}"


def test_what_the_pipeline_imports_of_the_device_needs_no_neighbour_by_its_plain_name():
    modules = ("runner", "idx", "photo", "picture", "bench.rounds", "bench.rows", "bench.worker")
    code = "; ".join(f"import device.{name}" for name in modules)
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_importing_the_command_line_imports_neither_a_framework_nor_numpy():
    code = "import pipeline.__main__, sys; print({'tensorflow', 'numpy'} & set(sys.modules))"
    run = run_program(sys.executable, "-c", code, cwd=ROOT, check=True)
    assert run.stdout.strip() == "set()"


def test_runner_alone_in_an_empty_folder_classifies_with_frameworks_blocked(
    exported, mnist, tmp_path
):
    import numpy as np

    shutil.copy(ROOT / "device" / "runner.py", tmp_path)
    shutil.copy(exported / "lenet5_int8.tflite", tmp_path)
    np.save(tmp_path / "digit.npy", mnist.test.images[0])
    Path(tmp_path, "block.py").write_text(BLOCKER)
    run = run_runner(
        tmp_path / "runner.py",
        tmp_path / "lenet5_int8.tflite",
        tmp_path / "digit.npy",
        python=DEVICE_PYTHON,
        runner=tmp_path / "block.py",
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split()[1] == str(mnist.test.labels[0])
    assert not run.stderr  # ai-edge-litert greets there
