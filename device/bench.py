"""Time one model on one runtime in this process.

`bench_rounds.py` starts this in processes of their own, since two runtimes in one can disturb or
even corrupt each other, and asks for one burst of calls after the other. What is timed is
`Classifier.predict` of a ready-made input: the call that an application makes.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any, Callable, NamedTuple, Sequence

import numpy as np

# After a runtime's name, what it is kept from. Both exist in the benchmark alone.
WITHOUT_XNNPACK = " without XNNPACK"  # the delegate, so that the runtime's own kernels run
WITHOUT_AMX = " without AMX"  # the matrix unit, so that the delegate takes other kernels
INPUTS = 256  # different images in turn, so that no branch predictor learns the one
SETTLING_CALLS = 16  # at the start of a burst: others have had the caches since the last one
OVERHEAD_CALLS = 10_001
LIMIT_NS = 10**9  # of a burst and of an accuracy on all cores, where a call can take 50 ms
PHOTO_CALLS = 50


def time_calls(
    call: Callable[..., Any],
    inputs: Sequence[tuple[Any, ...]],
    count: int,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
    set_input: Callable[..., Any] | None = None,
    limit_ns: float = math.inf,
) -> list[int]:
    """Call a function again and again and time each call.

    Args:
        call: The function.
        inputs: Its arguments, taken in turn.
        count: How many calls.
        clock_ns: The clock.
        set_input: Given the arguments instead of `call`, before the clock is looked at.
        limit_ns: No further call is made once the calls have taken so long.

    Returns:
        The duration of each call in ns, with the clock's own overhead in it.
    """
    times_ns = [0] * count
    spent_ns = 0
    for i in range(count):
        arguments = inputs[i % len(inputs)]
        if set_input is not None:
            set_input(*arguments)
            arguments = ()
        start = clock_ns()
        call(*arguments)
        times_ns[i] = clock_ns() - start
        spent_ns += times_ns[i]
        if spent_ns > limit_ns:
            return times_ns[: i + 1]
    return times_ns


def timer_overhead_ns() -> int:
    """What a timed call of nothing takes: the median over `OVERHEAD_CALLS` of them."""
    return sorted(time_calls(lambda: None, [()], OVERHEAD_CALLS))[OVERHEAD_CALLS // 2]


def time_photo(photo: Any, digit: np.ndarray) -> list[int]:
    """Time `photo.find_digit` on a drawn picture of 640x480.

    Args:
        photo: The module `photo`.
        digit: uint8 (28, 28), white on black: drawn dark on grey paper.

    Returns:
        Durations in ns.
    """
    picture = np.full((480, 640), 200, np.uint8)
    picture[100:380, 180:460] -= np.kron(digit // 2, np.ones((10, 10), np.uint8))

    def find() -> None:
        with contextlib.suppress(photo.PhotoError):  # random images hold none; it was looked for
            photo.find_digit(picture)

    time_calls(find, [()], PHOTO_CALLS // 10)
    return time_calls(find, [()], PHOTO_CALLS)


def variants(runtime: str, isa_flags: Sequence[str]) -> tuple[str, ...]:
    """The names under which a runtime is timed: its own, and with what it is kept from.

    Args:
        runtime: Such as "ai-edge-litert".
        isa_flags: The processor's, of `machine.isa_flags`.
    """
    if runtime != "ai-edge-litert":
        return (runtime,)
    kept_from = [WITHOUT_XNNPACK, *([WITHOUT_AMX] if "amx_int8" in isa_flags else [])]
    return (runtime, *(runtime + without for without in kept_from))


def runtime_of(variant: str) -> str:
    """The runtime's own name."""
    return variant.partition(" without ")[0]


def runner_module() -> Any:
    """The runner beside this file."""
    return importlib.import_module(f"{__package__}.runner" if __package__ else "runner")


