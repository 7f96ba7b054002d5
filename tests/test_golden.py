"""Golden rows show whatever is served: each weight, what stands for missing and new values, the last bits."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from model_store.answers import Answerer
from model_store.columns import CategoricalFeature, DateFeature
from model_store.errors import GoldenDiffer
from model_store.golden import check_golden, rounding
from model_store.manifest import Linear, Mlp, ResidualQuantiles
from model_store.predictor import Predictor
from model_store.scale import Scale
from model_store.store import open_store
from tests.toys import expected_outputs, toy_description, toy_weights
from training.pipeline import fit
from training.recipe import make_recipe

Tensor = NDArray[np.float64]
INPUTS: Final = [f"x{index}" for index in range(16)]


def trained(folder: Path, table: pd.DataFrame, **fields: Any) -> Predictor:
    """A model fitted to the column y of a table, published and loaded."""
    table.to_csv(folder / "table.csv", index=False)
    recipe = make_recipe({"target": {"name": "y"}, "network": {"kind": "linear"}} | fields)
    store = open_store(str(folder / "store"))
    return store.load("toy", fit(folder / "table.csv", recipe, "toy", store).manifest.version).predictor


def numbers() -> pd.DataFrame:
    """Sixteen inputs and a target that is no line of them."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(400, 16))
    y = np.sin(inputs[:, 0]) * inputs[:, 1] + inputs[:, 2] ** 2 + rng.normal(size=400) / 3
    return pd.DataFrame(inputs, columns=INPUTS).assign(y=y)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """A network of 16-32-16-1 units, some of which are off for most rows."""
    return trained(
        tmp_path_factory.mktemp("network"),
        numbers(),
        features=[{"name": name} for name in INPUTS],
        network={"hidden": [32, 16]},
        schedule={"optimizer": "adam", "learning_rate": 0.01, "epochs": 20},
    )


def altered(predictor: Predictor, change: Callable[[float], float], step: int = 1) -> Iterator[Predictor]:
    """The model with one weight changed, each of every `step` weights in its turn."""
    for name, tensor in predictor.weights.items():
        for place in list(np.ndindex(tensor.shape))[::step]:
            changed = tensor.copy()
            changed[place] = change(float(tensor[place]))
            yield Predictor(predictor.description, predictor.weights | {name: changed})


def is_refused(predictor: Predictor) -> bool:
    try:
        check_golden(predictor, "here")
    except GoldenDiffer:
        return True
    return False


def normal_rows() -> dict[str, Tensor]:
    """A thousand rows such as those trained on."""
    return dict(zip(INPUTS, np.random.default_rng(1).normal(size=(16, 1000)), strict=True))


def test_no_weight_that_moves_any_row_can_be_zeroed_unseen(network: Predictor) -> None:
    unseen = [changed for changed in altered(network, lambda _: 0.0) if not is_refused(changed)]
    before = network.predict(normal_rows())
    for changed in unseen:
        np.testing.assert_allclose(changed.predict(normal_rows()), before, rtol=1e-10)
    assert len(unseen) < 60
    assert len(network.description.golden) < 100


def test_no_weight_that_moves_rows_much_can_change_by_a_tenth_of_a_billionth(network: Predictor) -> None:
    before = network.outputs(normal_rows())
    seen = 0
    without = altered(network, lambda _: 0.0, step=5)
    for zeroed, changed in zip(without, altered(network, lambda x: x * (1 + 1e-10), step=5), strict=True):
        if np.abs(zeroed.outputs(normal_rows()) - before).mean() > 0.05 * np.abs(before).mean():
            seen += 1
            assert is_refused(changed)
    assert seen > 10


def test_no_hat_can_lose_its_weight_unseen(tmp_path: Path) -> None:
    inputs = [{"name": name} for name in INPUTS[:4]]
    bent = trained(tmp_path, numbers(), features=inputs, encoding="piecewise")
    assert bent.weights["layers.0.weight"].shape == (1, 4 * 18)
    assert all(map(is_refused, altered(bent, lambda _: 0.0)))


