"""Recipes and budgets: what is committed loads, and every mistake in one is named."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import config
from pipeline.files import UserError

COOKBOOK = {
    "kind": '"cookbook"',
    "seed": "98",
    "steps": "300",
    "batch_size": "100",
    "evaluate_every": "5",
    "evaluation_size": "500",
    "learning_rate": "0.001",
}
BUDGET = config.PARITY_BUDGET.read_text("utf-8")
LIMITS = BUDGET.partition("[[allowed_not_run]]")[0]


def write_recipe(folder, **changes):
    """A cookbook recipe with values changed, added or (None) removed."""
    table = {**COOKBOOK, **changes}
    path = folder / "r.toml"
    path.write_text("".join(f"{key} = {value}\n" for key, value in table.items() if value))
    return path


def assert_refused(load, path, *parts):
    with pytest.raises(UserError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_cookbook_is_the_published_recipe():
    published = {"seed": 98, "steps": 300, "batch_size": 100, "learning_rate": 0.001}
    shown = {"evaluate_every": 5, "evaluation_size": 500}
    assert config.load_recipe("cookbook") == config.CookbookRecipe(**published, **shown)


@pytest.mark.parametrize("path", sorted(config.RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_committed_recipe_loads_by_name_and_by_path(path):
    assert config.load_recipe(path.stem) == config.load_recipe(str(path))


def test_committed_budget_is_the_contract():
    budget = config.load_parity_budget()
    assert budget.float_min_agreement == 1.0
    assert budget.float_max_abs_dp == 1e-4
    assert budget.int8_max_loss_pp == 0.10
    assert budget.int8_min_agreement == 0.999
    assert [row.runtime for row in budget.allowed_not_run] == ["tflite-runtime"]


@pytest.mark.parametrize("name", ["nosuch", "", "../config", "nosuch.toml", str(config.RECIPES)])
def test_unknown_recipe_is_refused_and_the_known_ones_are_listed(name):
    assert_refused(config.load_recipe, name, "no such recipe", "best, cookbook")


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"stepz": "1"}, "unknown key 'stepz'; known: seed, steps"),
        ({"steps": None}, "key 'steps' is missing"),
        ({"steps": "true"}, "steps is True, not of type int"),
        ({"steps": "300.0"}, "steps is 300.0, not of type int"),
        ({"steps": '"300"'}, "steps is '300', not of type int"),
        ({"learning_rate": "true"}, "learning_rate is True, not of type float"),
        ({"steps": "0"}, "steps is 0, not within 1..1000000"),
        ({"steps": "1000001"}, "not within 1..1000000"),
        ({"seed": "-1"}, "seed is -1, not within"),
        ({"learning_rate": "nan"}, "learning_rate is nan, not within"),
        ({"learning_rate": "inf"}, "learning_rate is inf, not within"),
        ({"learning_rate": "1" + "0" * 400}, "not within"),
        ({"kind": None}, "kind is None; it must be one of cookbook, epochs"),
        ({"kind": '"resnet"'}, "kind is 'resnet'"),
        ({"kind": '["cookbook"]'}, "kind is ['cookbook']"),
        ({"kind": '"epochs"'}, "unknown key 'steps'"),
    ],
)
def test_mistake_in_a_recipe_is_named(tmp_path, changes, part):
    assert_refused(config.load_recipe, str(write_recipe(tmp_path, **changes)), part)


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("augmentation = 1", "augmentation is 1, not of type table"),
        ("[augmentation]\nscale = 0.1", "augmentation: key 'hooked_ones' is missing"),
    ],
)
def test_mistake_in_a_nested_table_is_named(tmp_path, line, part):
    text = (config.RECIPES / "best.toml").read_text("utf-8").partition("[augmentation]")[0]
    path = tmp_path / "r.toml"
    path.write_text(text + line)
    assert_refused(config.load_recipe, str(path), part)


def test_whole_number_serves_as_a_float(tmp_path):
    recipe = config.load_recipe(str(write_recipe(tmp_path, learning_rate="1")))
    assert recipe.learning_rate == 1.0
    assert type(recipe.learning_rate) is float


@pytest.mark.parametrize(
    "content",
    [b"steps 300", b"a = 1\na = 2", b"\xff\xfe", b"a = " + b"[" * 10_000, b"a = " + b"9" * 5000],
    ids=["no equals sign", "key twice", "not UTF-8", "nested too deep", "5,000 digits"],
)
def test_file_that_is_not_toml_is_refused(tmp_path, content):
    path = tmp_path / "r.toml"
    path.write_bytes(content)
    assert_refused(config.load_recipe, str(path), "not TOML")


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("int8_min_agreement = 0.999", "", "key 'int8_min_agreement' is missing"),
        ("int8_min_agreement = 0.999", "int8_min_agreement = 99.9", "not within 0.0..1.0"),
        ("float_max_abs_dp = 1e-4", "float_max_abs_dp = nan", "not within"),
        ("[[allowed_not_run]]", "[allowed_not_run]", "is not a list of tables"),
        ("[[allowed_not_run]]", "[[allowed]]", "unknown key 'allowed'"),
        (BUDGET, f"allowed_not_run = 3\n{LIMITS}", "allowed_not_run"),
        (BUDGET, f"allowed_not_run = [3]\n{LIMITS}", "allowed_not_run"),
        ('when = "python_version', 'when = "python', "when is"),
        ('runtime = "tflite-runtime"', "runtime = 3", "runtime is 3, not of type str"),
        ('runtime = "tflite-runtime"', "", "key 'runtime' is missing"),
    ],
)
def test_mistake_in_a_budget_is_named(tmp_path, old, new, part):
    assert old in BUDGET
    path = tmp_path / "b.toml"
    path.write_text(BUDGET.replace(old, new))
    assert_refused(config.load_parity_budget, path, part)


def test_missing_budget_is_refused(tmp_path):
    assert_refused(config.load_parity_budget, tmp_path / "b.toml", "cannot be read")


# --- Properties --------------------------------------------------------------------------------

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
keys = st.sampled_from([field.name for field in dataclasses.fields(config.EpochRecipe)]) | st.text()


@settings(max_examples=50)
@given(st.dictionaries(keys, values, max_size=9))
def test_any_table_is_refused_or_gives_values_within_their_ranges(table):
    try:
        recipe = config.from_table(config.CookbookRecipe, table, "name")
    except UserError as error:
        assert str(error).startswith("name: ")
    else:
        for field in dataclasses.fields(recipe):
            low, high = field.metadata["range"]
            assert low <= getattr(recipe, field.name) <= high


@given(st.integers(1, 1_000_000), st.floats(1e-8, 10.0))
def test_every_value_within_its_range_is_accepted(steps, learning_rate):
    table = dataclasses.asdict(config.load_recipe("cookbook"))
    table |= {"steps": steps, "learning_rate": learning_rate}
    recipe = config.from_table(config.CookbookRecipe, table, "name")
    assert (recipe.steps, recipe.learning_rate) == (steps, learning_rate)
