"""One name a thing: a file in artifacts, a class, an architecture, a subject of parity."""

import ast
import re
from collections import Counter

import pytest
from helpers import ROOT

from pipeline import artifacts, native

SOURCES = sorted((ROOT / "pipeline").rglob("*.py"))


def test_each_file_in_artifacts_is_named_in_one_place():
    names = [value for value in vars(artifacts).values() if isinstance(value, str)]
    names = [name for name in names if re.search(r"\.(keras|tflite|onnx|json|npz|html|md)$", name)]
    assert len(names) > 12
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and node.value in names:
                assert path.name == "artifacts.py", f"{path}: {node.value}"


def types_defined_in(path):
    """The names of a file's classes, and of the types that it gives a name."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            names = (ast.unparse(target) for target in node.targets)
            yield from (name for name in names if re.fullmatch(r"([A-Z]+[a-z][A-Za-z0-9]*)", name))


def test_no_two_types_have_the_same_name():
    names = Counter(name for path in SOURCES for name in types_defined_in(path))
    assert {name for name, count in names.items() if count > 1} == set()


@pytest.mark.parametrize(
    ("machine", "name"), [("armv7l", "armv7"), ("armv6l", "armv6"), ("aarch64", "aarch64")]
)
def test_architectures_are_named_as_the_makefile_of_the_c_file_names_them(
    monkeypatch, machine, name
):
    monkeypatch.setattr(artifacts.platform, "machine", lambda: machine)
    assert artifacts.this_architecture() == name
    assert name in native.TARGETS


def test_each_artifact_is_judged_on_every_runtime_that_reads_it():
    from device.runner import RUNTIMES

    runs = {(subject.artifact, subject.runtime) for subject in artifacts.subjects()}
    models = (*artifacts.CONVERTED, artifacts.NATIVE_SOURCE)
    assert runs == {(artifacts.NATIVE_WASM, "wasmtime")} | {
        (model, runtime) for model in models for runtime in RUNTIMES["." + model.split(".")[1]]
    }
