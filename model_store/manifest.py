"""The manifest: everything about a version but its weights, as a closed schema.

A field nobody declared is refused, numbers are finite, and float64 survives the round trip through JSON
exactly. The SHA-256 of the manifest's bytes is the version's *digest*. Still read are schema version 3, whose
golden rows had no bounds, 2, which knew no dates and booleans nor levels for missing and other categories,
and 1, which did not end with a checksum either.
"""

import hashlib
import re
from collections.abc import Callable
from typing import Annotated, Final, Literal, Self, TypeVar

import numpy as np
from pydantic import (
    AfterValidator,
    AwareDatetime,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from model_store._sealed import dump, is_sealed, parse
from model_store.columns import Feature, Matrix
from model_store.errors import InvalidName, ManifestInvalid
from model_store.forms import Form
from model_store.parts import ColumnName, Part, Range, Sha256, refuse_repeats
from model_store.scale import Scale

SCHEMA_VERSION = 4
WEIGHTS: Final = "weights.safetensors"
HISTORY: Final = "history.csv"
REPORT: Final = "report.html"
RECIPE: Final = "recipe.toml"
MANIFEST: Final = "manifest.json"
FEWEST_GOLDEN_ROWS = 32
Number = TypeVar("Number", float, Matrix)


def known_schema(number: int) -> int:
    """Raise ValueError for a schema version that this program does not read."""
    if not 1 <= number <= SCHEMA_VERSION:
        message = f"schema version {number} is not one this program reads, 1 to {SCHEMA_VERSION}: upgrade it"
        raise ValueError(message)
    return number


class Target(Range):
    """The number that is predicted; with the transform `log` the network gives its natural logarithm.

    The exponential of a mean logarithm is a median. With `smearing`, the mean of the training residuals'
    exponentials (Duan, Smearing Estimate: A Nonparametric Retransformation Method, 1983), predictions are
    means; the network's last bias has its logarithm in it already.
    """

    name: ColumnName
    unit: str | None = None
    transform: Literal["none", "log"] = "none"
    smearing: PositiveFloat | None = None

    @property
    def estimate(self) -> str:
        """What a prediction is an estimate of: the target's mean or its median."""
        return "median" if self.transform == "log" and self.smearing is None else "mean"

    def untransformed(self, outputs: Number) -> Number:
        """The target in its own unit from what the network gives: a float, or any array."""
        if self.transform == "none":
            return outputs
        with np.errstate(over="ignore"):
            values: Number = np.exp(outputs)
            return values


class Linear(Part):
    """prediction = encoded row · weight + bias."""

    kind: Literal["linear"] = "linear"

    @property
    def layers(self) -> tuple[int, ...]:
        """Units of every layer, the output last."""
        return (1,)


class Mlp(Part):
    """A multilayer perceptron: the activation after every layer but the last."""

    kind: Literal["mlp"] = "mlp"
    hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1, max_length=16)]
    activation: Literal["relu", "tanh"] = "relu"

    @property
    def layers(self) -> tuple[int, ...]:
        """Units of every layer, the output last."""
        return (*self.hidden, 1)


Network = Annotated[Linear | Mlp, Field(discriminator="kind")]


class RandomSplit(Part):
    """Rows that are scored on are drawn at random."""

    kind: Literal["random"] = "random"


class TimeSplit(Part):
    """Rows that are scored on come later, by `column`, than those that the model was fitted on.

    The column holds numbers or ISO 8601 dates, or dates of the strptime format `format`.
    """

    kind: Literal["time"] = "time"
    column: ColumnName
    format: str | None = None


class GroupSplit(Part):
    """Rows that agree in `column` are scored on together, by a model that saw none of them."""

    kind: Literal["group"] = "group"
    column: ColumnName


Split = Annotated[RandomSplit | TimeSplit | GroupSplit, Field(discriminator="kind")]


