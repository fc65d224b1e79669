"""The command line of `runner.py` in the bundle."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Sequence

import numpy as np
from runner import HERE, RUNTIMES, Classifier, InputError, load_quietly, usable_runtimes

COMMANDS = ("predict", "receipt", "verify", "info", "accuracy", "bench")
MODELS = ("native/lenet5_int8.c", "lenet5_int8.tflite", "lenet5_int8.onnx")  # the fastest first
MAX_THREADS = 64  # more crash a runtime, or keep it from ever answering


def main(arguments: Sequence[str]) -> int:
    """Run one command; an error is one line on stderr. Returns the exit code."""
    try:
        code = run(arguments)
        print(end="", flush=True)  # a full disk is found here
        return code
    except InputError as error:
        complain(error)
        return 2
    except BrokenPipeError:  # the reader of our output, such as `head`, is gone
        drop_stuck_output()
        return 0
    except OSError as error:  # a full disk is reported without a name
        complain(f"{error.filename or 'the output'}: {error.strerror}")
        drop_stuck_output()
        return 2
    except KeyboardInterrupt:
        return 130


def drop_stuck_output() -> None:
    """Give up what cannot be printed: Python would try again at its end, and exit with 120."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code."""
    args = build_parser().parse_args(command_first(arguments))
    if args.command != "receipt" and not 1 <= args.threads <= MAX_THREADS:
        raise InputError(f"--threads {args.threads}: must be 1 to {MAX_THREADS}")
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show
    if args.command == "bench":
        from bench.command import run as command
    elif args.command == "receipt":
        from receipt import run as command
    else:
        if args.model is None and not (args.command == "verify" and args.all):
            args.model, args.runtime = default_model(args.runtime)
        if args.command == "verify":
            from verify import run as command
        elif args.command == "info":
            from info import run as command
        elif args.command == "accuracy":
            from accuracy import run as command
        else:
            command = predict
    return command(args)


def command_first(arguments: Sequence[str]) -> list[str]:
    """The arguments with the command at their front, `predict` where none is named."""
    rest, takes_value = list(arguments), ("-m", "--model", "--runtime", "--threads")
    for i, word in enumerate(rest):
        if word in ("-h", "--help"):
            return rest
        if not word.startswith("-") and (i == 0 or rest[i - 1] not in takes_value):
            return [rest.pop(i), *rest] if word in COMMANDS else ["predict", *rest]
    return ["predict", *rest]


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("-m", "--model", type=Path, help="default: the one beside runner.py")
    common.add_argument("--runtime", default="auto", choices=["auto", *sum(RUNTIMES.values(), ())])
    common.add_argument("--threads", type=int, default=1, metavar="N", help="1 is the fastest")
    parser = argparse.ArgumentParser(
        prog="runner.py",
        description="Classify handwritten digits with a LeNet-5 model.",
        epilog="`runner.py FILE...` is short for `runner.py predict FILE...`.",
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, parents=[common], help=text, description=text)

    command = add("predict", "classify pictures")
    command.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="picture, IDX, folder, or - for standard input: a picture or a stream of frames",
    )
    command.add_argument("-k", "--top-k", type=int, default=1, metavar="K", help="answers to show")
    command.add_argument("--all", action="store_true", help="read all digits of a picture")
    command.add_argument("--json", action="store_true", help="one JSON object a line")
    text = "print an answer when N pictures in a row agree and it is another than the last one"
    command.add_argument("--stable", type=int, metavar="N", help=text)
    command.add_argument(
        "--min-confidence",
        type=float,
        default=0.0,
        metavar="P",
        help="answer 'unsure' below this probability (manifest.json has one); default: 0",
    )
    text = "prove every model on every runtime here, and choose the fastest"
    commands.add_parser("receipt", help=text, description=text)
    command = add("verify", "check that this device answers as the trained model")
    command.add_argument("--all", action="store_true", help="every model of the bundle")
    add("info", "show the model, the runtime, the versions and the machine")
    command = add("accuracy", "accuracy on a labelled set")
    command.add_argument(
        "images", type=Path, help="folder of IDX files, .npz, folder of pictures per class, or IDX"
    )
    command.add_argument("labels", type=Path, nargs="?", help="IDX, if the images are an IDX file")
    command = add("bench", "time each model on each runtime here")
    command.add_argument("--full", action="store_true", help="three times the calls")
    command.add_argument("--json", action="store_true", help="print all figures as JSON")
    return parser


