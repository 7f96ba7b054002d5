from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model_store.columns import Matrix
from model_store.manifest import Mlp
from tests.toys import expected_outputs
from training.additive import Additive, Layout, fit_additive
from training.ensemble import Ensemble, as_tensors, fit_ensemble, mixed, most_epochs, steps_an_epoch

KNOTS = (-1.5, -0.5, 0.0, 0.5, 1.5)
LAYOUTS = (Layout(1, KNOTS), Layout(1, KNOTS, 1), Layout(others=2), Layout(scores=1))
MEMBERS, UNITS = 4, 8


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def number(z: Matrix) -> Matrix:
    """The encoding of a number: its z-score and its hats, by numpy's interpolation."""
    return np.column_stack([z, *(np.interp(z, KNOTS, hat) for hat in np.eye(len(KNOTS)))])


def product(rows: int = 300, seed: int = 1, reach: float = 1.0) -> tuple[Matrix, Matrix]:
    """Encoded rows of LAYOUTS and a target that is no sum of curves: 100 + x0 · x1 and noise."""
    rng = np.random.default_rng(seed)
    x = reach * rng.normal(size=(rows, 3))
    missing, levels = rng.random(rows) < 0.1, np.eye(2)[rng.integers(2, size=rows)]
    inputs = np.column_stack([number(x[:, 0]), number(x[:, 1]), missing, levels, x[:, 2]])
    return inputs, 100 + x[:, 0] * x[:, 1] + 0.2 * rng.normal(size=rows)


def folds(rows: int, count: int = MEMBERS) -> NDArray[np.intp]:
    return np.random.default_rng(0).permutation(np.arange(rows) % count)


def fit(target: Matrix | None = None, *, seed: int = 0, epochs: int = 10) -> Ensemble:
    inputs, given = product()
    target = given if target is None else target
    return fit_ensemble(inputs, target, LAYOUTS, folds(len(target)), seed=seed, units=UNITS, epochs=epochs)


def additive(inputs: Matrix, target: Matrix) -> Additive:
    return fit_additive(inputs, target, LAYOUTS, folds(len(target)))


def bits(ensemble: Ensemble) -> list[bytes]:
    return [np.asarray(value).tobytes() for value in vars(ensemble).values()]


def member(ensemble: Ensemble, index: int) -> dict[str, Matrix]:
    """A member's own tensors, as the fields are described."""
    units = slice(index * UNITS, (index + 1) * UNITS)
    return {
        "layers.0.weight": ensemble.first[units],
        "layers.0.bias": ensemble.first_bias[units],
        "layers.1.weight": MEMBERS * ensemble.last[units][None],
        "layers.1.bias": MEMBERS * ensemble.biases[[index]],
    }


def member_outputs(ensemble: Ensemble, inputs: Matrix) -> Matrix:
    """The oracle of the members' predictions, (n, members)."""
    network = Mlp(hidden=(UNITS,), activation="relu")
    parts = [expected_outputs(network, member(ensemble, index), inputs) for index in range(MEMBERS)]
    return np.column_stack(parts)


def test_each_row_is_predicted_by_the_member_that_did_not_see_it() -> None:
    (inputs, target), ensemble = product(), fit()
    outputs = member_outputs(ensemble, inputs)
    labels = folds(len(target))
    assert ensemble.out_of_fold == pytest.approx([outputs[row, fold] for row, fold in enumerate(labels)])
    assert ensemble.ambiguity == pytest.approx(np.mean((outputs - outputs.mean(axis=1)[:, None]) ** 2))
    assert ensemble.history[-1] == pytest.approx(np.mean((ensemble.out_of_fold - target) ** 2), rel=1e-5)
    assert ensemble.outputs(inputs) == pytest.approx(outputs)


def test_the_mean_of_the_members_is_better_than_they_by_the_ambiguity() -> None:
    (inputs, target), ensemble = product(), fit()
    outputs = member_outputs(ensemble, inputs)
    alone, together = np.mean((outputs - target[:, None]) ** 2), np.mean((outputs.mean(axis=1) - target) ** 2)
    assert together == pytest.approx(alone - ensemble.ambiguity)


def test_a_member_does_not_depend_on_the_targets_of_its_fold() -> None:
    inputs, target = product(reach=30.0)  # far rows have gradients that are shortened
    labels = folds(len(target))
    ensemble, other = [
        fit_ensemble(inputs, changed, LAYOUTS, labels, seed=0, units=UNITS, epochs=3)
        for changed in (target, np.where(labels == 2, 1e6 - 7 * target, target))
    ]
    for index in range(MEMBERS):
        same = [
            np.array_equal(tensor, member(other, index)[name])
            for name, tensor in member(ensemble, index).items()
        ]
        assert all(same) if index == 2 else not any(same)


def test_the_same_arguments_give_the_same_bits_and_another_seed_others() -> None:
    assert bits(fit()) == bits(fit())
    assert not np.array_equal(fit().first, fit(seed=1).first)


