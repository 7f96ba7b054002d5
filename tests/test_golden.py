"""Golden rows show whatever is served: each weight, the interval, what stands for missing and for new values."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from model_store.columns import encode
from model_store.errors import GoldenDiffer
from model_store.golden import check_golden, rounding
from model_store.manifest import Linear, Mlp, Network
from model_store.predictor import Predictor
from model_store.store import Store, open_store
from tests.toys import toy_weights
from training.pipeline import fit
from training.recipe import make_recipe

INPUTS: Final = [f"x{index}" for index in range(16)]
Tensor = NDArray[np.float64]


def trained(folder: Path, table: pd.DataFrame, **fields: Any) -> Predictor:
    """A model fitted to the column y of a table, published and loaded."""
    table.to_csv(folder / "table.csv", index=False)
    schedule = {"optimizer": "adam", "learning_rate": 0.01, "epochs": 40}
    recipe = make_recipe({"target": {"name": "y"}, "schedule": schedule, **fields})
    store = open_store(str(folder / "store"))
    return store.load("toy", fit(folder / "table.csv", recipe, "toy", store).manifest.version).predictor


def numbers(rows: int = 400) -> pd.DataFrame:
    """Sixteen inputs and a target, above 0, that is no line of them."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(rows, 16))
    y = np.sin(inputs[:, 0]) * inputs[:, 1] + inputs[:, 2] ** 2 + rng.normal(size=rows) / 3
    return pd.DataFrame(inputs, columns=INPUTS).assign(y=np.abs(y) + 0.1)


def altered(predictor: Predictor, change: Callable[[float], float]) -> Iterator[Predictor]:
    """The model with one weight changed, for each weight that changes."""
    for name, tensor in predictor.weights.items():
        for place in np.ndindex(tensor.shape):
            changed = tensor.copy()
            changed[place] = change(float(tensor[place]))
            if changed[place] != tensor[place]:
                yield Predictor(predictor.description, predictor.weights | {name: changed})


def is_refused(predictor: Predictor) -> bool:
    try:
        check_golden(predictor, "here")
    except GoldenDiffer:
        return True
    return False


@pytest.fixture(scope="module", params=["none", "log"])
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """A relu network of 16-32-16-1 units, all but a few of which respond to some row."""
    return trained(
        tmp_path_factory.mktemp("network"),
        numbers(),
        target={"name": "y", "transform": request.param},
        features=[{"name": name} for name in INPUTS],
        network={"hidden": [32, 16]},
    )


def test_no_weight_of_a_network_that_moves_any_row_can_be_zeroed(network: Predictor) -> None:
    rows = encode(network.description.features, dict(zip(INPUTS, normal_rows().T, strict=True)))
    before = network.predict_encoded(rows)
    unseen = [changed for changed in altered(network, lambda _: 0.0) if not is_refused(changed)]
    assert len(unseen) < 30
    for changed in unseen:
        assert np.abs(changed.predict_encoded(rows) - before).max() < 1e-9


def normal_rows() -> Tensor:
    """A thousand raw rows such as those trained on."""
    return np.random.default_rng(1).normal(size=(1000, 16))


def test_a_weight_that_moves_rows_much_cannot_change_by_a_tenth_of_a_billionth(network: Predictor) -> None:
    rows = encode(network.description.features, dict(zip(INPUTS, normal_rows().T, strict=True)))
    before = network.outputs(dict(zip(INPUTS, normal_rows().T, strict=True)))
    zeroed = altered(network, lambda _: 0.0)
    for changed, without in zip(altered(network, lambda x: x * (1 + 1e-10)), zeroed, strict=True):
        moved = np.median(np.abs(without.outputs(dict(zip(INPUTS, normal_rows().T, strict=True))) - before))
        if moved > 0.03 * np.abs(before).mean():
            assert is_refused(changed)
    assert len(rows) == 1000
