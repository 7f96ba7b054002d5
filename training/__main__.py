"""Train offline: `fit` publishes a version of a model, `compare` shows the optimizers side by side.

`verify` checks a version and, with `--retrain`, trains it again and compares the bits.

Exit codes: 0 done, 1 trained again with other bits, 2 usage, 3 the data or the store refused, 4 the training
diverged, 5 the version is in the store but was not promoted.
"""

import json
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from model_store.errors import InvalidName, StoreError
from model_store.store import open_store
from model_store.versions import Version
from training import pipeline
from training.console import Narrator, facts
from training.data import DataError
from training.recipe import Optimizer, Recipe, RecipeInvalid, make_recipe, read_recipe
from training.sample import write_used_cars
from training.stability import Unstable
from training.verify import train_again

PROGRAM = "python -m training"
LONGEST_NAME = 63

cli = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)

Source = Annotated[
    Path, typer.Argument(help="A CSV or Parquet file, a folder of Parquet files, or a recipe.toml.")
]
Data = Annotated[Path | None, typer.Option(help="With a recipe: the table in place of the one it names.")]
Target = Annotated[str | None, typer.Option(help="The column to predict.")]
Features = Annotated[
    list[str] | None, typer.Option("--feature", help="A numeric column to predict from; repeatable.")
]
Categories = Annotated[
    list[str] | None, typer.Option("--category", help="A column of categories to predict from; repeatable.")
]
Dates = Annotated[
    list[str] | None,
    typer.Option(
        "--date", help="A column of dates to predict from, in ISO 8601 or as DAY=%d/%m/%Y; repeatable."
    ),
]
Excluded = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude", help="A column to leave out; all that are not named are found out. Repeatable."
    ),
]
Rare = Annotated[
    int | None,
    typer.Option(help="Take categories with fewer rows for one, 'other'. [default: 10 if found out]"),
]
NewCategories = Annotated[
    Literal["other", "refuse"] | None,
    typer.Option(
        help="Answer categories that were not in training as 'other'. [default: other if found out]"
    ),
]
Transform = Annotated[
    Literal["none", "log"] | None, typer.Option("--target-transform", help="log: train on the logarithm.")
]
Predicts = Annotated[
    Literal["median", "mean"] | None,
    typer.Option(help="With --target-transform log: mean, by smearing. [default: median]"),
]
Rate = Annotated[
    float | None,
    typer.Option(
        help="The step's share of the gradient. [default: gd 0.1; sgd, rmsprop, adam 0.01; momentum 0.001]"
    ),
]
Epochs = Annotated[int | None, typer.Option(help="Times to go over all rows. [default: 200]")]
BatchSize = Annotated[
    int | None, typer.Option(help="Rows a step, for all optimizers but gd and exact. [default: 64]")
]
Seed = Annotated[
    int | None, typer.Option(help="For the first weights, the held-out rows and the batches. [default: 0]")
]
Normalize = Annotated[
    Literal["z-score", "none"] | None, typer.Option(help="none: train on raw inputs. [default: z-score]")
]
NumberEncoding = Annotated[
    Literal["z-score", "clipped", "piecewise"] | None,
    typer.Option(
        help="How numbers and dates reach the model; clipped: as z-scores bounded smoothly; piecewise: so, "
        "and a line may bend at quantiles. [default: piecewise for ridge and ensemble, else z-score]"
    ),
]
NetworkKind = Annotated[
    Literal["auto", "linear", "ridge", "ensemble", "mlp"] | None,
    typer.Option(
        help="auto: what suits the table. linear: a line. ridge: a line with small weights, or by piecewise "
        "encoding an additive model. ensemble: small networks mixed with that. mlp: one network. "
        "[default: auto, but linear for a single number that is named, and where --number-encoding or how to "
        "descend is said]"
    ),
]
Missing = Annotated[
    Literal["drop", "mean"] | None,
    typer.Option(help="mean: fill missing numbers, here and at serving, in place of dropping their rows."),
]
Separator = Annotated[
    str | None, typer.Option(help="What separates the cells of a table of text. [default: found out]")
]
Decimal = Annotated[str | None, typer.Option(help="The decimal mark: . or , [default: found out]")]
Encoding = Annotated[str | None, typer.Option(help="As utf-8 or windows-1252. [default: found out]")]
NoHeader = Annotated[
    bool, typer.Option("--no-header", help="The first line is a row: the columns are column_1, column_2 …")
]
MissingWords = Annotated[
    list[str] | None,
    typer.Option("--missing-word", help="A cell that means a missing number, such as ?; repeatable."),
]
Sheet = Annotated[str | None, typer.Option(help="The sheet of an Excel file. [default: the first]")]
Weight = Annotated[
    str | None, typer.Option(help="A column of numbers: how much each row counts in the cost and the scores.")
]


