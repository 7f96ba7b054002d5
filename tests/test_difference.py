import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray

from model_store._difference import Difference, differences
from model_store.columns import CategoricalFeature, Category
from model_store.manifest import Description, GoldenRow, Linear, Metrics, Mlp, ResidualQuantiles, Scores
from model_store.predictor import dump_weights
from model_store.store import Store
from model_store.tables import differences_text
from model_store.versions import Version
from tests.toys import (
    AGE,
    DECILES,
    FUEL,
    POWER,
    TARGET,
    expected_predictions,
    publish_toy,
    toy_description,
    toy_rows,
    toy_weights,
    with_bounds,
)

TOY: Final = toy_description()
MLP: Final = Mlp(hidden=(3, 2), activation="tanh")
SCORES: Final = Scores(mse=4.0, rmse=2.0, mae=1.5, r2=0.75)
METRICS: Final = Metrics(rows=9, model=SCORES, predict_the_mean=SCORES, least_squares=SCORES)


def version(store: Store, network: Linear | Mlp | None = None, seed: int = 1, **changes: Any) -> Version:
    """A toy, published and loaded; its `training` is the same for every seed, unless it is given."""
    changes = {"training": TOY.training} | changes
    return store.load("toy", publish_toy(store, network, seed, **changes).version)


def with_weights(store: Store, description: Description, weights: dict[str, NDArray[np.float64]]) -> Version:
    """A version of a toy with these weights."""
    rows = toy_rows(32)
    predictions = expected_predictions(description.network, weights, rows)
    golden = tuple(
        GoldenRow(inputs=row, prediction=float(prediction))
        for row, prediction in zip(rows, predictions, strict=True)
    )
    content, golden = dump_weights(weights), with_bounds(golden, description.interval)
    manifest = store.publish(description.model_copy(update={"golden": golden}), content, lambda _number: {})
    return store.load("toy", manifest.version)


@pytest.mark.parametrize("network", [Linear(), MLP], ids=["linear", "network"])
def test_two_versions_of_the_same_training_differ_in_nothing(store: Store, network: Linear | Mlp) -> None:
    first, second = version(store, network), version(store, network)
    assert first.digest != second.digest
    assert differences(first, second) == differences(first, first) == []
    assert differences_text(second, first, []) == (
        "toy: versions 2 and 1 are the same in all but number and date"
    )


def test_the_weights_of_a_linear_model_are_named_by_what_they_weigh(store: Store) -> None:
    first, second = version(store, seed=1), version(store, seed=2)
    ours, theirs = (toy_weights(Linear(), 5, seed) for seed in (2, 1))
    columns = ["age", POWER.name, "fuel type = petrol", "fuel type = diesel", "fuel type = a,b"]
    bias = Difference(
        "bias", float(ours["layers.0.bias"][0]), theirs_bias := float(theirs["layers.0.bias"][0])
    )
    assert bias.change == float(ours["layers.0.bias"][0]) - theirs_bias
    assert differences(second, first) == [
        bias,
        *(
            Difference(f"weight of {name}", our, their)
            for name, our, their in zip(
                columns,
                ours["layers.0.weight"][0].tolist(),
                theirs["layers.0.weight"][0].tolist(),
                strict=True,
            )
        ),
    ]


def test_one_weight_in_its_last_bit_is_one_difference(store: Store) -> None:
    weights = toy_weights(Linear(), 5)
    before = float(weights["layers.0.weight"][0, 3])
    first = with_weights(store, TOY, weights)
    after = math.nextafter(before, math.inf)
    weights["layers.0.weight"][0, 3] = after
    second = with_weights(store, TOY, weights)
    assert differences(second, first) == [Difference("weight of fuel type = diesel", after, before)]


def changed(part: Any, **changes: Any) -> Any:
    return part.model_copy(update=changes)


def petrol(rows: int) -> CategoricalFeature:
    """The fuel with another count of petrol."""
    return FUEL.model_copy(update={"categories": (Category(value="petrol", rows=rows), *FUEL.categories[1:])})


