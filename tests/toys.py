"""Toy models made without torch: every number in them is computed here, from the formula."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.columns import CategoricalFeature, Category, NumericFeature
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
    for index in range(len(network.layers)):
        if index and isinstance(network, Mlp):
            z = np.maximum(z, 0) if network.activation == "relu" else np.tanh(z)
        z = z @ weights[f"layers.{index}.weight"].T + weights[f"layers.{index}.bias"]
    predictions: NDArray[np.float64] = z[:, 0]
    return predictions


def toy_description(network: Linear | Mlp | None = None, seed: int = 1, **changes: Any) -> Description:
    """A toy's description, with golden rows from the oracle."""
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
    return Description(**fields | changes)


def publish_toy(store: Store, network: Linear | Mlp | None = None, seed: int = 1, **changes: Any) -> Manifest:
    """Publish a toy as the next version."""
    description = toy_description(network, seed, **changes)
    weights = dump_weights(toy_weights(description.network, 5, seed))
    return store.publish(description, weights, lambda _number: {"history.csv": b"epoch,cost\n0,1.0\n"})


def sealed_json(fields: Mapping[str, Any]) -> bytes:
    """The oracle of a JSON document that ends with the SHA-256 of all that stands before it."""
    body = json.dumps(fields, indent=2, ensure_ascii=False).removesuffix("\n}")
    return f'{body},\n  "checksum": "{hashlib.sha256(body.encode()).hexdigest()}"\n}}\n'.encode()