def default_model(runtime: str) -> tuple[Path, str]:
    """A model beside this file and its runtime.

    Args:
        runtime: One, or "auto": then what device.json chose, else the first model of `MODELS` that
            an installed runtime reads.

    Raises:
        InputError: There is none.
    """
    from manifest import chosen

    if runtime == "auto" and (choice := chosen()):
        return choice
    present = [HERE / name for name in MODELS if (HERE / name).is_file()]
    present += sorted(path for path in HERE.iterdir() if path.suffix in RUNTIMES)
    for path in present:
        if runtime in RUNTIMES[path.suffix] or (runtime == "auto" and usable_runtimes(path)):
            return path, runtime
    if not present:
        raise InputError(f"no model in {HERE}: name one with --model")
    if runtime != "auto":
        raise InputError(f"no model for {runtime} in {HERE}: name one with --model")
    raise InputError(f"no runtime for {present[-1].name}: pip install ai-edge-litert")


def load(args: argparse.Namespace, model: Path | None = None) -> Classifier:
    """The classifier of the command line."""
    return load_quietly(model or args.model, args.runtime, args.threads)


def predict(args: argparse.Namespace) -> int:
    """Print a line a picture; go on after a bad one."""
    from manifest import label_names
    from photo import find_digit, find_digits
    from samples import read_samples

    if args.top_k < 1:
        raise InputError(f"--top-k {args.top_k}: must be at least 1")
    if not 0 <= args.min_confidence <= 1:  # NaN fails as well
        raise InputError(f"--min-confidence {args.min_confidence}: must be within 0 and 1")
    if args.stable is not None and args.stable < 1:
        raise InputError(f"--stable {args.stable}: must be at least 1")
    classifier = load(args)
    labels = label_names(classifier)
    answer = answer_digits if args.all else answer_digit
    code, stable = 0, Stable(args.stable)
    for name, found in read_samples(args.files, find_digits if args.all else find_digit):
        row: dict[str, Any] = {"file": name}
        try:
            if isinstance(found, InputError):
                raise found
            if isinstance(found, str):  # why a frame of a stream has no digit
                row.update(label=None, probability=None, top=[], latency_ms=None, reason=found)
            elif not args.all and found.min() == found.max():
                raise InputError(f"{name}: no digit found, the picture is empty")
            else:
                start = time.perf_counter()
                row.update(answer(classifier, found, labels, args.top_k))
                row["latency_ms"] = round((time.perf_counter() - start) * 1e3, 4)
                if row["probability"] < args.min_confidence:
                    row["unsure"] = True
        except InputError as error:
            code, row["error"] = 2, str(error)
            complain(error)
        if "error" not in row and not stable.is_news((row["label"], "unsure" in row)):
            continue
        if args.json:
            print(json.dumps(row), flush=True)
        elif "error" not in row:
            print(one_line(describe(row)), flush=True)
    return code


def describe(row: dict[str, Any]) -> str:
    """The line of a picture."""
    if "reason" in row:
        return f"{row['file']}  {row['reason']}"
    top = row.get("top", [row])
    guesses = "  ".join(f"{g['label']}  {g['probability'] * 100:.1f} %" for g in top)
    answer = f"unsure ({guesses})" if "unsure" in row else guesses
    return f"{row['file']}  {answer}  {row['latency_ms']:.1f} ms"


class Stable:
    """Tells which answers to print: all, or those that differ from the last one printed.

    Args:
        count: How many answers in a row must agree; None: all are printed.
    """

    def __init__(self, count: int | None) -> None:
        self.count, self.run = count, 0
        self.last: Any = None
        self.printed: Any = None

    def is_news(self, answer: tuple[str | None, bool]) -> bool:
        """Whether to print an answer."""
        if self.count is None:
            return True
        self.run = self.run + 1 if answer == self.last else 1
        self.last = answer
        if self.run < self.count or answer == self.printed:
            return False
        self.printed = answer
        return True


def answer_digit(
    classifier: Classifier, image: np.ndarray, labels: Sequence[str], top_k: int
) -> dict[str, Any]:
    """What `--json` prints of a picture's digit, uint8 (28, 28)."""
    probabilities = classifier.predict(image[np.newaxis]).probabilities[0]
    order = np.argsort(-probabilities, kind="stable")[:top_k]
    top = [{"label": labels[k], "probability": float(probabilities[k])} for k in order]
    return {**top[0], "top": top}


def answer_digits(
    classifier: Classifier, found: Sequence[tuple[np.ndarray, Any]], labels: Sequence[str], _: int
) -> dict[str, Any]:
    """What `--json` prints of a picture's digits: uint8 (28, 28) and their boxes.

    The label is theirs in reading order, the probability the product of theirs.
    """
    digits: list[dict[str, Any]] = []
    for image, box in found:
        k, probability = classifier.classify(image)
        edges = [int(edge) for edge in box]
        digits.append({"label": labels[k], "probability": probability, "box": edges})
    label = "".join(digit["label"] for digit in digits)
    probability = float(np.prod([digit["probability"] for digit in digits]))
    return {"label": label, "probability": probability, "digits": digits}


def complain(error: object) -> None:
    """One line on stderr."""
    print(f"runner.py: {one_line(error)}", file=sys.stderr, flush=True)


def one_line(text: object) -> str:
    """A text with what does not print, such as a newline in a file's name, written as escapes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))
