import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Browser

from tests.test_report import HOSTILE, assert_quiet, assert_self_contained, numbers_of, text_of
from training.comparison_page import LESSONS, Run, Surface, arrival, comparison_html, no_higher

RNG = np.random.default_rng(0)
X = np.column_stack([RNG.normal(size=200), np.ones(200)])
Y = X @ [2.0, 5.0] + RNG.normal(size=200)
BEST = np.linalg.lstsq(X, Y, rcond=None)[0]
START = (-1.0, 0.5)


def cost(weights: NDArray[np.floating[Any]]) -> float:
    return float(np.mean((X @ weights - Y) ** 2))


LEAST = cost(BEST)
SURFACE = Surface(float(BEST[0]), float(BEST[1]), LEAST, X.T @ X / len(X))


def descent(optimizer: str = "gd", rate: float = 0.1, epochs: int = 60, batch: int = 200) -> Run:
    """Plain descent in numpy, whose batches are slices of the rows."""
    weights = np.array(START)
    history, path = [cost(weights)], [START]
    with np.errstate(all="ignore"):
        for _ in range(epochs):
            for start in range(0, len(X), batch):
                rows, target = X[start : start + batch], Y[start : start + batch]
                weights = weights - rate * 2 * rows.T @ (rows @ weights - target) / len(rows)
                path.append((float(weights[0]), float(weights[1])))
            history.append(cost(weights))
    trouble = None if math.isfinite(history[-1]) else "the cost is not finite"
    seconds = tuple(0.001 * epoch for epoch in range(epochs + 1))
    return Run(optimizer, rate, tuple(history), seconds, tuple(path), trouble)


RUNS = (descent(), descent("sgd", batch=20), descent("momentum", 0.3), descent("adam", 0.05))


@pytest.mark.parametrize("width", [1200, 390])
def test_a_browser_asks_for_nothing_but_the_page(browser: Browser, width: int) -> None:
    assert_quiet(browser, comparison_html(RUNS, "cars.csv", LEAST, SURFACE), width)


def test_the_page_refers_to_nothing_outside_of_it() -> None:
    assert_self_contained(comparison_html(RUNS, "cars.csv", LEAST, SURFACE))


def test_the_same_arguments_give_the_same_bytes() -> None:
    pages = {comparison_html(RUNS, "cars.csv", LEAST, SURFACE) for _ in range(2)}
    assert len(pages) == 1


def test_every_optimizer_has_its_sentence_its_row_and_its_path() -> None:
    page = comparison_html(RUNS, "cars.csv", LEAST, SURFACE)
    text = text_of(page)
    assert all(LESSONS[run.optimizer] in text for run in RUNS)
    assert page.count(b"The path of ") == len(RUNS)
    exact = numbers_of(page)
    for run in RUNS:
        assert {run.history[-1], run.learning_rate, max(run.history[-1] - LEAST, 0.0)} <= exact.keys()


def test_it_says_who_arrived_first_and_who_did_not_stay() -> None:
    fast = Run("adam", 0.1, (101.0, 2.0, 50.0), (0.0, 2.0, 4.0), (), None)
    slow = Run("gd", 0.1, (101.0, 50.0, 1.5), (0.0, 0.25, 0.5), (), None)
    text = text_of(comparison_html([fast, slow], "cars.csv", 1.0, None))
    assert "First by epochs: Adam, after 1." in text
    assert "First by the clock: Gradient descent, after 0.5 s." in text
    assert "Did not stay there: Adam." in text


def test_a_run_arrives_when_a_hundredth_is_left_of_its_start_above_the_optimum() -> None:
    run = Run("gd", 0.1, (110.0, 12.0, 11.0, 10.5), (0.0, 1.0, 2.0, 3.0), (), None)
    assert arrival(run, 10.0) == 2
    assert arrival(run, 5.0) is None
    assert arrival(run, None) is None


def test_what_climbs_above_the_start_does_not_stretch_the_plane() -> None:
    path = np.array([START, (0.0, 1.0), (1e6, -1e6), (math.nan, 0.0), (math.inf, 0.0), tuple(BEST)])
    assert no_higher(path, SURFACE).tolist() == [list(START), [0.0, 1.0], BEST.tolist()]


def test_without_an_optimum_the_plain_cost_is_shown() -> None:
    page = comparison_html(RUNS, "cars.csv", None, None)
    assert "above the optimum" not in text_of(page)
    assert_self_contained(page)


def test_without_a_surface_there_is_no_path() -> None:
    page = comparison_html([Run(**vars(run) | {"path": ()}) for run in RUNS], "cars.csv", LEAST, None)
    assert b"The path of " not in page
    assert "The optimizers" in text_of(page)


def test_a_diverged_run_is_shown_up_to_there() -> None:
    diverged = descent("sgd", rate=50.0, epochs=400)
    assert not math.isfinite(diverged.history[-1])
    for runs in ([diverged], [*RUNS, diverged]):
        page = comparison_html(runs, "cars.csv", LEAST, SURFACE)
        assert "the cost is not finite" in text_of(page)
        assert {"∞", "not a number"} & set(numbers_of(page).values())
        assert_self_contained(page)


def test_hostile_names_show_literally() -> None:
    run = Run(HOSTILE, 0.1, (2.0, 1.0), (0.0, 1.0), (), HOSTILE)
    page = comparison_html([run], HOSTILE, 0.5, None)
    assert_self_contained(page)
    assert text_of(page).count("{{ 7 * 7 }}") >= 4


@pytest.mark.parametrize(
    "changes",
    [
        {"history": (9.0,), "seconds": (0.0,), "path": (START,)},
        {"history": (LEAST, LEAST), "seconds": (0.0, 0.0), "path": (tuple(BEST.tolist()),) * 2},
        {"history": (9.0, 8.0, 7.0), "seconds": (0.0,)},
        {"history": tuple((LEAST + 1 / (1 + np.arange(100_001))).tolist()), "seconds": ()},
        {"path": tuple((float(w), 1.0) for w in RNG.normal(size=20_000))},
    ],
    ids=["start alone", "at the optimum", "few seconds", "long", "long path"],
)
def test_a_single_run_of_any_length_makes_a_page(changes: dict[str, Any]) -> None:
    page = comparison_html([Run(**vars(RUNS[0]) | changes)], "cars.csv", LEAST, SURFACE)
    assert_self_contained(page)
    assert len(page) < 150_000


def test_two_learning_rates_of_an_optimizer_are_told_apart() -> None:
    text = text_of(comparison_html([descent(rate=0.1), descent(rate=0.2)], "cars.csv", LEAST, SURFACE))
    assert "Gradient descent, learning rate 0.1" in text
    assert "Gradient descent, learning rate 0.2" in text


def test_an_input_as_raw_as_kilometres_makes_a_page() -> None:
    gram = np.array([[4e9, 6e4], [6e4, 1.0]])
    surface = Surface(-1e-6, 9.5, 125.0, gram)
    run = Run("gd", 1e-10, (200.0, 199.0), (0.0, 1.0), ((0.5, 0.1), (0.1, 0.1)), None)
    assert_self_contained(comparison_html([run], "cars.csv", 125.0, surface))


def test_a_bowl_that_is_flat_one_way_makes_a_page() -> None:
    surface = Surface(1.0, 2.0, 0.0, np.ones((2, 2)))
    assert_self_contained(comparison_html([descent()], "cars.csv", 0.0, surface))
