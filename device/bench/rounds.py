"""Bench several models and runtimes against each other, in rounds.

Each is loaded in a process of its own (`worker.py`), which then waits. A round asks each of
them, in a new random order, for one short burst of calls, while the others sleep. So whatever
the machine does meanwhile, a slower clock or a busy neighbour, hits all of them alike, and the
ratio of two is taken within rounds. Cold start and memory are measured apart, in fresh processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, ContextManager, Iterator, Sequence

import numpy as np

from . import machine

ORDER_SEED = 4  # of the shuffled order in the rounds
BATCHES = (8, 64, 256)  # images at once, where the model takes more than one
IMAGES_PER_BURST = 128  # of batches
PATIENCE_S = 300.0  # what takes longer to load or to answer hangs

# Its first line runs as early as a program can look at the clock. CLOCK_MONOTONIC has the same
# zero in all processes, so that the time of starting this one can be subtracted.
START = """
import time
started_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
import importlib, sys
sys.path.insert(0, sys.argv[1])
sys.exit(importlib.import_module(sys.argv[2]).main(sys.argv[3:], started_ns))
"""

ReportProgress = Callable[[int, int, str], None]  # done, total, what is being done
OpenProgress = Callable[[str], ContextManager[ReportProgress]]


@dataclass(frozen=True)
class BenchSubject:
    """One model on one runtime, and what runs them.

    Attributes:
        artifact: The model's file.
        runtime: The runtime's name, or what else `module` knows.
        python: The interpreter of the environment that has the runtime.
        folder, module: Where a module with `worker.py`'s `main` is, and its name.
        share: Of the calls and cold starts, for what takes far longer than the rest.
    """

    artifact: Path
    runtime: str
    python: str = sys.executable
    folder: Path = Path(__file__).resolve().parents[1]
    module: str = "bench.worker"
    share: float = 1.0

    @property
    def file(self) -> str:
        """The artifact as parity.json calls it, such as "native/lenet5_int8.c"."""
        folder = "native/" if self.artifact.parent.name == "native" else ""
        return folder + self.artifact.name

    @property
    def batches(self) -> tuple[int, ...]:
        """How many images at once are timed: a TFLite graph of batch 1 takes no more."""
        return (1,) if self.artifact.suffix == ".tflite" else (1, *BATCHES)

    @property
    def uses_threads(self) -> bool:
        """Whether more than one thread can help."""
        return self.artifact.suffix != ".c"

    @property
    def name(self) -> str:
        """Such as "lenet5_int8.tflite on tflite-runtime"."""
        return f"{self.file} on {self.runtime}"

    def start(self, mode: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start `main` with a mode in a process of its own."""
        command = [self.python, "-I", "-c", START, str(self.folder), self.module, mode]
        command += [str(self.artifact.resolve()), self.runtime, *arguments]
        # As for `runner.py` where Python is not told otherwise: modules are compiled once, not at
        # every start, and numpy starts no threads.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the conductor alone
            **options,
        )


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        launches: How often each subject is loaded anew. Two processes of the same model differ, by
            where its memory lies, and rounds that follow each other are alike: the intervals are
            of the launches. Six is the least that has one (`bench_rows.median_ci95`).
        rounds, calls: In each launch, bursts of each subject, and timed calls in each, one image at
            a time.
        offline_rounds: Bursts with all cores, in one launch.
        cold_starts: Fresh processes of each subject.
    """

    launches: int = 6
    rounds: int = 10
    calls: int = 128
    offline_rounds: int = 8
    cold_starts: int = 20


FULL = Effort(launches=12, rounds=8, calls=256, offline_rounds=32, cold_starts=40)
LOADING_ROUNDS = 8  # of progress, about as long


@dataclass
class Measurement:
    """What was measured of one subject with one number of threads and one batch.

    Attributes:
        launches: Of each launch, and in it of each complete round, durations in ns by kind:
            `worker.Timing.burst`.
    """

    subject: BenchSubject
    threads: int
    batch: int
    runtime_version: str
    size_bytes: int
    timer_overhead_ns: int
    launches: list[list[dict[str, list[int]]]] = field(default_factory=list)
    accuracy: float | None = None
    reason: str = ""
    throttling: str = ""

    @property
    def rounds(self) -> list[dict[str, list[int]]]:
        """The rounds of all launches."""
        return [burst for launch in self.launches for burst in launch]


class WorkerError(Exception):
    """A subject that cannot run; the message says why."""


class Worker:
    """A process that has one subject loaded and waits for requests."""

    def __init__(self, subject: BenchSubject, threads: int, core: str, images: Path) -> None:
        self.subject, self.threads = subject, threads
        self._hung = ""
        # A pipe that nobody reads could fill up.
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self._process = subject.start(
            "serve",
            *(str(threads), core, str(images)),
            stdin=subprocess.PIPE,
            stderr=self._errors,
        )

    def receive(self) -> dict[str, Any]:
        """The next reply.

        Raises:
            WorkerError: The process ended or hangs, or it says that it cannot go on.
        """
        output = self._process.stdout
        assert output is not None
        if not select.select([output], [], [], PATIENCE_S)[0]:  # it writes a whole line at once
            self._process.kill()
            self._hung = f"hung: no answer for {PATIENCE_S:.0f} s"
        line = output.readline()
        if self._hung:
            raise WorkerError(self._hung)
        if not line:
            self._errors.seek(0)
            said = self._errors.read().strip().splitlines()
            raise WorkerError(describe_exit(self._process.wait(), said))
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise WorkerError(reply["error"])
        return reply

    def ask(self, **request: int) -> dict[str, Any]:
        """Send a request and wait for its reply, asleep.

        Raises:
            WorkerError: As for `receive`.
        """
        with contextlib.suppress(BrokenPipeError):  # it has ended; receive tells how
            print(json.dumps(request), file=self._process.stdin, flush=True)
        return self.receive()

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()


def describe_exit(code: int, said: Sequence[str]) -> str:
    """How a process ended, in a line."""
    if code < 0:
        return f"crashed (signal {-code})"
    return said[-1] if said else f"ended with exit code {code}"


class Benchmark:
    """The measuring of some subjects; what it has is kept when it is interrupted.

    Args:
        subjects: What to measure.
        effort: How much.
        images: uint8 (N, 28, 28).
        labels: uint8 (N,), or empty where they are not known.
        progress: Opens a progress report with a title.

    Attributes:
        cells, cold, failed: What was measured, and why not.
    """

    def __init__(
        self,
        subjects: Sequence[BenchSubject],
        effort: Effort,
        images: np.ndarray,
        labels: np.ndarray,
        progress: OpenProgress,
    ) -> None:
        self.subjects, self.effort, self.progress = subjects, effort, progress
        self.images, self.labels = images, labels
        self.cells: list[Measurement] = []
        self.failed: dict[BenchSubject, str] = {}
        self.cold: dict[BenchSubject, list[dict[str, Any]]] = {}
        self.order = random.Random(ORDER_SEED)
        self.core = pinned_core()
        self.host = machine.describe_machine()
        self.interrupted = False

    def run(self) -> None:
        """Measure everything; Ctrl-C ends it and is noted in `interrupted`."""
        begun = time.monotonic()
        self.before = machine.machine_state()
        try:
            self.measure()
        except KeyboardInterrupt:
            self.interrupted = True
        self.after = machine.machine_state()
        self.seconds = time.monotonic() - begun

    def measure(self) -> None:
        """One core, all cores, cold starts."""
        cores = available_cores()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "images.npz")
            np.savez(file, images=self.images, labels=self.labels)
            effort = self.effort
            self.run_launches(1, effort.launches, effort.rounds, effort.calls, file)
            if cores > 1:
                self.run_launches(cores, 1, effort.offline_rounds, effort.calls // 4, file)
        self.run_cold_starts()

    def run_launches(
        self, threads: int, launches: int, rounds: int, calls: int, images: Path
    ) -> None:
        """Load all subjects with that many threads and time them in rounds; again and again."""
        before = machine.machine_state()
        first = len(self.cells)
        each = LOADING_ROUNDS + rounds
        total = launches * each
        try:
            with self.progress(f"bench, {threads} thread{'s' if threads > 1 else ''}") as report:
                for i in range(launches):
                    report(i * each, total, f"launch {i + 1} of {launches}, loading")
                    with self.launch(threads, images) as pairs:
                        for k in range(rounds):
                            self.run_round(pairs, calls)
                            done = i * each + LOADING_ROUNDS + k + 1
                            report(done, total, f"launch {i + 1} of {launches}, rounds")
                        if i + 1 == launches:
                            for worker, cell in pairs:
                                self.take_accuracy(worker, cell)
                report(total, total, "done")
        finally:
            throttling = machine.throttling_between(before, machine.machine_state())
            for cell in self.cells[first:]:
                cell.throttling = throttling

    @contextlib.contextmanager
    def launch(self, threads: int, images: Path) -> Iterator[list[tuple[Worker, Measurement]]]:
        """A process for each subject that can run, with what is measured of it."""
        core = self.core if threads == 1 else "any"
        workers: list[Worker] = []
        try:
            for subject in self.subjects:
                if subject not in self.failed and (threads == 1 or subject.uses_threads):
                    workers.append(Worker(subject, threads, core, images))
            yield [pair for worker in workers for pair in self.open_cells(worker)]
        finally:
            for worker in workers:
                worker.stop()

    def open_cells(self, worker: Worker) -> list[tuple[Worker, Measurement]]:
        """Wait until a worker is ready, and begin a launch of its cells; else it is `failed`."""
        try:
            ready = worker.receive()
        except WorkerError as error:
            self.failed[worker.subject] = str(error)
            for cell in self.cells:
                if (cell.subject, cell.threads) == (worker.subject, worker.threads):
                    cell.reason = str(error)
            return []
        cells = [self.find_cell(worker, batch, ready) for batch in worker.subject.batches]
        for cell in cells:
            cell.launches.append([])
        return [(worker, cell) for cell in cells]

    def find_cell(self, worker: Worker, batch: int, ready: dict[str, Any]) -> Measurement:
        """The cell of an earlier launch, or a new one."""
        for cell in self.cells:
            if (cell.subject, cell.threads, cell.batch) == (worker.subject, worker.threads, batch):
                return cell
        size_bytes, overhead_ns = ready["size_bytes"], ready["timer_overhead_ns"]
        version = ready["runtime_version"]
        cell = Measurement(worker.subject, worker.threads, batch, version, size_bytes, overhead_ns)
        self.cells.append(cell)
        return cell

    def run_round(self, pairs: Sequence[tuple[Worker, Measurement]], calls: int) -> None:
        """One burst of each, in a new order; kept when all of them have had theirs."""
        shuffled = self.order.sample(pairs, len(pairs))
        bursts = []
        for worker, cell in shuffled:
            if cell.reason:
                continue
            count = round(calls * cell.subject.share) if cell.batch == 1 else None
            count = count or max(2, IMAGES_PER_BURST // cell.batch)
            try:
                burst = worker.ask(batch=cell.batch, calls=count, all_cores=cell.threads > 1)
            except WorkerError as error:
                cell.reason = str(error)
            else:
                bursts.append((cell, burst))
        for cell, burst in bursts:
            cell.launches[-1].append(burst)

    def take_accuracy(self, worker: Worker, cell: Measurement) -> None:
        """Of all images, by the process that was timed."""
        if cell.reason or cell.batch > 1:
            return
        try:
            cell.accuracy = worker.ask(calls=0)["accuracy"]
        except WorkerError as error:
            cell.reason = str(error)

    def run_cold_starts(self) -> None:
        """Start each subject in fresh processes, in rounds of shuffled order."""
        before = machine.machine_state()
        runnable = [subject for subject in self.subjects if subject not in self.failed]
        wanted = {s: max(1, round(self.effort.cold_starts * s.share)) for s in runnable}
        rounds = max(wanted.values(), default=0)
        try:
            with self.progress("bench, cold starts") as report:
                for i in range(rounds):
                    due = [subject for subject in runnable if i < wanted[subject]]
                    for subject in self.order.sample(due, len(due)):
                        self.cold.setdefault(subject, []).append(time_cold_start(subject))
                    report(i + 1, rounds, "rounds")
        finally:
            throttling = machine.throttling_between(before, machine.machine_state())
            for cell in self.cells:
                if throttling and cell.threads == cell.batch == 1:  # the row of the cold starts
                    cell.throttling = cell.throttling or f"{throttling}, during the cold starts"


def time_cold_start(subject: BenchSubject) -> dict[str, Any]:
    """Start a subject once.

    Returns:
        Milliseconds: `interpreter` until the first line, `import`, `load`, `first` answer,
        `total`; and `peak_rss_mib`. Empty when it failed.
    """
    begun_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    with subject.start("cold", stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            output, _ = process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            return {}
        finally:  # it hangs, or Ctrl-C was pressed
            process.kill()
    if process.returncode != 0:
        return {}
    reply = json.loads(output)
    times_ms = np.diff([begun_ns, *reply["marks_ns"]]) / 1e6
    parts = dict(zip(("interpreter", "import", "load", "first"), times_ms.tolist()))
    return {**parts, "total": float(times_ms.sum()), "peak_rss_mib": reply["peak_rss_mib"]}


def available_cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pinned_core() -> str:
    """The processor that single-threaded work is kept on, or "any" where that is not possible.

    The last one: the first handles more of the system's interrupts.
    """
    if not hasattr(os, "sched_setaffinity"):
        return "any"
    return str(max(os.sched_getaffinity(0)))


@contextlib.contextmanager
def lines_on_stderr(title: str) -> Iterator[ReportProgress]:
    """A progress report of a line every five seconds."""
    start = last = time.monotonic()

    def report(done: int, total: int, text: str) -> None:
        nonlocal last
        now = time.monotonic()
        if done and (now - last >= 5 or done == total):
            last = now
            left_s = (now - start) / done * (total - done)
            print(
                f"{title} {done}/{total} {text}, {left_s:.0f} s left", file=sys.stderr, flush=True
            )

    yield report
