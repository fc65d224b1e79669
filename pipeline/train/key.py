"""A key of all that decides a result: settings, data, source files and versions.

What was made under another key is made again, so that no changed line can be forgotten.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Sequence
from pathlib import Path

from pipeline.artifacts import ROOT
from pipeline.data import Dataset

# What decides weights: this source file with all that it imports, and these files.
TRAINED_BY, TRAINED_WITH = ("pipeline/train/training.py",), ("requirements.lock",)


def training_key(settings: object, data: Dataset) -> str:
    """A digest of all that decides weights; `settings` are dataclasses, whose repr tells all."""
    return digest(repr(settings), data.sha256, *contents(TRAINED_BY, TRAINED_WITH))


def contents(modules: Sequence[str], others: Sequence[str]) -> list[str]:
    """Name and content of source files, of the project's files that they import, and of others."""
    paths = imported_files([ROOT / name for name in modules])
    paths |= {path for pattern in others for path in ROOT.glob(pattern) if path.is_file()}
    return [f"{path.relative_to(ROOT)}: {path.read_text('utf-8')}" for path in sorted(paths)]


def imported_files(paths: Sequence[Path]) -> set[Path]:
    """Source files of the project and all of its files that they import, directly or not."""
    found: set[Path] = set()
    todo = list(paths)
    while todo:
        path = todo.pop()
        if path in found:
            continue
        found.add(path)
        names: list[str] = []
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        places = [ROOT.joinpath(*name.split(".")) for name in names]
        files = [file for p in places for file in (p.with_suffix(".py"), p / "__init__.py")]
        todo += filter(Path.is_file, files)
    return found


def digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()
