"""Train offline: `fit` publishes a version of a model, `sample` writes a table to try it on.

Exit codes: 0 done, 2 usage, 3 the data or the store refused, 4 the training diverged.
"""

import math
import sys
from pathlib import Path
from typing import Annotated

import typer

from model_store.errors import InvalidName, StoreError
from model_store.manifest import Linear, check_name
from model_store.store import open_store
from training.console import show_cost, show_model, show_scores, show_table
from training.data import DataError, read_table
from training.fit import Diverged, Optimizer, Recipe
from training.model import fit_model, hold_out
from training.publish import publish
from training.sample import write_used_cars

cli = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)


def positive(value: float) -> float:
    """Refuse anything but a finite number above 0."""
    if not 0 < value < math.inf:
        message = "a finite number above 0 is due"
        raise typer.BadParameter(message)
    return value


@cli.command("fit")
def fit_command(
    data: Annotated[Path, typer.Argument(help="A CSV file; its first line names the columns.")],
    target: Annotated[str, typer.Option(help="The column to predict.")],
    feature: Annotated[list[str], typer.Option(help="A numeric column to predict from; may be repeated.")],
    name: Annotated[str, typer.Option(help="The model's name in the store.")],
    optimizer: Annotated[Optimizer, typer.Option(help="gd: gradient descent, all rows a step.")] = "gd",
    learning_rate: Annotated[
        float, typer.Option(callback=positive, help="The step's share of the gradient.")
    ] = 0.1,
    epochs: Annotated[int, typer.Option(min=0, help="Times to go over all rows.")] = 200,
    seed: Annotated[int, typer.Option(help="For the first weights and the held-out rows.")] = 0,
    holdout: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Share of rows to score on; 0: no scores.")
    ] = 0.2,
    store: Annotated[str, typer.Option(help="The store's folder.")] = "models",
    promote: Annotated[bool, typer.Option("--promote", help="Promote the new version.")] = False,
) -> None:
    """Train a model on a table and publish it as the next version."""
    check_name(name)
    recipe = Recipe(Linear(), optimizer, learning_rate, epochs, seed)
    table = read_table(data, target, feature)
    show_table(table)
    metrics, interval = hold_out(recipe, table, holdout) if holdout else (None, None)
    model = fit_model(recipe, table, show_cost(epochs))
    show_model(model, table)
    if metrics:
        show_scores(metrics)
    versions = open_store(store)
    manifest = publish(versions, name, recipe, table, model, metrics, interval)
    typer.echo(f"{name} version {manifest.version} is in the store {store}")
    if promote:
        versions.promote(name, manifest.version)
        typer.echo("it is promoted; serve it with:")
        typer.echo(f"  python -m app --store {store} --name {name}")


@cli.command("sample")
def sample_command(
    path: Annotated[Path, typer.Argument(help="The CSV file to write.")],
) -> None:
    """Write a synthetic table of used cars: none of its rows is a real car."""
    write_used_cars(path)
    typer.echo(f"wrote a synthetic table of used cars to {path}")


def main() -> int:
    """Run one command and return its exit code."""
    try:
        cli()
    except InvalidName as error:
        return fail(error, 2)
    except (DataError, StoreError) as error:
        return fail(error, 3)
    except Diverged as error:
        return fail(error, 4)
    return 0


def fail(error: Exception, code: int) -> int:
    """Say what is wrong and return the exit code."""
    typer.echo(f"error: {error}", err=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
