"""The command line: `python -m pipeline STAGE --help`. The Makefile calls it stage by stage."""

from __future__ import annotations

import argparse
import importlib
import io
import math
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from pipeline.artifacts import TIMINGS_JSON
from pipeline.config import PARITY_BUDGET
from pipeline.files import (
    UserError,
    make_folder,
    only_one_run,
    read_json,
    remove_partial_files,
    write_json,
)

# Each stage's module, imported when it runs: `--help` waits for no framework, and Ctrl-C during an
# import finds `main` already running.
STAGES = {
    "import": ("pipeline.importing.run", "Bring your own data to the form that is trained on."),
    "data": ("pipeline.data", "Verify the data set and print its split."),
    "train": ("pipeline.train.training", "Train the float model."),
    "export": ("pipeline.export", "Convert the float model to TFLite and ONNX."),
    "native": ("pipeline.native", "Write the int8 model as C and compile it."),
    "microcontroller": ("pipeline.microcontroller.build", "Compile the C for a Cortex-M."),
    "parity": ("pipeline.parity.check", "Check every artifact against the float model."),
    "bundle": ("pipeline.bundle.pack", "Pack what runs on the device, if parity passed."),
    "bench": ("pipeline.bench.run", "Time every artifact, or show and compare earlier results."),
    "photos": ("pipeline.studies.photos", "Measure how often photographs are read right."),
    "accuracy": ("pipeline.studies.accuracy", "Train and judge five seeds of each recipe."),
    "robustness": ("pipeline.studies.robustness", "Measure accuracy on distorted test images."),
    "instructions": ("pipeline.studies.instructions", "Count the C kernels' instructions."),
    "pi-test": ("pipeline.pi_test.run", "Install and verify the bundle on emulated Pis."),
    "report": ("pipeline.report.write", "Write the report and the model card."),
    "readme": ("pipeline.readme", "Write README's table and docs/results.md from this run."),
}


def build_parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--data", type=Path, default=Path("data/mnist"), metavar="DIR")
    common.add_argument("--out", type=Path, default=Path("artifacts"), metavar="DIR")
    parser = argparse.ArgumentParser(prog="python -m pipeline", description=__doc__)
    subparsers = parser.add_subparsers(dest="stage", required=True, metavar="STAGE")
    stage = {
        name: subparsers.add_parser(
            name, parents=[] if name == "import" else [common], help=text, description=text
        )
        for name, (_, text) in STAGES.items()
    }
    own = stage["import"]
    own.add_argument("source", type=Path, metavar="SOURCE", help="IDX, CSV, .npz, picture folders")
    own.add_argument("out", type=Path, metavar="DIR", help="a new folder")
    own.add_argument("--invert", action="store_true", help="the images are black on white")
    own.add_argument("--transpose", action="store_true", help="they lie on their side: EMNIST")
    stage["train"].add_argument(
        "--recipe", default="best", help="a name in pipeline/train/recipes or a path"
    )
    stage["export"].add_argument("artifacts", nargs="*", metavar="ARTIFACT", help="default: all")
    stage["parity"].add_argument("--budget", type=Path, default=PARITY_BUDGET, metavar="TOML")
    bundle = stage["bundle"]
    bundle.add_argument("--dist", type=Path, default=Path("dist"), metavar="DIR")
    bundle.add_argument("--wheels", metavar="TARGET", help="pack these, such as aarch64-cp311")
    bench = stage["bench"]
    bench.add_argument("--full", action="store_true", help="24,576 calls a row, MLPerf's for p90")
    bench.add_argument("--show", type=Path, metavar="JSON", help="do not measure, show this")
    bench.add_argument("--compare", type=Path, metavar="JSON", help="an earlier result")
    bench.add_argument(
        "--max-regression", type=percentage, default=10.0, metavar="PERCENT", help="else exit 1; 10"
    )
    stage["accuracy"].add_argument("recipes", nargs="*", metavar="RECIPE", help="best and max")
    stage["microcontroller"].add_argument("arch", choices=("cortex-m0plus", "cortex-m33"))
    pi_test = stage["pi-test"]
    pi_test.add_argument("bundle", type=Path, metavar="BUNDLE")
    pi_test.add_argument("--full", action="store_true", help="all processors and all images")
    return parser


def percentage(text: str) -> float:
    """An argparse type: a finite number of at least 0."""
    value = float(text)
    if not 0 <= value < math.inf:  # NaN fails as well
        raise argparse.ArgumentTypeError("must be a finite number of at least 0")
    return value


def run_stage(args: argparse.Namespace) -> int:
    """Import the stage's module and call its `run`."""
    code: int = importlib.import_module(STAGES[args.stage][0]).run(args)
    return code


def run_writing_stage(args: argparse.Namespace) -> int:
    """Run a stage that writes to its output folder, alone there; keep its time if it succeeds."""
    start = time.perf_counter()
    make_folder(args.out)
    with only_one_run(args.out):
        remove_partial_files(args.out)
        code = run_stage(args)
        if code == 0:
            name = " ".join([args.stage, *getattr(args, "artifacts", [])])
            record_seconds(args.out / TIMINGS_JSON, name, time.perf_counter() - start)
    return code


def record_seconds(path: Path, stage: str, seconds: float) -> None:
    """Keep the wall-clock time of each stage's last successful run."""
    try:
        timings = read_json(path)
    except UserError:  # missing or damaged
        timings = {}
    write_json(path, {**timings, stage: round(seconds, 2)})


def main(argv: Sequence[str] | None = None) -> int:
    """Run one stage; returns the exit code."""
    args = build_parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a name that the terminal cannot show
    try:
        # `data` and `bench --show` write nothing; `import` makes a folder of its own.
        writes = args.stage not in ("import", "data") and not getattr(args, "show", None)
        code = run_writing_stage(args) if writes else run_stage(args)
        print(end="", flush=True)
        return code
    except UserError as error:
        print(f"pipeline: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output, such as `head`, is gone
        drop_stuck_output()
        return 141  # as a shell reports a program that SIGPIPE ended
    except OSError as error:
        # A full disk is reported without a name.
        where = error.filename or f"{args.out}, {tempfile.gettempdir()} or the output"
        print(f"pipeline: {where}: {error.strerror or error}", file=sys.stderr)
        drop_stuck_output()
        return 2
    except KeyboardInterrupt:
        goes_on = "" if args.stage == "bench" else "; the same command goes on from here"
        print(f"pipeline: interrupted{goes_on}", file=sys.stderr)
        return 130


def drop_stuck_output() -> None:
    """As `device/commands.py`, which imports its neighbours by name and cannot be imported here."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def repeat_interrupt(ignored: sys.UnraisableHookArgs) -> None:
    """Send Ctrl-C again when it came in the callback of a weak reference or in a `__del__`.

    Python prints an exception there and goes on; TensorFlow spends much time in such callbacks.
    """
    if ignored.exc_type is KeyboardInterrupt:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(ignored)


if __name__ == "__main__":
    sys.unraisablehook = repeat_interrupt
    sys.exit(main())
