from pathlib import Path
from typing import Any

import pytest

from model_store.manifest import Linear, Mlp
from training.recipe import (
    AutoNetwork,
    InputColumn,
    Recipe,
    RecipeInvalid,
    Schedule,
    TargetColumn,
    make_recipe,
    read_recipe,
)

COLUMNS: dict[str, Any] = {"target": {"name": "y"}, "features": [{"name": "x"}]}
RAW = {"normalize": "none"}
TOML = """\
data = "table.csv"
name = "toy"
holdout = 0
missing = "mean"
[target]
name = "y"
unit = "lakh"
transform = "log"
[network]
kind = "mlp"
hidden = [8, 4]
activation = "tanh"
[schedule]
optimizer = "adam"
learning_rate = 1e-2
[[features]]
name = "x"
unit = "km"
description = "so far"
[[features]]
name = "fuel"
kind = "categorical"
"""


def test_what_is_not_said_is_the_lessons() -> None:
    recipe = make_recipe(COLUMNS)
    schedule = recipe.schedule
    assert recipe.network == Linear()
    assert (schedule.optimizer, schedule.learning_rate, schedule.epochs) == ("gd", 0.1, 200)
    assert (recipe.holdout, recipe.cross_validate, recipe.in_folds) == (None, None, True)
    assert (recipe.missing, recipe.target.transform) == ("drop", "none")


SEVERAL: dict[str, Any] = {"features": [{"name": "x"}, {"name": "z"}]}


@pytest.mark.parametrize(
    "fields",
    [
        {"features": []},
        {"exclude": ["z"]},
        {"features": [{"name": "fuel", "kind": "categorical"}]},
        SEVERAL,
        SEVERAL | {"schedule": {"seed": 3}},
        SEVERAL | {"holdout": 0.2, "missing": "mean", "weight": "w"},
        SEVERAL | {"network": {"minutes": 2}},
    ],
)
def test_where_nothing_is_said_of_it_the_network_that_suits_the_table_is_looked_for(
    fields: dict[str, Any],
) -> None:
    said = {name: value for name, value in (COLUMNS | fields).items() if value}
    assert isinstance(make_recipe(said).network, AutoNetwork)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"schedule": {"seed": 3}},
        SEVERAL | {"network": {"kind": "linear"}},
        SEVERAL | {"encoding": "clipped"},
        SEVERAL | {"schedule": {"optimizer": "exact"}},
        SEVERAL | {"schedule": {"seed": 3, "epochs": 50}},
        SEVERAL | {"schedule": {"normalize": "none"}},
    ],
)
def test_one_number_that_is_named_and_whatever_is_said_of_a_line_makes_one(fields: dict[str, Any]) -> None:
    assert make_recipe(COLUMNS | fields).network == Linear()


def test_what_is_said_by_parts_says_the_same() -> None:
    target, one = TargetColumn(name="y"), InputColumn(name="x")
    several, fuel = (one, InputColumn(name="z")), InputColumn(name="x", kind="categorical")
    assert Recipe(target=target, features=(one,)).network == Linear()
    assert Recipe(target=target, features=(fuel,)).network == AutoNetwork()
    assert Recipe(target=target, features=several, schedule=Schedule(seed=3)).network == AutoNetwork()
    assert Recipe(target=target, features=several, schedule=Schedule(epochs=50)).network == Linear()


