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
from pathlib import Path
from typing import Any, Callable, NamedTuple, Sequence, TextIO

import numpy as np

SETTLING_CALLS = 16  # at the start of a burst: others have had the caches since the last one
OVERHEAD_CALLS = 10_001
LIMIT_NS = 10**9  # of a burst on all cores, where a call can take 50 ms
INPUTS = 256  # different images in turn, so that no branch predictor learns the one


class Loaded(NamedTuple):
    """A model that is ready to be timed.

    Attributes:
        classify: uint8 (28, 28) -> (label, probability).
        predict: uint8 (N, 28, 28) -> (labels, probabilities).
        invoke: The runtime's own call alone, on an input that is in place; None: not timed apart.
    """

    classify: Callable[[np.ndarray], Any]
    predict: Callable[[np.ndarray], Any]
    invoke: Callable[[], Any] | None


class Loader:
    """How the runner loads a model. A subclass loads something else (pipeline/bench).

    Attributes:
        model, runtime: What is loaded.
    """

    def __init__(self, model: Path, runtime: str) -> None:
        self.model, self.runtime = model, runtime

    def import_runtime(self) -> None:
        """Import what `load` needs, so that the two can be timed apart."""
        import runner

        if self.runtime != "native":  # its import is its load
            submodule = ".interpreter" if self.model.suffix == ".tflite" else ""
            runner.import_runtime(self.runtime, submodule)

    def load(self, threads: int) -> Loaded:
        """Load the model, with so many threads.

        Raises:
            ValueError, OSError: It cannot be loaded.
        """
        from runner import Classifier

        classifier = Classifier(self.model, self.runtime, threads)
        return Loaded(classifier.classify, classifier.predict, classifier.model.invoke)

    def version(self) -> str:
        """The version of the runtime that is loaded."""
        from info import runtime_version

        return runtime_version(self.runtime)

    def size_bytes(self) -> int:
        """The size of the file that is loaded: of C, the compiled library."""
        if self.runtime != "native":
            return self.model.stat().st_size
        from runner import native_library

        return native_library(self.model).stat().st_size


def main(argv: Sequence[str], started_ns: int, loader: type[Loader] = Loader) -> int:
    """`cold MODEL RUNTIME` or `serve MODEL RUNTIME THREADS CORE IMAGES.npz`; replies are JSON.

    CORE is the processor to stay on, or `any`.
    """
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a runtime may greet on standard output
    mode, subject = argv[0], loader(Path(argv[1]), argv[2])
    try:
        if mode == "cold":
            reply(replies, cold_start(subject, started_ns))
        else:
            threads, core, images = argv[3:]
            serve(subject, int(threads), core, Path(images), replies)
    except (ValueError, OSError) as error:  # the runner's InputError is a ValueError
        reply(replies, {"error": str(error)})
        return 2
    return 0


def reply(replies: TextIO, value: Any) -> None:
    """Write one line of JSON."""
    print(json.dumps(value), file=replies, flush=True)


def cold_start(subject: Loader, started_ns: int) -> dict[str, Any]:
    """Import, load and classify one picture, and say when each was done.

    Returns:
        `marks_ns`: the clock at the first line, after the imports, the load and the first answer;
        `peak_rss_mib`, after some more answers.
    """
    marks_ns = [started_ns]
    subject.import_runtime()
    marks_ns.append(time.clock_gettime_ns(time.CLOCK_MONOTONIC))
    loaded = subject.load(threads=1)
    marks_ns.append(time.clock_gettime_ns(time.CLOCK_MONOTONIC))
    picture = np.zeros((28, 28), np.uint8)
    loaded.classify(picture)
    marks_ns.append(time.clock_gettime_ns(time.CLOCK_MONOTONIC))
    time_calls(loaded.classify, [(picture,)], INPUTS)
    return {"marks_ns": marks_ns, "peak_rss_mib": peak_rss_mib()}


