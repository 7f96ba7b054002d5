from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import StandardScaler

from model_store.columns import CategoricalFeature, DateFeature, Feature, Matrix, NumericFeature, encode
from training import blocks, statistics
from training.blocks import Blocks
from training.data import DataError
from training.reading import read_table
from training.recipe import make_recipe
from training.statistics import Moments, describe_columns, moments_of_columns, sampled

RECIPE: dict[str, Any] = {"target": {"name": "y"}, "features": [{"name": "x"}, {"name": "z"}]}


def described(folder: Path, table: pd.DataFrame, **fields: Any) -> tuple[list[Feature], Any]:
    table.to_csv(folder / "table.csv", index=False)
    recipe = make_recipe(RECIPE | fields)
    features, target = describe_columns(read_table(folder / "table.csv", recipe))
    return list(features), target


def numbers(rows: int = 500) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame({name: rng.lognormal(3, 2, size=rows) for name in "xzy"})


def test_statistics_are_those_of_scikit_learns_standard_scaler(tmp_path: Path) -> None:
    table = numbers()
    features, target = described(tmp_path, table)
    scaler = StandardScaler().fit(table.to_numpy())
    for index, column in enumerate([*features, target]):
        values = table[column.name].to_numpy()
        assert column.mean == pytest.approx(scaler.mean_[index], rel=1e-12)
        assert column.std == pytest.approx(scaler.scale_[index], rel=1e-12)
        assert (column.minimum, column.maximum) == pytest.approx((values.min(), values.max()), rel=1e-14)
        assert column.deciles == pytest.approx(np.quantile(values, np.arange(1, 10) / 10), rel=1e-12)


def test_filled_statistics_are_those_of_scikit_learns_imputer_and_scaler(tmp_path: Path) -> None:
    table = numbers()
    table.loc[::7, "x"] = np.nan
    (feature, other), _ = described(tmp_path, table, missing="mean")
    inputs = table[["x"]].to_numpy()
    filled = SimpleImputer().fit(inputs)
    scaler = StandardScaler().fit(filled.transform(inputs))
    assert isinstance(feature, NumericFeature)
    assert isinstance(other, NumericFeature)
    assert feature.fill == pytest.approx(filled.statistics_[0], rel=1e-12)
    assert feature.mean == pytest.approx(scaler.mean_[0], rel=1e-12)
    assert feature.std == pytest.approx(scaler.scale_[0], rel=1e-12)
    assert feature.deciles == pytest.approx(np.quantile(filled.transform(inputs), np.arange(1, 10) / 10))
    assert other.fill == other.mean


def test_without_filling_there_is_no_fill(tmp_path: Path) -> None:
    (feature, _), _ = described(tmp_path, numbers())
    assert isinstance(feature, NumericFeature)
    assert feature.fill is None


@pytest.mark.parametrize("shift", [0.0, 1e9])
def test_moments_merged_over_many_blocks_equal_numpys(monkeypatch: pytest.MonkeyPatch, shift: float) -> None:
    monkeypatch.setattr(blocks, "BLOCK_VALUES", 60)
    values: Matrix = np.random.default_rng(1).normal(size=(5_001, 2)) * [1, 1e-3] + shift
    values[::11, 1] = np.nan
    held = Blocks([values], 2)
    assert len(held) == 167
    for moments, column in zip(moments_of_columns(held), values.T, strict=True):
        present = column[~np.isnan(column)]
        assert moments.count == len(present)
        assert moments.mean == pytest.approx(present.mean(), rel=1e-12)
        assert moments.squares / moments.count == pytest.approx(np.var(present), rel=1e-5 if shift else 1e-12)
        assert (moments.minimum, moments.maximum) == (present.min(), present.max())


def test_merging_is_the_same_in_either_order() -> None:
    rng = np.random.default_rng(2)
    small, large = Moments.of(rng.normal(size=3)), Moments.of(rng.normal(5, 2, size=1000))
    one, other = small.merge(large), large.merge(small)
    assert (one.count, one.minimum, one.maximum) == (other.count, other.minimum, other.maximum)
    assert (one.mean, one.squares) == pytest.approx((other.mean, other.squares), rel=1e-14)