KINDS: Final = [
    {"name": "size", "missing": "mean"},
    {"name": "rooms", "missing": "indicator"},
    {"name": "fuel", "kind": "categorical", "new_categories": "other"},
    {"name": "new", "kind": "boolean"},
    {"name": "sold", "kind": "date"},
]


def of_all_kinds() -> pd.DataFrame:
    """A table with missing values in three of its columns, and with no Saturday or Sunday."""
    rng = np.random.default_rng(2)
    days = pd.bdate_range("2020-01-01", "2020-03-31")
    table = pd.DataFrame(
        {
            "size": rng.normal(100, 20, 400),
            "rooms": np.where(rng.random(400) < 0.2, np.nan, rng.integers(1, 6, 400)),
            "fuel": np.array(["gas", "oil", "(other)", ""])[rng.integers(4, size=400)],
            "new": np.array(["true", "false", ""])[rng.integers(3, size=400)],
            "sold": rng.choice(days, 400),
        }
    )
    return table.assign(y=table["size"] + 10 * (table["fuel"] == "gas") + rng.normal(size=400))


@pytest.fixture(scope="module", params=["linear", "mlp"])
def mixed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    adam = {"optimizer": "adam", "learning_rate": 0.01, "epochs": 30}
    mlp = {"network": {"hidden": [8]}, "schedule": adam}
    return trained(
        tmp_path_factory.mktemp("mixed"),
        of_all_kinds(),
        target={"name": "y", "transform": "log"},
        features=KINDS,
        **mlp if request.param == "mlp" else {},
    )


def test_every_extreme_category_and_way_to_be_missing_or_new_has_a_golden_row(mixed: Predictor) -> None:
    description, table = mixed.description, of_all_kinds()
    values = {
        feature.name: [row.inputs[feature.name] for row in description.golden]
        for feature in description.features
    }
    assert {table["size"].min(), table["size"].max()} <= set(values["size"])
    assert {"gas", "oil", "(other)", None} < set(values["fuel"])
    assert all(None in values[name] for name in ("size", "rooms", "new"))
    assert {pd.Timestamp(str(date)).day_name() for date in values["sold"]} & {"Saturday", "Sunday"}


def with_feature(predictor: Predictor, index: int, **changes: Any) -> Predictor:
    """The model with other statistics of one of its inputs."""
    features = list(predictor.description.features)
    features[index] = features[index].model_copy(update=changes)
    description = predictor.description.model_copy(update={"features": tuple(features)})
    return Predictor(description, predictor.weights)


def test_what_stands_for_missing_and_new_values_cannot_change(mixed: Predictor) -> None:
    size, rooms, fuel, new, sold = mixed.description.features
    assert isinstance(fuel, CategoricalFeature)
    assert isinstance(sold, DateFeature)
    first, *others = fuel.categories
    more = (first.model_copy(update={"rows": first.rows + 1}), *others)
    parts = {"weekday": (sold.parts["weekday"][0] + 1, *sold.parts["weekday"][1:])}
    assert not is_refused(mixed)
    assert is_refused(with_feature(mixed, 0, fill=size.model_dump()["fill"] + 1e-6))
    assert is_refused(with_feature(mixed, 1, fill=rooms.model_dump()["fill"] + 1e-6))
    assert is_refused(with_feature(mixed, 2, categories=more))
    assert is_refused(with_feature(mixed, 3, trues=new.model_dump()["trues"] + 1))
    assert is_refused(with_feature(mixed, 4, parts=parts))


def exact(network: Linear | Mlp, weights: dict[str, Tensor], row: Tensor) -> Fraction:
    """The output of a relu network for one encoded row, without any rounding."""
    values = [Fraction(value) for value in row.tolist()]
    for index in range(len(network.layers)):
        values = [max(value, Fraction(0)) for value in values] if index else values
        layer = weights[f"layers.{index}.weight"].tolist(), weights[f"layers.{index}.bias"].tolist()
        values = [
            sum((Fraction(w) * value for w, value in zip(unit, values, strict=True)), Fraction(bias))
            for unit, bias in zip(*layer, strict=True)
        ]
    return values[0]


