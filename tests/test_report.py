import html
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Browser, Route

from model_store.answers import Answers
from model_store.columns import CategoricalFeature, Category, DateFeature
from model_store.manifest import (
    SCHEMA_VERSION,
    Description,
    Folds,
    GoldenRow,
    GroupSplit,
    Linear,
    Metrics,
    Mlp,
    ResidualQuantiles,
    Scores,
    TimeSplit,
    Training,
)
from model_store.scale import Scale
from model_store.store import open_store
from tests.toys import AGE, FEATURES, FUEL, POWER, TARGET
from training.auto import Trial
from training.console import facts
from training.crossed import Crossed
from training.drawing import fixed, percent, shown
from training.importance import permutation_importance
from training.inference import Decision
from training.intervals import Tenth
from training.pipeline import fit, learn
from training.publish import describe_training
from training.recipe import InputColumn, make_recipe
from training.remarks import Findings, Remark
from training.report import Evidence, against, report_html, shown_part

ROWS = 500
HOSTILE = '</code><script src="http://a.test">\'&{{ 7 * 7 }}$x^$'
METRICS = Metrics(
    rows=123,
    model=Scores(mse=6.25, rmse=2.5, mae=1.8765432, r2=0.7654321),
    predict_the_mean=Scores(mse=36.0, rmse=6.0, mae=5.4321, r2=-0.01234),
    least_squares=Scores(mse=6.3, rmse=2.50998, mae=1.9, r2=0.7511),
)


def training(**changes: Any) -> Training:
    fields: dict[str, Any] = {
        "optimizer": "sgd",
        "learning_rate": 0.0123456,
        "epochs": 37,
        "batch_size": 64,
        "seed": 20260,
        "holdout": 0.25,
        "dropped": {"age": 17},
        "rows": 98765,
        "cost": 5.678912,
        "optimum": 5.5,
        "data_sha256": "ab" * 32,
        "libraries": {"numpy": "2.4.1"},
    }
    return Training(**fields | changes)


def description(**changes: Any) -> Description:
    features = changes.get("features", FEATURES)
    row = GoldenRow(inputs={feature.name: feature.example for feature in features}, prediction=1.0)
    fields: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "name": "toy",
        "target": TARGET,
        "features": FEATURES,
        "network": Linear(),
        "training": training(),
        "metrics": METRICS,
        "interval": ResidualQuantiles(coverage=0.9, lower=-1.5678, upper=2.5432),
        "golden": (row,) * 32,
    }
    return Description(**fields | changes)


def answers_of(values: NDArray[np.float64]) -> Answers:
    """Predictions with an interval around each."""
    return Answers(values, values - 1.5678, values + 2.5432, {})


def evidence(**changes: Any) -> Evidence:
    rng = np.random.default_rng(0)
    age = rng.uniform(0.5, 10, ROWS)
    price = 20 - 1.5 * age + rng.normal(size=ROWS)
    fields: dict[str, Any] = {
        "history": tuple((5.5 + 100 * 0.8 ** np.arange(38)).tolist()),
        "optimum": 5.5,
        "actual": price[:123],
        "predicted": 20 - 1.5 * age[:123],
        "inputs": {
            AGE.name: age,
            POWER.name: rng.uniform(40, 300, ROWS),
            FUEL.name: [FUEL.values[index % 3] for index in range(ROWS)],
        },
        "target": price,
        "answers": answers_of(20 - 1.5 * age),
        "findings": Findings(),
        "command": "python -m training fit cars.csv",
        "tenths": (Tenth(least=1.25, most=2.5, rows=61, held=0.885, error=0.0384),),
    }
    return Evidence(**fields | changes)


def text_of(page: bytes) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", page.decode()))


def numbers_of(page: bytes) -> dict[float, str]:
    """The exact value of every number on the page, with what is shown of it."""
    found = re.findall(r'<data value="([^"]*)" title="\1">([^<]*)</data>', page.decode())
    return {float(value): text for value, text in found}


