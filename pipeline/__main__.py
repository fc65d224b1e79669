"""The command line: `python -m pipeline STAGE --help`. The Makefile calls it stage by stage."""

from __future__ import annotations

import argparse
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
from typing import TYPE_CHECKING

from export.quiet import quiet
from pipeline import config
from pipeline.artifacts import (
    ACCURACY_MD,
    BENCH_JSON,
    CONVERTED,
    FLOAT_MODEL,
    INT8_TFLITE,
    MODEL_CARD,
    PHOTOS_JSON,
    REPORT_HTML,
    TIMINGS_JSON,
    TRAIN_JSON,
    TRAINING_SPEED_JSON,
)
from pipeline.files import (
    UserError,
    make_folder,
    only_one_run,
    read_json,
    remove_partial_files,
    write_json,
)

if TYPE_CHECKING:
    from pipeline.data import Dataset

STAGES_ALL = ("train", "export", "native", "parity", "bundle")


def stage_data(args: argparse.Namespace) -> int:
    """Verify the data set and print its split."""
    dataset = load_data(args.data)
    for name in ("train", "validation", "test"):
        print(f"{name:10} {len(getattr(dataset, name)):6} images")
    print(f"{'classes':10} {dataset.classes:6} {', '.join(dataset.label_names)}")
    return 0


def stage_train(args: argparse.Namespace) -> int:
    """Train the float model."""
    recipe = config.load_recipe(args.recipe)
    dataset = load_data(args.data)
    import_tensorflow()
    from pipeline.train import figures
    from pipeline.train import training as train

    result = train.train(Path(args.recipe).stem, recipe, dataset, args.out)
    figures.draw(args.out / "figures", result, dataset, args.out / FLOAT_MODEL)
    print(
        f"{args.out / FLOAT_MODEL}: recipe {result.recipe}, {result.parameters:,} parameters, "
        f"{result.seconds:.0f} s; validation {result.val_accuracy:.2%}, "
        f"test {result.test_accuracy:.2%}"
    )
    return 0


def stage_export(args: argparse.Namespace) -> int:
    """Convert the float model to the artifacts."""
    from pipeline import export as convert

    for name in args.artifacts:
        if name not in CONVERTED:
            known = ", ".join(CONVERTED)
            raise UserError(f"{name}: no such artifact; there are: {known}")
    dataset = load_data(args.data)
    import_tensorflow()
    for name in args.artifacts or CONVERTED:
        path = convert.convert(name, args.out, dataset, config.ExportConfig())
        print(f"{path}: {path.stat().st_size:,} bytes")
    return 0


def stage_parity(args: argparse.Namespace) -> int:
    """Check every artifact on every runtime against the float model, on all test images."""
    from pipeline.parity import check

    return check.run(args)


def stage_bundle(args: argparse.Namespace) -> int:
    """Pack what runs on the device, if parity passed."""
    from pipeline.bundle import pack

    remove_partial_files(args.dist)
    path, missing = pack.pack(args.out, args.dist, load_data(args.data), args.wheels)
    for arch, reason in missing.items():
        print(f"bundle: no native binaries for {arch}: {reason}")
    print(f"{path}: {path.stat().st_size:,} bytes")
    return 0


def stage_native(args: argparse.Namespace) -> int:
    """Write the int8 model as C, compile it, and keep the outputs that it must reproduce."""
    from pipeline import native

    print("\n".join(native.generate(args.out, load_data(args.data))))
    return 0


def stage_photos(args: argparse.Namespace) -> int:
    """Measure how often generated photographs of digits are read right, and how fast."""
    from pipeline.studies import photos

    test = load_trained_on(args).test
    bench = photos.measure(args.out / INT8_TFLITE, test, args.per_condition, args.seed)
    write_json(args.out / PHOTOS_JSON, photos.as_json(bench))
    print(photos.format_result(bench))
    return 0