def serve(subject: Loader, threads: int, core: str, file: Path, replies: TextIO) -> None:
    """Load the model, then answer one request a line of standard input until it ends.

    A request is {"batch", "calls", "all_cores"}, for a burst, or {}, for the accuracy.
    """
    if core != "any" and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core)})
    with np.load(file, allow_pickle=False) as archive:
        images, labels = archive["images"], archive["labels"]  # uint8 (N, 28, 28), (N,) or (0,)
    loaded = subject.load(threads)
    about = {"runtime_version": subject.version(), "size_bytes": subject.size_bytes()}
    reply(replies, {**about, "timer_overhead_ns": timer_overhead_ns()})
    inputs = images[np.arange(INPUTS) % len(images)]
    for number, line in enumerate(sys.stdin):
        request = json.loads(line)
        if request:
            # In turn forwards and backwards: the first finds the caches colder than the other.
            invoke_first = bool(number % 2)
            reply(replies, time_burst(loaded, inputs, invoke_first=invoke_first, **request))
        else:
            right = loaded.predict(images)[0] == labels if len(labels) else None
            reply(replies, {"accuracy": None if right is None else float(right.mean())})


def time_burst(
    loaded: Loaded,
    images: np.ndarray,
    batch: int,
    calls: int,
    all_cores: bool = False,
    invoke_first: bool = False,
) -> dict[str, list[int]]:
    """Time some calls, after some that are not timed.

    Args:
        loaded: The model.
        images: uint8 (INPUTS, 28, 28).
        batch: Images a call.
        calls: How many calls of each kind.
        all_cores: End the burst after a second.
        invoke_first: The order of the kinds.

    Returns:
        Durations in ns: `call` of the whole call and, for a batch of one, `invoke` of the runtime's
        own call alone.
    """
    single = batch == 1
    inputs = [(images[i] if single else images[i : i + batch],) for i in range(0, INPUTS, batch)]
    kinds: dict[str, tuple[Callable[..., Any], Sequence[tuple[Any, ...]]]] = {
        "call": (loaded.classify if single else loaded.predict, inputs)
    }
    if single and loaded.invoke:
        kinds["invoke"] = (loaded.invoke, [()])
    limit_ns = LIMIT_NS if all_cores else None
    settling = max(1, min(SETTLING_CALLS // batch, calls // 4))
    times_ns = {}
    for kind in reversed(kinds) if invoke_first else kinds:
        call, arguments = kinds[kind]
        time_calls(call, arguments, settling, limit_ns=limit_ns)
        times_ns[kind] = time_calls(call, arguments, calls, limit_ns=limit_ns)
    return times_ns


def time_calls(
    call: Callable[..., Any],
    inputs: Sequence[tuple[Any, ...]],
    count: int,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
    limit_ns: int | None = None,
) -> list[int]:
    """Call a function again and again and time each call.

    Args:
        call: The function.
        inputs: Its arguments, taken in turn.
        count: How many calls.
        clock_ns: The clock.
        limit_ns: No further call is made once the calls have taken so long.

    Returns:
        The duration of each call in ns, with the clock's own overhead in it.
    """
    times_ns = [0] * count
    spent_ns = 0
    for i in range(count):
        arguments = inputs[i % len(inputs)]
        start = clock_ns()
        call(*arguments)
        times_ns[i] = clock_ns() - start
        spent_ns += times_ns[i]
        if limit_ns is not None and spent_ns > limit_ns:
            return times_ns[: i + 1]
    return times_ns


def timer_overhead_ns() -> int:
    """What a timed call of nothing takes: the median over `OVERHEAD_CALLS` of them."""
    return sorted(time_calls(lambda: None, [()], OVERHEAD_CALLS))[OVERHEAD_CALLS // 2]


def peak_rss_mib() -> float | None:
    """The most memory that this process has held at once, in MiB.

    Not `ru_maxrss`: that one starts with what the parent held when it started this process.
    """
    try:
        status = Path("/proc/self/status").read_text("ascii")
    except OSError:
        return None
    kilobytes = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(kilobytes[0]) / 1024 if kilobytes else None