class Training(Part):
    """How the weights came about: enough to make them again, bit for bit.

    `cost` is the mean squared error of the shipped weights on the rows, in the unit of the network's output
    squared, weighted where the column `weight` says how much each row counts; `optimum` is the least that any
    line reaches there. `rank` is how many of a line's weights the rows determine, `condition` the ratio of
    the greatest to the least of the singular values that do. `ridge` is the strength of the penalty on the
    weights of a line or of an additive model, `additive_share` the share of this in an ensemble of so many
    `members`. `cross_validate` is the number of folds that scored in place of `holdout`. `form` is that of
    the table, if it was text.
    """

    optimizer: str
    learning_rate: PositiveFloat
    epochs: NonNegativeInt
    batch_size: PositiveInt | None = None
    seed: int
    normalize: Literal["z-score", "none"] = "z-score"
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    split: Split = RandomSplit()
    cross_validate: PositiveInt | None = None
    weight: ColumnName | None = None
    missing: Literal["drop", "mean"] = "drop"
    dropped: dict[str, PositiveInt] = Field(default_factory=dict)
    rows: PositiveInt
    cost: float
    optimum: float | None = None
    rank: PositiveInt | None = None
    condition: PositiveFloat | None = None
    ridge: Annotated[float, Field(ge=0)] | None = None
    members: PositiveInt | None = None
    additive_share: Annotated[float, Field(ge=0, le=1)] | None = None
    data_sha256: Sha256
    form: Form | None = None
    libraries: dict[str, str]


class Scores(Part):
    """Errors on the held-out rows: `mse` in the target's unit squared, `rmse` and `mae` in its unit."""

    mse: float
    rmse: float
    mae: float
    r2: float


class Folds(Part):
    """The model's scores over the folds of a cross-validation: their mean and sample standard deviation."""

    count: PositiveInt
    mean: Scores
    std: Scores


class Uncertainty(Part):
    """Bounds of the scores on endlessly many rows like those held out, with confidence `coverage`."""

    coverage: Annotated[float, Field(gt=0, lt=1)]
    lower: Scores
    upper: Scores


class Metrics(Part):
    """The held-out scores of the model and of the two it has to beat.

    `since` is the earliest held-out time where the rows are split by time. With `folds` each score is that of
    all their held-out rows together. `uncertainty` is that of the model's scores.
    """

    rows: PositiveInt
    model: Scores
    predict_the_mean: Scores
    least_squares: Scores
    since: str | None = None
    folds: Folds | None = None
    uncertainty: Uncertainty | None = None

    @property
    def spread(self) -> Folds | None:
        """How the scores vary over the folds, where a fold has ten rows or more: fewer say nothing."""
        return self.folds if self.folds and self.rows >= 10 * self.folds.count else None

    @property
    def is_worse_than_the_mean(self) -> bool:
        """Whether predicting the mean errs less, beyond what is uncertain; False where that is not known."""
        return self.uncertainty is not None and self.uncertainty.upper.r2 < self.predict_the_mean.r2

    def how_held_out(self, split: Split) -> str:
        """What to say behind 'held-out rows'; nothing of rows that were drawn at random once."""
        folds = f" in {self.folds.count} folds" if self.folds else ""
        if split.kind == "random":
            return folds
        if split.kind == "group":
            return f"{folds}, whole groups by {split.column}"
        order = "each later than the rows fitted on" if folds else "the last in time"
        return f"{folds}, {order} by {split.column}, from {self.since} on"


class ResidualQuantiles(Part):
    """Held-out residuals (actual - predicted) that bound `coverage` of new rows.

    They are in the unit of the network's output: the target's, or its natural logarithm. With a `scale` they
    are multiples of its size at the output, so that the interval is wider where the model errs more.
    `method` says whose residuals they are: those of one model's held-out rows, or of every row by the model
    of its fold.
    """

    coverage: Annotated[float, Field(gt=0, lt=1)]
    lower: float
    upper: float
    method: Literal["split conformal", "cross-validation"] = "split conformal"
    scale: Scale | None = None

    def bounds(self, outputs: Matrix) -> tuple[Matrix, Matrix]:
        """The bounds around outputs (n,) of the network, lower and upper, each (n,)."""
        size = 1.0 if self.scale is None else self.scale.at(outputs)
        return outputs + self.lower * size, outputs + self.upper * size

    def row_bounds(self) -> Callable[[float], tuple[float, float]]:
        """What gives the bounds around one output: the same bits as `bounds`."""
        lower, upper = self.lower, self.upper
        if self.scale is None:
            return lambda output: (output + lower, output + upper)
        size_at = self.scale.row_scale()

        def bounds(output: float) -> tuple[float, float]:
            size = size_at(output)
            return output + lower * size, output + upper * size

        return bounds

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if self.lower > self.upper:
            message = "lower is above upper"
            raise ValueError(message)
        return self


