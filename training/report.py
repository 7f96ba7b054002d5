"""The page of a version: how it was trained, how far it errs and on what data, in pictures and in figures.

One HTML file that asks for nothing: no script, no address, its pictures inlined as SVG. The same arguments
give the same bytes. It computes no metric; what it says in figures it reads from the description.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from model_store.answers import Answers
from model_store.columns import CategoricalFeature, Column, DateFeature, Matrix, Measured, NumericFeature
from model_store.dates import as_text
from model_store.manifest import Description, Linear, Metrics, ResidualQuantiles, Target
from model_store.tables import decimals, folds_text
from training.drawing import (
    BLUE,
    GREY,
    HUGE,
    ORANGE,
    Interval,
    Picture,
    brief,
    curve,
    drawable,
    finite,
    finite_pairs,
    frame,
    histogram,
    log_axis,
    on_axis,
    outside_note,
    percent,
    picture,
    plain_axis,
    render,
    scatter,
    shown,
    signed,
    thinned_curve,
    window,
    within,
)
from training.intervals import Tenth
from training.remarks import Findings
from training.weights import Weight

MOST_SAMPLED, MOST_PICTURED, MOST_CATEGORIES, MOST_NAMED = 200_000, 40, 12, 5
MOST_IMPORTANT = 12


@dataclass(frozen=True)
class Evidence:
    """What the page shows beside the description.

    `history` is the cost (mean squared error) after 0, 1, 2 … epochs and `optimum` the least that any line
    reaches on the same rows. `actual` and `predicted` (n,) are the held-out rows', in the target's unit.
    `inputs` are raw training rows, a column a feature, `target` and `answers` belong to them. `findings`
    tell of the table; `command` makes the version again, if there is one. `weights` are a line's, of which
    `rank_warning` says which the rows do not tell apart. `importance` is by how much the error grows without
    an input, in the target's unit, the greatest first; `curves` (points, 2) are of inputs x and what an
    additive model adds for them. `tenths` say how many held-out rows intervals hold.
    """

    history: tuple[float, ...]
    optimum: float | None
    actual: Matrix | None
    predicted: Matrix | None
    inputs: dict[str, Column]
    target: Matrix
    answers: Answers
    findings: Findings
    command: str | None
    weights: tuple[Weight, ...] = ()
    rank_warning: str | None = None
    importance: dict[str, float] = field(default_factory=dict)
    curves: dict[str, Matrix] = field(default_factory=dict)
    tenths: tuple[Tenth, ...] = ()


def report_html(description: Description, version: int, evidence: Evidence) -> bytes:
    """The page's bytes."""
    drawn = [
        draw(description, evidence)
        for draw in (cost_curve, fit_over_data, predicted_against_actual, residuals)
    ]
    return render(
        "report.html",
        description=description,
        version=version,
        command=evidence.command,
        findings=evidence.findings,
        weights=evidence.weights if len(evidence.weights) <= MOST_PICTURED else (),
        rank_warning=evidence.rank_warning,
        tenths=[in_unit(description.target, tenth) for tenth in evidence.tenths],
        summary=summary(description),
        encoding=encoding(description),
        verdict=verdict(description),
        promise=promise(description),
        between=between,
        pictures=[picture for picture in drawn if isinstance(picture, Picture)],
        remarks=[remark for remark in drawn if isinstance(remark, str)],
        importance=importance_bars(evidence) if len(evidence.importance) > 1 else [],
        curves=added_curves(description, evidence),
        distributions=distributions(description, evidence),
        bars={feature.name: bars(feature) for feature in categorical(description)},
        left_out=max(0, len(description.features) - MOST_PICTURED),
    )


def summary(description: Description) -> str:
    """What the model is, in a sentence or two."""
    names = [feature.name for feature in description.features]
    first = names if len(names) <= MOST_NAMED else [*names[: MOST_NAMED - 1], f"{len(names) - 4} more inputs"]
    inputs = f"{', '.join(first[:-1])} and {first[-1]}" if first[1:] else first[0]
    how = f"from {inputs} with {network(description)}{logarithm(description.target)}"
    return f"Predicts {labelled(description.target)} {how}."


def logarithm(target: Target) -> str:
    """What training on the logarithm makes of the prediction; nothing where it was not."""
    if target.transform == "none":
        return ""
    if target.smearing is None:
        return ", trained on the target's logarithm, so that a prediction is the median: half lie above it"
    return (
        ", trained on the target's logarithm; a prediction is the mean, the median times Duan's smearing "
        f"factor {shown(target.smearing)}"
    )