def test_a_stretch_of_a_long_table_may_lack_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = numbers(100)
    table.loc[40:70, "x"] = np.nan
    monkeypatch.setattr(blocks, "BLOCK_VALUES", 30)
    monkeypatch.setattr(statistics, "BLOCK_VALUES", 30)
    (feature, _), _ = described(tmp_path, table, missing="mean")
    assert isinstance(feature, NumericFeature)
    assert feature.mean == pytest.approx(table["x"].mean(), rel=1e-12)


@pytest.mark.parametrize("encoding", ["clipped", "piecewise"])
def test_an_encoding_has_knots_at_quantiles_and_the_means_of_the_encoded_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    table = numbers(1000)
    table.loc[::9, "x"] = np.nan
    features, _ = described(tmp_path, table, missing="mean", encoding=encoding)
    monkeypatch.setattr(blocks, "BLOCK_VALUES", 300)
    in_blocks, _ = described(tmp_path, table, missing="mean", encoding=encoding)
    encoded = encode(features, {name: table[name].to_numpy() for name in "xz"})
    baseline = np.concatenate([feature.baseline for feature in features])
    np.testing.assert_allclose(encoded.mean(axis=0), baseline, rtol=0, atol=1e-13)
    for feature, other in zip(features, in_blocks, strict=True):
        assert isinstance(feature, NumericFeature)
        assert isinstance(other, NumericFeature)
        filled = table[feature.name].fillna(table[feature.name].mean())
        quantiles = np.quantile(filled, np.arange(17) / 16) if encoding == "piecewise" else []
        assert feature.clip
        assert feature.knots == pytest.approx(np.unique(quantiles), rel=1e-12)
        np.testing.assert_allclose(other.baseline, feature.baseline, rtol=0, atol=1e-13)
        assert type(feature).model_validate(feature.model_dump()) == feature


def test_a_column_of_few_values_has_few_knots_and_one_with_its_own_encoding_others(tmp_path: Path) -> None:
    table = numbers(400)
    table["x"] = np.arange(400) % 3
    columns = [{"name": "x"}, {"name": "z", "encoding": "z-score"}]
    (few, plain), _ = described(tmp_path, table, features=columns, encoding="piecewise")
    assert isinstance(few, NumericFeature)
    assert isinstance(plain, NumericFeature)
    assert set(few.knots) == {0.0, 1.0, 2.0}
    assert few.shares == pytest.approx((134 / 400, 133 / 400, 133 / 400))
    assert plain.is_z_score


def test_dates_are_encoded_piecewise_too(tmp_path: Path) -> None:
    days = pd.date_range("2020-01-01", periods=161)
    table = pd.DataFrame({"day": days, "y": np.arange(161.0)})
    columns = [{"name": "day", "kind": "date"}]
    (feature,), _ = described(tmp_path, table, features=columns, encoding="piecewise")
    assert isinstance(feature, DateFeature)
    assert feature.knots == tuple(range(18262, 18262 + 161, 10))
    encoded = feature.encode(feature.read(days.to_numpy()).column)
    np.testing.assert_allclose(encoded.mean(axis=1), feature.baseline, rtol=0, atol=1e-13)


def test_categories_come_in_alphabetical_order_with_their_rows(tmp_path: Path) -> None:
    table = numbers(10)
    table["c"] = list("bbabcbbbba")
    features, _ = described(tmp_path, table, features=[{"name": "c", "kind": "categorical"}])
    assert isinstance(features[0], CategoricalFeature)
    assert [(each.value, each.rows) for each in features[0].categories] == [("a", 2), ("b", 7), ("c", 1)]
    assert features[0].example == "b"