def test_the_state_of_torchs_own_generator_neither_matters_nor_changes() -> None:
    first = fit()
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert bits(fit()) == bits(first)
    assert torch.equal(torch.get_rng_state(), state)


def test_it_stops_long_after_the_least_cost_and_keeps_what_as_many_epochs_give() -> None:
    inputs, target = product(80)
    told: list[tuple[int, float]] = []
    arguments = (inputs, target, LAYOUTS, folds(80))
    ensemble = fit_ensemble(*arguments, seed=0, on_epoch=lambda *epoch: told.append(epoch))
    costs = [cost for _, cost in told]
    assert [epoch for epoch, _ in told] == list(range(len(told)))
    assert 0 < ensemble.epochs == np.argmin(costs)
    steps = steps_an_epoch(folds(80))
    patience = max(200, steps * ensemble.epochs / 2)
    assert patience < steps * (len(costs) - 1 - ensemble.epochs) <= patience + steps
    assert ensemble.history == tuple(costs[: ensemble.epochs + 1])
    again = fit_ensemble(*arguments, seed=0, epochs=ensemble.epochs)
    assert bits(again) == bits(ensemble)


def test_no_more_steps_are_taken_than_allowed() -> None:
    inputs, target = product()
    labels = folds(len(target))
    ensemble = fit_ensemble(inputs, target, LAYOUTS, labels, seed=0, most_steps=40)
    assert ensemble.epochs == most_epochs(labels, 40) == 40 // steps_an_epoch(labels)


