"""What training shows: a progress bar in a terminal, plain lines elsewhere, or one JSON object."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table as Grid

from model_store.manifest import Linear, Manifest, Metrics
from model_store.tables import folds_text, score_table
from training.auto import Trial
from training.comparison import Comparison
from training.crossed import Crossed
from training.data import Table
from training.descent import OnEpoch, nothing
from training.inference import Decision
from training.publish import Learned
from training.recipe import Recipe
from training.remarks import Remark
from training.train import Model
from training.weights import Weight, most_rank, rank_warning, weights_of

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
        is_line = isinstance(recipe.network, Linear)
        if is_line:
            self.weights(model)
        if model.target.estimate == "median":
            self.say("it predicts medians: half of the actual values lie above. --predicts mean gives means")
        if isinstance(model.fitted, Crossed):
            self.say(f"cost {model.fitted.cost:.6f} on rows left out")
            return
        self.say(f"cost {model.fitted.cost:.6f} after {model.fitted.epochs} epochs")
        if model.fitted is not model.line:
            apart = model.fitted.cost - model.line.cost
            self.say(f"  {abs(apart):.1e} {'below' if apart < 0 else 'above'} the exact least-squares line's")
        if is_line:
            rank, condition = model.line.rank, model.line.condition
            self.say(f"  rank {rank} of {most_rank(model)}, condition number {condition:.3g}")
            if found := rank_warning(model):
                self.say(f"  {found}.")

    def weights(self, model: Model) -> None:
        """The weights of a line, each with its standard error if it has one."""
        *weights, bias = weights_of(model)
        for weight in weights[:MOST_WEIGHTS]:
            self.say(f"W = {weight.value:.3f}{plus_minus(weight)}  ({weight.name})")
        self.say(f"b = {bias.value:.3f}{plus_minus(bias)}")
        if any(weight.error is not None for weight in weights[:MOST_WEIGHTS]):
            self.say("  (± one standard error)")

    def metrics(self, metrics: Metrics, recipe: Recipe) -> None:
        """The held-out scores beside the baselines, and how they vary over folds."""
        weighted = f", weighted by {recipe.weight}" if recipe.weight else ""
        self.say(f"on {metrics.rows:,} held-out rows{metrics.how_held_out(recipe.split)}{weighted}")
        for line in score_table(metrics):
            self.say(line)
        if metrics.spread:
            self.say(folds_text(metrics.spread))

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

    def trials(self, trials: Sequence[Trial]) -> None:
        """How each network did that was tried, and which was chosen."""
        grid = Grid("tried", box=None, pad_edge=False)
        for heading in ("cost on rows left out", "above the least", "uncertain by", "seconds"):
            grid.add_column(heading, justify="right")
        grid.add_column("")
        for trial in trials:
            costs = (f"{cost:.5g}" for cost in (trial.cost, trial.excess, trial.uncertainty))
            grid.add_row(trial.name, *costs, f"{trial.seconds:.1f}", "chosen" if trial.is_chosen else "")
        self.console.print(grid)

    def comparison(self, comparison: Comparison) -> None:
        """How far each optimizer came, and how fast."""
        grid = Grid("optimizer", box=None, pad_edge=False)
        for heading in ("learning rate", "held-out R²", "final cost", "above the optimum", "seconds"):
            grid.add_column(heading, justify="right")
        grid.add_column("")
        for run in comparison.runs:
            above = run.history[-1] - comparison.optimum
            seconds = f"{run.seconds[-1]:.3f}"
            rate, r2 = f"{run.learning_rate:g}", "–" if run.r2 is None else f"{run.r2:.4f}"
            costs = f"{run.history[-1]:.6g}", f"{above:.2g}"
            grid.add_row(run.optimizer, rate, r2, *costs, seconds, run.trouble or "")
        self.console.print(grid)


def plus_minus(weight: Weight) -> str:
    """How sure a weight is, as in ' ± 0.144'."""
    return "" if weight.error is None else f" ± {weight.error:.3g}"


def facts(manifest: Manifest, learned: Learned, *, promoted: bool) -> dict[str, object]:
    """What `--json` prints of a published version."""
    model = learned.model
    network = model.fitted.network.tensors()
    errors = [weight.error for weight in weights_of(model)]
    return {
        **manifest.model_dump(mode="json", exclude={"golden", "files", "schema_version"}),
        "promoted": promoted,
        "weights": {name: tensor.tolist() for name, tensor in network.items()},
        "standard_errors": {"layers.0.weight": [errors[:-1]], "layers.0.bias": errors[-1:]}
        if errors
        else None,
        "rank_warning": rank_warning(model),
        "importance": learned.importance,
        "history": model.fitted.history,
        **learned.findings.facts(),
    }
