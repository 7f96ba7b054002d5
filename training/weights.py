"""What the weights of a line are for, how sure they are, and which of them the rows do not tell apart."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model_store.columns import DateFeature, Feature, NumericFeature
from training.crossed import Crossed
from training.descent import ROUNDING
from training.least_squares import FREE
from training.train import Model

MOST_NAMED = 5


@dataclass(frozen=True)
class Weight:
    """A weight, what it multiplies, and its standard error if it has one."""

    name: str
    value: float
    error: float | None


def weights_of(model: Model) -> tuple[Weight, ...]:
    """The weights of a line by input, or by input and category, the bias last; none of a network.

    They have the standard errors of the least-squares line where they are that line to rounding.
    """
    if model.fitted.network.hidden:
        return ()
    names = [name for feature in model.features for name in weight_names(feature)]
    tensors = model.fitted.network.tensors()
    values = [*tensors["layers.0.weight"][0].tolist(), *tensors["layers.0.bias"].tolist()]
    return tuple(map(Weight, [*names, "bias"], values, standard_errors(model)))


def weight_names(feature: Feature) -> Iterator[str]:
    """What the weights of an input are for, in their order."""
    first, *others = feature.labels
    if isinstance(feature, NumericFeature | DateFeature):
        clipped = "clipped " if feature.clip else ""
        first = f"{clipped}z-score of {feature.name}: mean {feature.mean!r}, std {feature.std!r}"
    yield from (first, *others)


def standard_errors(model: Model) -> list[float | None]:
    """The standard error of each of a line's weights, the bias's last, None where it has none."""
    if isinstance(model.fitted, Crossed):
        return [None] * model.weights
    least = model.line.cost
    is_least = abs(model.fitted.cost - least) <= ROUNDING * least
    return [error if is_least and math.isfinite(error) else None for error in model.line.errors.tolist()]


def most_rank(model: Model) -> int:
    """The rank of a line for the model's inputs if none of them depends on others.

    Each full set of one-hot columns sums to one and so takes 1 off the number of weights.
    """
    return model.line.rank + ties_between(model).shape[1]


def rank_warning(model: Model) -> str | None:
    """What to know and to do where the rows do not tell the weights of a line's inputs apart."""
    if model.fitted.network.hidden or isinstance(model.fitted, Crossed):
        return None
    line, ties = model.line, ties_between(model)
    if not ties.numel():
        return None
    if line.rows <= len(ties):
        return (
            f"The {line.rows} rows are too few to tell {len(ties) + 1} weights apart: other lines fit them "
            "as well. Give more rows or fewer columns"
        )
    labels = labels_of(model.features)
    listed = [", ".join(shortened(named([labels[column] for column in group]))) for group in groups(ties)]
    return (
        f"But for rounding, columns follow from one another: {'; '.join(shortened(listed))}. The rows do not "
        "tell their weights apart, and the least cost is that of lines that do not hang on their last "
        "digits. --exclude one of each for weights that mean something"
    )


def labels_of(features: Sequence[Feature]) -> list[tuple[str, str]]:
    """The input and the label of each encoded column."""
    return [(feature.name, label) for feature in features for label in feature.labels]


def named(columns: Sequence[tuple[str, str]]) -> list[str]:
    """What columns are called: an input that has several of them by its name."""
    counts = Counter(name for name, _ in columns)
    return list(dict.fromkeys(label if counts[name] == 1 else name for name, label in columns))


def shortened(names: list[str]) -> list[str]:
    """No more than a few of the names."""
    return names if len(names) <= MOST_NAMED else [*names[:MOST_NAMED], "…"]


def groups(ties: Tensor) -> list[list[int]]:
    """Which of k columns follow from one another, from combinations (k, m) of them that are constant."""
    tied = (ties @ ties.T).abs() > FREE
    while not torch.equal(tied, wider := tied.double() @ tied.double() > 0):
        tied = wider
    return [group.nonzero()[:, 0].tolist() for group in torch.unique(tied, dim=0) if group.any()]


def ties_between(model: Model) -> Tensor:
    """Orthonormal combinations of a line's k columns that are constant, beyond those of one input's alone.

    Of shape (k, how many). An input's own, as of a full set of one-hot columns, are where its part of the
    free combinations has singular values of 1.
    """
    free, widths = model.line.free, [feature.width for feature in model.line_features]
    own = torch.cat([within(part) for part in torch.split(free, widths)])
    others = torch.linalg.svd(own)[2][len(own) :]
    ties: Tensor = free @ others.T
    return ties


def within(part: Tensor) -> Tensor:
    """How free combinations of columns give those of one input, of which `part` (width, t) are the rows."""
    _, values, combinations = torch.linalg.svd(part, full_matrices=False)
    own: Tensor = combinations[values > 1 - FREE]
    return own