def load(model: Path, variant: str, threads: int) -> Any:
    """The runner's classifier, of one of a runtime's `variants`.

    Raises:
        InputError: As `runner.Classifier` does.
        OSError: This process could not be kept from AMX.
    """
    runner = runner_module()
    name = runtime_of(variant)
    if variant.endswith(WITHOUT_AMX):
        runner.part_of_bundle("amx").deny()
    if variant.endswith(WITHOUT_XNNPACK):
        # The runner has no such option, for it would only be slower. This process has one model.
        module = runner.import_runtime(name, ".interpreter")
        module.Interpreter = functools.partial(
            module.Interpreter,
            experimental_op_resolver_type=module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
    return runner.Classifier(model, name, threads)


def import_only(model: Path, variant: str) -> None:
    """Import what `load` will need, so that the two can be timed apart."""
    runner = runner_module()
    name = runtime_of(variant)
    if name in runner.MODULES and name != "native":  # its import is its load
        runner.import_runtime(name, ".interpreter" if model.suffix == ".tflite" else "")


class BareCalls(NamedTuple):
    """A runtime's own calls, without the runner around them.

    Attributes:
        full: (1, 32, 32, 1) -> (1, classes): set, invoke and get.
        set_input: The first of these alone.
        invoke: The second alone.
    """

    full: Callable[[np.ndarray], Any]
    set_input: Callable[[np.ndarray], Any]
    invoke: Callable[[], Any]


def loaded_bytes(model: Path) -> int:
    """The size of the file that is loaded: of C, the library that it is compiled to."""
    file = runner_module().native_library(model) if model.suffix == ".c" else model
    return int(file.stat().st_size)


def bare_calls(classifier: Any) -> BareCalls | None:
    """The calls of the runtime that a `runner.Classifier` uses; None where it has no such parts."""
    interpreter = getattr(classifier.session, "_interpreter", None)
    if interpreter is not None:
        into = interpreter.get_input_details()[0]["index"]
        out_of = interpreter.get_output_details()[0]["index"]

        def set_invoke_get(image: np.ndarray) -> Any:
            interpreter.set_tensor(into, image)
            interpreter.invoke()
            return interpreter.get_tensor(out_of)

        set_input = functools.partial(interpreter.set_tensor, into)
        return BareCalls(set_invoke_get, set_input, interpreter.invoke)
    session = getattr(classifier.session, "_session", None)
    if session is not None:
        bound = np.zeros(classifier.session.input_shape, np.float32)
        row = np.zeros((1, classifier.classes), np.float32)
        binding = session.io_binding()
        into, out_of = session.get_inputs()[0].name, session.get_outputs()[0].name
        binding.bind_input(into, "cpu", 0, np.float32, bound.shape, bound.ctypes.data)
        binding.bind_output(out_of, "cpu", 0, np.float32, row.shape, row.ctypes.data)

        def copy_run_copy(image: np.ndarray) -> Any:
            bound[:] = image
            session.run_with_iobinding(binding)
            return row.copy()

        set_input = functools.partial(np.copyto, bound)
        run_bound = functools.partial(session.run_with_iobinding, binding)
        return BareCalls(copy_run_copy, set_input, run_bound)
    library = getattr(classifier.session, "_run", None)  # of device/native/binding.c
    if library is not None:
        bound = np.zeros(classifier.session.input_shape, np.int8)
        row = np.zeros((1, classifier.classes), np.int8)

        def run_into_new(image: np.ndarray) -> Any:
            output = np.empty((1, classifier.classes), np.int8)
            library(image, output)
            return output

        run_bound = functools.partial(library, bound, row)
        return BareCalls(run_into_new, functools.partial(np.copyto, bound), run_bound)
    return None


class Timing:
    """One classifier and the calls to time.

    Args:
        classifier: A `runner.Classifier`, or what has its `predict`, `prepare` and `session`.
        images: uint8 (N, 28, 28).
        labels: uint8 (N,), or None where the images have none.
    """

    def __init__(self, classifier: Any, images: np.ndarray, labels: np.ndarray | None) -> None:
        self.classifier = classifier
        self.images, self.labels = images, labels
        some = images[np.arange(INPUTS) % len(images)]
        self._pictures = [(some[i : i + 1],) for i in range(INPUTS)]
        self._prepared = classifier.prepare(some)  # (INPUTS, 32, 32, 1)
        self._inputs = [(self._prepared[i : i + 1],) for i in range(INPUTS)]
        self._bare = bare_calls(classifier)
        self._bursts = 0

    @property
    def largest_batch(self) -> int:
        """How many images the model takes at once; 1 for a graph of a fixed batch of one."""
        return int(self.classifier.session.batch)

    @property
    def uses_threads(self) -> bool:
        """Whether more than one thread can help."""
        return bool(self.classifier.session.uses_threads)

    def burst(
        self, batch: int, calls: int, parts: bool = True, limit_ns: float = math.inf
    ) -> dict[str, list[int]]:
        """Time some calls, after some images that are not timed.

        Args:
            batch: Images a call.
            calls: How many calls of each kind.
            parts: Whether other kinds than the full call are timed.
            limit_ns: As for `time_calls`.

        Returns:
            Durations in ns: `call` of the full call and, for a batch of one, `bare` of the same
            by the runtime's own functions, `invoke` of invoke alone, `prepare` of making one
            input of one picture.
        """
        run_batch = self.classifier.session.run_batch
        if batch > 1:
            inputs = [(self._prepared[i : i + batch],) for i in range(0, INPUTS, batch)]
            time_calls(run_batch, inputs, max(1, SETTLING_CALLS // batch), limit_ns=limit_ns)
            return {"call": time_calls(run_batch, inputs, calls, limit_ns=limit_ns)}
        kinds: dict[str, tuple[Any, ...]] = {"call": (self.classifier.predict, self._inputs, None)}
        if parts:
            kinds["prepare"] = (self.classifier.prepare, self._pictures, None)
        if parts and self._bare is not None:
            kinds["bare"] = (self._bare.full, self._inputs, None)
            kinds["invoke"] = (self._bare.invoke, self._inputs, self._bare.set_input)
        # In turn forwards and backwards: the first kind finds the caches colder than the others.
        order = list(kinds) if self._bursts % 2 == 0 else list(reversed(kinds))
        self._bursts += 1
        times_ns = {}
        for kind in order:
            call, inputs, set_input = kinds[kind]
            for count in (min(SETTLING_CALLS, calls), calls):
                times_ns[kind] = time_calls(
                    call, inputs, count, set_input=set_input, limit_ns=limit_ns
                )
        return {kind: times_ns[kind] for kind in kinds}

    def accuracy(self, batch: int, count: int, limit_ns: float) -> dict[str, Any]:
        """The share of the first images read right, by the calls that `burst` times.

        Args:
            batch: Images a call.
            count: How many images.
            limit_ns: When to stop before them all.

        Returns:
            `accuracy`, None where the images have no labels, and of how many `images` it is.
        """
        if self.labels is None:
            return {"accuracy": None, "images": 0}
        right = done = 0
        end_ns = time.perf_counter_ns() + limit_ns
        while done < count and not (done and time.perf_counter_ns() > end_ns):
            prepared = self.classifier.prepare(self.images[done : min(done + batch, count)])
            if batch == 1:
                labels = self.classifier.predict(prepared).labels
            else:
                labels = self.classifier.session.run_batch(prepared).argmax(axis=1)
            right += int((labels == self.labels[done : done + len(labels)]).sum())
            done += len(labels)
        return {"accuracy": right / done, "images": done}


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
    model: Path,
    variant: str,
    started_ns: int,
    import_only: Callable[[Path, str], Any] = import_only,
    load: Callable[[Path, str, int], Any] = load,
) -> dict[str, Any]:
    """Import, load and classify one picture, once, and say when each was done.

    Returns:
        `marks_ns`: the clock at the first line, after the imports, the load and the first answer;
        `peak_rss_mib`, after some more answers.
    """

    def now_ns() -> int:
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC)

    marks_ns = [started_ns]
    import_only(model, variant)
    marks_ns.append(now_ns())
    classifier = load(model, variant, 1)
    marks_ns.append(now_ns())
    picture = np.zeros((1, 28, 28), np.uint8)
    classifier.predict(picture)
    marks_ns.append(now_ns())
    time_calls(classifier.predict, [(picture,)], INPUTS)
    return {"marks_ns": marks_ns, "peak_rss_mib": peak_rss_mib()}


def serve(timing: Timing, reply: Callable[[Any], None]) -> None:
    """Answer one request a line of standard input until it ends."""
    for line in sys.stdin:
        request = json.loads(line)
        limit_ns = LIMIT_NS if request["all_cores"] else math.inf
        if "calls" in request:
            parts = not request["all_cores"]
            reply(timing.burst(request["batch"], request["calls"], parts, limit_ns))
        else:
            reply(timing.accuracy(request["batch"], request["images"], limit_ns))


def main(
    argv: Sequence[str],
    started_ns: int,
    import_only: Callable[[Path, str], Any] = import_only,
    load: Callable[[Path, str, int], Any] = load,
) -> int:
    """`cold MODEL VARIANT`, or `serve MODEL VARIANT THREADS CORE IMAGES.npz`; replies are JSON.

    CORE is the processor to stay on, or `any`.
    """
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a runtime may greet on standard output

    def reply(value: Any) -> None:
        print(json.dumps(value), file=replies, flush=True)

    mode, model, variant = argv[0], Path(argv[1]), argv[2]
    try:
        if mode == "cold":
            reply(cold_start(model, variant, started_ns, import_only, load))
            return 0
        threads, core = int(argv[3]), argv[4]
        if core != "any":
            os.sched_setaffinity(0, {int(core)})
        with np.load(argv[5], allow_pickle=False) as archive:
            images, labels = archive["images"], archive["labels"]
        timing = Timing(load(model, variant, threads), images, labels if len(labels) else None)
        version = runner_module().runtime_version(runtime_of(variant))
        reply(
            {
                "runtime_version": version,
                "size_bytes": loaded_bytes(model),
                "largest_batch": timing.largest_batch,
                "uses_threads": timing.uses_threads,
                "timer_overhead_ns": timer_overhead_ns(),
            }
        )
    except (ValueError, OSError) as error:  # the runner's InputError is a ValueError
        reply({"error": str(error)})
        return 2
    serve(timing, reply)
    return 0
