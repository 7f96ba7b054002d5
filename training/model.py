"""A model as training holds it: the network together with the statistics of the rows it was fitted on."""

from dataclasses import dataclass

from model_store.encoding import Matrix, encode
from model_store.manifest import Metrics, NumericFeature, ResidualQuantiles
from training.data import DataError, Table, describe_features, split
from training.evaluate import compare, conformal_interval
from training.fit import Fitted, OnEpoch, Recipe, fit, ignore

FEWEST_HELD_OUT = 2


@dataclass(frozen=True)
class Model:
    """A network fitted on the encoded rows of a table, with those rows' statistics."""

    features: tuple[NumericFeature, ...]
    inputs: Matrix
    fitted: Fitted

    def predict(self, table: Table) -> Matrix:
        """torch's predictions for a table's rows, shape (n,)."""
        return self.fitted.network.predict(encode(self.features, table.columns))


def fit_model(recipe: Recipe, table: Table, on_epoch: OnEpoch = ignore) -> Model:
    """Take the table's statistics, encode its rows with them and fit."""
    features = describe_features(table)
    inputs = encode(features, table.columns)
    return Model(features, inputs, fit(recipe, inputs, table.target, on_epoch))


def hold_out(recipe: Recipe, table: Table, share: float) -> tuple[Metrics, ResidualQuantiles | None]:
    """Fit on some rows and score on the others, the share `share`; the interval needs about 20 of those.

    Raises DataError when the held-out rows are too few or too alike to score on.
    """
    fit_rows, held_rows = split(table.rows, share, recipe.seed)
    held = table.take(held_rows)
    if held.rows < FEWEST_HELD_OUT or held.target.min() == held.target.max():
        message = (
            f"{held.rows} of the {table.rows} rows of {table.source} were held out, too few to score on. "
            "Give more rows, or --holdout 0 to go without scores"
        )
        raise DataError(message)
    seen = table.take(fit_rows)
    model = fit_model(recipe, seen)
    predicted = model.predict(held)
    held_inputs = encode(model.features, held.columns)
    metrics = compare(held.target, predicted, held_inputs, model.inputs, seen.target)
    return metrics, conformal_interval(held.target - predicted)