def test_the_example_is_a_row_near_the_medians(tmp_path: Path) -> None:
    table = pd.DataFrame({"x": [1, 2, 3, 4, 90.0], "z": [10, 50, 30, 20, 40.0], "y": range(5)})
    features, _ = described(tmp_path, table)
    assert [feature.example for feature in features] == [3, 30]


def test_an_example_is_found_where_every_row_lacks_a_number(tmp_path: Path) -> None:
    table = pd.DataFrame({"x": [1, np.nan, 3, np.nan], "z": [np.nan, 2, np.nan, 5], "y": [1, 2, 4, 5]})
    features, _ = described(tmp_path, table, missing="mean")
    assert all(np.isfinite(feature.example) for feature in features if isinstance(feature, NumericFeature))


def test_units_come_from_the_recipe_or_from_the_cells(tmp_path: Path) -> None:
    table = pd.DataFrame({"x": ["1 kg", "2 kg"], "z": ["1 km/l", "3 km/kg"], "y": ["1 Rs", "2 Rs"]})
    features, target = described(tmp_path, table)
    units = [feature.unit for feature in features if isinstance(feature, NumericFeature)]
    assert (units, target.unit) == (["kg", "km/l or km/kg"], "Rs")
    named = [{"name": "x", "unit": "kilogram", "description": "weight"}]
    (feature,), _ = described(tmp_path, table, features=named)
    assert isinstance(feature, NumericFeature)
    assert (feature.unit, feature.description) == ("kilogram", "weight")


