import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.errors import InvalidName, ManifestInvalid
from model_store.manifest import FileEntry, GoldenRow, Manifest, Mlp, check_name
from tests.toys import AGE, TARGET, sealed_json, toy_description

finite = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(min_value=0, exclude_min=True, allow_infinity=False)


def toy_manifest(**changes: Any) -> Manifest:
    return Manifest.model_validate(
        {
            **dict(toy_description(Mlp(hidden=(3,)))),
            "version": 1,
            "created_at": datetime(2024, 2, 29, 23, 59, 59, 999_999, UTC),
            "files": {"weights.safetensors": FileEntry.of(b"w"), "history.csv": FileEntry.of(b"h")},
            **changes,
        }
    )


def document() -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(toy_manifest().to_json())
    del fields["checksum"]
    return fields


def part(fields: Any, place: tuple[str | int, ...]) -> Any:
    """What stands in the document at a place, to be changed there."""
    for step in place:
        fields = fields[step]
    return fields


def parse(fields: Any) -> Manifest:
    return Manifest.from_json(sealed_json(fields), "store/manifest.json")


@pytest.fixture(scope="module")
def toy() -> Manifest:
    return toy_manifest()


def test_a_manifest_survives_the_round_trip_through_json(toy: Manifest) -> None:
    again = Manifest.from_json(toy.to_json(), "here")
    assert again == toy
    assert again.to_json() == toy.to_json()


@given(mean=finite, std=positive, prediction=finite)
def test_every_finite_float64_survives_the_round_trip_to_the_bit(
    toy: Manifest, mean: float, std: float, prediction: float
) -> None:
    target = TARGET.model_copy(update={"mean": mean, "std": std})
    row = GoldenRow(inputs={**toy.golden[0].inputs, AGE.name: mean}, prediction=prediction)
    content = toy.model_copy(update={"target": target, "golden": (row,) * 32}).to_json()
    again, oracle = Manifest.from_json(content, "here"), json.loads(content)
    assert again.target.mean.hex() == oracle["target"]["mean"].hex() == mean.hex()
    assert again.target.std.hex() == oracle["target"]["std"].hex() == std.hex()
    assert again.golden[0].prediction.hex() == oracle["golden"][0]["prediction"].hex() == prediction.hex()
    assert again.golden[0].inputs == oracle["golden"][0]["inputs"]
    assert oracle["golden"][0]["inputs"]["age"].hex() == mean.hex()


def test_the_schema_version_comes_first_and_the_checksum_last(toy: Manifest) -> None:
    fields = json.loads(toy.to_json())
    assert (next(iter(fields)), list(fields)[-1]) == ("schema_version", "checksum")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("target", "minimum"), 1.0),
        (("features", 0, "deciles"), [2.0] * 9),
        (
            ("interval",),
            {"coverage": 0.9, "lower": 0.0, "upper": 0.0, "method": "cross-validation", "scale": None},
        ),
    ],
    ids=str,
)
def test_what_ascends_may_stand_still(place: tuple[str | int, ...], value: Any) -> None:
    fields = document()
    part(fields, place[:-1])[place[-1]] = value
    assert part(json.loads(parse(fields).to_json()), place) == value


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\x93NUMPY",
        b'{"name": "\xff"}',
        b'{"name": "\\ud800"}',
        b"[" * 100_000,
        b'{"golden":' * 100_000,
    ],
    ids=lambda content: repr(content[:12]),
)
def test_what_is_not_a_manifest_is_refused(content: bytes) -> None:
    with pytest.raises(ManifestInvalid, match=r"^store/manifest\.json is refused: "):
        Manifest.from_json(content, "store/manifest.json")


@pytest.mark.parametrize("field", sorted(document()))
def test_a_missing_field_is_refused(field: str) -> None:
    fields = document()
    del fields[field]
    with pytest.raises(ManifestInvalid, match=field):
        parse(fields)