@pytest.mark.parametrize("network", [Linear(), Mlp(hidden=(9, 4))], ids=["linear", "relu"])
def test_outputs_are_within_their_rounding_of_the_exact_ones_and_it_is_small(network: Linear | Mlp) -> None:
    rng = np.random.default_rng(3)
    for seed in range(30):
        # Sums that cancel, for which an error relative to the output would be too small.
        encoded = rng.normal(size=(4, 6)) * 10.0 ** rng.integers(-3, 4, size=6)
        weights = toy_weights(network, 6, seed)
        allowed = rounding(network, weights, encoded)
        sizes = expected_outputs(
            network, {name: np.abs(each) for name, each in weights.items()}, np.abs(encoded)
        )
        for order in (np.arange(6), np.arange(6)[::-1]):
            first = weights | {"layers.0.weight": weights["layers.0.weight"][:, order]}
            outputs = expected_outputs(network, first, encoded[:, order])
            apart = [
                abs(Fraction(output) - exact(network, weights, row))
                for output, row in zip(outputs.tolist(), encoded, strict=True)
            ]
            assert all(2 * far <= most for far, most in zip(apart, allowed.tolist(), strict=True))
        assert (allowed < 1e-14 * sizes).all()


@pytest.fixture(scope="module", params=["none", "log"])
def wedge(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """A line, or the logarithm of one, whose rows scatter more where it is high."""
    rng = np.random.default_rng(4)
    x = rng.uniform(0, 3, 600)
    y = 2 + x + 0.1 * (1 + x) * rng.normal(size=600)
    return trained(
        tmp_path_factory.mktemp("wedge"),
        pd.DataFrame({"x": x, "y": np.exp(y) if request.param == "log" else y}),
        features=[{"name": "x"}],
        target={"name": "y", "transform": request.param},
        schedule={"optimizer": "exact"},
    )


def test_no_size_or_output_of_the_intervals_scale_can_change_by_a_billionth_unseen(wedge: Predictor) -> None:
    interval = wedge.description.interval
    assert interval is not None
    assert interval.scale is not None
    assert len(interval.scale.outputs) == 12
    for field in ("outputs", "sizes"):
        numbers = getattr(interval.scale, field)
        for index, number in enumerate(numbers):
            changed = (*numbers[:index], number * (1 + 1e-9), *numbers[index + 1 :])
            scale = interval.scale.model_copy(update={field: changed})
            update = {"interval": interval.model_copy(update={"scale": scale})}
            assert is_refused(replace(wedge, description=wedge.description.model_copy(update=update)))


def test_a_steep_scale_may_multiply_the_rounding_of_outputs() -> None:
    scale = Scale(outputs=tuple(map(float, range(-30, 31))), sizes=tuple([1.0, 1e7] * 30 + [1.0]))
    interval = ResidualQuantiles(coverage=0.9, lower=-1.0, upper=1.0, scale=scale)
    model = Mlp(hidden=(7, 3))
    check_golden(Predictor(toy_description(model, interval=interval), toy_weights(model, 5)), "here")


def test_a_scale_that_golden_rows_do_not_know_is_refused(wedge: Predictor) -> None:
    assert wedge.description.interval is not None
    update = {"interval": wedge.description.interval.model_copy(update={"scale": None})}
    assert is_refused(replace(wedge, description=wedge.description.model_copy(update=update)))


def test_the_interval_of_a_published_model_holds_as_many_new_rows_everywhere(wedge: Predictor) -> None:
    rng = np.random.default_rng(5)
    x = rng.uniform(0, 3, 20_000)
    y = 2 + x + 0.1 * (1 + x) * rng.normal(size=len(x))
    answers = Answerer(wedge).answer({"x": x})
    assert answers.lower is not None
    assert answers.upper is not None
    actual = np.exp(y) if wedge.description.target.transform == "log" else y
    held = (answers.lower <= actual) & (actual <= answers.upper)
    # Each tenth's bounds come from 60 rows.
    tenths = [held[rows].mean() for rows in np.array_split(np.argsort(x), 10)]
    assert np.mean(tenths) == pytest.approx(0.9, abs=3 * (0.09 / 600) ** 0.5)
    assert min(tenths) > 0.9 - 3 * (0.09 / 60) ** 0.5
