from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.parts import COLUMN_NAME
from training.inference import Decision
from training.recipe import InputColumn, RecipeFile, make_recipe, read_recipe
from training.recipe_toml import recipe_toml


def file(**fields: Any) -> RecipeFile:
    recipe = make_recipe({"target": {"name": "y"}, "features": [{"name": "x"}], **fields})
    return RecipeFile(data=Path("cars.csv"), name="cars", recipe=recipe)


def read_again(content: bytes, folder: Path) -> RecipeFile:
    (folder / "recipe.toml").write_bytes(content)
    return read_recipe(folder / "recipe.toml")


FULL = {
    "target": {"name": "y", "unit": "lakh", "transform": "log"},
    "features": [
        {"name": "x", "unit": "km", "missing": "indicator", "missing_words": ["?", '"n/v"']},
        {"name": "c", "kind": "categorical", "rare": 3, "new_categories": "other", "description": "a\nb"},
        {"name": "d", "kind": "date", "format": "%d/%m/%Y"},
        {"name": "b", "kind": "boolean"},
    ],
    "network": {"hidden": [8, 4], "activation": "tanh"},
    "schedule": {"optimizer": "adam", "learning_rate": 0.1 + 0.2, "seed": 7},
    "holdout": 0,
    "missing": "mean",
    "rare": 10,
    "new_categories": "other",
}


LINE = {"features": [{"name": "x"}, {"name": "z"}], "network": {"kind": "linear"}}


@pytest.mark.parametrize("fields", [{}, {"features": LINE["features"]}, LINE, FULL])
def test_what_is_written_is_read_as_it_was(tmp_path: Path, fields: dict[str, Any]) -> None:
    written = file(**fields)
    assert read_again(recipe_toml(written), tmp_path) == written


@given(name=st.from_regex(COLUMN_NAME, fullmatch=True), text=st.text(), path=st.text(min_size=1))
def test_any_name_and_any_text_can_be_written(
    tmp_path_factory: pytest.TempPathFactory, name: str, text: str, path: str
) -> None:
    column = InputColumn(name=name, description=text, unit=text)
    recipe = file().recipe.model_copy(update={"features": (column,)})
    written = RecipeFile(data=Path(path), name="n", recipe=recipe)
    decisions = [Decision(name, column, text), Decision("z", None, text)]
    assert read_again(recipe_toml(written, decisions), tmp_path_factory.mktemp("toml")) == written


def test_the_reason_stands_beside_each_column() -> None:
    written = file()
    decisions = [
        Decision("id", None, "it counts the rows"),
        Decision("x", written.recipe.features[0], "1 to 3, km"),
    ]
    text = recipe_toml(written, decisions).decode()
    assert "# left out: id: it counts the rows\n" in text
    assert '[[features]] # 1 to 3, km\nname = "x"\nkind = "numeric"\n' in text
