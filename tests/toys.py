"""Toy models made without torch: every number in them is computed here, from the formula."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.columns import (
    BooleanFeature,
    CategoricalFeature,
    Category,
    DateFeature,
    Feature,
    NumericFeature,
)
from model_store.manifest import (
    SCHEMA_VERSION,
    Description,
    GoldenRow,
    Linear,
    Manifest,
    Mlp,
    ResidualQuantiles,
    Target,
    Training,
)
from model_store.predictor import dump_weights
from model_store.store import Store

DECILES = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)
AGE = NumericFeature(
    name="age", mean=5.25, std=2.5, minimum=0.5, maximum=10.0, deciles=DECILES, unit="years", example=4.0
)
POWER = NumericFeature(
    name="power 'bhp' / ñ~",
    mean=100.1,
    std=33.3,
    minimum=40.0,
    maximum=300.0,
    deciles=(66.0, 92.0, 118.0, 144.0, 170.0, 196.0, 222.0, 248.0, 274.0),
    example=90.5,
)
FUEL = CategoricalFeature(
    name="fuel type",
    categories=(
        Category(value="petrol", rows=7),
        Category(value="diesel", rows=5),
        Category(value="a,b", rows=1),
    ),
    example="diesel",
)
FEATURES = (AGE, POWER, FUEL)
TARGET = Target(name="price", mean=9.5, std=11.0, minimum=0.4, maximum=160.0, deciles=DECILES, unit="lakh")


def toy_weights(network: Linear | Mlp, inputs: int, seed: int = 1) -> dict[str, NDArray[np.float64]]:
    """Random tensors of the network's shapes."""
    rng = np.random.default_rng(seed)
    weights = {}
    for index, units in enumerate(network.layers):
        weights[f"layers.{index}.weight"] = rng.normal(size=(units, inputs))
        weights[f"layers.{index}.bias"] = rng.normal(size=units)
        inputs = units
    return weights


def toy_rows(count: int, seed: int = 2) -> list[dict[str, float | str | None]]:
    """Random raw rows, every category among them."""
    rng = np.random.default_rng(seed)
    return [
        {
            AGE.name: float(rng.uniform(0.5, 10)),
            POWER.name: float(rng.uniform(40, 300)),
            FUEL.name: FUEL.values[index % 3],
        }
        for index in range(count)
    ]


def expected_predictions(
    network: Linear | Mlp,
    weights: Mapping[str, NDArray[np.float64]],
    rows: Sequence[Mapping[str, Any]],
) -> NDArray[np.float64]:
    """The oracle: the textbook formula in plain numpy with its own encoding, a matrix product a layer."""
    z = np.array(
        [
            [(row[AGE.name] - AGE.mean) / AGE.std, (row[POWER.name] - POWER.mean) / POWER.std]
            + [1.0 if row[FUEL.name] == value else 0.0 for value in FUEL.values]
            for row in rows
        ]
    )
    return expected_outputs(network, weights, z)


def expected_outputs(
    network: Linear | Mlp, weights: Mapping[str, NDArray[np.float64]], z: NDArray[np.float64]
) -> NDArray[np.float64]:
    """What the network gives for encoded rows, (n,)."""
    for index in range(len(network.layers)):
        if index and isinstance(network, Mlp):
            z = np.maximum(z, 0) if network.activation == "relu" else np.tanh(z)
        z = z @ weights[f"layers.{index}.weight"].T + weights[f"layers.{index}.bias"]
    predictions: NDArray[np.float64] = z[:, 0]
    return predictions


def with_bounds(
    golden: Sequence[GoldenRow], interval: ResidualQuantiles | None, transform: str = "none"
) -> tuple[GoldenRow, ...]:
    """The golden rows with the interval's bounds beside their predictions; without an interval, without."""
    if interval is None:
        return tuple(row.model_copy(update={"lower": None, "upper": None}) for row in golden)

    def bound(prediction: float, residual: float) -> float:
        if interval.scale:
            output = math.log(prediction) if transform == "log" else prediction
            residual *= float(np.interp(output, interval.scale.outputs, interval.scale.sizes))
        return prediction * math.exp(residual) if transform == "log" else prediction + residual

    return tuple(
        row.model_copy(
            update={
                "lower": bound(row.prediction, interval.lower),
                "upper": bound(row.prediction, interval.upper),
            }
        )
        for row in golden
    )


