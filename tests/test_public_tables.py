"""Tables in the form of well-known public ones, their values made up: a target is enough to fit each.

What was trained on is then scored, row by row, by the service from the same bytes.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from app.serving import Served
from model_store.store import Store
from tests.scoring import score
from training.pipeline import fit
from training.recipe import make_recipe

ROWS = 400
Columns = Mapping[str, Sequence[object]]
RNG = np.random.default_rng(7)


def numbers(low: float, high: float, digits: int = 2) -> list[str]:
    return [f"{value:.{digits}f}" for value in RNG.uniform(low, high, ROWS)]


def whole(low: int, high: int) -> list[str]:
    return [str(value) for value in RNG.integers(low, high, ROWS)]


def some(*texts: str) -> list[str]:
    return [texts[k] for k in RNG.integers(0, len(texts), ROWS)]


def with_gaps(cells: list[str], gap: str = "", every: int = 10) -> list[str]:
    return [gap if row % every == 3 else cell for row, cell in enumerate(cells)]


def target(low: float = 1, high: float = 50) -> list[str]:
    return numbers(low, high, 1)


def california_housing() -> Columns:
    return {
        "longitude": numbers(-124, -114),
        "latitude": numbers(32, 42),
        "housing_median_age": [f"{float(value):.1f}" for value in whole(1, 52)],
        "total_bedrooms": with_gaps([f"{value}.0" for value in whole(1, 6000)], every=100),
        "ocean_proximity": [*some("INLAND", "<1H OCEAN", "NEAR BAY")[:-2], "ISLAND", "ISLAND"],
        "median_house_value": [f"{value}.0" for value in whole(15000, 500001)],
    }


def ames_housing() -> Columns:
    words = {f"C{k}": with_gaps(some("Gd", "TA", "Ex"), "NA", every=2 + k % 5) for k in range(40)}
    areas = {f"N{k}": with_gaps(whole(0, 900), "NA", every=9 + k) for k in range(35)}
    return {
        "Order": [str(row + 1) for row in range(ROWS)],
        "PID": [str(526301100 + 7919 * row) for row in range(ROWS)],
        **words,
        **areas,
        "Alley": with_gaps(["NA"] * ROWS, "Grvl", every=12),
        "SalePrice": whole(12789, 755000),
    }


def medical_charges() -> Columns:
    return {
        "age": whole(18, 65),
        "sex": some("female", "male"),
        "bmi": numbers(16, 53, 3),
        "children": whole(0, 6),
        "smoker": some("yes", "no"),
        "region": some("southwest", "southeast", "northwest", "northeast"),
        "charges": numbers(1121, 63770, 5),
    }


def diamonds() -> Columns:
    return {
        "": [str(row + 1) for row in range(ROWS)],
        "carat": numbers(0.2, 5),
        "cut": some("Ideal", "Premium", "Good", "Very Good", "Fair"),
        "color": some(*"DEFGHIJ"),
        "depth": numbers(43, 79, 1),
        "price": whole(326, 18823),
    }


def auto_mpg() -> Columns:
    return {
        "mpg": numbers(9, 47, 1),
        "cylinders": some("4", "6", "8"),
        "horsepower": with_gaps(whole(46, 230), "?", every=80),
        "weight": whole(1613, 5140),
        "model year": whole(70, 83),
        "car name": [f"ford model {row}" for row in range(ROWS)],
    }


def seoul_bikes() -> Columns:
    start = date(2017, 12, 1)
    return {
        "Date": [(start + timedelta(days=row // 24)).strftime("%d/%m/%Y") for row in range(ROWS)],
        "Rented Bike Count": whole(0, 3556),
        "Hour": [str(row % 24) for row in range(ROWS)],
        "Temperature(°C)": numbers(-17, 39, 1),
        "Snowfall (cm)": numbers(0, 9, 1),
        "Seasons": some("Winter", "Spring"),
        "Holiday": some("No Holiday", "Holiday"),
    }


def wine_quality() -> Columns:
    return {
        "fixed acidity": numbers(4, 16, 1),
        "citric acid": numbers(0, 1),
        "alcohol": numbers(8, 15, 1),
        "quality": whole(3, 9),
    }


def house_sales() -> Columns:
    start = date(2014, 5, 2)
    return {
        "id": [str(1000000000 + 104729 * row) for row in range(ROWS)],
        "date": [(start + timedelta(days=row)).strftime("%Y%m%dT000000") for row in range(ROWS)],
        "price": [f"{value}.0" for value in whole(75000, 7700000)],
        "bedrooms": whole(0, 11),
        "sqft_living": whole(290, 13540),
        "waterfront": some("0", "1"),
        "zipcode": some("98178", "98125", "98028"),
    }


def listings() -> Columns:
    return {
        "id": [str(2595 + 31 * row) for row in range(ROWS)],
        "name": [f"Lovely flat number {row} near the park" for row in range(ROWS)],
        "host_is_superhost": some("t", "f"),
        "instant": some("True", "False"),
        "last_review": ["2019-05-21"] * 3
        + [str(date(2018, 1, 1) + timedelta(days=row)) for row in range(ROWS - 3)],
        "cleaning_fee": with_gaps([f"${value}.00" for value in whole(5, 300)], every=4),
        "reviews_per_month": with_gaps(numbers(0, 9), every=6),
        "price": [f'"${int(value):,}.00"' for value in whole(900, 9000)],
    }


def used_cars() -> Columns:
    return {
        "": [str(row) for row in range(ROWS)],
        "Name": [f"Maruti Model {row} LXI" for row in range(ROWS)],
        "Location": some("Mumbai", "Pune", "Kochi"),
        "Year": whole(1998, 2020),
        "Kilometers_Driven": whole(171, 200000),
        "Owner_Type": [*some("First", "Second")[:-3], "Third", "Third", "Fourth & Above"],
        "Mileage": with_gaps([f"{value} kmpl" for value in numbers(8, 33)], every=90),
        "Power": with_gaps([f"{value} bhp" for value in numbers(34, 560)], "null bhp", every=60),
        "New_Price": with_gaps([f"{value} Lakh" for value in numbers(3, 99)], every=2),
        "Price": numbers(0.4, 160),
    }


TABLES: dict[str, tuple[Callable[[], Columns], str, str, dict[str, str]]] = {
    "California housing": (
        california_housing,
        "median_house_value",
        ",",
        {"total_bedrooms": "number", "ocean_proximity": "category"},
    ),
    "Ames housing": (
        ames_housing,
        "SalePrice",
        ",",
        {"Order": "left out", "PID": "left out", "C0": "category", "N0": "number", "Alley": "category"},
    ),
    "medical charges": (medical_charges, "charges", ",", {"age": "number", "smoker": "category"}),
    "diamonds": (diamonds, "price", ",", {"column_1": "left out", "carat": "number", "cut": "category"}),
    "auto mpg": (auto_mpg, "mpg", ",", {"horsepower": "number", "car name": "left out"}),
    "Seoul bikes": (seoul_bikes, "Rented Bike Count", ",", {"Hour": "number", "Temperature(°C)": "number"}),
    "wine quality": (wine_quality, "quality", ";", {"fixed acidity": "number"}),
    "house sales": (house_sales, "price", ",", {"id": "left out", "date": "date", "bedrooms": "number"}),
    "listings": (
        listings,
        "price",
        ",",
        {
            "id": "left out",
            "name": "left out",
            "host_is_superhost": "category",
            "instant": "boolean",
            "last_review": "date",
            "cleaning_fee": "number",
        },
    ),
    "used cars": (
        used_cars,
        "Price",
        ",",
        {
            "column_1": "left out",
            "Name": "left out",
            "Mileage": "number",
            "Power": "number",
            "New_Price": "number",
        },
    ),
}


def written(columns: Columns, separator: str) -> bytes:
    lines = [
        separator.join(columns),
        *(separator.join(map(str, row)) for row in zip(*columns.values(), strict=True)),
    ]
    return "\n".join([*lines, ""]).encode()


@pytest.mark.parametrize("name", TABLES)
def test_a_target_is_enough_and_what_trained_is_scored(tmp_path: Path, store: Store, name: str) -> None:
    make, column, separator, kinds = TABLES[name]
    content = written(make(), separator)
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    recipe = make_recipe({"target": {"name": column}, "network": {"kind": "linear"}})
    published = fit(path, recipe, "model", store)
    found = {decision.name: decision.words for decision in published.learned.findings.decisions}
    assert {name: found[name] for name in kinds} == kinds
    assert published.manifest.training.rows == ROWS
    version = store.load("model", 1)
    answer = score(Served(version, 1000), content)
    assert {row["error"] for row in answer.rows} == {""}
    assert len(answer.rows) == ROWS
    # The cost that training found is that of the answers, so every cell was read as the same number.
    assert mean_squared_error(answer.rows, column) == pytest.approx(version.manifest.training.cost, rel=1e-9)


def mean_squared_error(rows: Sequence[Mapping[str, str]], column: str) -> float:
    """The mean squared error of what was answered, in plain Python."""
    actual = [float(row[column].replace("$", "").replace(",", "")) for row in rows]
    answered = [float(row["prediction"]) for row in rows]
    return sum((a - b) ** 2 for a, b in zip(actual, answered, strict=True)) / len(rows)
