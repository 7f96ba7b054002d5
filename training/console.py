"""What training shows: a progress bar in a terminal, plain lines elsewhere, or one JSON object."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table as Grid

from model_store.columns import DateFeature, Feature, NumericFeature
from model_store.manifest import Linear, Manifest, Metrics
from model_store.tables import folds_text
from training.comparison import Comparison
from training.data import Table
from training.descent import OnEpoch, nothing
from training.inference import Decision
from training.recipe import Recipe
from training.remarks import Findings, Remark
from training.train import Model

MOST_WEIGHTS = 40
MOST_DIFFERENCES = 20


@dataclass(frozen=True)
class Narrator:
    """Tells a person what happens; says nothing when `quiet`."""

    quiet: bool = False

    @property
    def console(self) -> Console:
        """Where to write: numbers and names as they are, without colours guessed from their form."""
        return Console(quiet=self.quiet, highlight=False, markup=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """Write a line."""
        self.console.print(text)

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """Show that something of unknown length goes on, where somebody looks."""
        console = self.console
        if console.is_terminal and not self.quiet:
            with console.status(text):
                yield
        else:
            yield

    @contextmanager
    def epochs(self, recipe: Recipe) -> Iterator[OnEpoch]:
        """Show the cost as it falls."""
        console, epochs = self.console, recipe.schedule.epochs
        if self.quiet:
            yield nothing
        elif console.is_terminal:
            columns = (TextColumn("epoch {task.completed}/{task.total}"), BarColumn(), TimeRemainingColumn())
            with Progress(*columns, TextColumn("cost {task.fields[cost]:.6g}"), console=console) as progress:
                task = progress.add_task("", total=epochs, cost=float("nan"))
                yield lambda epoch, cost: progress.update(task, completed=epoch, cost=cost)
        else:
            yield lambda epoch, cost: self.say_cost(epoch, cost, epochs)

    def say_cost(self, epoch: int, cost: float, epochs: int) -> None:
        """A line at the epochs 0 to 5, 10, 20, 50, 100, 200, 500 … and the last."""
        if epoch <= 5 or epoch == epochs or f"{epoch}".rstrip("0") in {"1", "2", "5"}:
            self.say(f"epoch {epoch:6}  cost {cost:.6f}")

    def decisions(self, decisions: Sequence[Decision]) -> None:
        """What each column is taken for, and why."""
        grid = Grid("column", "taken as", "why", box=None, pad_edge=False)
        for decision in decisions:
            grid.add_row(decision.name, decision.words, decision.why)
        self.console.print(grid)

    def table(self, table: Table) -> None:
        """How many rows there are."""
        self.say(f"{table.rows:,} rows of {table.source}")
        for note in table.notes:
            self.say(f"  {note}")

    def remarks(self, remarks: Sequence[Remark]) -> None:
        """What a person should know of the rows."""
        for remark in remarks:
            self.say(f"  {remark.words}")

    def model(self, model: Model, recipe: Recipe) -> None:
        """The weights of a line, and how far the cost is from the least that any line reaches."""
        if isinstance(recipe.network, Linear):
            for column, weight in list(named_weights(model).items())[:MOST_WEIGHTS]:
                self.say(f"W = {weight:.3f}  ({column})")
            self.say(f"b = {model.fitted.network.tensors()['layers.0.bias'][0]:.3f}")
        self.say(f"cost {model.fitted.cost:.6f} after {len(model.fitted.history) - 1} epochs")
        apart = model.fitted.cost - model.line.cost
        self.say(f"  {abs(apart):.1e} {'below' if apart < 0 else 'above'} the exact least-squares line's")

    def metrics(self, metrics: Metrics, recipe: Recipe) -> None:
        """The held-out scores beside the baselines, and how they vary over folds."""
        weighted = f", weighted by {recipe.weight}" if recipe.weight else ""
        self.say(f"on {metrics.rows:,} held-out rows{metrics.how_held_out(recipe.split)}{weighted}")
        grid = Grid("", box=None, pad_edge=False)
        for heading in ("R²", "RMSE", "MAE"):
            grid.add_column(heading, justify="right")
        for label, scores in (
            ("this model", metrics.model),
            ("exact least squares", metrics.least_squares),
            ("predict the mean", metrics.predict_the_mean),
        ):
            grid.add_row(label, f"{scores.r2:.4f}", f"{scores.rmse:.4f}", f"{scores.mae:.4f}")
        self.console.print(grid)
        if metrics.folds:
            self.say(folds_text(metrics.folds))

    def checked(self, manifest: Manifest) -> None:
        """That a version passed the checks of loading it."""
        rows = f"the predictions for its {len(manifest.golden)} golden rows"
        self.say(f"{manifest.name} version {manifest.version}: its files and {rows} are as published")

    def trained_again(self, differences: Sequence[str]) -> None:
        """Whether a version came out the same when trained again, and the first things that did not."""
        if not differences:
            self.say("trained again: the same bits in every tensor, statistic, score and bound")
            return
        self.say(f"trained again: not the same in {len(differences)} places")
        for difference in differences[:MOST_DIFFERENCES]:
            self.say(f"  {difference}")

    def comparison(self, comparison: Comparison) -> None:
        """How far each optimizer came, and how fast."""
        grid = Grid("optimizer", box=None, pad_edge=False)
        for heading in ("final cost", "above the optimum", "seconds"):
            grid.add_column(heading, justify="right")
        grid.add_column("")
        for run in comparison.runs:
            above = run.history[-1] - comparison.optimum
            seconds = f"{run.seconds[-1]:.3f}"
            grid.add_row(run.optimizer, f"{run.history[-1]:.6g}", f"{above:.2g}", seconds, run.trouble or "")
        self.console.print(grid)


def named_weights(model: Model) -> dict[str, float]:
    """The weights of a line by input, or by input and category."""
    names = [name for feature in model.features for name in weight_names(feature)]
    weights = model.fitted.network.tensors()["layers.0.weight"][0]
    return dict(zip(names, weights.tolist(), strict=True))


def weight_names(feature: Feature) -> Iterator[str]:
    """What the weights of an input are for, in their order."""
    first, *others = feature.labels
    if isinstance(feature, NumericFeature | DateFeature):
        first = f"z-score of {feature.name}: mean {feature.mean!r}, std {feature.std!r}"
    yield from (first, *others)


def facts(manifest: Manifest, model: Model, findings: Findings, *, promoted: bool) -> dict[str, object]:
    """What `--json` prints of a published version."""
    network = model.fitted.network.tensors()
    return {
        **manifest.model_dump(mode="json", exclude={"golden", "files", "schema_version"}),
        "promoted": promoted,
        "weights": {name: tensor.tolist() for name, tensor in network.items()},
        "history": model.fitted.history,
        **findings.facts(),
    }