def toy_description(network: Linear | Mlp | None = None, seed: int = 1, **changes: Any) -> Description:
    """A toy's description, with golden rows from the oracle, their bounds as its interval has them."""
    network = network or Linear()
    weights = toy_weights(network, 5, seed)
    rows = toy_rows(32)
    predictions = expected_predictions(network, weights, rows)
    fields: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "name": "toy",
        "target": TARGET,
        "features": FEATURES,
        "network": network,
        "training": Training(
            optimizer="gd",
            learning_rate=0.1,
            epochs=1,
            seed=seed,
            rows=13,
            cost=1.0,
            data_sha256="0" * 64,
            libraries={},
        ),
        "metrics": None,
        "interval": ResidualQuantiles(coverage=0.9, lower=-1.5, upper=2.5),
        "golden": tuple(
            GoldenRow(inputs=row, prediction=float(prediction))
            for row, prediction in zip(rows, predictions, strict=True)
        ),
    }
    fields |= changes
    golden = with_bounds(fields["golden"], fields["interval"], fields["target"].transform)
    return Description(**fields | {"golden": golden})


def publish_toy(store: Store, network: Linear | Mlp | None = None, seed: int = 1, **changes: Any) -> Manifest:
    """Publish a toy as the next version."""
    description = toy_description(network, seed, **changes)
    weights = dump_weights(toy_weights(description.network, 5, seed))
    return store.publish(description, weights, lambda _number: {"history.csv": b"epoch,cost\n0,1.0\n"})


def sealed_json(fields: Mapping[str, Any]) -> bytes:
    """The oracle of a JSON document that ends with the SHA-256 of all that stands before it."""
    body = json.dumps(fields, indent=2, ensure_ascii=False).removesuffix("\n}")
    return f'{body},\n  "checksum": "{hashlib.sha256(body.encode()).hexdigest()}"\n}}\n'.encode()


# Another toy, with every kind of input and every way in which a value may be missing or new.
KM = NumericFeature(
    **AGE.model_dump(exclude={"name", "unit", "fill", "missing_share"}),
    name="km",
    fill=4.5,
    missing_share=0.25,
)
PORT = CategoricalFeature(
    name="port",
    categories=(Category(value="Hafen", rows=7), Category(value="NA", rows=2), Category(value="Kai", rows=4)),
    missing=5,
    other=2,
    example="Kai",
)
COLOUR = CategoricalFeature(
    name="colour",
    categories=(Category(value="red", rows=12), Category(value="None", rows=8)),
    missing=0,
    other=0,
    example="red",
)
GRADE = CategoricalFeature(
    name="grade", categories=(Category(value="a,{b}", rows=19),), missing=1, example="a,{b}"
)
# From 2017-12-01 to 2018-11-30; none in April, none at 11, from 17 to 20 and at 23 o'clock.
SOLD = DateFeature(
    name="sold",
    mean=17666.25,
    std=105.5,
    minimum=17501.0,
    maximum=17865.875,
    deciles=(17540.0, 17575.0, 17610.0, 17650.0, 17680.0, 17720.0, 17750.0, 17790.0, 17830.0),
    parts={
        "month": (2, 2, 2, 0, 2, 2, 2, 2, 2, 2, 1, 1),
        "weekday": (3, 3, 3, 3, 3, 3, 2),
        "hour": (2,) + (1,) * 10 + (0,) + (1,) * 5 + (0,) * 4 + (2, 1, 0),
    },
    example="2018-05-13T10:30",
)
BUILT = DateFeature(
    name="built",
    mean=10957.0,
    std=3000.0,
    minimum=3652.0,
    maximum=17000.0,
    deciles=(4000.0, 5000.0, 6000.0, 7000.0, 8000.0, 9000.0, 10000.0, 12000.0, 15000.0),
    format="%d/%m/%Y",
    example="2000-02-29",
)
RPM = NumericFeature(
    name="rpm",
    mean=3000.0,
    std=1250.0,
    minimum=800.0,
    maximum=7000.0,
    deciles=(1000.0, 1500.0, 2000.0, 2500.0, 3000.0, 3500.0, 4000.0, 4500.0, 5500.0),
    clip=True,
    clipped_mean=-0.0625,
    knots=(800.0, 2000.0, 3000.0, 4500.0, 7000.0),
    shares=(0.125, 0.25, 0.25, 0.25, 0.125),
    fill=3100.0,
    missing_share=0.125,
    unit="1/min",
    example=2500.0,
)
HYBRID = BooleanFeature(name="hybrid", trues=5, falses=11, missing=4, example=True)
TURBO = BooleanFeature(name="turbo", trues=2, falses=18, example=False)
ALL_KINDS: tuple[Feature, ...] = (KM, PORT, COLOUR, GRADE, SOLD, BUILT, HYBRID, TURBO, RPM)