def assert_self_contained(page: bytes) -> None:
    """No reference leaves the page, each id is there once, and each reference inside has its id."""
    text = page.decode()
    tags = re.sub(r' aria-label="[^"]*"', "", "".join(re.findall(r"<[^>]+>", text)))
    assert "http" not in tags.replace("http-equiv", "")
    assert "<script" not in tags
    targets = re.findall(r"""(?:src|href|action)=["']?([^"'> ]*)""", tags) + re.findall(
        r"url\(([^)]*)\)", text
    )
    assert {target[0] for target in targets} <= {"#", "d"}
    assert [target for target in targets if target[0] == "d"] == ["data:,"]
    ids = re.findall(r' id="([^"]*)"', tags)
    assert len(ids) == len(set(ids))
    assert {target[1:] for target in targets if target[0] == "#"} <= set(ids)


def assert_quiet(browser: Browser, page: bytes, width: int) -> None:
    """The browser asks for nothing but the page, complains of nothing, and need not scroll sideways."""
    asked: list[str] = []
    complaints: list[str] = []

    def answer(route: Route) -> None:
        asked.append(route.request.url)
        route.fulfill(body=page, content_type="text/html; charset=utf-8")

    with browser.new_context(viewport={"width": width, "height": 800}) as context:
        tab = context.new_page()
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.route("**/*", answer)
        tab.goto("http://plumbline.test/report")
        tab.wait_for_load_state("networkidle")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert asked == ["http://plumbline.test/report"]
    assert complaints == []


@pytest.mark.parametrize("width", [1200, 390])
def test_a_browser_asks_for_nothing_but_the_page(browser: Browser, width: int) -> None:
    assert_quiet(browser, report_html(description(), 3, evidence()), width)


def test_the_page_refers_to_nothing_outside_of_it() -> None:
    assert_self_contained(report_html(description(), 3, evidence()))


def test_the_same_arguments_give_the_same_bytes() -> None:
    assert report_html(description(), 3, evidence()) == report_html(description(), 3, evidence())


def test_hostile_names_show_literally() -> None:
    unquoted = HOSTILE.replace('"', "")
    age = AGE.model_copy(update={"name": unquoted, "unit": HOSTILE, "description": HOSTILE})
    fuel = CategoricalFeature(
        name="fuel",
        categories=(Category(value=HOSTILE, rows=2), Category(value='\n <b id="x">価格', rows=1)),
        example=HOSTILE,
    )
    target = TARGET.model_copy(update={"name": unquoted + "t", "unit": HOSTILE})
    both = evidence().inputs
    inputs = {unquoted: both[AGE.name], "fuel": [HOSTILE] * ROWS}
    for features in ((age,), (age, fuel)):
        page = report_html(
            description(features=features, target=target),
            1,
            evidence(inputs=inputs, command=f"fit {HOSTILE}"),
        )
        assert_self_contained(page)
        assert "<script src=" in text_of(page)
        assert "{{ 7 * 7 }}" in text_of(page)


def test_every_metric_and_statistic_is_the_manifests() -> None:
    model = description()
    shown_numbers = numbers_of(report_html(model, 3, evidence()))
    made = model.training
    expected: dict[float, Callable[[Any], str]] = {
        **{getattr(row, name): shown for row in scores() for name in ("mse", "rmse", "mae")},
        **{row.r2: fixed for row in scores()},
        **{
            value: shown
            for column in (AGE, POWER, TARGET)
            for value in (column.mean, column.std, column.minimum, column.maximum, column.deciles[4])
        },
        **dict.fromkeys((category.rows for category in FUEL.categories), shown),
        **dict.fromkeys((made.learning_rate, made.epochs, made.rows, made.cost, made.dropped["age"]), shown),
        **dict.fromkeys((-1.5678, 2.5432, 5.5, 123), shown),
        0.9: percent,
        0.25: percent,
        20260: str,
    }
    for value, as_text in expected.items():
        assert shown_numbers[value] == as_text(value)


def scores() -> tuple[Scores, Scores, Scores]:
    return METRICS.model, METRICS.predict_the_mean, METRICS.least_squares