@cli.command("fit")
def fit_command(
    context: typer.Context,
    source: Source,
    data: Data = None,
    target: Target = None,
    feature: Features = None,
    category: Categories = None,
    date: Dates = None,
    exclude: Excluded = None,
    name: Annotated[str | None, typer.Option(help="The model's name. [default: the table's]")] = None,
    target_transform: Transform = None,
    predicts: Predicts = None,
    optimizer: Annotated[
        Optimizer | None,
        typer.Option(
            help="How to descend, or exact: solve. Saying it asks for a line, or with --hidden for an mlp. "
            "[default: gd for a line of one number, exact for other lines, adam for an mlp]"
        ),
    ] = None,
    learning_rate: Rate = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    separator: Separator = None,
    decimal: Decimal = None,
    encoding: Encoding = None,
    no_header: NoHeader = False,
    missing_word: MissingWords = None,
    sheet: Sheet = None,
    seed: Seed = None,
    normalize: Normalize = None,
    number_encoding: NumberEncoding = None,
    missing: Missing = None,
    rare: Rare = None,
    new_categories: NewCategories = None,
    holdout: Annotated[
        float | None,
        typer.Option(help="Score once on this share of rows, in place of folds; 0: no scores."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="random, time:COLUMN (score on the last rows in time) or group:COLUMN (on whole groups). "
            "[default: random]"
        ),
    ] = None,
    cross_validate: Annotated[
        int | None,
        typer.Option(
            help="Score on that many folds, each held out once. [default: 5, or 8 for "
            "ridge, ensemble and auto]"
        ),
    ] = None,
    weight: Weight = None,
    network: NetworkKind = None,
    minutes: Annotated[
        float | None, typer.Option(help="With --network auto: look no longer for it. [default: 10]")
    ] = None,
    hidden: Annotated[str | None, typer.Option(help="The units of an mlp's hidden layers: 32,16")] = None,
    activation: Annotated[Literal["relu", "tanh"] | None, typer.Option(help="[default: relu]")] = None,
    store: Annotated[str, typer.Option(help="The store's folder.")] = "models",
    promote: Annotated[
        bool, typer.Option("--promote", help="Promote the new version, unless it is worse than the mean.")
    ] = False,
    anyway: Annotated[bool, typer.Option("--anyway", help="Promote it even then.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Train a model on a table and publish it as the next version.

    A target is enough: what the other columns are is found out, unless columns to predict from are named.
    """
    asked = given(
        target=given(name=target, transform=target_transform, predicts=predicts),
        features=columns(feature, category, date),
        exclude=exclude,
        network=given(kind=network, hidden=units(hidden), activation=activation, minutes=minutes),
        schedule=given(
            optimizer=optimizer,
            learning_rate=learning_rate,
            epochs=epochs,
            batch_size=batch_size,
            seed=seed,
            normalize=normalize,
        ),
        encoding=number_encoding,
        missing=missing,
        rare=rare,
        new_categories=new_categories,
        holdout=holdout,
        split=split,
        cross_validate=cross_validate,
        weight=weight,
        table=table_options(separator, decimal, encoding, no_header, missing_word, sheet),
    )
    path, recipe, usual_name = decide(source, data, asked)
    name = name or usual_name
    if not name:
        message = f"say --name: {source} does not tell what the model is called in the store"
        raise RecipeInvalid(message)
    narrator, versions = Narrator(quiet=as_json), open_store(store)
    published = pipeline.fit(path, recipe, name, versions, command=context.obj, narrator=narrator)
    manifest = published.manifest
    is_refused = promote and not anyway and published.learned.is_worse_than_the_mean
    if promote and not is_refused:
        versions.promote(name, manifest.version)
        narrator.say(f"it is promoted; serve it with: python -m app --store {store} --name {name}")
    if as_json:
        said = facts(manifest, published.learned, promoted=promote and not is_refused)
        typer.echo(json.dumps(said, allow_nan=False))
    if is_refused:
        message = (
            f"{name} version {manifest.version} is in the store but not promoted: it is worse than predicting"
            f" the mean. Train it otherwise, or promote it with --anyway"
        )
        raise NotPromoted(message)


@cli.command("compare")
def compare_command(
    source: Source,
    data: Data = None,
    target: Target = None,
    feature: Features = None,
    category: Categories = None,
    date: Dates = None,
    exclude: Excluded = None,
    target_transform: Transform = None,
    learning_rate: Rate = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    separator: Separator = None,
    decimal: Decimal = None,
    encoding: Encoding = None,
    no_header: NoHeader = False,
    missing_word: MissingWords = None,
    sheet: Sheet = None,
    seed: Seed = None,
    missing: Missing = None,
    rare: Rare = None,
    new_categories: NewCategories = None,
    weight: Weight = None,
    output: Annotated[Path, typer.Option(help="The page to write.")] = Path("compare.html"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Train with every optimizer from the same start on the same rows, and show how each descends."""
    asked = given(
        target=given(name=target, transform=target_transform),
        features=columns(feature, category, date),
        exclude=exclude,
        schedule=given(learning_rate=learning_rate, epochs=epochs, batch_size=batch_size, seed=seed),
        missing=missing,
        rare=rare,
        new_categories=new_categories,
        weight=weight,
        table=table_options(separator, decimal, encoding, no_header, missing_word, sheet),
    )
    path, recipe, _ = decide(source, data, asked)
    narrator = Narrator(quiet=as_json)
    comparison = pipeline.compare(path, recipe, narrator=narrator)
    output.write_bytes(comparison.html())
    narrator.say(f"the pictures are in {output}")
    if as_json:
        typer.echo(json.dumps(comparison.facts(), allow_nan=False))


@cli.command("verify")
def verify_command(
    name: Annotated[str, typer.Argument(help="The model's name.")],
    store: Annotated[str, typer.Option(help="The store's folder.")] = "models",
    version: Annotated[int | None, typer.Option(help="Its number. [default: the promoted one]")] = None,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Train again from the version's recipe and compare the bits.")
    ] = False,
    data: Annotated[
        Path | None, typer.Option(help="With --retrain: the table in place of the recipe's.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Check all of a version and, with --retrain, train it again and say where the bits differ.

    Nothing is published or promoted. The exit code is 1 if they differ.
    """
    if data and not retrain:
        message = "--data goes with --retrain: without it no table is read"
        raise RecipeInvalid(message)
    narrator, versions = Narrator(quiet=as_json), open_store(store)
    checked = versions.load_promoted(name) if version is None else versions.load(name, version)
    narrator.checked(checked.manifest)
    found = retrained(checked, data, narrator) if retrain else {}
    if as_json:
        told = {"name": name, "version": checked.manifest.version, "digest": checked.digest, **found}
        typer.echo(json.dumps(told, allow_nan=False))
    if found and not found["same"]:
        raise typer.Exit(1)


@cli.command("sample")
def sample_command(
    path: Annotated[Path, typer.Argument(help="The CSV file to write.")],
) -> None:
    """Write a synthetic table of used cars: none of its rows is a real car."""
    write_used_cars(path)
    typer.echo(f"wrote a synthetic table of used cars to {path}")


class NotPromoted(Exception):
    """A version that is in the store, but was not promoted."""


def retrained(version: Version, data: Path | None, narrator: Narrator) -> dict[str, Any]:
    """Train a version again, say what came of it, and give that as `--json` prints it."""
    notes: list[str] = []

    def tell(note: str) -> None:
        notes.append(note)
        narrator.say(note)

    with narrator.waiting("training again"):
        differences = train_again(version, data, tell)
    narrator.trained_again([difference.words for difference in differences])
    return {"notes": notes, "same": not differences, "differences": list(map(asdict, differences))}


def given(**options: Any) -> dict[str, Any]:
    """The options that were given a value."""
    return {name: value for name, value in options.items() if value not in (None, {}, [])}


def columns(
    features: list[str] | None, categories: list[str] | None, dates: list[str] | None
) -> list[dict[str, str]]:
    """The columns to predict from: numbers, then categories, then dates."""
    return [
        *({"name": name} for name in features or ()),
        *({"name": name, "kind": "categorical"} for name in categories or ()),
        *map(date_column, dates or ()),
    ]


def date_column(text: str) -> dict[str, str]:
    """A column of dates from 'DAY', or from 'DAY=%d/%m/%Y' with their format."""
    name, equals, form = text.partition("=%")
    return {"name": name, "kind": "date"} | ({"format": f"%{form}"} if equals else {})


def table_options(
    separator: str | None,
    decimal: str | None,
    encoding: str | None,
    no_header: bool,
    missing_words: list[str] | None,
    sheet: str | None,
) -> dict[str, Any]:
    """What is said of the table's form; a tab may be written as it is or as backslash and t."""
    return given(
        separator="\t" if separator == r"\t" else separator,
        decimal=decimal,
        encoding=encoding,
        has_header=False if no_header else None,
        missing_words=missing_words,
        sheet=sheet,
    )


def units(hidden: str | None) -> list[int] | None:
    """The sizes of the hidden layers from '32,16'; raises RecipeInvalid for what is no whole number."""
    if hidden is None:
        return None
    try:
        return [int(size) for size in hidden.split(",")]
    except ValueError:
        message = "--hidden takes whole numbers with commas between them, as in 32,16"
        raise RecipeInvalid(message) from None


def decide(source: Path, data: Path | None, asked: dict[str, Any]) -> tuple[Path, Recipe, str]:
    """The table, the recipe and the model's usual name: all from a recipe file, or from the options.

    Raises RecipeInvalid when the two do not go together or do not say enough.
    """
    if source.suffix == ".toml":
        if asked:
            message = f"{source} decides the model: leave out the options for {', '.join(asked)}"
            raise RecipeInvalid(message)
        file = read_recipe(source)
        return data or file.data, file.recipe, file.name
    if data:
        message = "--data goes with a recipe.toml; give the table alone"
        raise RecipeInvalid(message)
    if "target" not in asked:
        message = "say --target: the column to predict has to be named"
        raise RecipeInvalid(message)
    if asked.get("network") == {"kind": "mlp"}:
        message = "--network mlp needs --hidden, the units of its hidden layers, as in --hidden 32,16"
        raise RecipeInvalid(message)
    return source, make_recipe(asked), model_name(source)


def model_name(table: Path) -> str:
    """What a model is called after its table: 'used-cars' after 'data/Used cars.csv.gz'."""
    return re.sub("[^a-z0-9]+", "-", table.name.partition(".")[0].lower()).strip("-")[:LONGEST_NAME]


EXIT_CODES: Final[dict[type[Exception], int]] = {
    InvalidName: 2,
    RecipeInvalid: 2,
    DataError: 3,
    StoreError: 3,
    Unstable: 4,
    NotPromoted: 5,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, by default the process's arguments, and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        cli(arguments, prog_name=PROGRAM, obj=f"{PROGRAM} {shlex.join(arguments)}")
    except SystemExit as end:
        return int(end.code or 0)
    except tuple(EXIT_CODES) as error:
        return fail(error, next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind)))
    except OSError as error:
        return fail(f"{error.filename or 'a file'} cannot be written: {error.strerror or error}", 2)
    return 0


def fail(error: Exception | str, code: int) -> int:
    """Say what is wrong and return the exit code."""
    typer.echo(f"error: {error}", err=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
