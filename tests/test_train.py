from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from model_store.columns import encode
from model_store.store import Store
from training import blocks
from training.data import DataError, Table
from training.evaluate import claimed_interval, evaluate, own_rows
from training.publish import Learned, publish
from training.reading import read_table
from training.recipe import Recipe, RecipeFile, make_recipe
from training.remarks import Findings
from training.splits import split_at_random
from training.train import train

ROWS = 400


def cars() -> pd.DataFrame:
    """Two numbers, one of them with gaps, and a category; a price that is a product."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "age": rng.uniform(0, 3, ROWS),
            "power": rng.uniform(-1, 2, ROWS),
            "fuel": rng.choice(["petrol", "diesel", "gas"], ROWS, p=[0.6, 0.3, 0.1]),
        }
    )
    shift = table["fuel"].map({"petrol": 0.0, "diesel": 0.5, "gas": -0.5})
    noise = rng.normal(0, 0.1, ROWS)
    table["price"] = np.exp(1 - 0.5 * table["age"] + 0.4 * table["power"] + shift + noise)
    table.loc[::9, "power"] = np.nan
    return table


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "cars.csv"
    cars().to_csv(path, index=False)
    return path


def recipe(columns: str = "age power fuel", **fields: Any) -> Recipe:
    features = [
        {"name": name, "kind": "categorical" if name == "fuel" else "numeric"} for name in columns.split()
    ]
    asked = {
        "target": {"name": "price"},
        "features": features,
        "missing": "mean",
        "network": {"kind": "linear"},
    }
    return make_recipe(asked | fields)


def weights(made: Recipe, table: Table) -> list[float]:
    tensors = train(made, table).fitted.network.tensors()
    return [*tensors["layers.0.weight"][0].tolist(), *tensors["layers.0.bias"].tolist()]


@pytest.mark.parametrize("schedule", [{"optimizer": "exact"}, {"learning_rate": 0.2, "epochs": 1500}])
def test_raw_inputs_give_the_same_line_for_z_scores(path: Path, schedule: dict[str, Any]) -> None:
    raw, z = (
        recipe("age power", missing="drop", schedule={**schedule, "normalize": normalize})
        for normalize in ("none", "z-score")
    )
    assert weights(raw, read_table(path, raw)) == pytest.approx(weights(z, read_table(path, z)), rel=1e-8)


def test_raw_inputs_with_gaps_and_categories_give_the_same_predictions(path: Path) -> None:
    table = read_table(path, recipe())
    columns = table.columns(table.blocks[0])
    raw, z = (
        train(recipe(schedule={"optimizer": "exact", "normalize": normalize}), table).predict(columns)
        for normalize in ("none", "z-score")
    )
    assert raw == pytest.approx(z, rel=1e-9)


def test_the_encoded_matrix_is_scikit_learns(path: Path) -> None:
    table = read_table(path, recipe())
    model = train(recipe(schedule={"optimizer": "exact"}), table)
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    pipeline = make_column_transformer((numbers, ["age", "power"]), (OneHotEncoder(), ["fuel"]))
    expected = np.asarray(pipeline.fit_transform(cars()))
    encoded = encode(model.features, table.columns(table.blocks[0]))
    assert encoded == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_many_blocks_give_the_same_model(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = {"epochs": 30}
    columns = read_table(path, recipe()).columns(read_table(path, recipe()).blocks[0])
    whole = train(recipe(schedule=schedule), read_table(path, recipe()))
    monkeypatch.setattr(blocks, "BLOCK_VALUES", 100)
    table = read_table(path, recipe())
    assert len(table.blocks) == 16
    parts = train(recipe(schedule=schedule), table)
    assert parts.predict(columns) == pytest.approx(whole.predict(columns), rel=1e-10)
    assert parts.fitted.history == pytest.approx(whole.fitted.history, rel=1e-10)
    assert parts.line.cost == pytest.approx(whole.line.cost, rel=1e-10)


@pytest.mark.parametrize("transform", ["none", "log"])
def test_held_out_scores_are_scikit_learns_on_the_same_rows(path: Path, transform: str) -> None:
    made = recipe(
        target={"name": "price", "transform": transform},
        schedule={"optimizer": "exact", "seed": 3},
        holdout=0.2,
    )
    held_out = evaluate(made, read_table(path, made))
    held = split_at_random(ROWS, 0.2, seed=3)
    table = cars()
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    oracle = make_pipeline(
        make_column_transformer((numbers, ["age", "power"]), (OneHotEncoder(), ["fuel"])), LinearRegression()
    )
    seen, price = table[~held], table["price"].to_numpy()
    train_target = np.log(price[~held]) if transform == "log" else price[~held]
    predicted = oracle.fit(seen, train_target).predict(table[held])
    predicted = np.exp(predicted) if transform == "log" else predicted
    assert held_out.actual == pytest.approx(price[held], rel=1e-14)
    assert held_out.predicted == pytest.approx(predicted, rel=1e-9)
    for scores in (held_out.metrics.model, held_out.metrics.least_squares):
        assert scores.mse == pytest.approx(mean_squared_error(price[held], predicted), rel=1e-9)
        assert scores.mae == pytest.approx(mean_absolute_error(price[held], predicted), rel=1e-9)
        assert scores.r2 == pytest.approx(r2_score(price[held], predicted), rel=1e-9)
    mean = np.full(int(held.sum()), price[~held].mean())
    assert held_out.metrics.predict_the_mean.r2 == pytest.approx(r2_score(price[held], mean), abs=1e-12)


def test_the_interval_is_in_the_unit_of_the_networks_output(path: Path) -> None:
    made = recipe(target={"name": "price", "transform": "log"}, schedule={"optimizer": "exact"}, holdout=0.2)
    table = read_table(path, made)
    model, held_out = train(made, table), evaluate(made, table)
    interval = claimed_interval(model, own_rows(model, table), held_out)
    assert interval is not None
    residuals = np.sort(np.log(held_out.actual) - np.log(held_out.predicted))
    own = np.log(table.target()) - np.log(model.predict(table.columns(table.blocks[0])))
    # 80 rows: rank 77 of 81 · 0.95 from either end.
    assert interval.upper == pytest.approx(max(residuals[76], np.quantile(own, 0.95)), rel=1e-9)
    assert interval.lower == pytest.approx(min(residuals[3], np.quantile(own, 0.05)), rel=1e-9)


def test_the_published_mlp_predicts_in_the_targets_unit_what_torch_does(path: Path, store: Store) -> None:
    made = recipe(
        target={"name": "price", "transform": "log"},
        network={"hidden": [8, 4], "activation": "tanh"},
        schedule={"optimizer": "adam", "learning_rate": 0.01, "epochs": 40},
    )
    table = read_table(path, made)
    model, held_out = train(made, table), evaluate(made, table)
    file = RecipeFile(data=path, name="cars", recipe=made)
    learned = Learned(made, table, model, own_rows(model, table), held_out, None, Findings())
    manifest = publish(store, file, learned, "python -m training fit")
    loaded = store.load("cars", manifest.version).predictor
    columns = table.columns(table.blocks[0])
    assert loaded.predict(columns) == pytest.approx(model.predict(columns), rel=1e-9)
    assert np.median(model.predict(columns) / cars()["price"]) == pytest.approx(1, abs=0.1)
    assert held_out.metrics.model.r2 > held_out.metrics.least_squares.r2 - 0.05
    assert any(None in row.inputs.values() for row in manifest.golden)
    assert manifest.training.cost == pytest.approx(
        np.mean((np.log(table.target()) - np.log(model.predict(columns))) ** 2), rel=1e-9
    )


def test_the_targets_unit_does_not_change_what_an_mlp_learns(tmp_path: Path) -> None:
    predictions = []
    for factor in (1.0, 1e6):
        table = cars()
        table["price"] *= factor
        table.to_csv(tmp_path / "cars.csv", index=False)
        made = recipe(network={"hidden": [4]}, schedule={"learning_rate": 0.05, "epochs": 30})
        read = read_table(tmp_path / "cars.csv", made)
        predictions.append(train(made, read).predict(read.columns(read.blocks[0])) / factor)
    assert predictions[0] == pytest.approx(predictions[1], rel=1e-9)


def test_an_mlp_that_learns_noise_by_heart_is_stopped_early(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    noisy = pd.DataFrame(rng.normal(size=(80, 3)), columns=["age", "power", "price"])
    noisy["price"] += noisy["age"]
    noisy.to_csv(tmp_path / "noisy.csv", index=False)
    made = recipe(
        "age power",
        network={"hidden": [16]},
        schedule={"optimizer": "adam", "learning_rate": 0.05, "epochs": 300},
    )
    epochs = evaluate(made, read_table(tmp_path / "noisy.csv", made)).epochs
    assert epochs is not None
    assert 0 < epochs < 100


def test_an_mlp_that_is_best_untrained_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    noise = pd.DataFrame(rng.normal(size=(80, 3)), columns=["age", "power", "price"])
    noise.to_csv(tmp_path / "noise.csv", index=False)
    made = recipe("age power", network={"hidden": [16]}, schedule={"learning_rate": 0.05})
    with pytest.raises(DataError, match=r"no epoch of training does any good .* of the 80 of .*--network l"):
        evaluate(made, read_table(tmp_path / "noise.csv", made))


def test_too_few_rows_to_score_on_are_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "few.csv").write_text("age,price\n" + "".join(f"{row},{row}\n" for row in range(7)))
    made = recipe("age", holdout=0.2)
    with pytest.raises(DataError, match=r"1 of the 7 rows .* --holdout 0"):
        evaluate(made, read_table(tmp_path / "few.csv", made))


def test_smearing_makes_means_of_medians(tmp_path: Path) -> None:
    """Of exp(a + b x + noise of std s) the mean is exp(s² / 2) times the median."""
    rng = np.random.default_rng(8)
    x, noise = rng.normal(size=20_000), rng.normal(size=20_000)
    pd.DataFrame({"age": x, "price": np.exp(1 + 0.5 * x + noise)}).to_csv(tmp_path / "log.csv", index=False)
    predictions = {}
    for predicts in ("median", "mean"):
        made = recipe(
            "age",
            target={"name": "price", "transform": "log", "predicts": predicts},
            schedule={"optimizer": "exact"},
        )
        model = train(made, read_table(tmp_path / "log.csv", made))
        predictions[predicts] = model.predict({"age": np.array([-1.0, 0.0, 1.0])})
        assert model.target.estimate == predicts
    expected = np.exp(1 + 0.5 * np.array([-1.0, 0.0, 1.0]))
    assert predictions["median"] == pytest.approx(expected, rel=0.03)
    assert predictions["mean"] == pytest.approx(expected * np.exp(0.5), rel=0.06)
    line = LinearRegression().fit(x[:, None], 1 + 0.5 * x + noise)
    residuals = 1 + 0.5 * x + noise - line.predict(x[:, None])
    assert predictions["mean"] / predictions["median"] == pytest.approx(np.mean(np.exp(residuals)), rel=1e-9)
