"""What training shows in the terminal."""

import typer

from model_store.manifest import Metrics
from training.data import Table
from training.evaluate import least_squares, mean_squared_error
from training.fit import OnEpoch
from training.model import Model


def show_table(table: Table) -> None:
    """How many rows there are, and how many were dropped for want of which value."""
    typer.echo(f"{table.rows:,} rows of {table.source}")
    for name, count in table.dropped.items():
        typer.echo(f"  {count:,} more were dropped: {name} is empty")


def show_cost(epochs: int) -> OnEpoch:
    """A line at epochs 0 to 5, 10, 20, 50, 100, 200, 500 … and the last."""

    def on_epoch(epoch: int, cost: float) -> None:
        leading = epoch // 10 ** (len(str(epoch)) - 1)
        round_number = str(epoch).rstrip("0") == str(leading) and leading in {1, 2, 5}
        if round_number or epoch <= 5 or epoch == epochs:
            typer.echo(f"epoch {epoch:6}  cost {cost:.6f}")

    return on_epoch


def show_model(model: Model, table: Table) -> None:
    """The weights for z-scored inputs, and how far the cost is from the exact optimum."""
    tensors = model.fitted.network.tensors()
    weights = tensors["layers.0.weight"][0]
    for feature, weight in zip(model.features, weights, strict=True):
        typer.echo(
            f"W = {weight:.3f}  (z-score of {feature.name}: mean {feature.mean!r}, std {feature.std!r})"
        )
    typer.echo(f"b = {tensors['layers.0.bias'][0]:.3f}")
    optimum = mean_squared_error(table.target, least_squares(model.inputs, table.target, model.inputs))
    above = max(model.fitted.cost - optimum, 0.0)
    typer.echo(f"cost {model.fitted.cost:.6f}, {above:.1e} above the exact least-squares optimum")


def show_scores(metrics: Metrics) -> None:
    """The held-out scores beside the baselines."""
    typer.echo(f"on {metrics.rows:,} held-out rows    R²       RMSE        MAE")
    for label, scores in (
        ("this model", metrics.model),
        ("exact least squares", metrics.least_squares),
        ("predict the mean", metrics.predict_the_mean),
    ):
        typer.echo(f"  {label:20} {scores.r2:8.4f} {scores.rmse:10.4f} {scores.mae:10.4f}")
