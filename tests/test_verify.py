"""`python -m training verify`: the same bits, or where not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pytest

from model_store.manifest import FileEntry, GoldenRow, Manifest
from model_store.predictor import Predictor, dump_weights
from model_store.store import Store, open_store
from tests.conftest import only_json
from tests.toys import publish_toy, with_bounds
from training.__main__ import main
from training.pipeline import fit
from training.recipe import make_recipe

Verify = Callable[..., tuple[int, str, str]]
ADAM: Final = {"optimizer": "adam", "learning_rate": 0.01, "epochs": 30}
RECIPES: Final[dict[str, dict[str, Any]]] = {
    "everything found out": {},
    "a line, weighted": {"weight": "rooms", "features": [{"name": "size"}]},
    "least squares of missing numbers": {"missing": "mean", "schedule": {"optimizer": "exact"}},
    "a network": {"network": {"hidden": [6]}, "schedule": ADAM, "missing": "mean"},
    "a ridge line": {"network": {"kind": "ridge"}, "missing": "mean", "weight": "rooms"},
    "an ensemble, by time": {
        "network": {"kind": "ensemble", "epochs": 3},
        "features": [{"name": "rooms"}],
        "split": "time:size",
    },
    "what suits": {"network": {"kind": "auto"}, "missing": "mean"},
    "what suits means of a logarithm": {
        "network": {"kind": "auto"},
        "target": {"name": "y", "transform": "log", "predicts": "mean"},
        "cross_validate": 3,
    },
    "folds of a logarithm": {"target": {"name": "y", "transform": "log"}, "cross_validate": 3},
}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Numbers, some of them missing, and categories."""
    rng = np.random.default_rng(4)
    size = rng.normal(100, 20, 200)
    columns = {
        "size": size,
        "rooms": np.where(rng.random(200) < 0.1, np.nan, rng.integers(1, 6, 200)),
        "fuel": np.array(["gas", "oil", "wood"])[rng.integers(3, size=200)],
        "y": np.abs(size + rng.normal(size=200)),
    }
    pd.DataFrame(columns).to_csv(tmp_path / "table.csv", index=False)
    return tmp_path / "table.csv"


@pytest.fixture
def verify(store: Store, capsys: pytest.CaptureFixture[str]) -> Verify:
    """Verify version 1 of 'toy' in this process, which has torch already."""

    def verify(*more: object) -> tuple[int, str, str]:
        code = main(["verify", "toy", "--version", "1", "--store", store.url, *map(str, more)])
        output, errors = capsys.readouterr()
        return code, output, errors

    return verify


def publish(table: Path, store: Store, **fields: Any) -> Manifest:
    recipe = make_recipe({"target": {"name": "y"}, "network": {"kind": "linear"}, **fields})
    return fit(table, recipe, "toy", store).manifest


@pytest.mark.parametrize("name", RECIPES)
def test_a_version_trained_again_has_the_same_bits(
    table: Path, store: Store, verify: Verify, name: str
) -> None:
    manifest = publish(table, store, **RECIPES[name])
    golden = f"the predictions for its {len(manifest.golden)} golden rows are as published"
    same = "trained again: the same bits in every tensor, statistic, score and bound"
    assert verify("--retrain") == (0, f"toy version 1: its files and {golden}\n{same}\n", "")
    assert open_store(store.url).versions("toy") == [1]


def test_without_training_again_no_table_is_read(table: Path, store: Store, verify: Verify) -> None:
    manifest = publish(table, store)
    table.unlink()
    code, output, _ = verify("--json")
    assert code == 0
    found = only_json(output)
    assert isinstance(found, dict)
    assert found.keys() == {"name", "version", "digest"}
    assert (found["name"], found["version"]) == (manifest.name, 1)
    code, _, errors = verify("--retrain")
    assert code == 3
    assert "table.csv, which the version was trained on, is not here: say where with --data" in errors
    assert verify("--data", table)[0] == 2


