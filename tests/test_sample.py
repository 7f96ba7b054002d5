import re
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import ShuffleSplit, cross_val_score

from training.sample import used_cars, write_used_cars

NUMBERS: Final = ["Year", "Kilometers_Driven", "Mileage", "Engine", "Power", "Seats"]
CATEGORIES: Final = ["Fuel_Type", "Transmission", "Owner_Type"]


@pytest.fixture(scope="module")
def cars() -> pd.DataFrame:
    return used_cars()


@pytest.fixture(scope="module")
def km(cars: pd.DataFrame) -> NDArray[np.float64]:
    return cars["Kilometers_Driven"].to_numpy(np.float64)


@pytest.fixture(scope="module")
def price(cars: pd.DataFrame) -> NDArray[np.float64]:
    return cars["Price"].to_numpy(np.float64)


def test_the_mean_of_the_kilometres_is_the_published_one(km: NDArray[np.float64]) -> None:
    assert km.mean() == pytest.approx(58738.38029573019, rel=1e-14)


def test_the_deviation_of_the_kilometres_is_the_published_one(km: NDArray[np.float64]) -> None:
    assert km.std() == pytest.approx(91261.26116318606, rel=1e-14)


def test_the_mean_price_is_the_published_one(price: NDArray[np.float64]) -> None:
    assert price.mean() == pytest.approx(9.479468350224273, rel=1e-14)


def test_the_least_squares_slope_is_the_published_one(
    km: NDArray[np.float64], price: NDArray[np.float64]
) -> None:
    slope, _ = np.polyfit((km - km.mean()) / km.std(), price, 1)
    assert slope == pytest.approx(-0.12856970853884522, abs=1e-12)


def test_one_car_has_gone_six_and_a_half_million_kilometres(km: NDArray[np.float64]) -> None:
    assert np.count_nonzero(km == 6_500_000) == 1


def test_every_other_car_has_gone_a_believable_distance(km: NDArray[np.float64]) -> None:
    others = km[km != 6_500_000]
    assert others.min() >= 171
    assert others.max() <= 775_000


def test_the_file_has_the_published_header_and_number_of_rows(tmp_path: Path) -> None:
    write_used_cars(tmp_path / "cars.csv")
    header, *rows = (tmp_path / "cars.csv").read_text(encoding="utf-8").splitlines()
    assert header == (
        ",Name,Location,Year,Kilometers_Driven,Fuel_Type,Transmission,Owner_Type,"
        "Mileage,Engine,Power,Seats,New_Price,Price"
    )
    assert [row.split(",", 1)[0] for row in rows] == [str(number) for number in range(6019)]


@pytest.mark.parametrize(
    ("column", "pattern"),
    [
        ("Name", r"[\w-]+ [\w -]+ \d\.\d \w+"),
        ("Mileage", r"\d+\.\d{1,2} (kmpl|km/kg)"),
        ("Engine", r"\d+ CC"),
        ("Power", r"\d+(\.\d{1,2})? bhp"),
        ("Seats", r"\d+"),
        ("New_Price", r"\d+(\.\d{1,2})? (Lakh|Cr)"),
        ("Price", r"\d+(\.\d{1,2})?"),
    ],
)
def test_each_cell_is_written_as_in_the_real_table(tmp_path: Path, column: str, pattern: str) -> None:
    write_used_cars(tmp_path / "cars.csv")
    cells = pd.read_csv(tmp_path / "cars.csv", dtype=str)[column].dropna()
    assert [cell for cell in cells if not re.fullmatch(pattern, cell)] == []


def test_gas_is_counted_in_kilograms(cars: pd.DataFrame) -> None:
    by_weight = cars["Mileage"].str.endswith("km/kg", na=False)
    assert set(cars["Fuel_Type"][by_weight]) == {"CNG", "LPG"}


def test_as_many_cells_are_empty_as_in_the_real_table(cars: pd.DataFrame) -> None:
    empty = cars.isna().sum()
    assert empty[empty > 0].to_dict() == {
        "Mileage": 2,
        "Engine": 36,
        "Power": 36,
        "Seats": 42,
        "New_Price": 5195,
    }


@pytest.mark.parametrize(
    ("column", "values"), [("Location", 11), ("Fuel_Type", 5), ("Transmission", 2), ("Owner_Type", 4)]
)
def test_each_category_has_its_values(cars: pd.DataFrame, column: str, values: int) -> None:
    assert cars[column].nunique() == values


def test_prices_are_positive_and_skewed_to_the_right(price: NDArray[np.float64]) -> None:
    assert price.min() > 0
    assert price.mean() > 1.5 * np.median(price)


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    write_used_cars(tmp_path / "first.csv")
    write_used_cars(tmp_path / "second.csv")
    assert (tmp_path / "first.csv").read_bytes() == (tmp_path / "second.csv").read_bytes()


def test_the_same_seed_gives_the_same_table(cars: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(used_cars(seed=0), cars)


def test_another_seed_gives_another_table(cars: pd.DataFrame) -> None:
    assert not used_cars(seed=1).equals(cars)


def test_the_table_says_that_it_is_synthetic(cars: pd.DataFrame) -> None:
    assert "synthetic" in cars.attrs["notice"].lower()


def test_a_linear_model_learns_as_much_as_from_the_real_table(cars: pd.DataFrame) -> None:
    rows = cars.copy()
    for column in ("Mileage", "Engine", "Power"):
        rows[column] = rows[column].str.split().str[0].astype(float)
    rows = rows.dropna(subset=NUMBERS)
    numbers = rows[NUMBERS].astype(float)
    inputs = ((numbers - numbers.mean()) / numbers.std()).join(pd.get_dummies(rows[CATEGORIES]))
    splits = ShuffleSplit(20, test_size=0.2, random_state=0)
    prices = rows["Price"].to_numpy(float)
    scores = cross_val_score(LinearRegression(), inputs.to_numpy(float), prices, cv=splits)
    assert 0.68 < scores.mean() < 0.78
