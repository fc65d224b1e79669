"""A process for each subject of the benchmark: start it, ask it, end it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COLD_START_PARTS = ("interpreter", "import", "load", "first")
BATCHES = (8, 64, 256)  # images at once, where the model takes more than one
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


class WorkerError(Exception):
    """A subject that cannot run; the message says why."""


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

    def batches(self, threads: int) -> tuple[int, ...]:
        """How many images at once are timed: a TFLite graph of batch 1 takes no more.

        The C has no threads of its own: only a batch can be shared out. WebAssembly has none.
        """
        if self.artifact.suffix == ".wasm":
            return (1,) if threads == 1 else ()
        if self.artifact.suffix == ".tflite":
            return (1,)
        return BATCHES if self.artifact.suffix == ".c" and threads > 1 else (1, *BATCHES)

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
            start_new_session=True,  # Ctrl-C is for the benchmark itself, not for its processes
            **options,
        )


class Worker:
    """A process that has one subject loaded and waits for requests.

    Args:
        subject: What it loads.
        threads: How many the runtime may use.
        core: The processor to stay on, or "any".
        images: The file that `worker.serve` reads.
    """

    def __init__(self, subject: BenchSubject, threads: int, core: str, images: Path) -> None:
        self.subject = subject
        self._problem = ""
        # A pipe that nobody reads could fill up.
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        arguments = (str(threads), core, str(images))
        self._process = subject.start(
            "serve", *arguments, stdin=subprocess.PIPE, stderr=self._errors
        )

    def receive(self) -> dict[str, Any]:
        """The next reply.

        Raises:
            WorkerError: The process ended or hangs, or it says that it cannot go on.
        """
        output = self._process.stdout
        assert output is not None
        if not self._problem:
            if select.select([output], [], [], PATIENCE_S)[0]:  # it writes a whole line at once
                line = output.readline()
                reply: dict[str, Any] = json.loads(line) if line else {"error": self._last_words()}
                if "error" not in reply:
                    return reply
                self._problem = reply["error"]
            else:
                self._problem = f"hung: no answer for {PATIENCE_S:.0f} s"
        raise WorkerError(self._problem)

    def ask(self, **request: int) -> dict[str, Any]:
        """Send a request and wait for its reply, asleep.

        Raises:
            WorkerError: As for `receive`.
        """
        with contextlib.suppress(BrokenPipeError):  # it has ended; receive tells how
            print(json.dumps(request), file=self._process.stdin, flush=True)
        return self.receive()

    def _last_words(self) -> str:
        """How the process ended, in a line."""
        code = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().strip().splitlines() or [f"ended with exit code {code}"]
        return f"crashed (signal {-code})" if code < 0 else said[-1]

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()


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
    marks_ns = [begun_ns, *reply["marks_ns"]]
    parts_ms = [(marks_ns[i + 1] - marks_ns[i]) / 1e6 for i in range(len(COLD_START_PARTS))]
    times_ms = {**dict(zip(COLD_START_PARTS, parts_ms)), "total": sum(parts_ms)}
    return {**times_ms, "peak_rss_mib": reply["peak_rss_mib"]}
