"""Load one model in one runtime and time it, in a process of its own.

`processes.py` starts this and asks for one burst of calls after the other. What is timed is what
an application calls: `Classifier.classify`, a picture in, label and probability out; for a batch
`Classifier.predict`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any, Callable, NamedTuple, Sequence

import numpy as np

SETTLING_CALLS = 16  # at the start of a burst: others have had the caches since the last one
OVERHEAD_CALLS = 10_001
INPUTS = 256  # different images in turn, so that no branch predictor learns the one


class Loaded(NamedTuple):
    """A model that is ready to be timed.

    Attributes:
        classify: uint8 (28, 28) -> (label, probability).
        predict: uint8 (N, 28, 28) -> (labels, probabilities).
        invoke: The runtime's own call alone, on an input that is in place; None: not timed apart.
        about: Tells `runtime_version`, and `size_bytes` of the file that is loaded.
    """

    classify: Callable[[np.ndarray], Any]
    predict: Callable[[np.ndarray], Any]
    invoke: Callable[[], Any] | None
    about: Callable[[], dict[str, Any]]


def import_runtime(model: Path, runtime: str) -> None:
    """Import what `load` needs, so that the two can be timed apart."""
    import runner  # noqa: F401

    if runtime != "native":  # its import is its load
        submodule = ".interpreter" if model.suffix == ".tflite" else ""
        import_module(runtime.replace("-", "_") + submodule)


def load(model: Path, runtime: str, threads: int) -> Loaded:
    """Load a model as the runner does.

    Raises:
        ValueError, OSError: It cannot be loaded.
    """
    from runner import Classifier, native_library

    classifier = Classifier(model, runtime, threads)

    def about() -> dict[str, Any]:
        from info import runtime_version

        file = native_library(model) if runtime == "native" else model
        return {"runtime_version": runtime_version(runtime), "size_bytes": file.stat().st_size}

    predict: Callable[[np.ndarray], Any] = classifier.predict
    if runtime == "native" and threads > 1:
        predict = shared_out(classifier.predict, threads)
    return Loaded(classifier.classify, predict, classifier.model.invoke, about)


def shared_out(
    predict: Callable[[np.ndarray], Any], threads: int
) -> Callable[[np.ndarray], tuple[np.ndarray, ...]]:
    """`predict` of a batch by that many threads at once, as an application would share it out."""
    pool = ThreadPoolExecutor(threads)

    def predict_parts(images: np.ndarray) -> tuple[np.ndarray, ...]:
        parts = np.array_split(images, min(threads, len(images)))
        return tuple(map(np.concatenate, zip(*pool.map(predict, parts))))

    return predict_parts


def main(
    argv: Sequence[str],
    started_ns: int,
    import_runtime: Callable[[Path, str], None] = import_runtime,
    load: Callable[[Path, str, int], Loaded] = load,
) -> int:
    """`cold MODEL RUNTIME` or `serve MODEL RUNTIME THREADS CORE IMAGES.npz`; replies are JSON.

    CORE is the processor to stay on, or `any`. Keras and WebAssembly have a `load` of their own
    (pipeline/bench).
    """
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a runtime may greet on standard output

    def reply(value: Any) -> None:
        print(json.dumps(value), file=replies, flush=True)

    mode, model, runtime = argv[0], Path(argv[1]), argv[2]
    try:
        if mode == "cold":
            marks_ns = [started_ns]
            import_runtime(model, runtime)
            marks_ns.append(time.clock_gettime_ns(time.CLOCK_MONOTONIC))
            loaded = load(model, runtime, 1)
            marks_ns.append(time.clock_gettime_ns(time.CLOCK_MONOTONIC))
            picture = np.zeros((28, 28), np.uint8)
            loaded.classify(picture)
            marks_ns.append(time.clock_gettime_ns(time.CLOCK_MONOTONIC))
            time_calls(loaded.classify, [(picture,)], INPUTS)  # for the peak of memory
            reply({"marks_ns": marks_ns, "peak_rss_mib": peak_rss_mib()})
            return 0
        threads, core, images = argv[3:]
        if core != "any":
            os.sched_setaffinity(0, {int(core)})
        loaded = load(model, runtime, int(threads))
    except (ValueError, OSError) as error:  # the runner's InputError is a ValueError
        reply({"error": str(error)})
        return 2
    serve(loaded, Path(images), reply)
    return 0


def serve(loaded: Loaded, file: Path, reply: Callable[[Any], None]) -> None:
    """Answer one request a line of standard input until it ends.

    A request is what `time_burst` takes, or {} for the accuracy.
    """
    with np.load(file, allow_pickle=False) as archive:
        images, labels = archive["images"], archive["labels"]  # uint8 (N, 28, 28), (N,) or (0,)
    reply({**loaded.about(), "timer_overhead_ns": timer_overhead_ns()})
    inputs = images[np.arange(INPUTS) % len(images)]
    for line in sys.stdin:
        if request := json.loads(line):
            reply(time_burst(loaded, inputs, **request))
        else:
            right = loaded.predict(images)[0] == labels if len(labels) else None
            reply({"accuracy": None if right is None else float(right.mean())})


def time_burst(loaded: Loaded, images: np.ndarray, batch: int, calls: int) -> dict[str, list[int]]:
    """Time some calls, after a few that are not timed.

    Args:
        loaded: The model.
        images: uint8 (INPUTS, 28, 28).
        batch: Images a call.
        calls: How many calls of each kind.

    Returns:
        Durations in ns: `call` of the whole call and, for a batch of one, `invoke` of the runtime's
        own call alone.
    """
    settling = max(1, min(SETTLING_CALLS // batch, calls // 4))

    def time_settled(call: Callable[..., Any], inputs: Sequence[tuple[Any, ...]]) -> list[int]:
        time_calls(call, inputs, settling)
        return time_calls(call, inputs, calls)

    if batch > 1:
        batches = [(images[i : i + batch],) for i in range(0, INPUTS, batch)]
        return {"call": time_settled(loaded.predict, batches)}
    times_ns = {"call": time_settled(loaded.classify, [(image,) for image in images])}
    if loaded.invoke:
        times_ns["invoke"] = time_settled(loaded.invoke, [()])
    return times_ns


def time_calls(
    call: Callable[..., Any], inputs: Sequence[tuple[Any, ...]], count: int
) -> list[int]:
    """The duration of each of so many calls in ns, with the clock's own overhead in it.

    The arguments of a call are taken from `inputs` in turn.
    """
    clock_ns, times_ns = time.perf_counter_ns, [0] * count
    for i in range(count):
        arguments = inputs[i % len(inputs)]
        start = clock_ns()
        call(*arguments)
        times_ns[i] = clock_ns() - start
    return times_ns


def timer_overhead_ns() -> int:
    """What a timed call of nothing takes: the median over `OVERHEAD_CALLS` of them."""
    return sorted(time_calls(lambda: None, [()], OVERHEAD_CALLS))[OVERHEAD_CALLS // 2]


def peak_rss_mib() -> float | None:
    """The most memory that this process has held at once, in MiB.

    Not `ru_maxrss`: that one starts with what the parent held when it started this process.
    """
    status = Path("/proc/self/status").read_text("ascii")
    kilobytes = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(kilobytes[0]) / 1024 if kilobytes else None
