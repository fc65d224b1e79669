"""ai-edge-litert without a part that its users cannot switch off: to see what that part is worth.

A subject of the benchmark, as `keras_model.py`; both exist on the development machine alone.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from device.bench import worker
from device.runner import Classifier
from pipeline.bench import amx

LITERT = "ai-edge-litert"
WITHOUT_XNNPACK = " without XNNPACK"  # the delegate, so that the runtime's own kernels run
WITHOUT_AMX = " without AMX"  # the matrix unit, so that the delegate takes other kernels


def variants(runtime: str, isa_flags: Sequence[str]) -> tuple[str, ...]:
    """The names under which a runtime is timed besides its own.

    Args:
        runtime: Such as "ai-edge-litert".
        isa_flags: The processor's, of `machine.isa_flags`.
    """
    if runtime != LITERT:
        return ()
    kept_from = [WITHOUT_XNNPACK, *([WITHOUT_AMX] if "amx_int8" in isa_flags else [])]
    return tuple(runtime + without for without in kept_from)


def runtime_of(variant: str) -> str:
    """The runtime's own name."""
    return variant.partition(" without ")[0]


def import_runtime(model: Path, variant: str) -> None:
    """Import ai-edge-litert."""
    import ai_edge_litert.interpreter  # noqa: F401


def load(model: Path, variant: str, threads: int) -> worker.Loaded:
    """Load a model as the runner does, kept from something.

    Raises:
        InputError: As `Classifier` does.
        OSError: This process could not be kept from AMX.
    """
    from ai_edge_litert import interpreter

    if variant.endswith(WITHOUT_AMX):
        amx.deny()
    if variant.endswith(WITHOUT_XNNPACK):
        interpreter.Interpreter = functools.partial(  # this process has one model
            interpreter.Interpreter,
            experimental_op_resolver_type=(
                interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            ),
        )
    classifier = Classifier(model, LITERT, threads)
    calls = classifier.classify, classifier.predict, classifier.model.invoke
    about = {"runtime_version": version(LITERT), "size_bytes": model.stat().st_size}
    return worker.Loaded(*calls, lambda: about)


def main(argv: Sequence[str], started_ns: int) -> int:
    """As `device/bench/worker.py`."""
    return worker.main(argv, started_ns, import_runtime, load)
