"""A SYNTHETIC used-cars table: no row of it describes a real car or a real offer.

It stands in for a public table that may not be redistributed. Columns, formats, shares and quantiles follow
that table; four sums are made equal to its sums, so that a line fitted to either one is the same line.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

NOTICE: Final = "Synthetic data: every row is generated, none describes a real car or a real offer."

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

COLUMNS: Final = [
    "Name", "Location", "Year", "Kilometers_Driven", "Fuel_Type", "Transmission", "Owner_Type",
    "Mileage", "Engine", "Power", "Seats", "New_Price", "Price",
]  # fmt: skip
SEGMENTS: Final = {  # what the badge adds to the logarithm of the price, seats, names
    "small": (0.0, 4.7, ("Maruti Alto", "Hyundai EON", "Datsun GO", "Renault KWID", "Tata Nano")),
    "hatch": (0.1, 5, ("Maruti Swift", "Maruti Wagon R", "Hyundai i20", "Honda Jazz", "Ford Figo")),
    "sedan": (0.15, 5, ("Honda City", "Honda Amaze", "Hyundai Verna", "Maruti Ciaz", "Volkswagen Vento")),
    "suv": (0.3, 7, ("Toyota Innova", "Toyota Fortuner", "Mahindra XUV500", "Mahindra Scorpio")),
    "luxury": (0.65, 5, ("Audi A4", "Audi Q7", "BMW 3 Series", "BMW X5", "Mercedes-Benz E-Class")),
    "sport": (0.5, 4.4, ("Porsche Cayenne", "BMW 7 Series", "Mercedes-Benz S Class", "Jaguar XJ")),
}
ENGINES: Final = (  # cars, segment, fuel, cc, bhp, kmpl
    (253, "small", "Petrol", 796, 47, 21.5), (275, "hatch", "Petrol", 998, 67, 20.5),
    (176, "hatch", "Petrol", 1086, 63, 17.5), (1066, "hatch", "Petrol", 1197, 82, 18.7),
    (652, "hatch", "Diesel", 1248, 75, 23.5), (360, "sedan", "Diesel", 1461, 90, 21.5),
    (650, "sedan", "Petrol", 1497, 116, 17.0), (375, "sedan", "Diesel", 1498, 99, 22.5),
    (232, "sedan", "Diesel", 1582, 124, 20.5), (212, "sedan", "Petrol", 1798, 135, 14.0),
    (60, "luxury", "Petrol", 1984, 180, 13.7), (180, "luxury", "Diesel", 1968, 174, 17.5),
    (290, "luxury", "Diesel", 1995, 188, 18.0), (240, "suv", "Diesel", 2179, 138, 14.5),
    (180, "luxury", "Diesel", 2143, 182, 15.0), (310, "suv", "Diesel", 2494, 110, 13.2),
    (180, "suv", "Diesel", 2982, 168, 12.2), (92, "sport", "Petrol", 2995, 260, 11.0),
    (206, "luxury", "Diesel", 2967, 238, 12.5), (30, "sport", "Petrol", 4806, 370, 9.5),
)  # fmt: skip
CITIES: Final = {  # number of cars, from the cheapest city to the dearest
    "Jaipur": 413, "Kolkata": 535, "Pune": 622, "Chennai": 494, "Ahmedabad": 224, "Hyderabad": 742,
    "Mumbai": 790, "Delhi": 554, "Kochi": 651, "Bangalore": 358, "Coimbatore": 636,
}  # fmt: skip
YEARS: Final = dict(enumerate((
    4, 2, 4, 8, 15, 17, 31, 57, 78, 125, 174, 198, 342, 466, 580, 649, 797, 744, 741, 587, 298, 102,
), start=1998))  # fmt: skip
OWNERS: Final = {"First": 4929, "Second": 968, "Third": 113, "Fourth & Above": 9}
GEARS: Final = {"Manual": 4299, "Automatic": 1720}
CONVERTED: Final = {"CNG": 56, "LPG": 10, "Electric": 2}
SEATS: Final = {2: 16, 4: 99, 5: 5056, 6: 31, 7: 675, 8: 134, 9: 3, 10: 5}
NO_ENGINE, NO_SEATS, NO_NEW_PRICE, ZERO_MILEAGES = 36, 42, 5195, 68

PROBABILITIES: Final = (0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.82, 0.9, 0.95, 0.99, 0.999, 1)
KM: Final = (900, 4040, 13000, 20000, 34000, 53000, 73000, 81000, 97000, 120000, 172000, 285000, 720000)
KMPL: Final = (6.4, 10.1, 11.7, 12.8, 15.3, 18.2, 21.1, 22.5, 24, 25.47, 28.1, 33.4, 33.54)
BHP: Final = (34.2, 40, 58.2, 67, 77, 98.6, 138.1, 164, 184, 204, 282, 450, 560)
LAKH: Final = (0.44, 0.9, 1.7, 2.3, 3.5, 5.64, 9.95, 13.6, 22.2, 32, 55, 86, 160)

# The published means, deviation and slope are those of these sums; prices are in hundredths of a lakh.
OUTLIER_KM: Final = 6_500_000
KM_SUM: Final = 353_546_311
KM_SQUARES: Final = 70_896_688_140_235
PRICE_SUM: Final = 5_705_692
KM_PRICE_SUM: Final = 328_080_752_773


def used_cars(seed: int = 0) -> pd.DataFrame:
    """6,019 synthetic cars with the published statistics; the same seed gives the same table."""
    rng = np.random.Generator(np.random.PCG64(seed))
    cars = _cars(rng)
    cars["Kilometers_Driven"], cars["hundredths"] = _calibrated(cars["driven"].to_numpy(), _prices(cars, rng))
    table = _as_published(cars, rng)
    _leave_blanks(table, rng)
    table.attrs["notice"] = NOTICE
    return table


def write_used_cars(path: Path) -> None:
    """Write the table as CSV, byte for byte the same each time."""
    used_cars().to_csv(path, float_format="%g", lineterminator="\r\n")


def _cars(rng: np.random.Generator) -> pd.DataFrame:
    cars = _engines(rng)
    noise = rng.standard_normal((7, len(cars)))
    cars["Location"] = _dealt(noise[0], CITIES)
    cars["Year"] = _dealt(noise[1], YEARS)
    cars["Owner_Type"] = _dealt(noise[2] - 0.2 * cars["Year"], OWNERS)
    cars["bhp"] = _shaped(np.log(cars["bhp"]) + 0.1 * noise[3], BHP, rng).round(2)
    cars["Seats"] = pd.Series(_dealt(cars["room"] + 0.3 * noise[4], SEATS), dtype="Int64")
    comfort = np.log(cars["bhp"]) + 1.5 * cars["premium"] - 0.2 * (cars["Fuel_Type"] == "Diesel")
    cars["Transmission"] = _dealt(comfort + 0.3 * noise[5], GEARS)
    use = 0.4 * (cars["Fuel_Type"] == "Diesel") - 0.2 * cars["Year"]
    cars["driven"] = _shaped(use + noise[6], KM, rng)
    return cars


def _engines(rng: np.random.Generator) -> pd.DataFrame:
    segments = pd.DataFrame.from_dict(SEGMENTS, orient="index", columns=["premium", "room", "names"])
    engines = pd.DataFrame(ENGINES, columns=["cars", "segment", "Fuel_Type", "cc", "bhp", "kmpl"])
    cars = engines.loc[engines.index.repeat(engines["cars"])].join(segments, on="segment")
    cars = cars.sample(frac=1, random_state=rng, ignore_index=True)
    small = np.flatnonzero((cars["Fuel_Type"] == "Petrol") & (cars["cc"] < 1300))
    converted = rng.choice(small, sum(CONVERTED.values()), replace=False)
    cars.loc[converted, "Fuel_Type"] = np.repeat(list(CONVERTED), list(CONVERTED.values()))
    cars.loc[cars["Fuel_Type"] == "CNG", "kmpl"] *= 1.4
    # By its 72 CC alone an electric car would be the cheapest; the premium makes up for it.
    cars.loc[cars["Fuel_Type"] == "Electric", ["cc", "premium"]] = 72, 2.4
    return cars


def _prices(cars: pd.DataFrame, rng: np.random.Generator) -> Floats:
    log_price = 0.9 * np.log(cars["bhp"]) + 0.4 * np.log(cars["cc"]) + cars["premium"] + 0.13 * cars["Year"]
    log_price += 0.25 * (cars["Transmission"] == "Automatic") - 0.15 * (cars["Fuel_Type"] == "Petrol")
    log_price -= 0.07 * cars["Owner_Type"].map(list(OWNERS).index)
    log_price += 0.02 * cars["Location"].map(list(CITIES).index)
    return _shaped(log_price + 0.19 * rng.standard_normal(len(cars)), LAKH, rng)


def _rank(score: ArrayLike) -> Ints:
    return np.argsort(np.argsort(score, kind="stable"))


def _dealt(score: ArrayLike, counts: Mapping[Any, int]) -> NDArray[Any]:
    """Each value exactly as often as counted, in the order of the score."""
    return np.repeat(np.array(list(counts)), list(counts.values()))[_rank(score)]


def _shaped(score: ArrayLike, quantiles: tuple[float, ...], rng: np.random.Generator) -> Floats:
    """Numbers with these quantiles, in the order of the score."""
    rank = _rank(score)
    return np.exp(np.interp((rank + rng.random(len(rank))) / len(rank), PROBABILITIES, np.log(quantiles)))


def _calibrated(km: Floats, lakh: Floats) -> tuple[Ints, Ints]:
    """Whole kilometres and hundredths of a lakh with exactly the published sums."""
    price = np.rint(lakh * (PRICE_SUM / lakh.sum())).astype(np.int64)
    # The outlier goes where it turns the slope nearest to the published one.
    outlier = int(np.argmin(np.abs(price * (OUTLIER_KM - km) - (KM_PRICE_SUM - km @ price))))
    whole_km = np.insert(_calibrated_km(np.delete(km, outlier)), outlier, OUTLIER_KM)
    price[outlier] += (KM_PRICE_SUM - int(whole_km @ price)) // OUTLIER_KM
    _add(price, PRICE_SUM - int(price.sum()))
    # A hundredth moved from a car to one that has gone g further adds g to the sum of products.
    while missing := KM_PRICE_SUM - int(whole_km @ price):
        _move_one(price, whole_km, missing)
    return whole_km, price


def _calibrated_km(km: Floats) -> Ints:
    total, squares = KM_SUM - OUTLIER_KM, KM_SQUARES - OUTLIER_KM**2
    mean = total / len(km)
    deviation = np.sqrt(squares / len(km) - mean**2)
    whole: Ints = np.rint(mean + (km - km.mean()) * (deviation / km.std())).astype(np.int64)
    _add(whole, total - int(whole.sum()))
    # One kilometre moved from a car to one that has gone g further adds 2 (g + 1) to the sum of squares.
    while missing := (squares - int(whole @ whole)) // 2:
        _move_one(whole, whole, missing - 1)
    return whole


def _add(numbers: Ints, total: int) -> None:
    each, rest = divmod(total, len(numbers))
    numbers += each
    numbers[:rest] += 1


def _move_one(numbers: Ints, km: Ints, gap: int) -> None:
    """Move one between two numbers, a pair whose kilometres differ by the gap or as near as they can."""
    order = np.argsort(km, kind="stable")
    ranked = km[order]
    givers = np.clip(np.searchsorted(ranked, ranked - gap), 0, len(km) - 1)
    misses = np.abs(ranked - ranked[givers] - gap)
    taker = int(np.argmin(np.where(givers == np.arange(len(km)), np.iinfo(np.int64).max, misses)))
    numbers[order[taker]] += 1
    numbers[order[givers[taker]]] -= 1


def _as_published(cars: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    litres = (cars["cc"] / 1000).map(" {:.1f} ".format)
    cars["Name"] = cars["names"].map(rng.choice) + litres + cars["Fuel_Type"]
    cars["Mileage"] = _mileages(cars, rng)
    cars["Engine"] = cars["cc"].map("{} CC".format)
    cars["Power"] = cars["bhp"].map("{:g} bhp".format)
    cars["Price"] = cars["hundredths"] / 100
    cars["New_Price"] = _new_prices(cars, rng)
    return cars[COLUMNS].copy()


def _mileages(cars: pd.DataFrame, rng: np.random.Generator) -> pd.Series:
    noise = 0.08 * rng.standard_normal(len(cars))
    kmpl = _shaped(np.log(cars["kmpl"]) + 0.025 * cars["Year"] + noise, KMPL, rng).round(2)
    kmpl[rng.choice(len(cars), ZERO_MILEAGES, replace=False)] = 0  # the real table's mark for unknown
    units = cars["Fuel_Type"].map(lambda fuel: "km/kg" if fuel in ("CNG", "LPG") else "kmpl")
    mileages = pd.Series(kmpl).astype(str) + " " + units
    return mileages.mask(cars["Fuel_Type"] == "Electric")


def _new_prices(cars: pd.DataFrame, rng: np.random.Generator) -> pd.Series:
    noise = rng.standard_normal((2, len(cars)))
    lost = np.abs(0.14 + 0.12 * (2019 - cars["Year"]) + 0.15 * noise[0])
    lakh = cars["Price"] * np.exp(lost)
    written = [f"{round(value, 2):g} Lakh" if value < 100 else f"{value / 100:.3g} Cr" for value in lakh]
    return pd.Series(written).mask(_rank(cars["Year"] + 2 * noise[1]) < NO_NEW_PRICE)


def _leave_blanks(table: pd.DataFrame, rng: np.random.Generator) -> None:
    blank = rng.choice(np.flatnonzero(table["Fuel_Type"] != "Electric"), NO_SEATS, replace=False)
    table.loc[blank, "Seats"] = pd.NA
    table.loc[blank[:NO_ENGINE], ["Engine", "Power"]] = None
