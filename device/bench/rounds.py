"""Time several models and runtimes against each other, in rounds.

Each is loaded in a process of its own (`worker.py`), which then waits. A round asks each of
them, in a new random order, for one short burst of calls, while the others sleep. So whatever
the machine does meanwhile, a slower clock or a busy neighbour, hits all of them alike, and the
ratio of two is taken within rounds. Cold start and memory are measured apart, in fresh processes.
"""

from __future__ import annotations

import contextlib
import os
import random
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, ContextManager, Iterator, Sequence, Tuple

import numpy as np

from . import machine
from .processes import BenchSubject, Worker, WorkerError, time_cold_start

ORDER_SEED = 4  # of the random order in the rounds
IMAGES_PER_BURST = 128  # of batches

ReportProgress = Callable[[int, int, str], None]  # done, total, what is being done
OpenProgress = Callable[[str], ContextManager[ReportProgress]]


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        launches: How often each subject is loaded anew: each time its memory lies elsewhere, which
            changes its times. Six is the least that has an interval (`rows.median_ci95`).
        rounds: Bursts of each subject in a launch.
        calls: Timed calls in a burst, one image at a time.
        offline_rounds: Bursts with all cores, in one launch; 0: none.
        cold_starts: Fresh processes of each subject.
    """

    launches: int = 6
    rounds: int = 10
    calls: int = 128
    offline_rounds: int = 8
    cold_starts: int = 20


FULL = Effort(launches=12, rounds=8, calls=256, offline_rounds=32, cold_starts=40)


@dataclass
class Measurement:
    """What was measured of one subject with one number of threads and one batch.

    Attributes:
        about: `runtime_version`, `size_bytes` and `timer_overhead_ns`.
        launches: What `worker.time_burst` returned, by launch and complete round.
        accuracy: Of one image at a time on one thread, where labels are known.
        reason: Why it could not go on.
        throttling: Why its times are not valid.
    """

    subject: BenchSubject
    threads: int
    batch: int
    about: dict[str, Any]
    launches: list[list[dict[str, list[int]]]] = field(default_factory=list)
    accuracy: float | None = None
    reason: str = ""
    throttling: str = ""

    @property
    def is_single(self) -> bool:
        """Whether it is of one image at a time on one thread, what an application does."""
        return self.threads == self.batch == 1

    @property
    def bursts(self) -> list[dict[str, list[int]]]:
        """Of the rounds of all launches."""
        return [burst for launch in self.launches for burst in launch]


Pair = Tuple[Worker, Measurement]


class Benchmark:
    """The measuring of some subjects; what it has is kept when it is interrupted.

    Args:
        subjects: What to measure.
        effort: How much.
        images: uint8 (N, 28, 28).
        labels: uint8 (N,), or empty where they are not known.
        progress: Opens a progress report with a title.

    Attributes:
        measurements, cold_starts, failed: What was measured, and why not.
        cores: The processors that may be used.
        before, after: The states of the machine.
        seconds: How long it took.
        interrupted: Whether Ctrl-C ended it.
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
        self.measurements: list[Measurement] = []
        self.cold_starts: dict[BenchSubject, list[dict[str, Any]]] = {}
        self.failed: dict[BenchSubject, str] = {}
        self.order = random.Random(ORDER_SEED)
        self.cores = sorted(os.sched_getaffinity(0))
        self.interrupted = False

    def run(self) -> None:
        """Measure everything; Ctrl-C ends it."""
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
        effort, cores = self.effort, len(self.cores)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "images.npz")
            np.savez(file, images=self.images, labels=self.labels)
            self.run_launches(1, effort.launches, effort.rounds, effort.calls, file)
            if cores > 1 and effort.offline_rounds:
                # Few calls: where another process has a core, TFLite's threads wait for each
                # other for 50 ms a call.
                self.run_launches(cores, 1, effort.offline_rounds, effort.calls // 16, file)
        self.run_cold_starts()

    def run_launches(
        self, threads: int, launches: int, rounds: int, calls: int, images: Path
    ) -> None:
        """Load all subjects with that many threads and time them in rounds; again and again."""
        title = f"bench, {threads} thread{'s' if threads > 1 else ''}"
        with self.watch_throttling(lambda m: m.threads == threads), self.progress(title) as report:
            for i in range(launches):
                report(i, launches, "launches")
                with self.launch(threads, images) as pairs:
                    for _ in range(rounds):
                        self.run_round(pairs, calls)
                    if i + 1 == launches:
                        self.take_accuracy(pairs)
            report(launches, launches, "launches")

    @contextlib.contextmanager
    def watch_throttling(
        self, concerns: Callable[[Measurement], bool], when: str = ""
    ) -> Iterator[None]:
        """Note in the measurements it concerns that the board was throttled in the block."""
        before = machine.machine_state()
        try:
            yield
        finally:
            if throttling := machine.throttling_between(before, machine.machine_state()):
                for measurement in filter(concerns, self.measurements):
                    measurement.throttling = measurement.throttling or throttling + when

    @contextlib.contextmanager
    def launch(self, threads: int, images: Path) -> Iterator[list[Pair]]:
        """A process for each subject that can run, with what is measured of it."""
        # The last core: the first handles more of the system's interrupts.
        core = str(self.cores[-1]) if threads == 1 else "any"
        workers: list[Worker] = []
        try:
            for subject in self.subjects:
                if subject not in self.failed and subject.batches(threads):
                    workers.append(Worker(subject, threads, core, images))
            yield [pair for worker in workers for pair in self.begin(worker, threads)]
        finally:
            for worker in workers:
                worker.stop()

    def begin(self, worker: Worker, threads: int) -> list[Pair]:
        """Wait until a worker is ready, and begin a launch in its measurements."""
        subject = worker.subject
        known = {
            m.batch: m for m in self.measurements if (m.subject, m.threads) == (subject, threads)
        }
        try:
            about = worker.receive()
        except WorkerError as error:
            self.failed[subject] = str(error)
            for measurement in known.values():
                measurement.reason = str(error)
            return []
        if not known:
            batches = subject.batches(threads)
            known = {b: Measurement(subject, threads, b, about) for b in batches}
            self.measurements += known.values()
        for measurement in known.values():
            measurement.launches.append([])
        return [(worker, measurement) for measurement in known.values()]

    def run_round(self, pairs: Sequence[Pair], calls: int) -> None:
        """One burst of each, in a new random order; kept when all of them have had theirs."""
        bursts = []
        for worker, measurement in self.order.sample(pairs, len(pairs)):
            if measurement.reason:
                continue
            batch = measurement.batch
            images = worker.subject.share * (calls if batch == 1 else IMAGES_PER_BURST)
            try:
                burst = worker.ask(batch=batch, calls=max(1, round(images / batch)))
            except WorkerError as error:
                measurement.reason = str(error)
            else:
                bursts.append((measurement, burst))
        for measurement, burst in bursts:
            measurement.launches[-1].append(burst)

    def take_accuracy(self, pairs: Sequence[Pair]) -> None:
        """Of all images, by the processes that were timed."""
        for worker, measurement in pairs:
            if measurement.is_single and not measurement.reason:
                try:
                    measurement.accuracy = worker.ask()["accuracy"]
                except WorkerError as error:
                    measurement.reason = str(error)

    def run_cold_starts(self) -> None:
        """Start each subject in fresh processes, in rounds of random order."""
        runnable = [subject for subject in self.subjects if subject not in self.failed]
        wanted = {s: max(1, round(self.effort.cold_starts * s.share)) for s in runnable}
        rounds = max(wanted.values(), default=0)
        watch = self.watch_throttling(lambda m: m.is_single, ", during the cold starts")
        with watch, self.progress("bench, cold starts") as report:
            for i in range(rounds):
                due = [subject for subject in runnable if i < wanted[subject]]
                for subject in self.order.sample(due, len(due)):
                    self.cold_starts.setdefault(subject, []).append(time_cold_start(subject))
                report(i + 1, rounds, "rounds")
