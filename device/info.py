"""`runner.py info`: the model, the runtime, the versions, the machine."""

from __future__ import annotations

import argparse
import os
import platform
import sys

import numpy as np
from bench.machine import board_name
from commands import load, one_line
from manifest import bundle_folder, label_names, read_manifest


def run(args: argparse.Namespace) -> int:
    """Print them, a line each."""
    classifier = load(args)
    manifest = read_manifest(bundle_folder(classifier.model.path)) or {}
    contract = manifest.get("models", {}).get(args.model.name, {}).get("input", {})
    rows = {
        "model": f"{args.model.name} ({args.model.stat().st_size} bytes)",
        "bundle": f"{manifest.get('name', 'none')} {manifest.get('version', '')}".strip(),
        "input": "uint8 (28, 28), white ink on black",
        "graph": ", ".join(f"{key} {value}" for key, value in contract.items()),
        "classes": " ".join(label_names(classifier)),
        "runtime": f"{classifier.runtime} {runtime_version(classifier.runtime)}",
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": f"{board_name()} ({platform.machine()}, {os.cpu_count()} cores)",
        "system": platform.platform(),
    }
    for key, value in rows.items():
        if value:
            print(f"{key:8} {one_line(value)}")
    return 0


def runtime_version(runtime: str) -> str:
    """The installed version of a runtime; of the loaded C model, its instruction set."""
    from importlib.metadata import PackageNotFoundError, version  # slow to import

    if runtime == "native":
        return str(sys.modules["lenet5_int8"].kernels())
    try:
        return version(runtime)
    except PackageNotFoundError:  # the module came by another name, such as onnxruntime-gpu
        return str(getattr(sys.modules.get(runtime.replace("-", "_")), "__version__", "unknown"))
