"""An ensemble of small networks, one a fold of the rows, of which each is blind to its own fold.

Their average is one plain network with as many hidden units as all of them. What each member says of the rows
that it did not see tells when to stop, and how good the model is, without another fit.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import embedding

from model_store.columns import Matrix
from training.additive import Additive, Layout, block_diagonal, rising_block
from training.descent import OnEpoch, nothing

UNITS, MOST_STEPS = 32, 3000
FEWEST_A_BATCH, MOST_A_BATCH = 32, 256
LEARNING_RATE, WARM_UP, BETAS = 5e-3, 50, (0.9, 0.95)
DECAY, MOST_OF_GRADIENT = 0.3, 10.0
MOMENTUM_OF_AVERAGE = 0.98
PATIENCE, PATIENT_SHARE = 200, 0.5


@dataclass(frozen=True)
class Members:
    """Networks of one hidden relu layer side by side, in float64, for k encoded columns.

    `first` (members · units, k) and `first_bias` (members · units,) belong to the hidden units, member by
    member; `last` (members · units,) and `biases` (members,) lead to the target's unit and are divided by the
    number of members, so that the sum over all is the members' mean.
    """

    first: Matrix
    first_bias: Matrix
    last: Matrix
    biases: Matrix

    @property
    def bias(self) -> float:
        """The bias of the members' mean."""
        return float(self.biases.sum())

    def outputs(self, inputs: Matrix) -> Matrix:
        """What each member predicts for encoded inputs (n, k): (n, members), in the target's unit."""
        count = len(self.biases)
        split = [np.split(tensor, count) for tensor in (self.first, self.first_bias, self.last, self.biases)]
        parts = [
            np.maximum(inputs @ first.T + first_bias, 0) @ last + bias
            for first, first_bias, last, bias in zip(*split, strict=True)
        ]
        return count * np.column_stack(parts)


@dataclass(frozen=True)
class Ensemble(Members):
    """Trained members, and how they did.

    `out_of_fold` (n,) are the predictions for each row by the member that did not see it. `ambiguity` is the
    mean over the rows of the variance of the members' predictions, by which the squared error of their mean
    is below the mean of theirs (Krogh and Vedelsby, Neural Network Ensembles, Cross Validation, and Active
    Learning, 1995). `history` is the out-of-fold mean squared error after 0, 1, 2 … epochs, up to the
    weights.
    """

    out_of_fold: Matrix
    ambiguity: float
    history: tuple[float, ...]

    @property
    def epochs(self) -> int:
        """How many there were."""
        return len(self.history) - 1


class Folds:
    """Rows as float32 tensors, which of them each member sees and which are held out from it.

    `targets` (members, n) are in each member's own z-scores, of the rows that it sees, with `means` and
    `stds` (members,). `weights` (n,) have the mean 1.
    """

    def __init__(
        self, inputs: Matrix, target: Matrix, labels: NDArray[np.intp], weights: Matrix | None
    ) -> None:
        counts = np.ones(len(target)) if weights is None else weights / weights.mean()
        members = range(int(labels.max()) + 1)
        seen = [np.flatnonzero(labels != member) for member in members]
        self.means = np.array([np.average(target[rows], weights=counts[rows]) for rows in seen])
        centred = target - self.means[:, None]
        variances = [
            np.average(centred[member, rows] ** 2, weights=counts[rows]) for member, rows in enumerate(seen)
        ]
        self.stds = np.where(np.array(variances) > 0, np.sqrt(variances), 1.0)
        self.inputs = torch.from_numpy(inputs).float()
        self.targets = torch.from_numpy(centred / self.stds[:, None]).float()
        self.weights = torch.from_numpy(counts).float()
        self.seen = [torch.from_numpy(rows) for rows in seen]
        self.held = [torch.from_numpy(np.flatnonzero(labels == member)) for member in members]
        self.steps = steps_an_epoch(labels)

    def batches(self, generator: torch.Generator) -> Iterator[Tensor]:
        """The rows of an epoch's steps, as positions (members, batch): each member's in an order of its own.

        Of a member that sees more rows than another they are as many, drawn anew for each epoch.
        """
        orders = [rows[torch.randperm(len(rows), generator=generator)] for rows in self.seen]
        fewest = min(map(len, orders))
        return iter(torch.stack([order[:fewest] for order in orders]).tensor_split(self.steps, dim=1))