class GoldenRow(Part):
    """A raw row and the prediction that torch made for it, with the interval's bounds if it has one."""

    inputs: dict[str, bool | float | str | None]
    prediction: float
    lower: float | None = None
    upper: float | None = None


class FileEntry(Part):
    """What a file of the version must be; `size` in bytes."""

    size: PositiveInt
    sha256: Sha256

    @classmethod
    def of(cls, content: bytes) -> Self:
        """Describe `content`."""
        return cls(size=len(content), sha256=hashlib.sha256(content).hexdigest())


class Description(Part):
    """What training knows of a model before the store gives it a version number."""

    schema_version: Annotated[int, AfterValidator(known_schema)]
    name: str
    target: Target
    features: Annotated[tuple[Feature, ...], Field(min_length=1)]
    network: Network
    training: Training
    metrics: Metrics | None
    interval: ResidualQuantiles | None
    golden: Annotated[tuple[GoldenRow, ...], Field(min_length=FEWEST_GOLDEN_ROWS)]

    @property
    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """The tensors the network needs: `layers.k.weight` (units, inputs) and `layers.k.bias` (units,)."""
        shapes: dict[str, tuple[int, ...]] = {}
        inputs = sum(feature.width for feature in self.features)
        for index, units in enumerate(self.network.layers):
            shapes[f"layers.{index}.weight"] = (units, inputs)
            shapes[f"layers.{index}.bias"] = (units,)
            inputs = units
        return shapes

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not is_name(self.name):
            message = "its name cannot name a model"
            raise ValueError(message)
        if self.schema_version > 3 and self.interval and not self.interval.lower <= 0 <= self.interval.upper:
            message = "its interval does not hold its own predictions"
            raise ValueError(message)
        names = [feature.name for feature in self.features]
        refuse_repeats(names, "feature")
        needed = [feature.name for feature in self.features if not feature.accepts(None)]
        for index, row in enumerate(self.golden):
            if row.inputs.keys() != set(names) or any(row.inputs[name] is None for name in needed):
                message = f"golden row {index} does not give every feature a value"
                raise ValueError(message)
        return self


class Manifest(Description):
    """A published version: its number, the moment it was made and what its files must be."""

    version: PositiveInt
    created_at: AwareDatetime
    files: dict[Literal["weights.safetensors", "history.csv", "report.html", "recipe.toml"], FileEntry]

    def to_json(self) -> bytes:
        """The bytes of `manifest.json`, whose SHA-256 is the digest."""
        return dump(self)

    @classmethod
    def from_json(cls, content: bytes, path: str) -> Self:
        """Parse the bytes of `manifest.json`, which was read from `path`.

        Raises ManifestInvalid, naming the first field that is wrong.
        """
        try:
            manifest = parse(cls, content)
        except ValueError as error:
            raise ManifestInvalid(path, str(error)) from None
        if is_sealed(content) != (manifest.schema_version > 1):
            raise ManifestInvalid(path, "schema version 1 has no checksum, and every later one has")
        return manifest

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if WEIGHTS not in self.files:
            message = f"files does not list {WEIGHTS}"
            raise ValueError(message)
        return self


def check_name(name: str) -> str:
    """Return `name` if it can name a model, raise InvalidName otherwise."""
    if not is_name(name):
        raise InvalidName(name)
    return name


def is_name(name: str) -> bool:
    """Whether `name` can name a model."""
    return re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}", name) is not None