@pytest.mark.parametrize(
    ("fields", "optimizer", "rate"),
    [
        ({}, "gd", 0.1),
        ({"features": [{"name": "km"}, {"name": "age"}]}, "exact", 0.1),
        ({"features": [{"name": "fuel", "kind": "categorical"}]}, "exact", 0.1),
        ({"features": None}, "exact", 0.1),
        ({"features": None, "schedule": {"epochs": 50}}, "gd", 0.1),
        ({"features": None, "schedule": {"learning_rate": 0.3}}, "gd", 0.3),
        ({"schedule": {"optimizer": "momentum"}}, "momentum", 0.001),
        ({"schedule": {"optimizer": "sgd", "learning_rate": 0.5}}, "sgd", 0.5),
        ({"encoding": "piecewise"}, "exact", 0.1),
        ({"features": [{"name": "km", "encoding": "clipped"}]}, "exact", 0.1),
        ({"network": {"hidden": [3]}}, "adam", 0.01),
        ({"network": {"hidden": [3]}, "schedule": {"epochs": 50}}, "adam", 0.01),
        ({"network": {"hidden": [3]}, "schedule": {"optimizer": "gd"}}, "gd", 0.1),
        ({"network": {"kind": "ridge"}}, "exact", 0.1),
        ({"network": {"kind": "ensemble"}}, "exact", 0.1),
        ({"network": {"kind": "auto"}, "schedule": {"seed": 7}}, "exact", 0.1),
    ],
)
def test_an_optimizer_that_is_not_said_suits_the_model_and_the_rate_the_optimizer(
    fields: dict[str, Any], optimizer: str, rate: float
) -> None:
    said = {name: value for name, value in (COLUMNS | fields).items() if value is not None}
    schedule = make_recipe(said).schedule
    assert (schedule.optimizer, schedule.learning_rate) == (optimizer, rate)


@pytest.mark.parametrize(
    ("network", "fields", "encoding"),
    [
        ({"kind": "ridge"}, {}, "piecewise"),
        ({"kind": "ensemble"}, {}, "piecewise"),
        ({"kind": "ridge"}, {"encoding": "z-score"}, "z-score"),
        (
            {"kind": "ridge"},
            {"encoding": "z-score", "features": [{"name": "x", "encoding": "clipped"}]},
            "clipped",
        ),
        ({"kind": "linear"}, {}, "z-score"),
        ({"hidden": [3]}, {}, "z-score"),
    ],
)
def test_numbers_reach_curved_networks_piecewise_unless_said(
    network: dict[str, Any], fields: dict[str, Any], encoding: str
) -> None:
    recipe = make_recipe(COLUMNS | {"network": network} | fields)
    assert recipe.encoding_of(recipe.features[0]) == encoding


def test_only_of_a_logarithm_the_median_or_the_mean_is_asked_for() -> None:
    asked = make_recipe(COLUMNS | {"target": {"name": "price", "transform": "log", "predicts": "mean"}})
    assert asked.target.predicts == "mean"
    with pytest.raises(RecipeInvalid, match="to predict the mean goes with the transform 'log'"):
        make_recipe(COLUMNS | {"target": {"name": "price", "predicts": "mean"}})