@pytest.mark.parametrize(
    "place",
    [
        (),
        ("target",),
        ("features", 0),
        ("features", 2),
        ("features", 2, "categories", 0),
        ("network",),
        ("training",),
        ("interval",),
        ("golden", 31),
        ("files", "history.csv"),
    ],
    ids=str,
)
def test_an_unknown_field_is_refused_wherever_it_stands(place: tuple[str | int, ...]) -> None:
    fields = document()
    part(fields, place)["colour"] = "red"
    with pytest.raises(ManifestInvalid, match="colour"):
        parse(fields)


@pytest.mark.parametrize(
    ("place", "value", "named"),
    [
        (("schema_version",), 5, "schema version 5 is not one this program reads, 1 to 4"),
        (("schema_version",), 0, "schema version 0 is not one this program reads, 1 to 4"),
        (("schema_version",), -1, "schema_version"),
        (("schema_version",), 2.0, "schema_version"),
        (("schema_version",), True, "schema_version"),
        (("schema_version",), "1", "schema_version"),
        (("name",), 3, "name"),
        (("version",), 0, "version"),
        (("version",), -1, "version"),
        (("version",), 1.5, "version"),
        (("version",), "1", "version"),
        (("version",), True, "version"),
        (("created_at",), "yesterday", "created_at"),
        (("created_at",), 0, "created_at"),
        (("target", "mean"), "9.5", "target.mean"),
        (("target", "mean"), None, "target.mean"),
        (("target", "mean"), True, "target.mean"),
        (("target", "mean"), math.nan, "target.mean"),
        (("target", "maximum"), math.inf, "target.maximum"),
        (("target", "minimum"), -math.inf, "target.minimum"),
        (("target", "minimum"), 10**400, "target.minimum"),
        (("target", "std"), 0.0, "target.std"),
        (("features", 0, "std"), 0.0, "features.0.numeric.std"),
        (("features", 0, "std"), -0.0, "features.0.numeric.std"),
        (("features", 1, "std"), -2.5, "features.1.numeric.std"),
        (("features", 0, "std"), math.nan, "features.0.numeric.std"),
        (("features", 0, "deciles"), [1.0] * 8, "features.0.numeric.deciles"),
        (("features", 0, "deciles", 4), math.nan, "features.0.numeric.deciles.4"),
        (("features", 0, "minimum"), 1.5, "features.0.numeric: Value error, minimum, deciles and maximum"),
        (("features", 0, "maximum"), 8.5, "features.0.numeric: Value error, minimum, deciles and maximum"),
        (("features", 0, "deciles", 4), 3.5, "features.0.numeric: Value error, minimum, deciles and maximum"),
        (("target", "deciles", 0), 0.0, "target: Value error, minimum, deciles and maximum"),
        (("features", 0, "kind"), "text", "features.0"),
        (("features", 0, "kind"), "categorical", "features.0.categorical"),
        (("features", 1, "name"), "age", "the feature 'age' comes 2 times"),
        (("features",), [], "features"),
        (("features", 2, "categories", 1, "value"), "petrol", "the category 'petrol' comes 2 times"),
        (("features", 2, "categories", 1, "rows"), 0, "categories.1.rows"),
        (("features", 2, "categories"), [{"value": "petrol", "rows": 1}], "categories"),
        (("features", 2, "example"), "hydrogen", "the example of fuel type"),
        (("network", "kind"), "transformer", "network"),
        (("network", "hidden"), [], "network.mlp.hidden"),
        (("network", "hidden"), [0], "network.mlp.hidden.0"),
        (("network", "hidden"), [1] * 17, "network.mlp.hidden"),
        (("network", "activation"), "gelu", "network.mlp.activation"),
        (("training", "learning_rate"), 0.0, "training.learning_rate"),
        (("training", "data_sha256"), "0" * 63, "training.data_sha256"),
        (("interval", "coverage"), 1.0, "interval.coverage"),
        (
            ("interval", "scale"),
            {"outputs": [1.0, 2.0], "sizes": [1.0]},
            "interval.scale: Value error, 2 outputs",
        ),
        (("interval", "lower"), 2.75, "interval: Value error, lower is above upper"),
        (("interval", "lower"), 0.25, "its interval does not hold its own predictions"),
        (("interval", "upper"), -0.25, "its interval does not hold its own predictions"),
        (("golden",), document()["golden"][:31], "golden"),
        (("golden", 7, "inputs"), {"age": 1.0, "fuel type": "petrol"}, "golden row 7"),
        (("golden", 7, "inputs", "colour"), "red", "golden row 7"),
        (("golden", 7, "inputs", "age"), math.nan, "golden.7.inputs.age"),
        (("golden", 7, "inputs", "age"), None, "golden row 7"),
        (("golden", 7, "prediction"), math.inf, "golden.7.prediction"),
        (("golden", 7, "prediction"), "1.0", "golden.7.prediction"),
        (("files",), {"history.csv": {"size": 1, "sha256": "0" * 64}}, "weights.safetensors"),
        (("files", "../../other/weights.safetensors"), {"size": 1, "sha256": "0" * 64}, "files"),
        (("files", "/etc/passwd"), {"size": 1, "sha256": "0" * 64}, "files"),
        (("files", "history.csv", "size"), 0, "files.history.csv.size"),
        (("files", "history.csv", "size"), 1.5, "files.history.csv.size"),
        (("files", "history.csv", "sha256"), "A" * 64, "files.history.csv.sha256"),
        (("files", "history.csv", "sha256"), "a" * 64 + "\n", "files.history.csv.sha256"),
    ],
    ids=str,
)
def test_a_wrong_value_is_refused_by_the_name_of_its_field(
    place: tuple[str | int, ...], value: Any, named: str
) -> None:
    fields = document()
    part(fields, place[:-1])[place[-1]] = value
    with pytest.raises(ManifestInvalid) as refusal:
        parse(fields)
    assert named in str(refusal.value)


