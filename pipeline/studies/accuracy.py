"""Several seeds of each recipe, from training to int8: docs/accuracy.json and docs/accuracy.md.

    make accuracy        # an hour; what is finished is kept, so it may be interrupted

Each seed has a folder of its own, `artifacts/accuracy/<recipe>-<seed>`. It is trained again when
anything that decides its weights has changed, and converted and judged again when it was or when
the code or the budget for that has changed. The rest is measured each time: it takes seconds.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import export, native
from pipeline.artifacts import (
    ACCURACY_JSON,
    ACCURACY_MD,
    CONVERTED,
    FLOAT_MODEL,
    INT8_TFLITE,
    PARITY_JSON,
    PROBABILITIES,
    TRAIN_JSON,
    describe_machine,
)
from pipeline.classify import classify_float_and_int8
from pipeline.config import EpochRecipe, load_parity_budget, load_recipe
from pipeline.data import Dataset, Images, Labels, Probabilities, Split
from pipeline.data import load as load_data
from pipeline.files import UserError, make_folder, read_json, write_bytes, write_json
from pipeline.parity import check as parity
from pipeline.parity.statistics import mean_ci95
from pipeline.studies import non_digits, wild
from pipeline.table import markdown_table
from pipeline.train import confidence, key
from pipeline.train.distillation import TEACHERS
from pipeline.train.lenet5 import import_tensorflow
from pipeline.train.temperature import expected_calibration_error
from pipeline.train.training import accuracy, train

RECIPES = ("best", "max")
SEEDS = (98, 99, 100, 101, 102)
WILD_IMAGES, WILD_SEED = 1000, 16  # of each set
STATE = "finished.json"  # in a seed's folder: the keys of what lies there
# What decides a seed's artifacts and figures: these source files with all that they import, and
# these files. What decides its weights is in pipeline/train/key.py.
JUDGED_BY = ("pipeline/export.py", "pipeline/native.py", "pipeline/parity/check.py")
JUDGED_WITH = (
    "device/requirements.lock",
    "device/native/*",
    "export/c_templates/*",
    "pipeline/parity/budget.toml",
)


def run(args: argparse.Namespace) -> int:
    data = load_data(args.data)
    import_tensorflow()
    measure_recipes(data, args.out, args.recipes or RECIPES)
    print(ACCURACY_MD.read_text("utf-8"), end="")
    return 0


def measure_recipes(data: Dataset, out: Path, recipes: Sequence[str]) -> None:
    """Train and measure what is not finished, and write the docs after each seed.

    Raises:
        UserError: The data set's classes are not digits, or a recipe does not train in epochs.
    """
    if not data.shows_digits:
        raise UserError(f"{data.source}: not digits, which is what make accuracy is for; name some")
    loaded = {Path(given).stem: load_recipe(given) for given in recipes}  # before the first hour
    before = read_json(ACCURACY_JSON, "data_sha256", "recipes") if ACCURACY_JSON.is_file() else {}
    same_data = before.get("data_sha256") == data.sha256
    blocks = {block["recipe"]: block for block in before["recipes"]} if same_data else {}
    for name, recipe in loaded.items():
        if not isinstance(recipe, EpochRecipe):
            raise UserError(f"{name}: it does not train in epochs; name another, such as best")
        seeds: list[dict[str, Any]] = []
        for seed in SEEDS:
            folder = out / "accuracy" / f"{name}-{seed}"
            make(name, dataclasses.replace(recipe, seed=seed), data, folder, out / TEACHERS)
            seeds.append(measure(folder, data))
            blocks[name] = summarise(name, recipe.epochs, seeds)
            result = describe(list(blocks.values()), data)
            write_json(ACCURACY_JSON, result)
            write_bytes(ACCURACY_MD, render(result).encode())


def describe(blocks: list[dict[str, Any]], data: Dataset) -> dict[str, Any]:
    """What `docs/accuracy.json` holds: the first recipe's figures, and those of each recipe."""
    return {
        "data_sha256": data.sha256,
        "validation_images": len(data.validation),
        "test_images": len(data.test),
        **blocks[0],
        "recipes": blocks,
    }