def network(description: Description) -> str:
    """The kind of model, with its article."""
    if isinstance(description.network, Linear):
        return line(description)
    if description.training.members:
        return ensemble(description, description.training.members)
    sizes = " and ".join(map(str, description.network.hidden))
    return f"a multilayer perceptron ({sizes} hidden units, {description.network.activation})"


def line(description: Description) -> str:
    """The kind of a line through the encoded inputs, with its article."""
    if any(isinstance(feature, Measured) and feature.knots for feature in description.features):
        return "an additive model"
    if description.training.ridge is not None:
        return "a line with small weights (ridge)"
    first, *others = description.features
    return "a linear model" if others or isinstance(first, CategoricalFeature) else "a straight line"


def ensemble(description: Description, members: int) -> str:
    """What the hidden units of an ensemble are, but for two through which an additive model passes."""
    share = description.training.additive_share
    units = (description.network.layers[0] - (2 if share else 0)) // members
    mixed = f" mixed with an additive model ({percent(share)})" if share else ""
    return f"an ensemble of {members} networks of {units} units{mixed}"


def encoding(description: Description) -> str:
    """How numbers and dates reach the network."""
    if description.training.normalize == "none":
        return "z-scores, after a training on raw inputs"
    measured = [feature for feature in description.features if isinstance(feature, Measured)]
    clipped = ", smoothly clipped where they are far out" if any(each.clip for each in measured) else ""
    hats = ", and as hats at quantiles" if any(each.knots for each in measured) else ""
    return f"z-scores: (x − mean) / std of the training rows{clipped}{hats}"


def verdict(description: Description) -> str:
    """How far the model errs, beside the two it has to beat."""
    metrics, unit = description.metrics, description.target.unit
    if not metrics:
        return "No rows were held out, so how far it errs on rows it has not seen was not measured."
    rmse, mean, line = (
        scores.rmse for scores in (metrics.model, metrics.predict_the_mean, metrics.least_squares)
    )
    how = metrics.how_held_out(description.training.split)
    folds = f" Fold by fold: {folds_text(metrics.spread)}." if metrics.spread else ""
    return (
        f"On {shown(metrics.rows)} rows it had not seen{how}, its root mean squared error is "
        f"{with_unit(rmse, unit)}{between(metrics, 'rmse')}: {against(rmse, mean)} predicting the mean, "
        f"and {against(rmse, line)} exact least squares.{folds}"
    )


def between(metrics: Metrics, score: str) -> str:
    """The bounds of one of the model's scores, in brackets; nothing where they are not known."""
    bounds = metrics.uncertainty
    if bounds is None:
        return ""
    lower, upper = (getattr(each, score) for each in (bounds.lower, bounds.upper))
    digits = decimals(lower, upper)
    return f" ({lower:z,.{digits}f} to {upper:z,.{digits}f})".replace("-", "−")


def against(error: float, other: float) -> str:
    """'1.5 % below', '3 % above' or 'level with'."""
    if abs(error - other) <= 0.0005 * other:
        return "level with"
    change = error / other - 1 if other else math.inf
    return f"{percent(abs(change))} {'above' if change > 0 else 'below'}"


def promise(description: Description) -> str:
    """What the interval says about a new row."""
    interval = description.interval
    if not interval:
        return "It claims no interval around its predictions."
    rows = f"About {percent(interval.coverage)} of new rows are expected to lie between"
    if not interval.scale:
        return f"{rows} {around(description, interval, 1.0)} the prediction."
    least, most = (around(description, interval, of(interval.scale.sizes)) for of in (min, max))
    return (
        f"{rows} two bounds whose distance depends on the prediction: {least} the prediction where they are "
        f"nearest, {most} it where they are farthest."
    )


def around(description: Description, interval: ResidualQuantiles, size: float) -> str:
    """Where the interval's bounds are, seen from the prediction, for a size of its scale."""
    target, bounds = description.target, (interval.lower * size, interval.upper * size)
    if target.transform == "log":
        return f"{' and '.join(brief(target.untransformed(bound)) for bound in bounds)} times"
    return " and ".join(beside(bound, target.unit) for bound in bounds)