def test_the_page_says_what_the_model_is_and_how_to_make_it_again() -> None:
    text = text_of(report_html(description(), 3, evidence()))
    assert "toy version 3" in text
    assert "Predicts price (lakh) from age, power 'bhp' / ñ~ and fuel type with a linear model." in text
    assert "58.3 % below predicting the mean, and 0.398 % below exact least squares" in text
    assert (
        "About 90 % of new rows are expected to lie between 1.5678 lakh below and 2.5432 lakh above" in text
    )
    assert "python -m training fit cars.csv" in text
    assert "ab" * 32 in text
    assert "numpy 2.4.1" in text
    assert "17 without age" in text


def test_a_line_through_one_input_is_drawn_and_written_down() -> None:
    rows = evidence()
    z = (np.asarray(rows.inputs[AGE.name], dtype=float) - AGE.mean) / AGE.std
    page = report_html(description(features=(AGE,)), 3, evidence(answers=answers_of(12.125 - 3.75 * z)))
    assert "price = 12.125 − 3.75 · (age − 5.25) / 2.5." in text_of(page)
    assert "The fit over the data" in text_of(page)


def test_a_target_of_logarithms_has_an_interval_of_factors() -> None:
    target = TARGET.model_copy(update={"transform": "log"})
    rows = evidence()
    log = description(features=(AGE,), target=target, network=Mlp(hidden=(8,)))
    text = text_of(report_html(log, 3, evidence(answers=answers_of(np.abs(rows.answers.values) + 1))))
    assert "between 0.209 and 12.7 times the prediction" in text
    assert "log actual − log predicted" in text
    assert "trained on the target's logarithm" in text


SCALED = ResidualQuantiles(
    coverage=0.9, lower=-1.5, upper=2.0, scale=Scale(outputs=(1.0, 4.0, 9.0), sizes=(2.0, 0.5, 3.0))
)


def test_an_interval_that_depends_on_the_prediction_is_told_where_it_is_narrowest_and_widest() -> None:
    text = text_of(report_html(description(interval=SCALED), 1, evidence()))
    assert "distance depends on the prediction: 0.75 lakh below and 1 lakh above the prediction where" in text
    assert "where they are nearest, 4.5 lakh below and 6 lakh above it where they are farthest." in text
    assert "each divided by 0.5 to 3 according to the prediction, from −1.5 to 2" in text
    assert "The interval's bounds depend on the prediction." in text
    assert "Dashed: the interval's bounds" not in text
    log = description(interval=SCALED, target=TARGET.model_copy(update={"transform": "log"}))
    text = text_of(report_html(log, 1, evidence(answers=answers_of(np.abs(evidence().answers.values) + 1))))
    assert "0.472 and 2.72 times the prediction where they are nearest, 0.0111 and 403 times it where" in text


@pytest.mark.parametrize(("transform", "least"), [("none", 1.25), ("log", math.exp(1.25))])
def test_it_shows_how_many_rows_of_each_tenth_intervals_hold(transform: str, least: float) -> None:
    made = description(target=TARGET.model_copy(update={"transform": transform}))
    page = report_html(made, 1, evidence())
    assert "88.5 % ± 3.84 %" in text_of(page)
    assert numbers_of(page)[0.885] == "88.5 %"
    assert numbers_of(page)[61] == "61"
    assert least in numbers_of(page)
    assert "How many rows its intervals hold" not in text_of(report_html(made, 1, evidence(tenths=())))


def test_it_says_which_rows_were_held_out() -> None:
    metrics = METRICS.model_copy(update={"since": "2018-09-01"})
    made = description(metrics=metrics, training=training(split=TimeSplit(column="sold")))
    text = text_of(report_html(made, 1, evidence()))
    assert "On 123 rows it had not seen, the last in time by sold, from 2018-09-01 on, its root mean" in text
    assert "Errors on 123 held-out rows, the last in time by sold, from 2018-09-01 on, which none" in text