def test_a_sample_of_a_long_table_is_every_so_manyth_row(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(100.0).reshape(50, 2)
    assert np.array_equal(sampled(Blocks([values], 2)), values)
    monkeypatch.setattr(blocks, "BLOCK_VALUES", 40)
    monkeypatch.setattr(statistics, "BLOCK_VALUES", 40)
    sample = sampled(Blocks([values], 2))
    assert len(sample) <= 20
    assert set(sample[:, 0]) <= set(values[:, 0])


@pytest.mark.parametrize(
    ("text", "fields", "sentence"),
    [
        ("x,z,y\n0.1,1,1\n0.1,2,2\n0.1,3,3\n", {}, "'x' of .* is constant: all 3 rows have 0.1"),
        ("x,z,y\n1,1,7\n2,2,7\n", {}, "'y' of .* is constant"),
        ("x,z,y\n1,1,6\n,2,7\n", {"missing": "mean"}, "'x' of .* is constant"),
        ("x,z,y\n,1,6\n,2,7\n", {"missing": "mean"}, "'x' of "),
        (
            "x,z,y\na,1,6\na,2,7\n",
            {"features": [{"name": "x", "kind": "categorical"}]},
            "single category 'a'",
        ),
    ],
)
def test_a_column_that_does_not_vary_is_refused_by_name(
    tmp_path: Path, text: str, fields: dict[str, Any], sentence: str
) -> None:
    (tmp_path / "table.csv").write_text(text)
    table = read_table(tmp_path / "table.csv", make_recipe(RECIPE | fields))
    with pytest.raises(DataError, match=sentence):
        describe_columns(table)


def test_an_example_is_a_value_that_was_met_though_the_typical_row_has_none(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    rows = [(f"{row % 4}.5" if row > 30 else "", "ab"[row % 2] if row > 30 else "", row) for row in range(40)]
    path.write_text("x,c,y\n" + "".join(f"{x},{c},{y}\n" for x, c, y in rows))
    features = [{"name": "x", "missing": "indicator"}, {"name": "c", "kind": "categorical"}]
    table = read_table(path, make_recipe({"target": {"name": "y"}, "features": features}))
    (number, category), _ = describe_columns(table)
    assert number.plain_example in {0.5, 1.5, 2.5, 3.5}
    assert category.plain_example in {"a", "b"}


ROWS = 400


def every_kind() -> pd.DataFrame:
    """A number and a boolean with gaps, a category with gaps and rare values, and a day in every row."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "number": rng.normal(50, 9, ROWS),
            "category": rng.choice(["a", "b", "rare", "rarer"], ROWS, p=[0.6, 0.38, 0.01, 0.01]),
            "flag": rng.choice(["true", "False"], ROWS),
            "day": pd.date_range("2019-03-01", periods=ROWS, freq="D").strftime("%d/%m/%Y"),
            "y": rng.normal(size=ROWS),
        }
    )
    table.loc[::9, "number"] = np.nan
    table.loc[::11, "category"] = None
    table.loc[::13, "flag"] = None
    return table


KINDS = [
    {"name": "number", "missing": "indicator"},
    {"name": "category", "kind": "categorical", "rare": 10, "new_categories": "other"},
    {"name": "flag", "kind": "boolean"},
    {"name": "day", "kind": "date", "format": "%d/%m/%Y"},
]


def test_inputs_of_every_kind_are_encoded_as_by_pandas(tmp_path: Path) -> None:
    table = every_kind()
    table.to_csv(tmp_path / "table.csv", index=False)
    read = read_table(tmp_path / "table.csv", make_recipe({"target": {"name": "y"}, "features": KINDS}))
    features, _ = describe_columns(read)
    day = pd.to_datetime(table["day"], format="%d/%m/%Y")
    days = (day - pd.Timestamp("1970-01-01")).dt.days
    level = table["category"].replace({"rare": "other", "rarer": "other"}).fillna("missing")
    truth = table["flag"].map({"true": 1.0, "False": 0.0})
    filled = table["number"].fillna(table["number"].mean())
    expected = np.column_stack(
        [
            (filled - filled.mean()) / filled.std(ddof=0),
            table["number"].isna(),
            *(level == name for name in ("a", "b", "missing", "other")),
            truth.fillna(truth.mean()),
            truth.isna(),
            (days - days.mean()) / days.std(ddof=0),
            *(day.dt.month == month for month in range(1, 13)),
            *(day.dt.day_of_week == weekday for weekday in range(7)),
        ]
    )
    encoded = encode(features, read.columns(read.blocks[0]))
    assert encoded == pytest.approx(expected.astype(float), abs=1e-12)
    baseline = np.concatenate([feature.baseline for feature in features])
    assert baseline == pytest.approx(expected.astype(float).mean(axis=0), abs=1e-12)


def test_what_no_row_lacks_has_no_level_for_it(tmp_path: Path) -> None:
    table = every_kind().dropna()
    features, _ = described(tmp_path, table, features=KINDS)
    assert not any(feature.accepts(None) for feature in features[1:])
    number, category, flag, _ = (feature.model_dump() for feature in features)
    assert (number["missing_share"], category["missing"], flag["missing"]) == (None, None, None)


def test_hours_are_told_where_they_differ_and_months_only_where_all_were_there(tmp_path: Path) -> None:
    hours = pd.date_range("2020-01-01", periods=24 * 14, freq="h")
    table = pd.DataFrame({"at": hours, "y": np.arange(len(hours))})
    (feature,), _ = described(tmp_path, table, features=[{"name": "at", "kind": "date"}])
    assert isinstance(feature, DateFeature)
    assert feature.parts == {"weekday": (48,) * 7, "hour": (14,) * 24}


@pytest.mark.parametrize(
    ("cells", "kind", "sentence"),
    [
        (["true"] * 20, "boolean", "is always true"),
        (["FALSE"] * 20, "boolean", "is always false"),
        (["a"] * 20, "categorical", "has the single category 'a'"),
        (["a", "b"] * 10, "categorical", "has no category in 15 rows or more"),
        (["2020-05-01"] * 20, "date", "is constant"),
    ],
)
def test_an_input_of_any_kind_that_does_not_vary_is_refused(
    tmp_path: Path, cells: list[str], kind: str, sentence: str
) -> None:
    table = pd.DataFrame({"x": cells, "y": np.arange(len(cells))})
    with pytest.raises(DataError, match=sentence):
        described(tmp_path, table, features=[{"name": "x", "kind": kind}], rare=15)
