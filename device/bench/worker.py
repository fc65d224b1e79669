"""Time one model on one runtime in this process.

`rounds.py` starts this in processes of their own, since two runtimes in one can disturb or even
corrupt each other, and asks for one burst of calls after the other. What is timed is what an
application calls: `Classifier.classify`, a picture in, label and probability out; for batches
`Classifier.predict`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Callable, Sequence

import numpy as np

SETTLING_CALLS = 16  # at the start of a burst: others have had the caches since the last one
OVERHEAD_CALLS = 10_001
LIMIT_NS = 10**9  # of a burst on all cores, where a call can take 50 ms
INPUTS = 256  # different images in turn, so that no branch predictor learns the one


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


def import_runtime(model: Path, runtime: str) -> None:
    """Import what loading will need, so that the two can be timed apart."""
    import runner

    if runtime != "native":  # its import is its load
        runner.import_runtime(runtime, ".interpreter" if model.suffix == ".tflite" else "")


def load(model: Path, runtime: str, threads: int) -> Any:
    """The runner's classifier."""
    from runner import Classifier

    return Classifier(model, runtime, threads)


class Timing:
    """One classifier and the calls to time.

    Args:
        classifier: A `runner.Classifier`, or what has its `classify`, `predict`, `model.invoke`.
        images: uint8 (N, 28, 28).
    """

    def __init__(self, classifier: Any, images: np.ndarray) -> None:
        self.classifier = classifier
        self.images = images[np.arange(INPUTS) % len(images)]
        self._bursts = 0

    def burst(self, batch: int, calls: int, limit_ns: int | None = None) -> dict[str, list[int]]:
        """Time some calls, after some that are not timed.

        Args:
            batch: Images a call.
            calls: How many calls of each kind.
            limit_ns: As for `time_calls`.

        Returns:
            Durations in ns: `call` of the whole call and, for a batch of one, `invoke` of the
            runtime's own call alone.
        """
        if batch > 1:
            inputs = [(self.images[i : i + batch],) for i in range(0, INPUTS, batch)]
            predict = self.classifier.predict
            time_calls(predict, inputs, max(1, SETTLING_CALLS // batch), limit_ns=limit_ns)
            return {"call": time_calls(predict, inputs, calls, limit_ns=limit_ns)}
        kinds: list[tuple[str, Any, list[tuple[Any, ...]]]] = [
            ("call", self.classifier.classify, [(image,) for image in self.images]),
            ("invoke", self.classifier.model.invoke, [()]),
        ]
        # In turn forwards and backwards: the first finds the caches colder than the other.
        self._bursts += 1
        times_ns = {}
        for kind, call, inputs in kinds if self._bursts % 2 else kinds[::-1]:
            time_calls(call, inputs, min(SETTLING_CALLS, calls), limit_ns=limit_ns)
            times_ns[kind] = time_calls(call, inputs, calls, limit_ns=limit_ns)
        return times_ns


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


def cold_start(
    model: Path, runtime: str, started_ns: int, import_runtime: Any, load: Any
) -> dict[str, Any]:
    """Import, load and classify one picture, once, and say when each was done.

    Returns:
        `marks_ns`: the clock at the first line, after the imports, the load and the first answer;
        `peak_rss_mib`, after some more answers.
    """

    def now_ns() -> int:
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC)

    marks_ns = [started_ns]
    import_runtime(model, runtime)
    marks_ns.append(now_ns())
    classifier = load(model, runtime, 1)
    marks_ns.append(now_ns())
    picture = np.zeros((28, 28), np.uint8)
    classifier.classify(picture)
    marks_ns.append(now_ns())
    time_calls(classifier.classify, [(picture,)], INPUTS)
    return {"marks_ns": marks_ns, "peak_rss_mib": peak_rss_mib()}


def describe(model: Path, runtime: str) -> dict[str, Any]:
    """The version of the runtime, and the size of the file that it loaded."""
    from info import runtime_version
    from runner import native_library

    file = native_library(model) if runtime == "native" else model
    return {"runtime_version": runtime_version(runtime), "size_bytes": file.stat().st_size}


def serve(
    classifier: Any, images: np.ndarray, labels: np.ndarray, reply: Callable[[Any], None]
) -> None:
    """Answer one request a line of standard input until it ends: a burst, or the accuracy."""
    timing = Timing(classifier, images)
    for line in sys.stdin:
        request = json.loads(line)
        if request["calls"]:
            limit_ns = LIMIT_NS if request["all_cores"] else None
            reply(timing.burst(request["batch"], request["calls"], limit_ns))
        else:
            right = classifier.predict(images).labels == labels if len(labels) else None
            reply({"accuracy": None if right is None else float(right.mean())})


def main(
    argv: Sequence[str],
    started_ns: int,
    import_runtime: Any = import_runtime,
    load: Any = load,
    describe: Any = describe,
) -> int:
    """`cold MODEL RUNTIME`, or `serve MODEL RUNTIME THREADS CORE IMAGES.npz`; replies are JSON.

    CORE is the processor to stay on, or `any`.
    """
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a runtime may greet on standard output

    def reply(value: Any) -> None:
        print(json.dumps(value), file=replies, flush=True)

    mode, model, runtime = argv[0], Path(argv[1]), argv[2]
    try:
        if mode == "cold":
            reply(cold_start(model, runtime, started_ns, import_runtime, load))
            return 0
        threads, core = int(argv[3]), argv[4]
        if core != "any":
            os.sched_setaffinity(0, {int(core)})
        with np.load(argv[5], allow_pickle=False) as archive:
            images, labels = archive["images"], archive["labels"]
        classifier = load(model, runtime, threads)
        reply({**describe(model, runtime), "timer_overhead_ns": timer_overhead_ns()})
    except (ValueError, OSError) as error:  # the runner's InputError is a ValueError
        reply({"error": str(error)})
        return 2
    serve(classifier, images, labels, reply)
    return 0