def test_it_says_how_the_folds_differ_and_what_weighs() -> None:
    std = Scores(mse=0.5, rmse=0.0321, mae=12.3, r2=0.0123)
    metrics = METRICS.model_copy(update={"folds": Folds(count=5, mean=METRICS.model, std=std)})
    how = training(split=GroupSplit(column="maker"), cross_validate=5, weight="w")
    text = text_of(report_html(description(metrics=metrics, training=how), 1, evidence()))
    assert "Errors on 123 held-out rows in 5 folds, whole groups by maker, which none" in text
    assert "Fold by fold: R² 0.765 ± 0.012, RMSE 2.500 ± 0.032, MAE 2 ± 12 (mean ± standard" in text
    assert "held out in 5 folds" in text
    assert "Rows are weighted by w." in text
    assert "w, in the cost and in the scores; statistics and the interval count all rows alike" in text


def test_without_held_out_rows_it_says_so() -> None:
    page = report_html(description(metrics=None, interval=None), 1, evidence(actual=None, predicted=None))
    assert "No rows were held out" in text_of(page)
    assert "Residuals" not in text_of(page)
    assert_self_contained(page)


def test_a_model_of_categories_alone_has_bars_and_no_fit() -> None:
    page = report_html(description(features=(FUEL,)), 1, evidence())
    assert page.count(b'<td class="track">') == 3
    assert "The fit over the data" not in text_of(page)
    assert "fuel type with a straight line" not in text_of(page)


def test_of_many_categories_the_rarest_are_counted_together() -> None:
    categories = tuple(Category(value=f"c{index}", rows=100 - index) for index in range(40))
    many = FUEL.model_copy(update={"categories": categories, "example": "c0"})
    text = text_of(report_html(description(features=(many,)), 1, evidence(inputs={FUEL.name: ["c0"] * ROWS})))
    assert "28 others" in text
    assert shown(sum(category.rows for category in categories[12:])) in text


CURVED = AGE.model_copy(
    update={"clip": True, "clipped_mean": 0.0, "knots": (0.5, 4.0, 10.0), "shares": (0.2, 0.5, 0.3)}
)


@pytest.mark.parametrize(
    ("network", "features", "changes", "words"),
    [
        (Linear(), (CURVED, FUEL), {"ridge": 0.01, "optimizer": "ridge"}, "an additive model"),
        (Linear(), FEATURES, {"ridge": 0.01, "optimizer": "ridge"}, "a line with small weights (ridge)"),
        (
            Mlp(hidden=(258,)),
            (CURVED, FUEL),
            {"ridge": 0.01, "optimizer": "adamw", "members": 8, "additive_share": 0.1234},
            "an ensemble of 8 networks of 32 units mixed with an additive model (12.3 %)",
        ),
        (
            Mlp(hidden=(64,)),
            FEATURES,
            {"ridge": 0.01, "optimizer": "adamw", "members": 2, "additive_share": 0.0},
            "an ensemble of 2 networks of 32 units",
        ),
        (
            Mlp(hidden=(66,)),
            FEATURES,
            {"ridge": 0.01, "optimizer": "adamw", "members": 2, "additive_share": 1.0},
            "an ensemble of 2 networks of 32 units mixed with an additive model (100 %)",
        ),
    ],
    ids=["additive", "ridge", "ensemble", "ensemble alone", "all additive"],
)
def test_it_says_what_a_network_is(network: Any, features: Any, changes: dict[str, Any], words: str) -> None:
    made = description(network=network, features=features, training=training(**changes))
    assert f" with {words}." in text_of(report_html(made, 1, evidence()))


def test_ridge_regression_has_a_strength_and_no_epochs() -> None:
    made = description(features=(CURVED,), training=training(optimizer="ridge", ridge=0.0215))
    page = report_html(made, 1, evidence(history=(36.0, 6.25)))
    assert "ridge regression" in text_of(page)
    assert numbers_of(page)[0.0215] == "0.0215"
    for absent in ("epochs", "learning rate", "The cost has no curve"):
        assert absent not in text_of(page)
    assert "smoothly clipped where they are far out, and as hats at quantiles" in text_of(page)