class Training:
    """Networks on their way down the mean squared errors of the rows that each sees.

    `averages` are the running means of their weights, which take the place of a learning rate that falls;
    they alone are judged and kept. Tensors have the member first: inputs to units, the units' biases, units
    to output, the output's bias.
    """

    def __init__(self, rows: Folds, units: int, seed: int) -> None:
        self._rows = rows
        self._generator = torch.Generator().manual_seed(seed)
        self._weights = [weight.requires_grad_() for weight in self._start(units)]
        self.averages = [weight.detach().clone() for weight in self._weights]
        groups = [
            {"params": self._weights[0::2], "weight_decay": DECAY},
            {"params": self._weights[1::2], "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.AdamW(groups, LEARNING_RATE, betas=BETAS, fused=True)
        self._steps = 0

    def _start(self, units: int) -> list[Tensor]:
        """First weights as He, Zhang, Ren and Sun, Delving Deep into Rectifiers, 2015; an output of zero."""
        members, inputs = len(self._rows.seen), self._rows.inputs.shape[1]
        return [
            torch.randn(members, inputs, units, generator=self._generator) * (2 / inputs) ** 0.5,
            torch.randn(members, 1, units, generator=self._generator) * 0.3,
            torch.zeros(members, units, 1),
            torch.zeros(members, 1, 1),
        ]

    def run(self, on_epoch: OnEpoch) -> Iterator[tuple[float, ...]]:
        """Train without end: the costs after 0, then after 0 and 1, then 0, 1 and 2 … epochs."""
        costs: tuple[float, ...] = (self._cost(),)
        while True:
            on_epoch(len(costs) - 1, costs[-1])
            yield costs
            for batch in self._rows.batches(self._generator):
                self._step(batch)
            costs = (*costs, self._cost())

    def _step(self, batch: Tensor) -> None:
        """Take a step with the rows at these positions, (members, batch)."""
        self._steps += 1
        for group in self._optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, self._steps / WARM_UP)
        for weight, gradient in zip(self._weights, self._gradients(batch), strict=True):
            weight.grad = gradient
        self._optimizer.step()
        old = min(MOMENTUM_OF_AVERAGE, self._steps / (self._steps + 9))
        for average, weight in zip(self.averages, self._weights, strict=True):
            average.lerp_(weight.detach(), 1 - old)

    def _gradients(self, batch: Tensor) -> list[Tensor]:
        """Those of each member's cost, none of them longer than 10."""
        outputs = forward(embedding(batch, self._rows.inputs), self._weights)
        squares = (outputs - self._rows.targets.gather(1, batch)) ** 2
        cost = (self._rows.weights[batch] * squares).mean(dim=1).sum()
        gradients = torch.autograd.grad(cost, self._weights)
        lengths = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)
        shorten = (MOST_OF_GRADIENT / lengths).clamp(max=1.0)[:, None, None]
        return [gradient * shorten for gradient in gradients]

    @torch.no_grad()
    def _cost(self) -> float:
        """The mean squared error of the averages out of fold, in the target's unit squared."""
        rows, total = self._rows, 0.0
        for member, held in enumerate(rows.held):
            own = [average[member, None] for average in self.averages]
            errors = forward(rows.inputs[held][None], own)[0] - rows.targets[member, held]
            total += float((rows.weights[held] * errors.double() ** 2).sum()) * float(rows.stds[member]) ** 2
        return total / len(rows.inputs)


