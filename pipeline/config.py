"""Configuration: recipes of training and the budget of parity.

Every value has a type and a range; an unknown key or a value outside is refused by name.
"""

from __future__ import annotations

import dataclasses
import reprlib
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import (
    Annotated,
    Any,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from packaging.markers import InvalidMarker, Marker

from pipeline.files import UserError

RECIPES = Path(__file__).parent / "train" / "recipes"
PARITY_BUDGET = Path(__file__).parent / "parity" / "budget.toml"
T = TypeVar("T")


def within(low: float, high: float) -> Any:
    """A dataclass field whose value must lie in low..high, both included."""
    return field(metadata={"range": (low, high)})


@dataclass(frozen=True)
class CookbookRecipe:
    """The published recipe: a few hundred steps of Adam on images drawn with replacement."""

    seed: int = within(0, 2**31 - 1)  # of the weights and of every draw
    steps: int = within(1, 1_000_000)
    batch_size: int = within(1, 4096)  # images a step
    evaluate_every: int = within(1, 1_000_000)  # steps between two printed evaluations
    evaluation_size: int = within(1, 10_000)  # random test images an evaluation
    learning_rate: float = within(1e-8, 10.0)  # of Adam


@dataclass(frozen=True)
class Augmentation:
    """How training images are distorted. Shares are of all images, unless a digit is named."""

    hooked_ones: float = within(0.0, 1.0)  # share of the ones; every third gets a foot as well
    crossed_sevens: float = within(0.0, 1.0)  # share of the sevens
    curled_nines: float = within(0.0, 1.0)  # share of the nines
    rotation_degrees: float = within(0.0, 180.0)  # at most, either way
    scale: float = within(0.0, 0.9)  # largest change of each axis, as a fraction
    fill: float = within(0.0, 1.0)  # share enlarged, by up to as much as fills the frame
    shear: float = within(0.0, 2.0)  # largest horizontal shear, in pixels a pixel
    shift_px: float = within(0.0, 16.0)  # at most, along each axis
    elastic_px: float = within(0.0, 8.0)  # standard deviation of a control point's displacement
    stroke: float = within(0.0, 1.0)  # share with a thicker or a thinner pen
    blur: float = within(0.0, 1.0)  # share that is blurred
    contrast: float = within(0.0, 1.0)  # share with faint, grey or hard-edged ink
    coarse: float = within(0.0, 1.0)  # share scanned at 12 to 18 pixels a side and enlarged again
    erase: float = within(0.0, 1.0)  # share that loses a small rectangle
    noise: float = within(0.0, 1.0)  # share with Gaussian noise


@dataclass(frozen=True)
class Distillation:
    """Teachers, wider than LeNet-5, whose answers the network learns beside the labels."""

    teachers: int = within(1, 16)  # their mean answer is what is learned
    width: int = within(1, 8)  # times as many channels and neurons as LeNet-5
    teacher_epochs: int = within(1, 100_000)
    teacher_weight_decay: float = within(0.0, 1.0)
    pool_epochs: int = within(1, 1000)  # distorted epochs that they answer; used in turn
    temperature: float = within(0.1, 100.0)  # softens the answers on both sides
    share: float = within(0.0, 1.0)  # of the answers in the loss; the labels have the rest


@dataclass(frozen=True)
class EpochRecipe:
    """Training in epochs: AdamW, a cosine schedule, augmentation, averaged weights."""

    augmentation: Augmentation
    seed: int = within(0, 2**31 - 1)  # of the weights and of every draw
    epochs: int = within(1, 100_000)
    batch_size: int = within(1, 4096)
    learning_rate: float = within(1e-8, 10.0)  # at its peak, after the first epoch
    weight_decay: float = within(0.0, 1.0)  # on kernels only; times the learning rate
    ema_decay: float = within(0.0, 0.999999)  # of the weights' moving average, a step
    non_digits: float = within(0.0, 0.5)  # share of images replaced by what is no digit
    distillation: Distillation | None = None


Recipe = CookbookRecipe | EpochRecipe
RECIPE_KINDS: dict[str, type[Recipe]] = {"cookbook": CookbookRecipe, "epochs": EpochRecipe}


@dataclass(frozen=True)
class AllowedNotRun:
    """A runtime that may be missing."""

    runtime: str
    reason: str  # printed with the row
    when: str  # an environment marker (PEP 508) that is true where it may be missing


@dataclass(frozen=True)
class ParityBudget:
    """How far an artifact may be from the float model, on the test images."""

    float_min_agreement: float = within(0.0, 1.0)  # share of images with the same label
    float_max_abs_dp: float = within(0.0, 1.0)  # greatest difference of a probability
    int8_max_loss_pp: float = within(0.0, 100.0)  # accuracy lost, in percentage points
    int8_min_agreement: float = within(0.0, 1.0)
    int8_max_sqnr_loss_db: float = within(0.0, 200.0)  # of any layer, against an ideal int8's
    # Where the float model errs on a larger share of images than this, int8 may lose and flip
    # more in proportion, since there are more near ties.
    reference_error: float = within(1e-6, 1.0)
    allowed_not_run: tuple[AllowedNotRun, ...] = ()


def load_recipe(name: str) -> Recipe:
    """Load a recipe by name (a file of `pipeline/train/recipes/`) or by path.

    Raises:
        UserError: No such recipe, not TOML, an unknown or missing key, a value out of range.
    """
    path = Path(name) if name.endswith(".toml") else RECIPES / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
        raise UserError(f"{name}: no such recipe; there are: {known}; or give a .toml file")
    table = read_toml(path)
    kind = table.pop("kind", None)
    if not isinstance(kind, str) or kind not in RECIPE_KINDS:
        raise UserError(f"{path}: kind is {kind!r}; it must be one of {', '.join(RECIPE_KINDS)}")
    return from_table(RECIPE_KINDS[kind], table, str(path))


def load_parity_budget(path: Path = PARITY_BUDGET) -> ParityBudget:
    """Load the parity budget; raises UserError as `load_recipe`."""
    table = read_toml(path)
    rows = table.pop("allowed_not_run", [])
    where = f"{path}: allowed_not_run"
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{where} is not a list of tables; write [[allowed_not_run]]")
    allowed = tuple(from_table(AllowedNotRun, row, where) for row in rows)
    for row in allowed:
        try:
            Marker(row.when)
        except InvalidMarker as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{where}: when is {row.when!r}: {reason}") from None
    return dataclasses.replace(from_table(ParityBudget, table, str(path)), allowed_not_run=allowed)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file, with one-line errors."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:  # TOML's and UTF-8's errors, deep nesting
        raise UserError(f"{path}: not TOML: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def from_table(cls: type[T], table: dict[str, Any], where: str) -> T:
    """Make a record from a table of a TOML or JSON file, checking keys, types and ranges.

    Args:
        cls: A frozen dataclass or a TypedDict, of fields that `check` knows.
        table: The table.
        where: What to call it in an error.

    Raises:
        UserError: An unknown or missing key, a value of the wrong type or out of range.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else {}
    kinds = get_type_hints(cls, include_extras=True)
    for key in table:
        if key not in kinds:
            raise UserError(f"{where}: unknown key {reprlib.repr(key)}; known: {', '.join(kinds)}")
    values = {}
    for key, kind in kinds.items():
        if key in table:
            limits = fields[key].metadata.get("range") if key in fields else None
            values[key] = check(kind, table[key], f"{where}: {key}", limits)
        elif key not in fields or fields[key].default is dataclasses.MISSING:
            raise UserError(f"{where}: key {key!r} is missing")
    return cls(**values)


def check(kind: Any, value: Any, where: str, limits: tuple[float, float] | None = None) -> Any:
    """Check a value of a TOML or JSON file against a type.

    Args:
        kind: int, float (finite), bool, str (that prints), a record as for `from_table`, a list
            of one of these; `Annotated[one of these, limits]`, or one of these `| None`.
        value: The value; an integer may stand for a float.
        where: What to call it in an error.
        limits: The least and the greatest that is allowed, of a list the length.

    Raises:
        UserError: It has another type or lies outside the limits.
    """
    if get_origin(kind) in (Union, UnionType):
        return None if value is None else check(get_args(kind)[0], value, where)
    if get_origin(kind) is Annotated:
        kind, limits = get_args(kind)
    is_record = dataclasses.is_dataclass(kind) or is_typeddict(kind)
    is_list = get_origin(kind) is list
    if is_record and type(value) is dict:
        return from_table(kind, value, where)
    name = "table" if is_record else "list" if is_list else kind.__name__
    if type(value) is not (list if is_list else kind) and (kind, type(value)) != (float, int):
        raise UserError(f"{where} is {reprlib.repr(value)}, not of type {name}")
    if kind is str and not value.isprintable():
        raise UserError(f"{where} is {reprlib.repr(value)}, which does not print")
    if limits is None and kind in (int, float):
        limits = (-sys.float_info.max, sys.float_info.max)
    if limits and not limits[0] <= (len(value) if is_list else value) <= limits[1]:  # or NaN
        raise UserError(f"{where} is {reprlib.repr(value)}, not within {limits[0]}..{limits[1]}")
    if is_list:
        return [check(get_args(kind)[0], item, f"{where}[{i}]") for i, item in enumerate(value)]
    return float(value) if kind is float else value