def stage_bench(args: argparse.Namespace) -> int:
    """Time every artifact on every runtime, or show and compare what was timed before."""
    from device.bench.rounds import FULL, Effort
    from pipeline.bench import compare
    from pipeline.bench import measure as bench
    from pipeline.bench.result import read_result

    # First: what cannot be read is found before the minutes of measuring.
    before = read_result(args.compare) if args.compare else None
    if args.show:
        result = read_result(args.show)
        print(bench.format_markdown(result))
    else:
        result = bench.measure(args.out, load_data(args.data), FULL if args.full else Effort())
        try:
            print(bench.format_markdown(result))
        finally:  # a full disk does not lose the figures unseen, a closed pipe not the file
            bench.keep(result, args.out / BENCH_JSON)
        if result["method"]["interrupted"]:
            raise KeyboardInterrupt
    if not any(row["status"] == "ok" for row in result["rows"]):
        return 1
    if before is None:
        return 0
    changes = compare.compare(before, result, args.max_regression)
    print(f"\nCompared with {args.compare}:\n\n{compare.format_changes(changes)}")
    if any(before["host"][key] != result["host"][key] for key in ("cpu", "cores")):
        print("\nThese were two machines: the changes say nothing about the code.")
    return 1 if any(change.verdict for change in changes) else 0


def stage_accuracy(args: argparse.Namespace) -> int:
    """Train and judge five seeds of each recipe; writes docs/accuracy.json and docs/accuracy.md."""
    dataset = load_data(args.data)
    import_tensorflow()
    from pipeline.studies import accuracy

    accuracy.run(dataset, args.out, args.recipes or accuracy.RECIPES)
    print(ACCURACY_MD.read_text("utf-8"), end="")
    return 0


def stage_robustness(args: argparse.Namespace) -> int:
    """Measure the accuracy on distorted test images, float and int8 side by side."""
    test = load_trained_on(args).test
    from pipeline.studies import robustness
    from pipeline.table import markdown_table

    result = robustness.measure(args.out, test)
    print(markdown_table(*robustness.table_cells(result["rows"])))
    return 0


def stage_training_speed(args: argparse.Namespace) -> int:
    """Measure training speed: this project's loop and plain `model.fit`, in turn."""
    dataset = load_data(args.data)
    import_tensorflow()
    from pipeline.studies import training_speed

    speeds = training_speed.measure(dataset)
    write_json(args.out / TRAINING_SPEED_JSON, training_speed.as_json(speeds))
    print(training_speed.format_speeds(speeds))
    return 0


def stage_pi_test(args: argparse.Namespace) -> int:
    """Install and verify the bundle on emulated Raspberry Pis, and compare their outputs."""
    from pipeline.pi_test import matrix as pi_matrix
    from pipeline.pi_test import run as pi_test

    matrix = pi_test.run_matrix(args.out, args.bundle, load_data(args.data))
    print(pi_matrix.format_cells(matrix))
    print(f"pi-test: {matrix.status}")
    return pi_matrix.exit_code(matrix, args.allow_not_run)


def stage_report(args: argparse.Namespace) -> int:
    """Write report.html and MODEL_CARD.md from all that was measured."""
    from pipeline.report import write

    sections = write.write(args.out, load_data(args.data))
    for section in sections:
        if section.problem or section.doubt:
            print(f"{section.title}: {section.problem or section.doubt}")
    print(f"{args.out / REPORT_HTML}, {args.out / MODEL_CARD}")
    return 0


def stage_readme(args: argparse.Namespace) -> int:
    """Write README's table, docs/results.md and docs/results.json from this run."""
    from pipeline import readme

    readme.update(args.out)
    print(", ".join([*readme.PAGES, str(readme.RESULTS)]))
    return 0


