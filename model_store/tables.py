"""What the command line prints, for people."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from model_store._difference import Difference
from model_store._promotions import Promotion
from model_store.manifest import Folds, Manifest, Metrics, Scores
from model_store.versions import Version

LIST_HEADING = f"{'model':24} {'version':>7}  {'':8}  {'made (UTC)':16}  {'R²':>7}  predicts"
HISTORY_HEADING = f"{'generation':>10}  {'version':>7}  {'promoted (UTC)':19}  {'before':>6}  reason"
WIDEST_NAME = 52


def list_line(record: Mapping[str, Any]) -> str:
    """One version in a line, its held-out R² included."""
    start = f"{record['model']:24} {record['version']:7}  {'promoted' if record['promoted'] else '':8}"
    if "error" in record:
        return f"{start}  {record['error']}"
    r2 = "–" if record["r2"] is None else f"{record['r2']:.4f}"
    predicts = f"{record['target']} from {', '.join(record['features'])}"
    return f"{start}  {record['created_at']:%Y-%m-%d %H:%M}  {r2:>7}  {predicts}"


def history_line(promotion: Promotion) -> str:
    """One promotion in a line."""
    return (
        f"{promotion.generation:10}  {promotion.version:7}  {promotion.promoted_at:%Y-%m-%d %H:%M:%S}"
        f"  {promotion.previous or '–':>6}  {promotion.reason or ''}"
    ).rstrip()


def prune_line(record: Mapping[str, Any]) -> str:
    """What was, or would be, removed."""
    done = "would be removed" if record["dry_run"] else "removed"
    return f"{record['model']} version {record['version']} {done}: {record['reason']}"


def promoted_line(name: str, promotion: Promotion) -> str:
    """What is promoted now, and since which generation."""
    before = f", before it {promotion.previous}" if promotion.previous else ""
    return f"{name}: version {promotion.version} is promoted (generation {promotion.generation}{before})"


def version_text(version: Version) -> str:
    """A version in a screenful."""
    manifest = version.manifest
    target = f"{manifest.target.name}{unit_in_brackets(manifest.target.unit)}"
    return "\n".join(
        [
            f"{manifest.name} version {manifest.version}, made {manifest.created_at:%Y-%m-%d %H:%M} UTC",
            f"digest    {version.digest}",
            f"predicts  {target}, network {manifest.network.kind}",
            *(f"from      {feature.heading}: {feature.summary}" for feature in manifest.features),
            *score_lines(manifest),
            *(
                f"tensor    {name} {list(tensor.shape)} = {tensor.ravel()[:6].tolist()}"
                f"{' …' if tensor.size > 6 else ''}"
                for name, tensor in sorted(version.predictor.weights.items())
            ),
        ]
    )


def score_lines(manifest: Manifest) -> list[str]:
    """The held-out scores beside the baselines, in lines."""
    metrics = manifest.metrics
    if metrics is None:
        return ["scores    none: no rows were held out"]
    how = metrics.how_held_out(manifest.training.split).removeprefix(",").strip()
    return [
        *(f"scores    {line}" for line in score_table(metrics)),
        f"rows      {metrics.rows} held-out ones{f': {how}' if how else ''}",
        *([f"folds     {folds_text(metrics.spread)}"] if metrics.spread else []),
    ]


def score_table(metrics: Metrics) -> list[str]:
    """R², RMSE and MAE of the model and of the two it has to beat, a line each, below their names.

    The model's have their bounds behind them, and all as many digits as are not uncertain.
    """
    scores = {
        "this model": metrics.model,
        "exact least squares": metrics.least_squares,
        "predict the mean": metrics.predict_the_mean,
    }
    bounds = metrics.uncertainty
    columns = [
        score_column(heading, values, edges)
        for heading, values, edges in zip(
            ("R²", "RMSE", "MAE"),
            zip(*map(read_by_people, scores.values()), strict=True),
            zip(*map(read_by_people, (bounds.lower, bounds.upper)), strict=True) if bounds else [None] * 3,
            strict=True,
        )
    ]
    rows = zip(["", *scores], *columns, strict=True)
    lines = [f"{label:19}  {'  '.join(cells)}".rstrip() for label, *cells in rows]
    return [*lines, f"in brackets {bounds.coverage:.0%} bounds"] if bounds else lines


def read_by_people(scores: Scores) -> tuple[float, float, float]:
    """R², RMSE and MAE."""
    return scores.r2, scores.rmse, scores.mae


def score_column(heading: str, values: Sequence[float], edges: tuple[float, float] | None) -> list[str]:
    """A heading over values, the first with the bounds it lies between, in a column."""
    digits = decimals(*edges) if edges else 4
    first, *others = (f"{value:z,.{digits}f}" for value in values)
    bounds = f" ({edges[0]:z,.{digits}f} to {edges[1]:z,.{digits}f})" if edges else ""
    width = max(map(len, (heading, first, *others)))
    return [
        f"{cell:>{width}}{behind:{len(bounds)}}"
        for cell, behind in zip((heading, first, *others), ("", bounds, "", ""), strict=True)
    ]


def folds_text(folds: Folds) -> str:
    """How the model's scores vary over the folds."""
    mean, std = folds.mean, folds.std
    r2, rmse, mae = (
        plus_minus(*score) for score in ((mean.r2, std.r2), (mean.rmse, std.rmse), (mean.mae, std.mae))
    )
    return f"R² {r2}, RMSE {rmse}, MAE {mae} (mean ± standard deviation of {folds.count} folds)"


def with_bounds(value: float, lower: float, upper: float) -> str:
    """A value with the bounds it lies between, to two digits of half their distance: 0.57 (0.45 to 0.66)."""
    digits = decimals(lower, upper)
    return f"{value:z,.{digits}f} ({lower:z,.{digits}f} to {upper:z,.{digits}f})"


def decimals(lower: float, upper: float) -> int:
    """How many decimals show two digits of half the distance of two bounds."""
    half = (upper - lower) / 2
    return max(1 - math.floor(math.log10(half)), 0) if half > 0 else 4


def plus_minus(mean: float, std: float) -> str:
    """A mean beside its standard deviation, both to two digits of the latter: 0.791 ± 0.012."""
    digits = max(1 - math.floor(math.log10(std)), 0) if std else 4
    return f"{mean:,.{digits}f} ± {std:,.{digits}f}"


def differences_text(version: Version, against: Version, found: Sequence[Difference]) -> str:
    """Two versions side by side where they differ."""
    name, numbers = version.manifest.name, (version.manifest.version, against.manifest.version)
    if not found:
        return f"{name}: versions {numbers[0]} and {numbers[1]} are the same in all but number and date"
    width = min(WIDEST_NAME, max(len(difference.what) for difference in found))
    heading = f"{name:{width}}  {f'version {numbers[0]}':>14}  {f'version {numbers[1]}':>14}  {'change':>11}"
    lines = (
        f"{difference.what[-width:]:{width}}  {cell(difference.version)}  {cell(difference.against)}"
        f"  {'' if difference.change is None else f'{difference.change:+.4g}':>11}".rstrip()
        for difference in found
    )
    return "\n".join([heading, *lines])


def cell(value: float | str | bool | None) -> str:
    """A value in a column 14 wide, numbers to seven digits."""
    text = "–" if value is None else f"{value:.7g}" if isinstance(value, float) else str(value)
    return f"{text if len(text) <= 14 else text[:13] + '…':>14}"


def unit_in_brackets(unit: str | None) -> str:
    """A unit in brackets, if there is one."""
    return f" ({unit})" if unit else ""
