"""What was decided, as a TOML file that a person reads, changes and fits again."""

from collections.abc import Sequence

import tomlkit
from tomlkit.items import Table

from training.inference import Decision
from training.recipe import InputColumn, RecipeFile


def recipe_toml(file: RecipeFile, decisions: Sequence[Decision] = ()) -> bytes:
    """The bytes of a recipe.toml; what was found out about a column is a comment beside it."""
    document = tomlkit.document()
    document.add(tomlkit.comment("Fit it again, as it is or changed: python -m training fit recipe.toml"))
    for decision in decisions:
        if not decision.taken_as:
            document.add(tomlkit.comment(on_one_line(f"left out: {decision.name}: {decision.why}")))
    document.update({"data": str(file.data), "name": file.name})
    document.update(file.recipe.model_dump(mode="json", exclude_none=True, exclude={"features", "exclude"}))
    reasons = {decision.name: decision.why for decision in decisions}
    features = tomlkit.aot()
    for feature in file.recipe.features:
        features.append(feature_table(feature, reasons.get(feature.name)))
    document.append("features", features)
    return tomlkit.dumps(document).encode()


def feature_table(feature: InputColumn, reason: str | None) -> Table:
    """A feature's fields but those that are as usual, and the reason why it is one."""
    table = tomlkit.table()
    table.update({"name": feature.name, "kind": feature.kind})
    table.update(feature.model_dump(mode="json", exclude_defaults=True, exclude={"name", "kind"}))
    if reason:
        table.comment(on_one_line(reason))
    return table


def on_one_line(text: str) -> str:
    """Text that may stand in a comment."""
    return "".join(character if character.isprintable() else " " for character in text)