@pytest.mark.parametrize(
    ("rows", "steps"), [(8, 1), (256, 6), (1000, 6), (2000, 6), (100_000, 293), (3_000_000, 8790)]
)
def test_a_batch_is_an_eighth_of_the_rows_of_a_member_but_32_to_256(rows: int, steps: int) -> None:
    labels = np.arange(rows) % 4
    assert steps_an_epoch(labels) == steps
    assert most_epochs(labels) == max(3000 // steps, 1)


def test_when_told_to_stop_it_keeps_the_best_so_far() -> None:
    inputs, target = product()
    answers = iter([True, True, False])
    arguments = (inputs, target, LAYOUTS, folds(len(target)))
    ensemble = fit_ensemble(*arguments, seed=0, go_on=lambda: next(answers))
    assert ensemble.epochs == 3
    assert bits(ensemble) == bits(fit_ensemble(*arguments, seed=0, epochs=3))


def interrupt_after(epochs: int, epoch: int) -> None:
    if epoch == epochs:
        raise KeyboardInterrupt


def test_an_interrupt_keeps_the_best_so_far() -> None:
    inputs, target = product()
    arguments = (inputs, target, LAYOUTS, folds(len(target)))
    ensemble = fit_ensemble(*arguments, seed=0, on_epoch=lambda epoch, _: interrupt_after(4, epoch))
    assert bits(ensemble) == bits(fit_ensemble(*arguments, seed=0, epochs=3))


def test_an_interrupt_of_a_number_of_epochs_that_was_asked_for_is_one() -> None:
    inputs, target = product()
    with pytest.raises(KeyboardInterrupt):
        fit_ensemble(
            inputs,
            target,
            LAYOUTS,
            folds(len(target)),
            seed=0,
            epochs=9,
            on_epoch=lambda epoch, _: interrupt_after(4, epoch),
        )


def test_what_no_sum_of_curves_has_is_learned_better_than_by_the_additive_model() -> None:
    inputs, target = product(600)
    ensemble = fit_ensemble(inputs, target, LAYOUTS, folds(600), seed=0, most_steps=1000)
    sums = additive(inputs, target)
    unseen, truth = product(600, seed=2)
    errors = {
        "ensemble": ensemble.outputs(unseen).mean(axis=1) - truth,
        "additive": unseen @ sums.weights + sums.bias - truth,
    }
    assert np.mean(errors["ensemble"] ** 2) < 0.3 * np.mean(errors["additive"] ** 2)
    assert mixed(sums, ensemble, target) < 0.1


def test_the_first_step_is_adamw_s_at_a_fiftieth_of_the_rate() -> None:
    """Of an output of zero only the last layer has a gradient, and Adam's first step is as long as its rate.

    The average takes a tenth of the old weights.
    """
    inputs, target = product(40)
    labels, rate = folds(40), 5e-3 / 50
    assert steps_an_epoch(labels) == 1
    old, new = [fit_ensemble(inputs, target, LAYOUTS, labels, seed=0, units=UNITS, epochs=n) for n in (0, 1)]
    assert new.first == pytest.approx(old.first * (1 - 0.9 * rate * 0.3), abs=2e-7)
    for index in range(MEMBERS):
        seen = target[labels != index]
        layer = member(old, index)
        hidden = np.maximum(inputs[labels != index] @ layer["layers.0.weight"].T + layer["layers.0.bias"], 0)
        direction = np.sign((seen - seen.mean()) @ hidden)
        assert np.all(layer["layers.1.weight"] == 0)
        assert layer["layers.1.bias"] == pytest.approx(seen.mean())
        moved = member(new, index)["layers.1.weight"][0] / seen.std()
        assert moved == pytest.approx(0.9 * rate * direction, rel=1e-4)


def test_weights_say_how_much_a_row_counts() -> None:
    inputs, target = product()
    odd = np.arange(300) % 2 == 1
    spoiled = np.where(odd, target, -500.0)
    arguments = (inputs, spoiled, LAYOUTS, folds(300))
    ensemble = fit_ensemble(*arguments, seed=0, weights=odd * 3.0, epochs=40)
    assert np.mean((ensemble.out_of_fold - target)[odd] ** 2) < 1
    assert ensemble.history[-1] == pytest.approx(np.mean((ensemble.out_of_fold - target)[odd] ** 2), rel=1e-5)
    outputs = ensemble.outputs(inputs)[odd]
    assert ensemble.ambiguity == pytest.approx(np.mean(outputs.var(axis=1)))


def test_equal_weights_change_nothing() -> None:
    inputs, target = product()
    arguments = (inputs, target, LAYOUTS, folds(300))
    even = fit_ensemble(*arguments, seed=0, epochs=5, weights=np.full(300, 4.0))
    assert bits(even) == bits(fit_ensemble(*arguments, seed=0, epochs=5))


@pytest.mark.parametrize("labels", [np.arange(300) % 2, np.repeat([0, 1, 2], [250, 49, 1])])
def test_folds_may_be_few_and_of_unlike_sizes(labels: NDArray[np.intp]) -> None:
    inputs, target = product()
    ensemble = fit_ensemble(inputs, target, LAYOUTS, labels, seed=0, epochs=30)
    assert ensemble.biases.shape == (labels.max() + 1,)
    assert ensemble.history[-1] < ensemble.history[0]


def test_a_target_that_is_constant_but_in_one_fold_does_no_harm() -> None:
    inputs, _ = product()
    labels = folds(300)
    ensemble = fit_ensemble(inputs, 5.0 + (labels == 0), LAYOUTS, labels, seed=0, epochs=3)
    assert ensemble.out_of_fold[labels == 0] == pytest.approx(5.0)


def test_the_target_may_be_in_any_unit() -> None:
    inputs, target = product()
    arguments = (LAYOUTS, folds(300))
    ensemble = fit_ensemble(inputs, target, *arguments, seed=0, epochs=10)
    larger = fit_ensemble(inputs, 1e6 * target - 3e9, *arguments, seed=0, epochs=10)
    assert larger.out_of_fold == pytest.approx(1e6 * ensemble.out_of_fold - 3e9, abs=100)
    assert larger.ambiguity == pytest.approx(1e12 * ensemble.ambiguity, rel=1e-3)


def expected_error(share: float, sums: Additive, ensemble: Ensemble, weights: Matrix) -> float:
    """What the mix should err where the target is 0, from its definition: of the mean, less the ambiguity."""
    errors = share * sums.out_of_fold + (1 - share) * ensemble.out_of_fold
    return float(np.average(errors**2, weights=weights)) - (1 - share) ** 2 * ensemble.ambiguity


def with_errors(own: Matrix, other: Matrix, ambiguity: float) -> tuple[Additive, Ensemble]:
    """Models whose out-of-fold predictions of zeros these are."""
    none = np.empty(0)
    return Additive(none, 0.0, own, 1.0), Ensemble(none, none, none, none, other, ambiguity, (1.0,))


@pytest.mark.parametrize("seed", range(12))
def test_the_share_in_the_mix_is_that_of_the_least_error(seed: int) -> None:
    rng = np.random.default_rng(seed)
    own, other = (rng.normal(size=(200, 2)) @ rng.normal(size=(2, 2))).T
    weights, zeros = rng.random(200), np.zeros(200)
    sums, ensemble = with_errors(own, other, float(rng.random() * np.mean(other**2)))
    shares = np.linspace(0, 1, 2001)
    errors = [expected_error(share, sums, ensemble, weights) for share in shares.tolist()]
    assert mixed(sums, ensemble, zeros, weights) == pytest.approx(shares[np.argmin(errors)], abs=1 / 2000)


def test_of_two_models_that_err_alike_the_simpler_is_taken() -> None:
    errors = np.array([1.0, -2.0, 0.5])
    assert mixed(*with_errors(errors, errors, 0.0), np.zeros(3)) == 1


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("reach", [1.0, 1000.0])
def test_the_mix_is_one_plain_network(share: float, reach: float) -> None:
    inputs, target = product()
    sums, ensemble = additive(inputs, target), fit()
    tensors = as_tensors(ensemble, sums, share)
    assert len(tensors["layers.0.bias"]) == MEMBERS * UNITS + (2 if share else 0)
    rows, _ = product(500, seed=3, reach=reach)
    found = expected_outputs(Mlp(hidden=(len(tensors["layers.0.bias"]),), activation="relu"), tensors, rows)
    mean = member_outputs(ensemble, rows).mean(axis=1)
    expected = share * (rows @ sums.weights + sums.bias) + (1 - share) * mean
    assert found == pytest.approx(expected, rel=1e-9)
