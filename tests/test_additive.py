from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.preprocessing import SplineTransformer

from model_store.columns import Matrix
from training.additive import STRENGTHS, Additive, Layout, fit_additive

KNOTS = (-2.0, -0.5, 0.0, 1.0, 2.5)
CURVES, LEVELS, PLAIN = Layout(1, KNOTS, 1), Layout(others=3), Layout(scores=1)
LAYOUTS = (CURVES, LEVELS, PLAIN)


def hats(z: Matrix, knots: tuple[float, ...] = KNOTS) -> Matrix:
    """The oracle of the hats: splines of the first degree."""
    spline = SplineTransformer(degree=1, knots=np.array(knots)[:, None], extrapolation="constant")
    found: Matrix = spline.fit_transform(z[:, None])
    return found


def raw(rows: int, seed: int = 1) -> tuple[Matrix, NDArray[np.intp], Matrix]:
    """A number, a level of three and another number."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=rows) * 1.5, rng.integers(3, size=rows), rng.normal(size=rows)


def encoded(z: Matrix, levels: NDArray[np.intp], plain: Matrix) -> Matrix:
    """Rows of LAYOUTS: of those whose first number is beyond 3 it is missing."""
    missing = z > 3
    curve = np.where(missing[:, None], 0.0, hats(z))
    clipped = z / np.sqrt(1 + z**2 / 9)
    return np.column_stack([clipped, curve, missing, np.eye(3)[levels], plain])


def folds(rows: int, count: int = 8) -> NDArray[np.intp]:
    return np.random.default_rng(0).permutation(np.arange(rows) % count)


def noisy(rows: int = 400, noise: float = 0.5) -> tuple[Matrix, Matrix]:
    z, levels, plain = raw(rows)
    target = 50 + np.abs(z) + levels**2 - 0.3 * plain + 3 * (z > 3)
    return encoded(z, levels, plain), target + noise * np.random.default_rng(9).normal(size=rows)


def fit(inputs: Matrix, target: Matrix, weights: Matrix | None = None) -> Additive:
    return fit_additive(inputs, target, LAYOUTS, folds(len(target)), weights)


def predictions(model: Additive, inputs: Matrix) -> Matrix:
    return inputs @ model.weights + model.bias


def explicit_design(inputs: Matrix) -> Matrix:
    """The oracle of the design that plain ridge regression takes, rises first.

    Written from the formulas: the rise t is the part of the way from knot t to the next that is done, and the
    penalty on rises is the mean square of the changes of slope and 0.02 of their own squares.
    """
    curve = inputs[:, 1:6]
    rises = np.array([[sum(row[t + 1 :]) for t in range(4)] for row in curve.tolist()])
    penalty = 0.02 * np.eye(4)
    for t in range(3):
        change = np.zeros(4)
        change[t + 1], change[t] = 1 / (KNOTS[t + 2] - KNOTS[t + 1]), -1 / (KNOTS[t + 1] - KNOTS[t])
        penalty += np.outer(change, change) / 4
    root = np.linalg.cholesky(penalty).T
    return np.column_stack([rises @ np.linalg.inv(root), inputs[:, 6:]])


def sklearn_fit(
    inputs: Matrix, target: Matrix, strength: float, weights: Matrix | None = None
) -> SklearnRidge:
    total = len(target) if weights is None else weights.sum()
    return SklearnRidge(alpha=0.01 * strength * total, tol=1e-12).fit(
        explicit_design(inputs), target, sample_weight=weights
    )


def out_of_fold(inputs: Matrix, target: Matrix, strength: float, weights: Matrix | None = None) -> Matrix:
    """The oracle: a fit for each fold of the rows of all others."""
    labels, found = folds(len(target)), np.empty(len(target))
    for fold in range(8):
        seen, held = labels != fold, labels == fold
        model = sklearn_fit(inputs[seen], target[seen], strength, None if weights is None else weights[seen])
        found[held] = model.predict(explicit_design(inputs[held]))
    return found


def weighted(rows: int) -> Matrix:
    return np.random.default_rng(5).integers(0, 4, rows).astype(np.float64)


WEIGHTS: tuple[Callable[[int], Matrix | None], ...] = (lambda _: None, weighted)


@pytest.mark.parametrize("weigh", WEIGHTS)
def test_the_fit_is_ridge_regression_on_rises(weigh: Callable[[int], Matrix | None]) -> None:
    inputs, target = noisy()
    weights = weigh(len(target))
    model = fit(inputs, target, weights)
    oracle = sklearn_fit(inputs, target, model.strength, weights)
    assert STRENGTHS[0] < model.strength < STRENGTHS[-1]
    assert predictions(model, inputs) == pytest.approx(oracle.predict(explicit_design(inputs)), rel=1e-10)


@pytest.mark.parametrize("weigh", WEIGHTS)
def test_each_row_is_predicted_by_a_fit_that_did_not_see_its_fold(
    weigh: Callable[[int], Matrix | None],
) -> None:
    inputs, target = noisy()
    weights = weigh(len(target))
    model = fit(inputs, target, weights)
    assert model.out_of_fold == pytest.approx(out_of_fold(inputs, target, model.strength, weights), rel=1e-10)


@pytest.mark.parametrize("weigh", WEIGHTS)
@pytest.mark.parametrize("noise", [0.05, 5.0])
def test_the_strength_is_that_of_the_least_error_out_of_fold(
    noise: float, weigh: Callable[[int], Matrix | None]
) -> None:
    inputs, target = noisy(120, noise)
    weights = weigh(len(target))
    errors = [
        np.average((out_of_fold(inputs, target, strength, weights) - target) ** 2, weights=weights)
        for strength in STRENGTHS
    ]
    assert fit(inputs, target, weights).strength == STRENGTHS[np.argmin(errors)]


def test_without_noise_the_fit_is_least_squares() -> None:
    inputs, _ = noisy()
    target = inputs[:, 1:] @ np.array([3.0, 1.0, 0.0, -2.0, 5.0, 1.0, 0.0, 7.0, 2.0, -1.0]) + 4
    design = np.column_stack([inputs[:, 1:], np.ones(len(target))])
    least = design @ np.linalg.lstsq(design, target)[0]
    model = fit(inputs, target)
    assert model.strength == STRENGTHS[0]
    assert predictions(model, inputs) == pytest.approx(least, abs=1e-3)


def test_a_sum_of_curves_and_levels_is_recovered() -> None:
    knots = tuple(np.linspace(-3, 3, 13).tolist())
    rng = np.random.default_rng(3)
    a, b = rng.uniform(-3, 3, (2, 4000))
    levels = rng.integers(3, size=4000)
    truth = np.sin(a) + b**2 / 3 + np.array([0.0, 1.0, -1.0])[levels]
    inputs = np.column_stack([a, hats(a, knots), b, hats(b, knots), np.eye(3)[levels]])
    layouts = (Layout(1, knots), Layout(1, knots), Layout(others=3))
    model = fit_additive(inputs, truth + 0.3 * rng.normal(size=4000), layouts, folds(4000))
    assert np.sqrt(np.mean((predictions(model, inputs) - truth) ** 2)) < 0.04


def test_a_z_score_beside_hats_has_no_weight() -> None:
    model = fit(*noisy())
    assert model.weights[0] == 0
    assert (
        np.count_nonzero(model.weights) == len(model.weights) - 2
    )  # and the first hat, where all rises begin


def test_a_number_with_two_knots_is_penalised_as_a_level() -> None:
    rng = np.random.default_rng(4)
    one = rng.integers(2, size=100).astype(np.float64)
    target = one + rng.normal(size=100)
    hatted = fit_additive(np.column_stack([1 - one, one]), target, (Layout(knots=(-1.0, 1.0)),), folds(100))
    level = fit_additive(one[:, None], target, (Layout(others=1),), folds(100))
    assert hatted.weights == pytest.approx([0, level.weights[0]], rel=1e-9)
    assert (hatted.bias, hatted.strength) == pytest.approx((level.bias, level.strength), rel=1e-9)


def test_without_hats_it_is_the_ridge_line() -> None:
    z, levels, plain = raw(300)
    inputs = np.column_stack([z / z.std(), np.eye(3)[levels], plain])
    target = 2 * z + levels + plain + np.random.default_rng(2).normal(size=300)
    model = fit_additive(inputs, target, (PLAIN, LEVELS, PLAIN), folds(300))
    oracle = SklearnRidge(alpha=0.01 * 300 * model.strength).fit(inputs, target)
    assert model.weights == pytest.approx(oracle.coef_, rel=1e-9)
    assert model.bias == pytest.approx(oracle.intercept_, rel=1e-9)


def test_of_a_noisy_line_the_curve_is_nearer_to_it_than_that_of_least_squares() -> None:
    z, rng = np.linspace(-2, 2.5, 200), np.random.default_rng(6)
    inputs, errors = np.column_stack([z, hats(z)]), []
    for _ in range(20):
        target = 2 * z + 3 * rng.normal(size=200)
        model = fit_additive(inputs, target, (Layout(1, KNOTS),), folds(200))
        least = hats(z) @ np.linalg.lstsq(hats(z), target)[0]
        errors.append([np.mean((found - 2 * z) ** 2) for found in (predictions(model, inputs), least)])
    ours, theirs = np.mean(errors, axis=0)
    assert ours < 0.7 * theirs


@pytest.mark.parametrize("apart", [1e-3, 1e-9, 1e-14])
def test_knots_that_are_nearly_one_do_no_harm(apart: float) -> None:
    z, rng = np.random.default_rng(1).normal(size=200), np.random.default_rng(2)
    knots = (-2.0, 0.0, apart, 2 * apart, 2.0)
    rows = np.array([np.interp(z, knots, hat) for hat in np.eye(5)]).T
    target = z + 0.1 * rng.normal(size=200)
    model = fit_additive(np.column_stack([z, rows]), target, (Layout(1, knots),), folds(200))
    assert np.mean((model.out_of_fold - target) ** 2) < 0.03


def test_columns_that_are_constant_or_copies_do_no_harm() -> None:
    inputs, target = noisy()
    doubled = np.column_stack([inputs, inputs, np.zeros(len(target))])
    model = fit_additive(doubled, target, (*LAYOUTS, *LAYOUTS, PLAIN), folds(len(target)))
    assert np.mean((model.out_of_fold - target) ** 2) == pytest.approx(0.25, rel=0.25)
    assert model.weights[: len(inputs.T)] == pytest.approx(model.weights[len(inputs.T) : -1], abs=1e-8)


def test_a_weight_counts_as_so_many_rows_of_the_same_fold() -> None:
    inputs, target = noisy()
    weights, labels = weighted(len(target)), folds(len(target))
    often = np.repeat(np.arange(len(target)), weights.astype(np.intp))
    repeated = fit_additive(inputs[often], target[often], LAYOUTS, labels[often])
    model = fit(inputs, target, weights)
    assert model.strength == repeated.strength
    assert model.weights == pytest.approx(repeated.weights, rel=1e-8)
    assert model.out_of_fold[often] == pytest.approx(repeated.out_of_fold, rel=1e-9)


def test_the_level_of_the_target_costs_no_digits() -> None:
    inputs, target = noisy()
    model, high = fit(inputs, target), fit(inputs, target + 2.0**30)
    assert high.weights == pytest.approx(model.weights, abs=1e-6)
    assert high.bias - 2.0**30 == pytest.approx(model.bias, abs=1e-5)