def test_an_ensembles_cost_is_that_on_rows_left_out() -> None:
    how = training(optimizer="adamw", ridge=0.01, members=8, additive_share=0.5, cost=3.25)
    made = description(network=Mlp(hidden=(258,)), training=how)
    page = report_html(made, 1, evidence(history=(36.0, 7.0, 6.5), optimum=5.5))
    text = text_of(page)
    assert "From 36 to 6.5 on rows left out in 2 epochs." in text
    assert "Dashed: the least that any line reaches on the rows it is fitted to, 5.5." in text
    assert "AdamW, learning rate" in text
    assert numbers_of(page)[3.25] == "3.25"


def test_the_networks_that_were_tried_are_in_a_table() -> None:
    trials = (
        Trial("line", cost=39.4375, excess=25.4375, uncertainty=2.4875, seconds=1.04),
        Trial("additive", cost=14.125, excess=0.125, uncertainty=0.25, seconds=4.97, is_chosen=True),
        Trial("ensemble", cost=14.0, excess=0.0, uncertainty=0.0, seconds=24.88),
    )
    page = report_html(description(), 1, evidence(findings=Findings(trials=trials)))
    rows = re.findall(r'<tr( class="us")?><th scope="row" class="short">(\w+)</th>(.*?)</tr>', page.decode())
    tried = {name: [*re.findall(r"([^<>]+)</data>", cells), bool(chosen)] for chosen, name, cells in rows}
    assert tried == {
        "line": ["39.438", "25.438", "2.4875", "1.04", False],
        "additive": ["14.125", "0.125", "0.25", "4.97", True],
        "ensemble": ["14", "0", "0", "24.9", False],
    }
    assert page.count(b"<td>chosen</td>") == 1
    assert "above the least by no more than the standard error of that difference" in text_of(page)
    assert_self_contained(page)


def bars_of(page: bytes, table: str) -> list[tuple[str, float, str]]:
    """The names, the bars' lengths in percent and the numbers of a table of bars."""
    (body,) = re.findall(
        rf'<table class="bars" aria-labelledby="{table}".*?</table>', page.decode(), re.DOTALL
    )
    names = re.findall(r'<th scope="row">(.*?)</th>', body)
    lengths = map(float, re.findall(r"width:([\d.]+)%", body))
    return list(zip(names, lengths, re.findall(r"([^<>]+)</data>", body), strict=True))


def test_inputs_have_bars_by_how_much_they_matter() -> None:
    importance = {AGE.name: 4.1499, FUEL.name: 2.07495, POWER.name: -0.01}
    page = report_html(description(), 1, evidence(importance=importance))
    assert [(html.unescape(name), *bar) for name, *bar in bars_of(page, "importance")] == [
        (AGE.name, 100, "4.15"),
        (FUEL.name, 50, "2.07"),
        (POWER.name, 0, "−0.01"),
    ]
    assert "grows, in lakh, when an input's values are shuffled" in text_of(page)
    assert_self_contained(page)


def test_what_matters_is_no_question_of_a_single_input() -> None:
    page = report_html(description(features=(AGE,)), 1, evidence(importance={AGE.name: 4.0}))
    assert b"What it leans on" not in page


def test_inputs_that_do_not_matter_have_no_bars() -> None:
    page = report_html(description(), 1, evidence(importance={AGE.name: 0.0, FUEL.name: -1.0}))
    assert [length for _, length, _ in bars_of(page, "importance")] == [0, 0]


def test_of_many_inputs_the_dozen_that_matter_most_have_bars_and_curves() -> None:
    features = tuple(CURVED.model_copy(update={"name": f"x{index}"}) for index in range(14))
    inputs = {feature.name: evidence().inputs[AGE.name] for feature in features}
    line = np.column_stack([np.linspace(0, 12, 50), np.linspace(-1, 1, 50)])
    given = evidence(
        inputs=inputs,
        importance={f"x{index}": 1.0 + index for index in reversed(range(14))},
        curves={f"x{index}": line * [1, index] for index in range(14)},
    )
    page = report_html(description(features=features, training=training(ridge=0.1)), 1, given)
    most = [f"x{index}" for index in range(13, 1, -1)]
    assert [name for name, *_ in bars_of(page, "importance")] == most
    assert re.findall(r"Line chart: what the model adds for each (\w+)\.", page.decode()) == most
    assert "2 more inputs matter no more than the last of these." in text_of(page)
    assert_self_contained(page)