SAME_PREDICTIONS: Final[dict[str, tuple[dict[str, Any], list[tuple[Any, ...]]]]] = {
    "the target's mean": ({"target": changed(TARGET, mean=9.75)}, [("target.mean", 9.75, 9.5, 0.25)]),
    "the target's unit": ({"target": changed(TARGET, unit=None)}, [("target.unit", None, "lakh", None)]),
    "a decile": (
        {"features": (changed(AGE, deciles=(0.75, *DECILES[1:])), POWER, FUEL)},
        [("features.age.deciles.0", 0.75, 1.0, -0.25)],
    ),
    "a maximum": (
        {"features": (AGE, changed(POWER, maximum=301.0), FUEL)},
        [(f"features.{POWER.name}.maximum", 301.0, 300.0, 1.0)],
    ),
    "the rows of a category": (
        {"features": (AGE, POWER, petrol(8))},
        [("features.fuel type.categories.petrol.rows", 8, 7, 1)],
    ),
    "a description": (
        {"features": (changed(AGE, description="since new"), POWER, FUEL)},
        [("features.age.description", "since new", None, None)],
    ),
    "how it was trained": (
        {"training": changed(TOY.training, optimizer="adam", epochs=3, dropped={"age": 2})},
        [
            ("training.optimizer", "adam", "gd", None),
            ("training.epochs", 3, 1, 2),
            ("training.dropped.age", 2, None, None),
        ],
    ),
    "the library": (
        {"training": changed(TOY.training, libraries={"torch": "2.13.0"})},
        [("training.libraries.torch", "2.13.0", None, None)],
    ),
    "the interval": (
        {"interval": ResidualQuantiles(coverage=0.9, lower=-2.0, upper=2.5)},
        [("interval.lower", -2.0, -1.5, -0.5)],
    ),
    "no interval": (
        {"interval": None},
        [
            ("interval.coverage", None, 0.9, None),
            ("interval.lower", None, -1.5, None),
            ("interval.upper", None, 2.5, None),
            ("interval.method", None, "split conformal", None),
        ],
    ),
}


@pytest.mark.parametrize("what", SAME_PREDICTIONS)
def test_every_kind_of_change_is_named_once(store: Store, what: str) -> None:
    changes, expected = SAME_PREDICTIONS[what]
    found = differences(version(store, **changes), version(store))
    assert {(each.what, each.version, each.against, each.change) for each in found} == set(expected)
    assert len(found) == len(expected)


def test_a_score_is_named_by_whose_it_is(store: Store) -> None:
    better = changed(METRICS, model=changed(SCORES, r2=0.875))
    first, second = version(store, metrics=METRICS), version(store, metrics=better)
    (found,) = differences(second, first)
    assert (found.what, found.version, found.against, found.change) == (
        "metrics.model.r2",
        0.875,
        0.75,
        0.125,
    )


def test_scores_that_only_one_has_are_all_named(store: Store) -> None:
    first, second = version(store), version(store, metrics=METRICS)
    names = ["metrics.rows"] + [
        f"metrics.{whose}.{score}"
        for whose in ("model", "predict_the_mean", "least_squares")
        for score in ("mse", "rmse", "mae", "r2")
    ]
    for found, has in ((differences(second, first), "version"), (differences(first, second), "against")):
        assert sorted(each.what for each in found) == sorted(names)
        assert all(getattr(each, has) is not None and each.change is None for each in found)


def test_a_change_is_the_other_way_round_when_the_versions_are(store: Store) -> None:
    first, second = version(store, seed=1), version(store, seed=2)
    there, back = differences(second, first), differences(first, second)
    assert [(each.what, each.against, each.version) for each in back] == [
        (each.what, each.version, each.against) for each in there
    ]