# --- One seed -----------------------------------------------------------------------------------


def make(name: str, recipe: EpochRecipe, data: Dataset, folder: Path, teachers: Path) -> None:
    """Train, convert and judge one seed, as far as it is not finished."""
    make_folder(folder)
    trained = key.training_key(recipe, data)
    judged = key.digest(trained, *key.contents(JUDGED_BY, JUDGED_WITH))
    state = read_json(folder / STATE) if (folder / STATE).is_file() else {}
    if state.get("trained") != trained:
        print(f"{name}, seed {recipe.seed}: training", flush=True)
        train(name, recipe, data, folder, teachers)
        state = {"trained": trained}
        write_json(folder / STATE, state)
    if state.get("judged") != judged:
        for artifact in CONVERTED:
            export.convert(artifact, folder, data)
        native.generate(folder, data)
        parity.check_parity(folder, data, load_parity_budget())
        write_json(folder / STATE, {"trained": trained, "judged": judged})


def measure(folder: Path, data: Dataset) -> dict[str, Any]:
    """All figures of one finished seed."""
    training = read_json(folder / TRAIN_JSON)
    judged = read_json(folder / PARITY_JSON)
    probabilities = parity.read_probabilities(folder / PROBABILITIES)
    labels = data.test.labels
    threshold = training["confidence"]["threshold"] or 0.0
    artifacts = {}
    for name, values in parity.one_runtime_each(probabilities).items():
        row = next(r for r in judged["rows"] if r["artifact"] == name and r["n"])
        artifacts[name] = {
            "runtime": f"{row['runtime']} {row['runtime_version']}",
            "accuracy": row["accuracy"],
            "loss_pp": -row["delta_pp"],
            "agreement": row["agreement"],
            **_figures(values, labels, threshold),
        }
    reference = probabilities[FLOAT_MODEL]
    return {
        "seed": training["seed"],
        "seconds": training["seconds"] - training["teacher_seconds"],
        "teacher_seconds": training["teacher_seconds"],
        "val_accuracy": training["val_accuracy"],
        "confidence": training["confidence"],
        "parity": judged["status"],
        "float": {
            "accuracy": accuracy(reference, labels),
            **_figures(reference, labels, threshold),
        },
        "artifacts": artifacts,
        **_measure_wild(folder, threshold),
    }


def _figures(values: Probabilities, labels: Labels, threshold: float) -> dict[str, Any]:
    return {
        "calibration_error": expected_calibration_error(values, labels),
        "sure": asdict(confidence.answers(values, labels, threshold)),
    }


def _measure_wild(folder: Path, threshold: float) -> dict[str, Any]:
    """By set: accuracy and, of non-digits, the share above the threshold; float and int8."""
    digits, others = _draw_wild_images()
    sets = [*(split.images for split in digits.values()), *others.values()]
    got = classify_float_and_int8(folder, np.concatenate(sets))
    ends = np.cumsum([len(images) for images in sets])[:-1]
    parts = {kind: np.split(values, ends) for kind, values in got.items()}
    read, sure = {}, {}
    for i, (name, split) in enumerate(digits.items()):
        read[name] = {kind: accuracy(part[i], split.labels) for kind, part in parts.items()}
    for i, name in enumerate(others, len(digits)):
        sure[name] = {k: float((p[i].max(axis=1) >= threshold).mean()) for k, p in parts.items()}
    return {"wild": read, "non_digits_sure": sure}


@functools.cache
def _draw_wild_images() -> tuple[dict[str, Split], dict[str, Images]]:
    """All sets of `wild.py` and `non_digits.py`, the same for every seed."""
    return (
        {name: wild.generate(name, WILD_IMAGES, WILD_SEED) for name in wild.CONDITIONS},
        {kind: non_digits.generate(kind, WILD_IMAGES, WILD_SEED) for kind in non_digits.KINDS},
    )