def test_a_toml_file_says_everything(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(TOML)
    file = read_recipe(tmp_path / "recipe.toml")
    assert (str(file.data), file.name) == ("table.csv", "toy")
    recipe = file.recipe
    assert recipe.network == Mlp(hidden=(8, 4), activation="tanh")
    assert [(column.name, column.kind, column.unit) for column in recipe.features] == [
        ("x", "numeric", "km"),
        ("fuel", "categorical", None),
    ]
    assert (recipe.target.transform, recipe.target.unit) == ("log", "lakh")
    assert (recipe.schedule.optimizer, recipe.schedule.learning_rate, recipe.holdout) == ("adam", 0.01, 0)


def test_hidden_layers_make_an_mlp() -> None:
    assert make_recipe({**COLUMNS, "network": {"hidden": [3]}}).network == Mlp(hidden=(3,))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"target": {}}, "target.name"),
        ({"features": []}, "features"),
        ({"features": 3}, "features"),
        ({"schedule": 3}, "schedule"),
        ({"features": [{"name": "x"}, {"name": "x"}]}, "'x' is asked for twice"),
        ({"features": [{"name": "y"}]}, "'y' is asked for twice"),
        ({"features": [{"name": "x", "kind": "text"}]}, "features.0.kind"),
        ({"features": [{"name": 'a"b'}]}, "features.0.name"),
        ({"schedule": {"learning_rate": 0}}, "schedule.learning_rate"),
        ({"schedule": {"learning_rate": float("nan")}}, "schedule.learning_rate"),
        ({"schedule": {"epochs": -1}}, "schedule.epochs"),
        ({"schedule": {"batch_size": 0}}, "schedule.batch_size"),
        ({"schedule": {"optimiser": "gd"}}, "schedule.optimiser"),
        ({"schedule": {"optimizer": "exact"}, "network": {"hidden": [3]}}, "take 'adam'"),
        ({"network": {"hidden": [0]}}, "network.mlp.hidden.0"),
        ({"network": {"kind": "mlp"}}, "network.mlp.hidden"),
        ({"holdout": 1}, "holdout"),
        ({"split": "times:x"}, "split: 'times:x' is not random, time:COLUMN or group:COLUMN"),
        ({"split": "random:x"}, "split: 'random:x' is not random"),
        ({"split": "time"}, "split: 'time' is not random"),
        ({"split": "time:"}, "split.time.column"),
        ({"split": "group:y"}, "must be different columns"),
        ({"weight": "y"}, "must be different columns"),
        ({"weight": "w", "split": "time:w"}, "must be different columns"),
        ({"cross_validate": 1}, "cross_validate"),
        ({"encoding": "cubic"}, "encoding"),
        ({"network": {"kind": "forest"}}, "network"),
        ({"network": {"kind": "ensemble", "epochs": -1}}, "network.ensemble.epochs"),
        ({"network": {"kind": "auto", "minutes": 0}}, "network.auto.minutes"),
        ({"network": {"kind": "ridge", "hidden": [3]}}, "network.ridge.hidden"),
        (
            {"network": {"kind": "ridge"}, "schedule": {"optimizer": "gd"}},
            "'ridge' does not heed 'optimizer'",
        ),
        ({"network": {"kind": "ensemble"}, "schedule": {"epochs": 9}}, "'ensemble' does not heed 'epochs'"),
        ({"network": {"kind": "ensemble"}, "schedule": RAW}, "'ensemble' does not heed 'normalize'"),
        ({"network": {"kind": "auto"}, "schedule": {"batch_size": 9}}, "'auto' does not heed 'batch_size'"),
        ({"network": {"kind": "auto"}, "encoding": "clipped"}, "'auto' does not heed 'encoding'"),
        ({"features": [{"name": "x", "kind": "boolean", "encoding": "clipped"}]}, "cannot have an encoding"),
        ({"encoding": "piecewise", "schedule": RAW}, "the encoding 'piecewise' of numbers does not go with"),
        ({"features": [{"name": "x", "encoding": "clipped"}], "schedule": RAW}, "'clipped' of 'x' does not"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_refused_by_field(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeInvalid) as refusal:
        make_recipe(COLUMNS | change)
    assert sentence in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("data = ", "cannot be read as a TOML recipe"),
        (TOML.replace('name = "toy"', ""), "name"),
        (TOML.replace('data = "table.csv"', ""), "data"),
        (TOML.replace("1e-2", "-1"), "recipe.schedule.learning_rate"),
        ("colour = 3\n" + TOML, "recipe.colour"),
    ],
)
def test_a_toml_file_that_cannot_be_followed_is_refused_by_its_path(
    tmp_path: Path, text: str, sentence: str
) -> None:
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(RecipeInvalid, match="recipe\\.toml") as refusal:
        read_recipe(tmp_path / "recipe.toml")
    assert sentence in str(refusal.value)


def test_a_recipe_that_is_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    for path in (tmp_path / "nowhere.toml", tmp_path / "binary.toml"):
        with pytest.raises(RecipeInvalid, match="cannot be read"):
            read_recipe(path)


@pytest.mark.parametrize(
    "fields",
    [
        {"rare": 5, "new_categories": "refuse"},
        {"features": [{"name": "c", "kind": "categorical", "rare": 5}], "new_categories": "refuse"},
        {"features": [{"name": "c", "kind": "categorical", "new_categories": "refuse"}], "rare": 5},
    ],
)
def test_rare_categories_cannot_be_merged_where_new_ones_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(RecipeInvalid, match="rare categories become 'other'"):
        make_recipe({"target": {"name": "y"}, **fields})