def test_another_network_is_named_and_so_are_its_tensors(store: Store) -> None:
    first, second = version(store, Linear()), version(store, MLP)
    found = {each.what: (each.version, each.against) for each in differences(second, first)}
    assert found["network.kind"] == ("mlp", "linear")
    assert found["network.hidden.0"] == (3, None)
    assert found["weight of age"][0] is None
    shapes = {"layers.0.weight [3, 5]", "layers.1.bias [2]", "layers.2.weight [1, 2]"}
    assert shapes <= {name.removesuffix(", root mean square") for name in found}


def test_a_networks_tensor_has_one_line_with_its_size(store: Store) -> None:
    first, second = version(store, MLP, seed=1), version(store, MLP, seed=2)
    found = {each.what: each for each in differences(second, first)}
    for name, tensor in toy_weights(MLP, 5, seed=2).items():
        each = found[f"{name} {list(tensor.shape)}, root mean square"]
        expected = math.sqrt(math.fsum(value * value for value in tensor.ravel()) / tensor.size)
        assert each.version == pytest.approx(expected, rel=1e-12)


def negated(weights: dict[str, NDArray[np.float64]]) -> None:
    weights["layers.2.weight"] = -weights["layers.2.weight"]


def exchanged(weights: dict[str, NDArray[np.float64]]) -> None:
    weights["layers.0.weight"] = weights["layers.0.weight"][:, ::-1]


@pytest.mark.parametrize("change", [negated, exchanged])
def test_a_network_that_predicts_otherwise_is_never_called_the_same(
    store: Store, change: Callable[[dict[str, NDArray[np.float64]]], None]
) -> None:
    description = toy_description(MLP)
    weights = toy_weights(MLP, 5)
    first = with_weights(store, description, weights)
    change(weights)
    second = with_weights(store, description, weights)
    assert first.manifest.golden != second.manifest.golden
    assert differences(second, first)


def test_large_tensors_stay_a_line_each(store: Store) -> None:
    wide = Mlp(hidden=(400, 400))
    first, second = version(store, wide, seed=1), version(store, wide, seed=2)
    found = differences(second, first)
    assert len([each for each in found if each.what.startswith("layers.")]) == 6
    assert len(differences_text(second, first, found)) < 2000


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_weights_far_from_one_have_a_finite_size(store: Store, scale: float) -> None:
    weights = toy_weights(MLP, 5)
    first = with_weights(store, toy_description(MLP), weights)
    weights["layers.0.weight"] = weights["layers.0.weight"] * scale
    second = with_weights(store, toy_description(MLP), weights)
    found = {each.what: each for each in differences(second, first)}
    size = found["layers.0.weight [3, 5], root mean square"]
    assert isinstance(size.version, float)
    assert isinstance(size.against, float)
    assert size.version == pytest.approx(size.against * scale, rel=1e-9, abs=0)


def test_a_change_too_large_for_a_float_is_none() -> None:
    assert Difference("bias", 1.7e308, -1.7e308).change is None


def test_what_is_no_number_has_no_change() -> None:
    for ours, theirs in (("a", "b"), (None, 1.0), (1.0, None), ("1", 1), (None, None)):
        assert Difference("it", ours, theirs).change is None
    assert Difference("it", 3, 1).change == 2
    assert Difference("it", True, False).change is None


def test_for_people_every_difference_is_a_line_with_both_values_and_the_change(store: Store) -> None:
    first, second = version(store, target=changed(TARGET, mean=9.75, unit=None)), version(store)
    heading, *lines = differences_text(second, first, differences(second, first)).splitlines()
    assert heading.split() == ["toy", "version", "2", "version", "1", "change"]
    assert [line.split() for line in lines] == [
        ["target.mean", "9.5", "9.75", "-0.25"],
        ["target.unit", "lakh", "–"],
    ]


def test_a_long_name_or_value_is_cut_to_its_column(store: Store) -> None:
    long = {"training": changed(TOY.training, libraries={"x" * 300: "y" * 300})}
    first, second = version(store), version(store, **long)
    text = differences_text(second, first, differences(second, first))
    assert max(map(len, text.splitlines())) < 110
