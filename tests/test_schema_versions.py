import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from model_store.errors import ManifestInvalid
from model_store.manifest import SCHEMA_VERSION, Linear, Mlp
from model_store.store import Store, open_store
from tests.toys import expected_predictions, publish_toy, sealed_json, toy_rows, toy_weights

KEPT: Final = {number: Path(__file__).parent / f"schema_{number}" for number in (1, 2, 3)}
MODELS: Final[dict[str, tuple[Linear | Mlp, int]]] = {
    "toy": (Linear(), 1),
    "network": (Mlp(hidden=(3, 2), activation="tanh"), 3),
}


@pytest.fixture
def first(tmp_path: Path) -> Store:
    """A copy of the store that schema version 1 wrote."""
    return open_store(str(shutil.copytree(KEPT[1], tmp_path / "store")))


@pytest.fixture(params=KEPT, ids=lambda number: f"schema {number}")
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Store, int]:
    """A copy of the store that an earlier schema version wrote, and that version."""
    return open_store(str(shutil.copytree(KEPT[request.param], tmp_path / "store"))), request.param


def manifest_of(store: Store, number: int = 1) -> Path:
    path = Path(store.url, "toy", "versions", str(number), "manifest.json")
    path.chmod(0o644)
    return path


@pytest.mark.parametrize("schema", KEPT)
def test_a_kept_store_is_of_its_schema_version(schema: int) -> None:
    assert sorted(path.name for path in KEPT[schema].iterdir()) == sorted(MODELS)
    for name in MODELS:
        fields = json.loads((KEPT[schema] / name / "versions" / "1" / "manifest.json").read_bytes())
        assert fields["schema_version"] == schema
        assert ("checksum" in fields) == (schema > 1)


@pytest.mark.parametrize("name", MODELS)
def test_a_version_of_an_earlier_schema_loads_and_predicts_as_its_formula_does(
    kept: tuple[Store, int], name: str
) -> None:
    (store, schema), (network, seed) = kept, MODELS[name]
    version = store.load_promoted(name)
    assert version.manifest.schema_version == schema
    assert version.manifest.network == network
    weights = toy_weights(network, 5, seed)
    assert version.predictor.weights.keys() == weights.keys()
    for tensor, expected in weights.items():
        np.testing.assert_array_equal(version.predictor.weights[tensor], expected)
    rows = toy_rows(200, seed=9)
    columns = {feature: [row[feature] for row in rows] for feature in rows[0]}
    np.testing.assert_allclose(
        version.predictor.predict(columns),
        expected_predictions(network, weights, rows),
        rtol=1e-12,
        atol=1e-12,
    )


def test_what_is_published_now_is_of_the_newest_schema(first: Store) -> None:
    assert publish_toy(first).schema_version == SCHEMA_VERSION == 4
    assert json.loads(manifest_of(first, 2).read_bytes())["schema_version"] == 4


@pytest.mark.parametrize("name", MODELS)
def test_a_version_of_an_earlier_schema_is_promoted_over_and_rolled_back_to(
    kept: tuple[Store, int], name: str
) -> None:
    store, _ = kept
    before = store.promoted(name)
    assert (before.version, before.generation) == (1, 1)
    assert store.promote(name, publish_toy(store, seed=5, name=name).version, "newer").previous == 1
    assert store.load_promoted(name).manifest.training.seed == 5
    after = store.rollback(name, "worse")
    assert (after.version, after.digest, after.generation) == (1, before.digest, 3)
    assert store.load_promoted(name).digest == before.digest
    assert [(line.version, line.previous) for line in store.history(name)] == [(1, None), (2, 1), (1, 2)]


def test_reading_a_store_of_an_earlier_schema_leaves_it_as_it_is(kept: tuple[Store, int]) -> None:
    def contents(folder: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()
        }

    store, schema = kept
    for name in store.models():
        store.load_promoted(name)
        store.history(name)
    assert contents(Path(store.url)) == contents(KEPT[schema])


def renamed(fields: dict[str, Any]) -> dict[str, Any]:
    """The document of a schema where everything else has another name."""
    return {f"{name}_2" if name != "schema_version" else name: value for name, value in fields.items()}


def enlarged(fields: dict[str, Any]) -> dict[str, Any]:
    """The document of a schema with more in it."""
    return {"kind": "forest", **fields, "network": {"kind": "forest", "trees": [1, 2]}}


@pytest.mark.parametrize("change", [dict, renamed, enlarged])
@pytest.mark.parametrize(
    "write", [sealed_json, lambda fields: json.dumps(fields).encode()], ids=["sealed", "not"]
)
@pytest.mark.parametrize("schema", [5, 6, 1000])
def test_a_later_schema_is_refused_by_its_number(
    first: Store,
    schema: int,
    write: Callable[[dict[str, Any]], bytes],
    change: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    path = manifest_of(first)
    path.write_bytes(write(change(json.loads(path.read_bytes()) | {"schema_version": schema})))
    sentence = (
        f"{path} is refused: .*schema version {schema} is not one this program reads, 1 to 4: upgrade it$"
    )
    for refused in (lambda: first.load("toy", 1), lambda: first.promote("toy", 1)):
        with pytest.raises(ManifestInvalid, match=sentence):
            refused()


def test_a_later_schema_without_its_checksum_is_refused(first: Store) -> None:
    publish_toy(first)
    path = manifest_of(first, 2)
    fields = json.loads(path.read_bytes())
    del fields["checksum"]
    path.write_bytes(json.dumps(fields, indent=2).encode())
    with pytest.raises(ManifestInvalid, match=r"schema version 1 has no checksum, and every later one has$"):
        first.load("toy", 2)


def test_schema_1_with_a_checksum_is_refused(first: Store) -> None:
    path = manifest_of(first)
    path.write_bytes(sealed_json(json.loads(path.read_bytes())))
    with pytest.raises(ManifestInvalid, match=f"{path} is refused: .*checksum") as refused:
        first.load("toy", 1)
    assert "missing" not in str(refused.value)
