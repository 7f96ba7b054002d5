"""The golden rows of a version: few raw rows that show every part of a model, with what torch gives for them.

A weight that moves none of them could be wrong unseen, and so could what stands for a missing value or a new
category. Rows of the table are taken where they show it, rows made up of its columns for what is left.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, cycle, islice
from typing import Any, TypeAlias

import numpy as np

from model_store import dates
from model_store.columns import (
    LARGEST,
    OTHER_LEVEL,
    CategoricalFeature,
    Column,
    Columns,
    DateFeature,
    Feature,
    Matrix,
    NumericFeature,
    encode,
)
from model_store.golden import rounding
from model_store.manifest import FEWEST_GOLDEN_ROWS, GoldenRow, ResidualQuantiles
from training.sensitivity import Mask, input_effects, weight_effects
from training.train import Model

RawRow: TypeAlias = dict[str, float | str | bool | None]

MOST_CANDIDATES = 2_000
# Candidates times weights, which bounds the memory.
MOST_EFFECTS = 5_000_000
# A row shows a weight that moves its output beyond rounding and a tenth as far as that of any other row.
BEYOND_ROUNDING, AS_FAR = 2, 0.1
EXAMPLES = 16
# How many times its range a made-up number may lie beyond it.
RANGES = 10
TRIALS = 8


@dataclass(frozen=True)
class Witness:
    """A model that is asked what torch gives for rows, and what moves that."""

    model: Model
    interval: ResidualQuantiles | None

    @property
    def features(self) -> tuple[Feature, ...]:
        """The model's inputs."""
        return self.model.features

    def golden(self, rows: Sequence[RawRow]) -> list[GoldenRow]:
        """The rows with their predictions and the bounds of the interval, if any; none that overflows."""
        columns: dict[str, Any] = {each.name: [row[each.name] for row in rows] for each in self.features}
        said = self.said(encode(self.features, columns))
        return [
            GoldenRow(inputs=row, **dict(zip(said, numbers, strict=True)))
            for row, *numbers in zip(rows, *(values.tolist() for values in said.values()), strict=True)
            if np.isfinite(numbers).all()
        ]

    def said(self, encoded: Matrix) -> dict[str, Matrix]:
        """What torch gives for encoded rows (n, width): predictions and the interval's bounds, each (n,)."""
        outputs = self.model.fitted.network.outputs(encoded)
        numbers = {"prediction": outputs}
        with np.errstate(over="ignore"):
            if self.interval:
                numbers["lower"], numbers["upper"] = self.interval.bounds(outputs)
            return {name: self.model.predictions(values) for name, values in numbers.items()}

    def nearest(self, columns: Columns, knots: Sequence[float]) -> list[int]:
        """For each of the knots the row of columns (n,) whose output is nearest."""
        outputs = self.model.fitted.network.outputs(encode(self.features, columns))
        return [int(np.abs(outputs - knot).argmin()) for knot in knots]

    def shows(self, columns: Columns, asked: Mask) -> Mask:
        """Which of the rows of columns (n,) show which of the weights asked for, (weights,): (n, asked)."""
        encoded = encode(self.features, columns)
        effects = weight_effects(self.model.fitted.network, encoded, asked)
        effects[~np.isfinite(list(self.said(encoded).values())).all(axis=0)] = 0.0
        effects /= self.rounding(encoded)
        shown: Mask = (effects > BEYOND_ROUNDING) & (effects >= AS_FAR * effects.max(axis=0))
        return shown

    def steepest(self, columns: Columns, start: int, end: int) -> int:
        """The row of columns (n,) whose output some encoded inputs move most steeply, beside its rounding."""
        encoded = encode(self.features, columns)
        steepness = input_effects(self.model.fitted.network, encoded)[:, start:end] / self.rounding(encoded)
        return int(steepness.max(axis=1).argmax())

    def rounding(self, encoded: Matrix) -> Matrix:
        """By how much torch and numpy may differ for encoded rows (n, width): (n, 1)."""
        return rounding(self.model.fitted.network.shape, self.model.fitted.network.tensors(), encoded)[
            :, np.newaxis
        ]


def golden_rows(
    model: Model, interval: ResidualQuantiles | None, columns: Columns, seed: int
) -> tuple[GoldenRow, ...]:
    """Some raw rows, most of them of columns (n,), with torch's predictions and the interval's bounds.

    They are those where each number is least and greatest and each category comes first, those nearest to
    each knot of the interval's scale, one for each way to be missing or new, and as many as show every weight
    that can be shown; then others at random, some more than once if there are few.
    """
    witness, rng = Witness(model, interval), np.random.default_rng(seed)
    telling = list(dict.fromkeys(row for values in columns.values() for row in telling_rows(values)))
    drawn = rng.permutation(len(next(iter(columns.values()))))[:MOST_CANDIDATES].tolist()
    candidates = taken(columns, [*telling, *drawn])
    knots = interval.scale.outputs if interval and interval.scale else ()
    chosen = [
        *raw_rows(model.features, candidates, range(len(telling))),
        *raw_rows(model.features, candidates, witness.nearest(candidates, knots)),
        *unusual_rows(witness, taken(columns, drawn[:EXAMPLES])),
        *covering_rows(witness, candidates, len(telling), rng),
    ]
    others = raw_rows(model.features, columns, drawn[:FEWEST_GOLDEN_ROWS])
    rows = witness.golden(distinct([*chosen, *others]))
    return tuple(islice(cycle(rows), max(FEWEST_GOLDEN_ROWS, len(distinct(chosen)))))