def beside(bound: float, unit: str | None) -> str:
    """Where a bound of the interval is, seen from the prediction."""
    return f"{with_unit(abs(bound), unit)} {'below' if bound < 0 else 'above'}"


def with_unit(number: float, unit: str | None) -> str:
    """A number and its unit."""
    return f"{shown(number)} {unit}" if unit else shown(number)


def in_unit(target: Target, tenth: Tenth) -> Tenth:
    """A tenth of the predictions from and to what they are in the target's unit."""
    least, most = (float(target.untransformed(output)) for output in (tenth.least, tenth.most))
    return replace(tenth, least=least, most=most)


def labelled(column: NumericFeature | Target) -> str:
    """A column's name and unit."""
    return f"{column.name} ({column.unit})" if column.unit else column.name


def cost_curve(description: Description, evidence: Evidence) -> Picture | str:
    """The cost after each epoch, above the least that a line reaches; ridge regression has no epochs."""
    history, optimum, training = np.array(evidence.history), evidence.optimum, description.training
    if training.optimizer == "ridge":
        return ""
    weighted = "weighted " if training.weight else ""
    epochs, costs = thinned_curve(np.arange(len(history), dtype=np.float64), history)
    if len(costs) < 2:
        return "The cost has no curve: too few of its values are positive numbers."

    def draw(axes: Axes) -> None:
        axes.plot(epochs, costs, color=BLUE, marker="o" if len(costs) < 20 else "", markersize=4)
        lowest = costs.min()
        if optimum is not None and 0 < optimum < HUGE:
            axes.axhline(optimum, color=ORANGE, linestyle=(0, (4, 3)), linewidth=1.4)
            lowest = min(lowest, optimum)
        log_axis(axes, axes.yaxis, lowest, costs.max())
        axes.margins(x=0.02)
        plain_axis(axes.xaxis, whole=True)
        axes.set(xlabel="epochs", ylabel=f"cost ({weighted}mean squared error)")

    start, end = shown(float(history[0])), shown(float(history[-1]) if training.members else training.cost)
    unseen = " on rows left out" if training.members else ""
    caption = f"From {start} to {end}{unseen} in {shown(len(history) - 1)} epochs."
    if optimum is not None:
        seen = " on the rows it is fitted to" if training.members else ""
        caption += f" Dashed: the least that any line reaches{seen}, {shown(optimum)}."
    return picture("cost", "Cost", "Line chart: the cost after each epoch.", caption, draw)


def fit_over_data(description: Description, evidence: Evidence) -> Picture | str:
    """The predictions over the rows, for a model with one numeric input."""
    (feature, *others), target = description.features, description.target
    if others or not isinstance(feature, NumericFeature):
        return ""
    answers = evidence.answers
    drawn = (evidence.inputs[feature.name], evidence.target, answers.values, answers.lower, answers.upper)
    rows = np.column_stack([numbers(column) for column in drawn if column is not None])
    rows = rows[np.isfinite(rows).all(axis=1)]
    if not (drawable(rows[:, 0]) and drawable(rows[:, 1])):
        return "The fit has no picture: too few of its rows are complete."
    across, up = window(rows[:, 0]), window(rows[:, 1:3].ravel())
    x, _, predicted, *bounds = curve(rows, across).T

    def draw(axes: Axes) -> None:
        scatter(axes, rows[:, 0], rows[:, 1], across, up)
        if bounds:
            axes.fill_between(x, *bounds, color=ORANGE, alpha=0.13, linewidth=0)
        axes.plot(x, predicted, color=ORANGE, linewidth=2.4)
        frame(axes, across, up)
        axes.set(xlabel=on_axis(labelled(feature)), ylabel=on_axis(labelled(target), 30))

    caption = equation(description, rows)
    if description.interval:
        caption += f" Shaded: the {percent(description.interval.coverage)} interval."
    caption += outside_note(rows[:, 0], rows[:, 1], across, up)
    alt = "Scatter plot: the training rows, with the model's predictions as a line through them."
    return picture("fit", "The fit over the data", alt, caption, draw)