# --- All seeds of a recipe ----------------------------------------------------------------------


def summarise(name: str, epochs: int, seeds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One recipe's part of `docs/accuracy.json`: means over the seeds that `measure` gave."""
    artifacts = {}
    for artifact in seeds[0]["artifacts"]:
        rows = [seed["artifacts"][artifact] for seed in seeds]
        artifacts[artifact] = {
            **_spread([row["accuracy"] for row in rows]),
            "mean_loss_pp": _mean(rows, lambda r: r["loss_pp"]),
            "mean_agreement": _mean(rows, lambda r: r["agreement"]),
            "mean_calibration_error": _mean(rows, lambda r: r["calibration_error"]),
        }
    return {
        "recipe": name,
        "epochs": epochs,
        "machine": describe_machine(),
        **_spread([seed["float"]["accuracy"] for seed in seeds]),
        "mean_calibration_error": _mean(seeds, lambda s: s["float"]["calibration_error"]),
        "mean_seconds": _mean(seeds, lambda s: s["seconds"]),
        "teacher_seconds": seeds[0]["teacher_seconds"],
        "artifacts": artifacts,
        **{
            part: {
                kind: {k: _mean(seeds, lambda s: s[part][kind][k]) for k in ("float", "int8")}  # noqa: B023 - called at once
                for kind in seeds[0][part]
            }
            for part in ("wild", "non_digits_sure")
        },
        "seeds": list(seeds),
    }


def _spread(accuracies: Sequence[float]) -> dict[str, Any]:
    mean, deviation, interval = mean_ci95(accuracies)
    return {"mean_test_accuracy": mean, "sd": deviation, "ci95": interval}


def _mean(rows: Sequence[dict[str, Any]], of: Callable[[dict[str, Any]], float]) -> float:
    return math.fsum(of(row) for row in rows) / len(rows)


# --- docs/accuracy.md ---------------------------------------------------------------------------

INTRODUCTION = """# Accuracy over seeds

Written by `make accuracy`; do not edit. Every seed was trained, converted and judged by itself on
{test_images:,} test images; {validation_images:,} validation images chose the epoch, the
temperature and the threshold. The test set chose nothing in these runs; test figures of earlier
ones were seen while the recipes were made ([ADR 14](adr/0014-accuracy.md)). The intervals are
Student's, over seeds. Loss and agreement are against the float model of the same seed."""

WILD = """Other people's digits, generated (`pipeline/studies/wild.py`): {n} images a set, mean over
seeds. No image of these sets was trained on; the augmentation imitates some of their habits (hooks,
bars, curled nines, coarse scans), and was chosen with them in sight:"""

NON_DIGITS = """Images that are no digits (`pipeline/studies/non_digits.py`): {n} a kind. The share
that is answered at the threshold, mean over seeds:"""


def render(result: dict[str, Any]) -> str:
    """`docs/accuracy.md` from what `docs/accuracy.json` holds."""
    parts = [INTRODUCTION.format(**result), *_overview(result["recipes"])]
    for block in result["recipes"]:
        parts += _render_recipe(block)
    return "\n\n".join(parts) + "\n"


def _overview(blocks: Sequence[dict[str, Any]]) -> list[str]:
    """What each recipe gains, at what cost."""
    header = ["recipe", "teachers, min", "training, min", "validation error", "test error"]
    header += ["int8", "digits of others read", "letters answered"]
    rows = []
    for block in blocks:
        int8 = block["artifacts"][INT8_TFLITE]
        read, sure = block["wild"], block["non_digits_sure"]
        letters = [kind for kind in sure if "letters" in kind]
        rows.append(
            [
                f"`{block['recipe']}`",
                f"{block['teacher_seconds'] / 60:.0f}",
                f"{block['mean_seconds'] / 60:.0f}",
                f"{1 - _mean(block['seeds'], lambda seed: seed['val_accuracy']):.2%}",
                f"{1 - block['mean_test_accuracy']:.2%}",
                f"{1 - int8['mean_test_accuracy']:.2%}",
                f"{_mean(list(read.values()), lambda of: of['int8']):.1%}",
                f"{_mean([sure[kind] for kind in letters], lambda of: of['int8']):.1%}",
            ]
        )
    text = "Mean over seeds. Other people's digits and letters: the int8 model."
    return [text, markdown_table(header, rows)]


def _render_recipe(block: dict[str, Any]) -> list[str]:
    seeds = block["seeds"]
    return [
        f"## `{block['recipe']}`: {block['epochs']} epochs, {count_seeds(block)}",
        _time_taken(block),
        markdown_table(*artifact_cells(block)),
        "Errors on the test images, seed by seed, and what the threshold of each seed gives "
        "there (`runner.py --min-confidence`):",
        _seed_table(seeds),
        WILD.format(n=f"{WILD_IMAGES:,}"),
        markdown_table(["set", "float", "int8"], pair_cells(block["wild"])),
        NON_DIGITS.format(n=f"{WILD_IMAGES:,}"),
        markdown_table(["kind", "float", "int8"], pair_cells(block["non_digits_sure"])),
    ]


def _time_taken(block: dict[str, Any]) -> str:
    teachers = block["teacher_seconds"]
    before = f"; the teachers, which all seeds share, took {teachers / 60:.0f} minutes before"
    return (
        f"Training took {block['mean_seconds']:.0f} s a seed{before if teachers else ''}. "
        f"Measured on: {block['machine']}."
    )


def count_seeds(block: dict[str, Any]) -> str:
    n = len(block["seeds"])
    return f"{n} seed{'s' * (n > 1)}"


def artifact_cells(block: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Errors over the seeds of a recipe, as a header and rows, the float model's first."""
    header = ["artifact", "mean error", "sd", "95 % interval of the error", "calibration error"]
    rows = []
    for name, of in {FLOAT_MODEL: block, **block["artifacts"]}.items():
        spread = ["", ""]
        if of["ci95"]:
            lower, upper = (1 - bound for bound in reversed(of["ci95"]))
            spread = [f"{of['sd']:.3%}", f"{lower:.3%} to {upper:.3%}"]
        cells = [name, f"{1 - of['mean_test_accuracy']:.3%}", *spread]
        cells.append(f"{of['mean_calibration_error']:.2%}")
        if "mean_loss_pp" in of:
            cells += [f"{of['mean_loss_pp']:+.3f}", f"{of['mean_agreement']:.3%}"]
        rows.append([*cells, *[""] * (7 - len(cells))])
    return [*header, "mean loss, pp", "agreement"], rows


def pair_cells(shares: dict[str, dict[str, float]]) -> list[list[str]]:
    """Rows of a share of float and int8 each."""
    return [[name, f"{of['float']:.1%}", f"{of['int8']:.1%}"] for name, of in shares.items()]


def _seed_table(seeds: Sequence[dict[str, Any]]) -> str:
    names = list(seeds[0]["artifacts"])
    header = ["seed", "seconds", "validation", "float", *(n.removeprefix("lenet5_") for n in names)]
    header += ["parity", "threshold", "coverage", "error of those"]
    rows = []
    for seed in seeds:
        sure = seed["float"]["sure"]
        rows.append(
            [
                str(seed["seed"]),
                f"{seed['seconds']:.0f}",
                f"{1 - seed['val_accuracy']:.2%}",
                f"{1 - seed['float']['accuracy']:.2%}",
                *(f"{1 - seed['artifacts'][name]['accuracy']:.2%}" for name in names),
                seed["parity"],
                f"{seed['confidence']['threshold'] or 0:.2f}",
                f"{sure['coverage']:.2%}",
                f"{sure['error']:.3%}",
            ]
        )
    return markdown_table(header, rows)