def telling_rows(values: Column) -> list[int]:
    """Which rows of a column (n,) have to be there, or its statistics could be wrong unseen."""
    if isinstance(values, np.ndarray):
        return [int(np.nanargmin(values)), int(np.nanargmax(values))]
    first: dict[object, int] = {}
    for row, value in enumerate(values):
        first.setdefault(value, row)
    return [row for _, row in sorted(first.items(), key=lambda item: str(item[0]))]


def unusual_rows(witness: Witness, columns: Columns) -> Iterator[RawRow]:
    """For each way of a value to be missing or new, that of some rows which it moves most steeply."""
    ends = accumulate(feature.width for feature in witness.features)
    for feature, end in zip(witness.features, ends, strict=True):
        count = len(columns[feature.name])
        for value in unusual_values(feature):
            changed = {**columns, feature.name: feature.column([value] * count)}
            row = witness.steepest(changed, end - feature.width, end)
            yield raw_rows(witness.features, changed, [row])[0]


def unusual_values(feature: Feature) -> Iterator[str | None]:
    """A missing value, a new category, a date of a month, weekday or hour that was not in training."""
    if feature.accepts(None):
        yield None
    if isinstance(feature, CategoricalFeature) and feature.other is not None:
        yield new_category(feature)
    if isinstance(feature, DateFeature):
        yield from unseen_dates(feature)


def new_category(feature: CategoricalFeature) -> str:
    """A text that is none of the categories."""
    text = OTHER_LEVEL
    while text in feature.values:
        text = f"({text})"
    return text


def unseen_dates(feature: DateFeature) -> Iterator[str]:
    """For each part of the calendar with values that no training row had, a moment with one of them."""
    hours = feature.minimum + np.arange(366 * 24) / 24
    for part, rows in feature.parts.items():
        unseen = np.equal(rows, 0)[dates.PARTS[part].of(hours).astype(np.intp)]
        yield from (dates.as_text(days) for days in hours[unseen][:1].tolist())


def covering_rows(
    witness: Witness, candidates: Columns, chosen: int, rng: np.random.Generator
) -> list[RawRow]:
    """Few rows that show the weights which the first `chosen` of the candidates do not show.

    They are candidates, and made up for what none of these shows.
    """
    unseen = np.full(sum(tensor.size for tensor in witness.model.fitted.network.tensors().values()), True)
    columns = taken(candidates, range(room_for(unseen)))
    shown = witness.shows(columns, unseen)
    rows = raw_rows(witness.features, columns, cover(shown[:, ~shown[:chosen].any(axis=0)]))
    for _ in range(TRIALS):
        unseen[unseen] = ~shown.any(axis=0)
        if not unseen.any():
            break
        columns = made_columns(witness.features, candidates, room_for(unseen), rng)
        shown = witness.shows(columns, unseen)
        rows += raw_rows(witness.features, columns, cover(shown))
    return rows


def room_for(weights: Mask) -> int:
    """How many rows may be looked at for these weights, at least one."""
    return max(1, min(MOST_CANDIDATES, MOST_EFFECTS // max(1, int(weights.sum()))))


def cover(shown: Mask) -> list[int]:
    """Rows (n, weights) that together show what any does, each the one that shows most of what is left."""
    rows: list[int] = []
    while shown.any():
        rows.append(int(np.count_nonzero(shown, axis=1).argmax()))
        shown = shown[:, ~shown[rows[-1]]]
    return rows


def made_columns(
    features: Iterable[Feature], columns: Columns, count: int, rng: np.random.Generator
) -> dict[str, Column]:
    """`count` rows of values drawn from columns (n,) one by one, numbers and dates also from beyond them."""
    reach = RANGES ** rng.uniform(-1, 1, count)
    made: dict[str, Column] = {}
    for feature in features:
        values = columns[feature.name]
        drawn = take(values, rng.integers(len(values), size=count).tolist())
        if isinstance(feature, NumericFeature | DateFeature):
            beyond = (feature.maximum - feature.minimum) * reach * rng.uniform(-1, 1, count)
            drawn = np.clip(feature.column(drawn) + beyond, -LARGEST, LARGEST)
        made[feature.name] = drawn
    return made


def taken(columns: Columns, rows: Iterable[int]) -> dict[str, Column]:
    """Those of the rows of columns (n,) that there are."""
    count = len(next(iter(columns.values())))
    present = [row for row in rows if row < count]
    return {name: take(values, present) for name, values in columns.items()}


def take(values: Column, rows: list[int]) -> Column:
    """The values at some places of a column."""
    return values[rows] if isinstance(values, np.ndarray) else [values[row] for row in rows]


def raw_rows(features: Iterable[Feature], columns: Columns, rows: Iterable[int]) -> list[RawRow]:
    """Some rows of columns (n,) as JSON has them."""
    kinds = {feature.name: feature.kind for feature in features}
    return [{name: plain(values[row], kinds[name]) for name, values in columns.items()} for row in rows]


def plain(value: Any, kind: str) -> float | str | bool | None:
    """A value of a column as JSON has it, a missing one as None."""
    if isinstance(value, str) or value is None:
        return value
    if np.isnan(value):
        return None
    if kind == "date":
        return dates.as_text(float(value))
    return bool(value) if kind == "boolean" else float(value)


def distinct(rows: Iterable[RawRow]) -> list[RawRow]:
    """The rows, each once, where it comes first."""
    return list({tuple(row.values()): row for row in rows}.values())