def equation(description: Description, rows: Matrix) -> str:
    """What the line says in the normalised input; `rows` (n, 3 or 5): input, target, prediction, bounds."""
    feature, target = description.features[0], description.target
    if (
        not isinstance(description.network, Linear)
        or not isinstance(feature, NumericFeature)
        or not feature.is_z_score
    ):
        return "Line: the model's predictions."
    with np.errstate(all="ignore"):
        outputs = np.log(rows[:, 2]) if target.transform == "log" else rows[:, 2]
        z = (rows[:, 0] - feature.mean) / feature.std
        at, beyond = int(z.argmin()), int(z.argmax())
        weight = float((outputs[beyond] - outputs[at]) / (z[beyond] - z[at]))
        bias = float(outputs[at] - weight * z[at])
    left = f"log {target.name}" if target.transform == "log" else target.name
    z_score = f"({feature.name} − {shown(feature.mean)}) / {shown(feature.std)}"
    return f"{left} = {shown(bias)} {signed(weight)} · {z_score}."


def predicted_against_actual(description: Description, evidence: Evidence) -> Picture | str:
    """The held-out rows' predictions beside what was true."""
    if evidence.actual is None or evidence.predicted is None:
        return ""
    actual, predicted = finite_pairs(evidence.actual, evidence.predicted)
    both = np.concatenate([actual, predicted])
    if not drawable(both):
        return "Predictions and actual values have no picture: they do not vary."
    limits = window(both)

    def draw(axes: Axes) -> None:
        scatter(axes, actual, predicted, limits, limits)
        axes.plot(limits, limits, color=ORANGE, linewidth=1.4, linestyle=(0, (4, 3)))
        frame(axes, limits, limits)
        unit = f" ({description.target.unit})" if description.target.unit else ""
        axes.set(xlabel=on_axis(f"actual{unit}"), ylabel=on_axis(f"predicted{unit}"))

    caption = f"{held_out_rows(description, evidence.actual)}; on the dashed line a prediction is right."
    caption += outside_note(actual, predicted, limits, limits)
    alt = "Scatter plot: the predictions for the held-out rows against their actual values."
    return picture("actual", "Predicted against actual", alt, caption, draw)


def held_out_rows(description: Description, pictured: Matrix) -> str:
    """How many held-out rows a picture of values (n,) shows, of how many."""
    scored = description.metrics.rows if description.metrics else len(pictured)
    share = f"{shown(len(pictured))} of " if len(pictured) < scored else ""
    return f"{share}{shown(scored)} held-out rows"


def residuals(description: Description, evidence: Evidence) -> Picture | str:
    """How far the held-out rows are from their predictions, with the interval's bounds."""
    if evidence.actual is None or evidence.predicted is None:
        return ""
    actual, predicted, target = evidence.actual, evidence.predicted, description.target
    with np.errstate(all="ignore"):
        if target.transform == "log":
            actual, predicted = np.log(actual), np.log(predicted)
        errors = finite(actual - predicted)
    if not drawable(errors):
        return "The residuals have no picture: they do not vary."
    interval = description.interval
    lines = [interval.lower, interval.upper] if interval and not interval.scale else []
    low, high = window(errors)
    limits = min([low, *lines]), max([high, *lines])

    def draw(axes: Axes) -> None:
        histogram(axes, errors, limits)
        for bound in lines:
            axes.axvline(bound, color=ORANGE, linestyle=(0, (4, 3)), linewidth=1.6)
        unit = f" ({target.unit})" if target.unit else ""
        difference = (
            "log actual − log predicted" if target.transform == "log" else f"actual − predicted{unit}"
        )
        axes.set(xlabel=on_axis(difference), ylabel="held-out rows")

    caption = f"{held_out_rows(description, evidence.actual)}. "
    if lines:
        caption += f"Dashed: the interval's bounds, {' and '.join(map(shown, lines))}."
    elif interval:
        caption += "The interval's bounds depend on the prediction."
    caption += outside_note(errors, errors, limits, limits)
    marked = ", with the interval's bounds" if lines else ""
    alt = f"Histogram: the residuals of the held-out rows{marked}."
    return picture("residuals", "Residuals", alt, caption.strip(), draw)


def importance_bars(evidence: Evidence) -> list[tuple[str, float, float]]:
    """The inputs that matter most, by how much the error grows without each, and bars' lengths in percent."""
    inputs = list(evidence.importance.items())[:MOST_IMPORTANT]
    longest = max(0.0, *evidence.importance.values()) or 1.0
    return [(name, growth, round(100 * max(growth, 0.0) / longest, 1)) for name, growth in inputs]