def test_a_changed_cell_is_told_and_what_it_changes(table: Path, store: Store, verify: Verify) -> None:
    publish(table, store, features=[{"name": "size"}], schedule={"optimizer": "exact"})
    frame = pd.read_csv(table)
    version = store.load("toy", 1)
    frame = frame.assign(size=np.where(frame.index == 7, 123.0, frame["size"]))
    frame.to_csv(table.with_name("changed.csv"), index=False)
    code, output, errors = verify("--retrain", "--data", table.with_name("changed.csv"), "--json")
    assert (code, errors) == (1, "")
    found = json.loads(output)
    assert found["same"] is False
    assert len(found["notes"]) == 1
    assert version.manifest.training.data_sha256 in found["notes"][0]
    differences = {each["what"]: (each["version"], each["retrained"]) for each in found["differences"]}
    mean = differences["features.size.mean"]
    assert mean[0] == version.manifest.features[0].model_dump()["mean"]
    assert mean[1] == pytest.approx(frame["size"].mean(), rel=1e-14)
    assert differences["layers.0.weight[0, 0]"][0] == version.predictor.weights["layers.0.weight"].item()
    assert not any(what.startswith(("network", "training.epochs")) for what in differences)


def test_the_same_rows_in_another_file_are_told_and_give_the_same_bits(
    table: Path, store: Store, verify: Verify
) -> None:
    publish(table, store)
    table.write_text(table.read_text().rstrip("\n"))
    code, output, _ = verify("--retrain")
    assert code == 0
    _, note, same = output.splitlines()
    assert note.startswith(f"the data are not those of the version: the SHA-256 of {table}")
    assert same.startswith("trained again: the same bits")


def edit(store: Store, change: Callable[[Manifest, Predictor], tuple[Manifest, Predictor]]) -> None:
    """Change version 1 so that it hangs together: golden rows, sizes, SHA-256 and checksum."""
    version, folder = store.load("toy", 1), Path(store.url, "toy/versions/1")
    manifest, predictor = change(version.manifest, version.predictor)
    columns = {
        feature.name: [row.inputs[feature.name] for row in manifest.golden] for feature in manifest.features
    }
    predictions = predictor.predict(columns).tolist()
    golden = [
        GoldenRow(inputs=row.inputs, prediction=prediction)
        for row, prediction in zip(manifest.golden, predictions, strict=True)
    ]
    weights = dump_weights(predictor.weights)
    files = manifest.files | {"weights.safetensors": FileEntry.of(weights)}
    changes = {"golden": with_bounds(golden, manifest.interval), "files": files}
    for file, content in (
        ("weights.safetensors", weights),
        ("manifest.json", manifest.model_copy(update=changes).to_json()),
    ):
        (folder / file).chmod(0o644)
        (folder / file).write_bytes(content)


def other_weight(manifest: Manifest, predictor: Predictor) -> tuple[Manifest, Predictor]:
    """The weight of one input in its last bit."""
    weight = predictor.weights["layers.0.weight"].copy()
    weight[0, 1] = np.nextafter(weight[0, 1], np.inf)
    return manifest, Predictor(manifest, predictor.weights | {"layers.0.weight": weight})


def other_interval(manifest: Manifest, predictor: Predictor) -> tuple[Manifest, Predictor]:
    """A narrower interval."""
    assert manifest.interval is not None
    interval = manifest.interval.model_copy(update={"upper": manifest.interval.upper / 2})
    return manifest.model_copy(update={"interval": interval}), predictor


def other_library(manifest: Manifest, predictor: Predictor) -> tuple[Manifest, Predictor]:
    """Another numpy."""
    libraries = manifest.training.libraries | {"numpy": "1.0"}
    training = manifest.training.model_copy(update={"libraries": libraries})
    return manifest.model_copy(update={"training": training}), predictor


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (other_weight, 1, "  layers.0.weight[0, 1] is "),
        (other_interval, 1, "  interval.upper is "),
        (other_library, 0, "the version was trained with numpy 1.0, here is "),
    ],
    ids=["a weight", "the interval", "a library"],
)
def test_a_version_that_hangs_together_and_was_never_trained_is_found_out(
    table: Path,
    store: Store,
    verify: Verify,
    change: Callable[[Manifest, Predictor], tuple[Manifest, Predictor]],
    code: int,
    said: str,
) -> None:
    publish(table, store)
    edit(store, change)
    assert verify()[0] == 0
    found, output, _ = verify("--retrain")
    assert found == code
    assert [line for line in output.splitlines() if line.startswith(said)]
    assert ("not the same in 1 places" in output) == (code == 1)


def test_a_version_without_a_recipe_cannot_be_trained_again(store: Store, verify: Verify) -> None:
    publish_toy(store)
    assert verify()[0] == 0
    code, _, errors = verify("--retrain")
    assert (code, errors) == (3, "error: version 1 of toy has no recipe.toml to train again from\n")