def one_of(values: Sequence[object], value: object) -> list[float]:
    """1.0 at the place of a value."""
    return [float(value == each) for each in values]


def moment_of(text: str) -> datetime:
    """The moment that an ISO date or a day/month/year stands for."""
    if "/" in text:
        day, month, year = map(int, text.split("/"))
        return datetime(year, month, day, tzinfo=UTC)
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def days_of(moment: datetime) -> float:
    """Days since 1970."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() / 86400


def encoded_part(part: str, number: int) -> list[float]:
    """1.0 for the month, weekday or hour, all shares for one that was not in training."""
    rows: tuple[int, ...] = SOLD.model_dump()["parts"][part]
    seen = [value for value, count in enumerate(rows) if count]
    return one_of(seen, number) if number in seen else [rows[value] / sum(rows) for value in seen]


def encoded_rpm(rpm: float | None) -> list[float]:
    """The clipped z-score, the hats by linear interpolation of each knot's own vector, and the mark."""
    x = 3100.0 if rpm is None else rpm
    z = (x - 3000.0) / 1250.0
    hats = [float(np.interp(x, RPM.knots, unit)) for unit in np.eye(5)]
    return [z / math.sqrt(1 + z**2 / 9), *hats, float(rpm is None)]


def encoded_row(row: Mapping[str, Any]) -> list[float]:
    """The oracle of the encoding of a row of all kinds."""
    km, sold = row["km"], moment_of(row["sold"])
    port = row["port"] if row["port"] in {"Hafen", "NA", "Kai", None} else "another"
    days, hybrid = days_of(sold), row["hybrid"]
    return [
        ((4.5 if km is None else km) - 5.25) / 2.5,
        float(km is None),
        *one_of(("Hafen", "NA", "Kai", None, "another"), port),
        *(one_of(("red", "None"), row["colour"]) if row["colour"] in {"red", "None"} else [12 / 20, 8 / 20]),
        *one_of(("a,{b}", None), row["grade"]),
        (days - 17666.25) / 105.5,
        *encoded_part("month", sold.month - 1),
        *encoded_part("weekday", sold.weekday()),
        *encoded_part("hour", sold.hour),
        (days_of(moment_of(row["built"])) - 10957.0) / 3000.0,
        5 / 16 if hybrid is None else float(hybrid),
        float(hybrid is None),
        float(row["turbo"]),
        *encoded_rpm(row["rpm"]),
    ]


def rows_of_all_kinds(count: int, seed: int = 2) -> list[dict[str, Any]]:
    """Random raw rows as JSON has them, with missing values and new categories among them."""
    rng = np.random.default_rng(seed)
    first = datetime(2017, 12, 1, tzinfo=UTC)
    return [
        {
            "km": None if rng.random() < 0.2 else float(rng.uniform(0, 11)),
            "port": [*PORT.values, None, "Werft"][rng.integers(5)],
            "colour": [*COLOUR.values, None, "mauve"][rng.integers(4)],
            "grade": [*GRADE.values, None][rng.integers(2)],
            "sold": f"{first + timedelta(seconds=int(rng.integers(31_530_000))):%Y-%m-%dT%H:%M:%S}",
            "built": f"{rng.integers(1, 29):02}/{rng.integers(1, 13):02}/{rng.integers(1980, 2016)}",
            "hybrid": [True, False, None][rng.integers(3)],
            "turbo": bool(rng.integers(2)),
            "rpm": None if rng.random() < 0.2 else float(rng.uniform(700, 7500)),
        }
        for _ in range(count)
    ]


def expected_for_all_kinds(
    network: Linear | Mlp, weights: Mapping[str, NDArray[np.float64]], rows: Sequence[Mapping[str, Any]]
) -> NDArray[np.float64]:
    """The oracle of the predictions for rows of all kinds."""
    return expected_outputs(network, weights, np.array([encoded_row(row) for row in rows]))


def publish_all_kinds(store: Store, network: Linear | Mlp | None = None, seed: int = 1) -> Manifest:
    """Publish the toy of all kinds as the next version."""
    rows = rows_of_all_kinds(64)
    network, width = network or Linear(), len(encoded_row(rows[0]))
    weights = toy_weights(network, width, seed)
    predictions = expected_for_all_kinds(network, weights, rows).tolist()
    golden = tuple(
        GoldenRow(inputs=row, prediction=prediction)
        for row, prediction in zip(rows, predictions, strict=True)
    )
    description = toy_description(network, seed, features=ALL_KINDS, golden=golden)
    return store.publish(description, dump_weights(weights), lambda _number: {})