def forward(inputs: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """From inputs (members, n, p) to each member's outputs (members, n)."""
    first, first_bias, last, bias = weights
    hidden = torch.relu(torch.baddbmm(first_bias, inputs, first))
    return torch.baddbmm(bias, hidden, last)[..., 0]


def steps_an_epoch(labels: NDArray[np.intp]) -> int:
    """In how many batches the rows are that a member sees, for rows of these folds (n,).

    A batch has about an eighth of them, but 32 to 256 rows.
    """
    rows = len(labels) - int(np.bincount(labels).max())
    batch = 2.0 ** round(math.log2(rows / 8))
    return math.ceil(rows / min(max(batch, FEWEST_A_BATCH), MOST_A_BATCH))


def most_epochs(labels: NDArray[np.intp], most_steps: int = MOST_STEPS) -> int:
    """How many epochs there are in so many steps, for rows of these folds (n,); at least one."""
    return max(most_steps // steps_an_epoch(labels), 1)


def fit_ensemble(
    inputs: Matrix,
    target: Matrix,
    layouts: Sequence[Layout],
    labels: NDArray[np.intp],
    *,
    seed: int,
    units: int = UNITS,
    weights: Matrix | None = None,
    most_steps: int = MOST_STEPS,
    epochs: int | None = None,
    on_epoch: OnEpoch = nothing,
    go_on: Callable[[], bool] = lambda: True,
) -> Ensemble:
    """Train as many networks as there are folds on encoded inputs (n, k) and a target (n,).

    `labels` (n,) are the folds of the rows, 0, 1, 2 … of which none is empty, at least two; `weights` (n,)
    say how much each row's square counts, None: all alike. The network's weights are those after the epoch
    with the least out-of-fold cost; training stops when that is long ago, after `most_steps`, when `go_on`
    is False after an epoch, or at KeyboardInterrupt. With `epochs` it takes exactly so many. `on_epoch` is
    told the finished epochs and the cost. The same arguments give the same bits on the same machine with one
    torch thread, and so do the `epochs` of a run that was stopped in another way.
    """
    basis = block_diagonal([rising_block(layout) for layout in layouts])
    rises = inputs @ basis
    middle = rises.mean(axis=0)
    rows = Folds(rises - middle, target, labels, weights)
    training = Training(rows, units, seed)
    if epochs is None:
        history, kept = best(training, most_epochs(labels, most_steps), rows.steps, on_epoch, go_on)
    else:
        *_, history = islice(training.run(on_epoch), epochs + 1)
        kept = training.averages
    members = as_members(kept, rows, basis, middle)
    outputs = members.outputs(inputs)
    return Ensemble(
        **vars(members),
        out_of_fold=outputs[np.arange(len(target)), labels],
        ambiguity=float(np.average(outputs.var(axis=1), weights=weights)),
        history=history,
    )


def best(
    training: Training, limit: int, steps: int, on_epoch: OnEpoch, go_on: Callable[[], bool]
) -> tuple[tuple[float, ...], list[Tensor]]:
    """The costs up to the least, and the weights there, of at most `limit` epochs of so many steps."""
    run = training.run(on_epoch)
    history, kept = next(run), copies(training.averages)
    with suppress(KeyboardInterrupt):
        for costs in islice(run, limit):
            if costs[-1] < history[-1]:
                history, kept = costs, copies(training.averages)
            if is_long_ago(steps * (len(history) - 1), steps * (len(costs) - 1)) or not go_on():
                break
    return history, kept


def is_long_ago(then: int, now: int) -> bool:
    """Whether a lower cost is no longer to be expected, at this step, after the least one at that."""
    return now - then > max(PATIENCE, PATIENT_SHARE * then)


def copies(tensors: list[Tensor]) -> list[Tensor]:
    """The same numbers, apart from what becomes of the tensors."""
    return [tensor.clone() for tensor in tensors]


def as_members(tensors: list[Tensor], rows: Folds, basis: Matrix, middle: Matrix) -> Members:
    """Networks for rises (p,) less their `middle` and z-scored targets as ones for encoded columns (k,)."""
    first, first_bias, last, bias = [tensor.double().numpy() for tensor in tensors]
    count = len(first)
    return Members(
        first=np.concatenate([basis @ member for member in first], axis=1).T,
        first_bias=(first_bias[:, 0] - middle @ first).ravel(),
        last=(last[..., 0] * rows.stds[:, None] / count).ravel(),
        biases=(bias[:, 0, 0] * rows.stds + rows.means) / count,
    )


def mixed(additive: Additive, ensemble: Ensemble, target: Matrix, weights: Matrix | None = None) -> float:
    """The share of the additive model, 0 to 1, in the mix with the least expected squared error.

    It is judged by the out-of-fold errors for a target (n,), rows weighted as given. Those of the ensemble
    are of single members, and the squared error of the members' mean is smaller by the ambiguity.
    """
    own, other = additive.out_of_fold - target, ensemble.out_of_fold - target
    alone = float(np.average(own**2, weights=weights))
    averaged = float(np.average(other**2, weights=weights)) - ensemble.ambiguity
    common = float(np.average(own * other, weights=weights))
    curvature = alone + averaged - 2 * common
    if curvature <= 0:
        return float(alone <= averaged)
    return min(max((averaged - common) / curvature, 0.0), 1.0)


def as_tensors(ensemble: Members, additive: Additive, share: float) -> dict[str, Matrix]:
    """The mix of both as one plain relu network, under the names of a version's tensors.

    It has a hidden unit for each of the ensemble's and, unless the additive model's share is 0, two more: its
    output a passes through them as relu(a) - relu(-a).
    """
    passing = np.array([share, -share]) if share else np.empty(0)
    signs = np.sign(passing)
    return {
        "layers.0.weight": np.vstack([ensemble.first, np.outer(signs, additive.weights)]),
        "layers.0.bias": np.concatenate([ensemble.first_bias, signs * additive.bias]),
        "layers.1.weight": np.concatenate([(1 - share) * ensemble.last, passing])[None],
        "layers.1.bias": np.array([(1 - share) * ensemble.bias]),
    }