def test_a_curve_is_drawn_where_the_rows_are() -> None:
    points = np.array([[0.0, 0.0], [10.0, 5.0], [1e6, 7.0]])
    within = shown_part(points, np.r_[np.linspace(2, 8, ROWS - 1), 1e6])
    assert within[:, 0] == pytest.approx([2, 8], abs=0.1)
    assert within[:, 1] == pytest.approx(within[:, 0] / 2)


def test_a_dates_curve_has_dates_below_it() -> None:
    day = DateFeature(
        name="sold",
        mean=18000,
        std=300,
        minimum=17500,
        maximum=18600,
        deciles=(18000,) * 9,
        example="2019-04-14",
    )
    inputs = evidence().inputs | {"sold": np.linspace(17500, 18600, ROWS)}
    curve = np.array([[17500.0, -1.0], [18000.0, 0.5], [18600.0, 1.0]])
    made = description(features=(day, FUEL), training=training(ridge=0.1))
    page = report_html(made, 1, evidence(inputs=inputs, importance={"sold": 1.0}, curves={"sold": curve}))
    assert re.findall(r">(20\d\d-\d\d-\d\d)</text>", page.decode())
    assert_self_contained(page)


def table_of_two(path: Path) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.float64]]:
    """Two inputs and a positive target, written as a table and returned."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 2))
    y = np.exp(2 + 0.5 * x[:, 0] + 0.3 * rng.random(80))
    np.savetxt(path, np.column_stack([x, y]), delimiter=",", header="a,b,y", comments="", fmt="%.17g")
    return {"a": x[:, 0], "b": x[:, 1]}, y


@pytest.mark.parametrize(
    ("network", "transform"),
    [({"kind": "ridge"}, "none"), ({"kind": "ensemble", "epochs": 2}, "log")],
    ids=["ridge", "ensemble"],
)
def test_the_manifest_says_how_a_crossed_network_came_about(
    tmp_path: Path, network: dict[str, Any], transform: str
) -> None:
    inputs, y = table_of_two(tmp_path / "t.csv")
    target = {"name": "y", "transform": transform}
    learned = learn(tmp_path / "t.csv", make_recipe({"target": target, "network": network}))
    how, crossed = describe_training(learned), learned.model.fitted
    predicted = learned.model.predict(inputs)
    errors = np.log(y) - np.log(predicted) if transform == "log" else y - predicted
    assert how.cost == pytest.approx(np.mean(errors**2), rel=1e-9)
    assert isinstance(crossed, Crossed)
    assert (how.ridge, how.batch_size) == (crossed.strength, None)
    if network["kind"] == "ensemble":
        assert (how.optimizer, how.learning_rate, how.epochs) == ("adamw", 0.005, 2)
        assert (how.members, how.additive_share) == (8, crossed.share)
    else:
        assert (how.optimizer, how.members, how.additive_share) == ("ridge", None, None)


def test_a_published_page_has_what_was_learned_of_the_inputs(tmp_path: Path) -> None:
    table_of_two(tmp_path / "t.csv")
    recipe = make_recipe({"target": {"name": "y"}, "network": {"kind": "ridge"}})
    published = fit(tmp_path / "t.csv", recipe, "toy", open_store(str(tmp_path / "models")))
    page = (tmp_path / "models/toy/versions/1/report.html").read_bytes()
    importance = facts(published.manifest, published.learned, promoted=False)["importance"]
    expected = permutation_importance(published.learned.model, published.learned.table)
    assert importance == expected
    assert set(expected.values()) <= numbers_of(page).keys()
    assert page.count(b"what the model adds for each") == 2


@pytest.mark.parametrize(
    "history",
    [
        (7.0,),
        (7.0, 5.0),
        (5.5, 5.5, 5.5),
        (7.0, 0.0),
        (1e308, 1e200, 1.0),
        (7.0, float("inf"), float("nan")),
        (1e-30, 1e-31, 0.0),
        tuple((5.5 + 1 / (1 + np.arange(100_001))).tolist()),
    ],
    ids=["start", "one epoch", "constant", "exact", "huge", "infinite", "tiny", "long"],
)
def test_any_history_makes_a_page(history: tuple[float, ...]) -> None:
    page = report_html(description(), 1, evidence(history=history))
    assert_self_contained(page)
    assert len(page) < 150_000


@pytest.mark.parametrize(
    "values",
    [
        np.full(ROWS, np.nan),
        np.full(ROWS, 4.0),
        np.where(np.arange(ROWS) % 3, np.nan, np.arange(ROWS, dtype=float)),
        [None if index % 3 else float(index) for index in range(ROWS)],
        np.linspace(-1e300, 1e300, ROWS),
        1e15 + np.arange(ROWS) % 2,
        np.r_[np.zeros(ROWS - 1), 6.5e6],
    ],
    ids=["all missing", "constant", "some NaN", "some None", "huge", "nearly constant", "outlier"],
)
def test_any_column_of_numbers_makes_a_page(values: Any) -> None:
    for features in ((AGE,), FEATURES):
        page = report_html(
            description(features=features), 1, evidence(inputs=evidence().inputs | {AGE.name: values})
        )
        assert_self_contained(page)


def test_predictions_that_overflow_make_a_page() -> None:
    actual, predicted = np.array([1.0, 2.0, 3.0]), np.array([np.inf, np.nan, 1e308])
    assert_self_contained(report_html(description(), 1, evidence(actual=actual, predicted=predicted)))


def test_a_million_rows_make_no_larger_a_page() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=1_000_000)
    page = report_html(
        description(features=(AGE,)),
        1,
        evidence(inputs={AGE.name: x}, target=2 * x + 1, answers=answers_of(2 * x)),
    )
    assert len(page) < 150_000


def test_a_hundred_inputs_have_forty_pictures_and_a_hundred_lines() -> None:
    features = tuple(AGE.model_copy(update={"name": f"x{index}"}) for index in range(100))
    inputs = {feature.name: evidence().inputs[AGE.name] for feature in features}
    page = report_html(description(features=features), 1, evidence(inputs=inputs))
    assert "60 more inputs are in the table but have no picture." in text_of(page)
    assert page.count(b'<th scope="row" class="name">x') == 100
    assert len(page) < 500_000


@pytest.mark.parametrize(
    ("r2", "text"),
    [(0.7654321, "0.7654"), (-6.38e-5, "−0.0001"), (-1e-9, "0.0000"), (-1e9, "−1,000,000,000")],
)
def test_r2_has_four_decimals(r2: float, text: str) -> None:
    assert fixed(r2) == text


@pytest.mark.parametrize(
    ("error", "other", "text"),
    [
        (2.0, 2.0, "level with"),
        (1.5, 2.0, "25 % below"),
        (3.0, 2.0, "50 % above"),
        (0.0, 0.0, "level with"),
        (1.0, 0.0, "∞ % above"),
    ],
)
def test_errors_are_compared_in_words(error: float, other: float, text: str) -> None:
    assert against(error, other) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (-0.128568, "−0.12857"),
        (2013.4, "2013.4"),
        (9999.96, "10,000"),
        (58738.38, "58,738"),
        (6.5e6, "6,500,000"),
        (6019, "6,019"),
        (1.2e-7, "1.2 × 10⁻⁷"),
        (1e15, "10¹⁵"),
        (float("inf"), "∞"),
        (float("nan"), "not a number"),
    ],
)
def test_numbers_are_shown_for_people(number: float, text: str) -> None:
    assert shown(number) == text


def test_what_was_found_of_the_table_is_told() -> None:
    decisions = (
        Decision("age", InputColumn(name="age"), "0.5 to 10"),
        Decision("row", None, "counts <rows>"),
    )
    remarks = (Remark("age", "age is empty in 3 rows", 3, "Fill them"),)
    page = report_html(description(), 1, evidence(findings=Findings(decisions, remarks)))
    assert "age is empty in 3 rows. Fill them." in text_of(page)
    assert b"counts &lt;rows&gt;" in page
    plain = report_html(description(), 1, evidence())
    assert b"What to know of its table" not in plain
    assert b"columns were taken for" not in plain