def added_curves(description: Description, evidence: Evidence) -> list[Picture]:
    """What an additive model adds for each number and date, of those that matter most, on one scale."""
    features = {feature.name: feature for feature in description.features}
    drawn = [
        (feature, shown_part(evidence.curves[name], evidence.inputs[name]))
        for name in evidence.importance
        if name in evidence.curves and isinstance(feature := features[name], NumericFeature | DateFeature)
    ][:MOST_IMPORTANT]
    heights = np.concatenate([points[:, 1] for _, points in drawn]) if drawn else np.empty(0)
    if not drawable(heights):
        return []
    up = float(heights.min()), float(heights.max())
    return [
        added_curve(f"a{index}", description.target, feature, points, up)
        for index, (feature, points) in enumerate(drawn)
    ]


def shown_part(points: Matrix, values: Column) -> Matrix:
    """Of a curve (points, 2) what lies in the window of the rows' values (n,), from end to end."""
    across = window(finite(numbers(values)))
    x = np.unique([*across, *points[within(points[:, 0], across), 0]])
    return np.column_stack([x, np.interp(x, points[:, 0], points[:, 1])])


def added_curve(
    key: str, target: Target, feature: NumericFeature | DateFeature, points: Matrix, up: Interval
) -> Picture:
    """The curve (points, 2) of one input, within the heights `up`."""
    across = float(points[0, 0]), float(points[-1, 0])
    added = f"added to log {target.name}" if target.transform == "log" else f"added to {labelled(target)}"

    def draw(axes: Axes) -> None:
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.plot(points[:, 0], points[:, 1], color=ORANGE)
        frame(axes, across, up)
        if isinstance(feature, DateFeature):
            plain_axis(axes.xaxis, whole=True, most=3)
            axes.xaxis.set_major_formatter(FuncFormatter(lambda days, _: as_text(days)))
        axes.set_ylabel(on_axis(added, 28))

    alt = f"Line chart: what the model adds for each {feature.name}."
    return picture(key, feature.heading, alt, "", draw, (3.9, 2.4))


def distributions(description: Description, evidence: Evidence) -> dict[str, Picture]:
    """The histograms of the target and of the first numeric inputs, by name."""
    drawn: dict[str, Picture] = {}
    columns: list[tuple[NumericFeature | Target, Column]] = [
        (feature, evidence.inputs[feature.name])
        for feature in description.features[:MOST_PICTURED]
        if isinstance(feature, NumericFeature)
    ]
    for index, (column, values) in enumerate([(description.target, evidence.target), *columns]):
        present = finite(numbers(values))
        if drawable(present):
            role = "the target" if index == 0 else "an input"
            drawn["" if index == 0 else column.name] = distribution(f"d{index}", column, role, present)
    return drawn


def distribution(key: str, column: NumericFeature | Target, role: str, values: Matrix) -> Picture:
    """The histogram of a column's values (n,), in its unit."""
    limits = window(values)

    def draw(axes: Axes) -> None:
        histogram(axes, values, limits)
        axes.set_xlabel(on_axis(column.unit or ""))

    alt = f"Histogram: how {column.name}, {role}, is spread over the training rows."
    caption = f"Mean {with_unit(column.mean, column.unit)}, std {shown(column.std)}."
    caption += outside_note(values, values, limits, limits)
    return picture(key, labelled(column), alt, caption, draw, (3.9, 2.0))


def categorical(description: Description) -> list[CategoricalFeature]:
    """The inputs that get bars."""
    return [f for f in description.features[:MOST_PICTURED] if isinstance(f, CategoricalFeature)]


def bars(feature: CategoricalFeature) -> list[tuple[str, int, float]]:
    """The most frequent categories with their rows and the bar's length in percent; then the others."""
    ordered = sorted(feature.categories, key=lambda category: -category.rows)
    rows = [(category.value, category.rows) for category in ordered[:MOST_CATEGORIES]]
    if others := ordered[MOST_CATEGORIES:]:
        rows.append((f"{len(others)} others", sum(category.rows for category in others)))
    longest = max(count for _, count in rows)
    return [(value, count, round(100 * count / longest, 1)) for value, count in rows]


def numbers(column: Column) -> Matrix:
    """A column's values (n,) as numbers, of very many evenly spaced ones; NaN where one is missing."""
    return np.asarray(column[:: math.ceil(len(column) / MOST_SAMPLED) or 1], dtype=np.float64)