@pytest.mark.parametrize("name", ["", "a" * 201, 'a"b', "a\\b", "a\nb", "a\x00b", "a\x1fb", "a\n"], ids=ascii)
@pytest.mark.parametrize(
    ("rename", "named"),
    [
        (lambda fields, name: fields["target"].update(name=name), "target.name"),
        (lambda fields, name: fields["features"][0].update(name=name), "features.0.numeric.name"),
        (lambda fields, name: fields["features"][2].update(name=name), "features.2.categorical.name"),
    ],
    ids=["target", "number", "category"],
)
def test_a_column_name_that_json_would_escape_is_refused(
    rename: Callable[[Any, str], None], named: str, name: str
) -> None:
    fields = document()
    rename(fields, name)
    with pytest.raises(ManifestInvalid, match=named):
        parse(fields)


@pytest.mark.parametrize(
    "name", ["a", "a" * 200, "Price (₹)", "a.b/c", "it's", " ", "温度", "a\u2028b"], ids=ascii
)
def test_any_other_column_name_is_kept(name: str) -> None:
    fields = document()
    fields["target"]["name"] = name
    assert parse(fields).target.name == name


@pytest.mark.parametrize("name", ["a", "0", "used-car-price", "v1.2_b", "a" * 63, "3.."])
def test_a_good_model_name_is_kept(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".a", "-a", "_a", "A", "a/b", "../a", "/a", "a b", "a\n", "a\x00", "é", "٣", "a" * 64],
    ids=ascii,
)
def test_a_name_that_is_no_folder_or_url_segment_is_refused(name: str) -> None:
    with pytest.raises(InvalidName, match="cannot name a model"):
        check_name(name)


@pytest.mark.parametrize("field", ["version", "golden"])
def test_a_manifest_cannot_be_changed(toy: Manifest, field: str) -> None:
    with pytest.raises(ValueError, match="frozen"):
        setattr(toy, field, 2)
