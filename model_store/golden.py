"""Golden rows: raw rows of a version with what torch gave for them, computed again by the code that answers.

How far the two may be apart is derived from the sums themselves, not from what the manifest says.
"""

from collections.abc import Mapping

import numpy as np

from model_store.columns import Matrix, encode, read_columns
from model_store.errors import GoldenDiffer
from model_store.manifest import Description, Mlp, Network, ResidualQuantiles, Target
from model_store.predictor import Predictor, activate
from model_store.scale import Scale

EPSILON = float(np.finfo(np.float64).eps)
# By which numpy's and torch's exponential or hyperbolic tangent of the same number may differ; an
# interpolation in a few steps is off by less.
ULPS = 8
# Rows of earlier schema versions have no bounds of an interval.
FIRST_WITH_BOUNDS = 4


def check_golden(predictor: Predictor, path: str) -> None:
    """Compute the golden rows' predictions and bounds again; raise GoldenDiffer unless they are torch's.

    It starts from raw inputs. Torch sums in another order than numpy, so the two may differ by what
    `rounding` says, and by no more. Bounds have to be there exactly where the version has an interval.
    """
    description = predictor.description
    check_bounded(description, path)
    given = {
        feature.name: [row.inputs[feature.name] for row in description.golden]
        for feature in description.features
    }
    try:
        columns = read_columns(description.features, given)
    except ValueError as error:
        raise GoldenDiffer(path, f"a golden row cannot be read ({error})") from None
    outputs = predictor.outputs(columns)
    apart = rounding(description.network, predictor.weights, encode(description.features, columns))
    for name, (numbers, apart_numbers) in stated(description, outputs, apart).items():
        expected = np.array([getattr(row, name) for row in description.golden])
        actual = description.target.untransformed(numbers)
        allowed = untransformed_rounding(description.target, numbers, apart_numbers)
        check_equal(path, name, actual, expected, allowed)


def check_bounded(description: Description, path: str) -> None:
    """Raise GoldenDiffer for a golden row without the interval's bounds, or with those of no interval."""
    has_bounds = bounded_by(description) is not None
    for index, row in enumerate(description.golden):
        if {row.lower is not None, row.upper is not None} != {has_bounds}:
            what = "lacks the interval's bounds" if has_bounds else "has bounds of no interval"
            raise GoldenDiffer(path, f"golden row {index} {what}")


def bounded_by(description: Description) -> ResidualQuantiles | None:
    """The interval whose bounds the golden rows have."""
    return description.interval if description.schema_version >= FIRST_WITH_BOUNDS else None


def stated(description: Description, outputs: Matrix, apart: Matrix) -> dict[str, tuple[Matrix, Matrix]]:
    """The numbers of golden rows in the unit of the network's outputs (n,), and how far apart each may be.

    `apart` (n,) is how far the outputs may be apart, and with them the sizes of the interval's scale.
    """
    numbers, interval = {"prediction": (outputs, apart)}, bounded_by(description)
    if interval is None:
        return numbers
    sizes_apart = scale_rounding(interval.scale, apart)
    for name, bound in zip(("lower", "upper"), interval.bounds(outputs), strict=True):
        numbers[name] = bound, apart + abs(getattr(interval, name)) * sizes_apart
    return numbers


def scale_rounding(scale: Scale | None, apart: Matrix) -> Matrix:
    """How far apart the sizes of a scale may be at outputs that may be `apart` (n,): (n,)."""
    if scale is None:
        return np.zeros_like(apart)
    return scale.steepest * apart + ULPS * EPSILON * max(scale.sizes)


def check_equal(path: str, name: str, actual: Matrix, expected: Matrix, allowed: Matrix) -> None:
    """Raise GoldenDiffer unless two arrays (n,) are at most `allowed` (n,) apart, which has to be finite."""
    with np.errstate(invalid="ignore"):
        wrong = np.flatnonzero(~((np.abs(actual - expected) <= allowed) & np.isfinite(allowed)))
    if wrong.size:
        row = int(wrong[0])
        ours, theirs = float(actual[row]), float(expected[row])
        raise GoldenDiffer(
            path,
            f"golden row {row} gives the {name} {ours!r}, training gave {theirs!r} "
            f"({wrong.size} of {expected.size} rows differ)",
        )


def rounding(network: Network, weights: Mapping[str, Matrix], encoded: Matrix) -> Matrix:
    """How far apart two ways to compute the network's outputs for encoded rows (n, width) may be: (n,).

    A sum of k products is off by at most k/2 epsilons of the sum of their magnitudes, in whatever order it is
    taken (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1), and so are two. What is
    off before a layer passes through its weights' magnitudes; an activation lengthens no distance.
    """
    values, apart = encoded.T, np.zeros_like(encoded.T)
    with np.errstate(over="ignore", invalid="ignore"):
        for index in range(len(network.layers)):
            weight, bias = weights[f"layers.{index}.weight"], weights[f"layers.{index}.bias"][:, np.newaxis]
            if index and isinstance(network, Mlp):
                values = activate(network, values)
                apart = apart + ULPS * EPSILON * np.abs(values)
            terms = weight.shape[1] + 2
            sizes = np.abs(weight) @ np.abs(values) + np.abs(bias)
            values, apart = weight @ values + bias, np.abs(weight) @ apart + terms * EPSILON * sizes
    apart_outputs: Matrix = apart[0]
    return apart_outputs


def untransformed_rounding(target: Target, outputs: Matrix, apart: Matrix) -> Matrix:
    """How far apart predictions may be, in the target's unit, for outputs (n,) that may be `apart` (n,)."""
    apart = apart + EPSILON * np.abs(outputs)
    if target.transform == "none":
        return apart
    with np.errstate(over="ignore"):
        return target.untransformed(outputs) * (np.expm1(apart) + ULPS * EPSILON)