def stage_all(args: argparse.Namespace) -> int:
    """Run train, export, parity and bundle in turn (`make export` does so incrementally)."""
    for stage in STAGES_ALL:
        code = main([stage, "--data", str(args.data), "--out", str(args.out)])
        if code:
            return code
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--data", type=Path, default=Path("data/mnist"), metavar="DIR")
    common.add_argument("--out", type=Path, default=Path("artifacts"), metavar="DIR")
    parser = argparse.ArgumentParser(prog="python -m pipeline", description=__doc__)
    stages = parser.add_subparsers(dest="stage", required=True)

    def add(name: str, run: object) -> argparse.ArgumentParser:
        text = (run.__doc__ or "").strip()
        stage = stages.add_parser(name, parents=[common], help=text, description=text)
        stage.set_defaults(run=run)
        return stage

    add("data", stage_data)
    train = add("train", stage_train)
    train.add_argument(
        "--recipe", default="best", help="a name in pipeline/train/recipes or a path"
    )
    export = add("export", stage_export)
    export.add_argument("artifacts", nargs="*", metavar="ARTIFACT", help="default: all")
    parity = add("parity", stage_parity)
    parity.add_argument("--budget", type=Path, default=config.PARITY_BUDGET, metavar="TOML")
    bundle = add("bundle", stage_bundle)
    bundle.add_argument("--dist", type=Path, default=Path("dist"), metavar="DIR")
    bundle.add_argument("--wheels", metavar="TARGET", help="pack these, such as aarch64-cp311")
    add("native", stage_native)
    photos = add("photos", stage_photos)
    photos.add_argument("--per-condition", type=int, default=20, metavar="N", help="pictures each")
    photos.add_argument("--seed", type=int, default=1, help="of the pictures")
    add("report", stage_report)
    add("readme", stage_readme)
    bench = add("bench", stage_bench)
    bench.add_argument("--full", action="store_true", help="24,576 calls a row, MLPerf's for p90")
    bench.add_argument("--show", type=Path, metavar="JSON", help="do not measure, show this")
    bench.add_argument("--compare", type=Path, metavar="JSON", help="an earlier result")
    bench.add_argument(
        "--max-regression", type=percentage, default=10.0, metavar="PERCENT", help="else exit 1; 10"
    )
    accuracy = add("accuracy", stage_accuracy)
    accuracy.add_argument("recipes", nargs="*", metavar="RECIPE", help="default: best, max")
    add("robustness", stage_robustness)
    add("training-speed", stage_training_speed)
    pi_test = add("pi-test", stage_pi_test)
    pi_test.add_argument("bundle", type=Path, metavar="BUNDLE")
    pi_test.add_argument("--allow-not-run", action="append", default=[], metavar="OS/ARCH/RUNTIME")
    add("all", stage_all)
    return parser


def percentage(text: str) -> float:
    """An argparse type: a finite number of at least 0."""
    value = float(text)
    if not 0 <= value < math.inf:  # NaN fails as well
        raise argparse.ArgumentTypeError("must be a finite number of at least 0")
    return value


def load_data(folder: Path) -> Dataset:
    """Load the data set; numpy is imported here, so that Ctrl-C finds `main` already running."""
    from pipeline import data

    return data.load(folder)


def load_trained_on(args: argparse.Namespace) -> Dataset:
    """Load the data set that the model in the output folder was trained on, and no other."""
    from pipeline import data

    dataset = data.load(args.data)
    data.require_trained_on(dataset, read_json(args.out / TRAIN_JSON))
    return dataset


def import_tensorflow() -> None:
    """Import TensorFlow for the CPU alone and without its greeting.

    The greeting comes from C++ at import and at the first look for a GPU. A GPU, if there is one,
    is left out: its results differ from run to run, and this network is too small to gain by it.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # The number of threads decides in which order sums are taken, so it must not depend on how
    # many processors this process happens to get.
    os.environ["TF_NUM_INTRAOP_THREADS"] = "2"
    with quiet():
        import tensorflow as tf

        tf.config.set_visible_devices([], "GPU")


def run_writing_stage(args: argparse.Namespace) -> int:
    """Run a stage that writes to its output folder, alone there; keep its time if it succeeds."""
    start = time.perf_counter()
    make_folder(args.out)
    with only_one_run(args.out):
        remove_partial_files(args.out)
        code: int = args.run(args)
        if code == 0:
            name = " ".join([args.stage, *getattr(args, "artifacts", [])])
            record_seconds(args.out, name, time.perf_counter() - start)
    return code


def record_seconds(out: Path, stage: str, seconds: float) -> None:
    """Keep the wall-clock time of each stage's last successful run in `timings.json`."""
    path = out / TIMINGS_JSON
    try:
        timings = read_json(path)
    except UserError:  # missing or damaged: start anew
        timings = {}
    write_json(path, {**timings, stage: round(seconds, 2)})


def main(argv: Sequence[str] | None = None) -> int:
    """Run one stage; returns the exit code."""
    args = build_parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a name that the terminal cannot show
    try:
        # `data` and `bench --show` write nothing there; `all` runs stages that do.
        alone = args.stage not in ("data", "all") and not getattr(args, "show", None)
        code = run_writing_stage(args) if alone else args.run(args)
        print(end="", flush=True)
        return code
    except UserError as error:
        print(f"pipeline: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output, such as `head`, is gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as a shell reports a program that SIGPIPE ended
    except OSError as error:
        # A full disk is reported without a name.
        where = error.filename or f"{args.out}, {tempfile.gettempdir()} or the output"
        print(f"pipeline: {where}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        goes_on = "" if args.stage == "bench" else "; the same command goes on from here"
        print(f"pipeline: interrupted{goes_on}", file=sys.stderr)
        return 130


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
