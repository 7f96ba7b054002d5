"""The page that compares optimizers: cost against epochs and against seconds, and the paths they took.

With one numeric input the cost is a bowl over the plane of W and b, and each path over it can be seen.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse
from numpy.typing import NDArray

from model_store.columns import Matrix
from training.drawing import (
    HUGE,
    INK,
    Interval,
    Picture,
    brief,
    dots,
    frame,
    log_axis,
    picture,
    plain_axis,
    render,
    shown,
    thinned_curve,
)

# After Okabe and Ito, whose colours colour-blind readers tell apart; dashes when there are more runs.
COLOURS: Final = ("#1f6fb2", "#c2500a", "#00805e", "#a3357d", "#b08900", "#3d9bd1", "#23272b")
DASHES: Final = ("", "5 2", "2 2", "8 2 2 2")
NAMES: Final = {
    "gd": "Gradient descent", "sgd": "SGD", "momentum": "Momentum", "rmsprop": "RMSProp", "adam": "Adam",
    "exact": "Exact least squares",
}  # fmt: skip
LESSONS: Final = {
    "gd": "Gradient descent uses all rows for each step: one step an epoch, a smooth way down.",
    "sgd": "SGD uses a part of the rows for each step: many cheap steps an epoch, so it is "
    "faster, and noisier.",
    "momentum": "Momentum mends the direction: each step keeps most of the one before, so it runs on, and "
    "may overshoot.",
    "rmsprop": "RMSProp mends the step length: each gradient is divided by its own recent size, so steps are "
    "alike wherever it stands.",
    "adam": "Adam does both: momentum's direction with RMSProp's step length.",
    "exact": "Exact least squares solves for the optimum; it takes no steps.",
}
NEAR: Final = 0.01
RINGS: Final = 8
MOST_STEPS, MOST_JOINED, MOST_DOTS, FAR = 1000, 500, 150, 50.0


@dataclass(frozen=True)
class Run:
    """One optimizer's descent.

    `history` is the cost after 0, 1, 2 … epochs, `seconds` the elapsed training time at the same points,
    `path` (W, b) at the start and after each step: empty unless the model has one numeric input. `trouble`
    says what is wrong, as when it diverged. `r2` is of rows that a run of the same kind had not seen.
    """

    optimizer: str
    learning_rate: float
    history: tuple[float, ...]
    seconds: tuple[float, ...]
    path: tuple[tuple[float, float], ...]
    trouble: str | None
    r2: float | None = None


@dataclass(frozen=True)
class Surface:
    """The cost of a line through one input: least + d · gram d at (W, b), d = (W - weight, b - bias)."""

    weight: float
    bias: float
    least: float
    gram: NDArray[np.float64]


@dataclass(frozen=True)
class Entry:
    """A run as the page shows it: its label, its line, its row of the table and its panel."""

    run: Run
    label: str
    colour: str
    dash: str
    final: float
    above: float | None
    epochs: int | None
    seconds: float | None
    lesson: str
    panel: Picture | None


def comparison_html(
    runs: Sequence[Run], source: str, optimum: float | None, surface: Surface | None
) -> bytes:
    """The page's bytes; `optimum` is the least cost that any line reaches."""
    limits = plane(runs, surface) if surface else None
    entries = [
        entry(index, runs, optimum, path_panel(index, run, surface, limits) if surface and limits else None)
        for index, run in enumerate(runs)
    ]
    drawn = [cost_per_epoch(entries, optimum), cost_per_second(entries, optimum)]
    return render(
        "comparison.html",
        source=source,
        entries=entries,
        verdict=verdict(entries),
        optimum=optimum,
        near=NEAR,
        pictures=[picture for picture in drawn if picture],
        paths=any(entry.panel for entry in entries),
    )


def entry(index: int, runs: Sequence[Run], optimum: float | None, panel: Picture | None) -> Entry:
    """A run with what the table says of it."""
    run = runs[index]
    label = NAMES.get(run.optimizer, run.optimizer)
    if Counter(other.optimizer for other in runs)[run.optimizer] > 1:
        label += f", learning rate {shown(run.learning_rate)}"
    final = run.history[-1]
    epochs = arrival(run, optimum)
    return Entry(
        run,
        label,
        COLOURS[index % len(COLOURS)],
        DASHES[index // len(COLOURS) % len(DASHES)],
        final,
        None if optimum is None else max(final - optimum, 0.0),
        epochs,
        None if epochs is None or epochs >= len(run.seconds) else run.seconds[epochs],
        LESSONS.get(run.optimizer, ""),
        panel,
    )


def arrival(run: Run, optimum: float | None) -> int | None:
    """The epochs until 1 % of the start's cost above the optimum is left; None for never."""
    if optimum is None:
        return None
    goal = optimum + NEAR * (run.history[0] - optimum)
    return next((epoch for epoch, cost in enumerate(run.history) if cost <= goal), None)


def verdict(entries: Sequence[Entry]) -> str:
    """Who arrived first."""
    arrived = [entry for entry in entries if entry.epochs is not None]
    timed = [entry for entry in arrived if entry.seconds is not None]
    if not arrived:
        return ""
    least = min(entry.epochs or 0 for entry in arrived)
    sentences = [f"First by epochs: {listed(arrived, lambda entry: entry.epochs == least)}, after {least}."]
    if timed:
        fastest = min(timed, key=lambda entry: entry.seconds or 0.0)
        sentences.append(f"First by the clock: {fastest.label}, after {brief(fastest.seconds or 0.0)} s.")
    if gone := listed(arrived, lambda entry: not stayed(entry)):
        sentences.append(f"Did not stay there: {gone}.")
    return " ".join(sentences)


def listed(entries: Sequence[Entry], wanted: Callable[[Entry], bool]) -> str:
    """The labels of the wanted ones."""
    return ", ".join(entry.label for entry in entries if wanted(entry))


def stayed(entry: Entry) -> bool:
    """Whether a run that arrived ended there too."""
    history, above = entry.run.history, entry.above or 0.0
    return above <= NEAR * (history[0] - history[-1] + above)


# The curves.


def cost_per_epoch(entries: Sequence[Entry], optimum: float | None) -> Picture | None:
    """Each run's cost after each epoch."""
    curves = [
        thinned_curve(np.arange(len(entry.run.history), dtype=np.float64), heights(entry.run, optimum))
        for entry in entries
    ]
    alt = "Line chart: each optimizer's cost after each epoch."

    def draw(axes: Axes) -> None:
        draw_curves(axes, entries, curves, optimum)
        axes.margins(x=0.02)
        plain_axis(axes.xaxis, whole=True)
        axes.set_xlabel("epochs")

    return picture("epochs", "By epoch", alt, "", draw) if any(len(x) for x, _ in curves) else None


def cost_per_second(entries: Sequence[Entry], optimum: float | None) -> Picture | None:
    """Each run's cost against the time it took; time is logarithmic, as it differs by powers of ten."""
    curves = []
    for entry in entries:
        costs = heights(entry.run, optimum)
        count = min(len(costs), len(entry.run.seconds))
        curves.append(thinned_curve(np.array(entry.run.seconds[:count]), costs[:count]))
    times = np.concatenate([[], *(x for x, _ in curves)])
    times = times[times > 0]
    if not len(times):
        return None

    def draw(axes: Axes) -> None:
        draw_curves(axes, entries, [(np.maximum(x, times.min() / 2), y) for x, y in curves], optimum)
        log_axis(axes, axes.xaxis, times.min() / 2, times.max())
        axes.set_xlabel("seconds of training")

    alt = "Line chart: each optimizer's cost against the seconds it took."
    return picture("seconds", "By the clock", alt, "", draw)


def heights(run: Run, optimum: float | None) -> Matrix:
    """The costs, (epochs + 1,), or how far above the optimum they are; NaN where rounding decides."""
    costs = np.array(run.history)
    if optimum is None:
        return costs
    above = costs - optimum
    return np.where(above > 1e-13 * abs(optimum), above, np.nan)


def draw_curves(
    axes: Axes, entries: Sequence[Entry], curves: Sequence[tuple[Matrix, Matrix]], optimum: float | None
) -> None:
    """A logarithmic line a run, each of x (n,) and y (n,); one that grows leaves the picture at the top."""
    for entry, (x, y) in zip(entries, curves, strict=True):
        axes.plot(
            x, y, color=entry.colour, linestyle=line_style(entry.dash), marker="o" if len(x) == 1 else ""
        )
    drawn = [y for _, y in curves if len(y)]
    top = min(max(y.max() for y in drawn), 10 * max(y[0] for y in drawn))
    bottom = max(min(y.min() for y in drawn), 1e-14 * top)
    log_axis(axes, axes.yaxis, min(bottom, top), top)
    axes.set_ylabel("cost (mean squared error)" if optimum is None else "cost above the optimum")


def line_style(dash: str) -> str | tuple[float, tuple[float, ...]]:
    """A dash pattern as matplotlib takes it; "" is a solid line."""
    return (0, tuple(map(float, dash.split()))) if dash else "-"


# The paths.


def path_panel(index: int, run: Run, surface: Surface, limits: tuple[Interval, Interval]) -> Picture | None:
    """A run's path over the cost's contours."""
    path = steps(run, limits)
    if not len(path):
        return None
    colour = COLOURS[index % len(COLOURS)]

    def draw(axes: Axes) -> None:
        contours(axes, surface, limits)
        axes.plot(*path[:MOST_JOINED].T, color=colour, linewidth=1.1, alpha=0.85)
        dots(axes, path[:MOST_DOTS], colour, 2.8, 1.0)
        dots(axes, path[MOST_JOINED:], colour, 2.8, 0.35)
        for colour_of_cross, width in (("white", 5), (INK, 2)):
            cross = axes.plot(surface.weight, surface.bias, color=colour_of_cross, marker="+", zorder=5)
            cross[0].set(markersize=13, markeredgewidth=width)
        axes.plot(*path[0], marker="s", color=INK, markeredgecolor="white", markersize=8, zorder=5)
        frame(axes, *limits)
        axes.grid(visible=False)
        axes.set(xlabel="W", ylabel="b")

    name = NAMES.get(run.optimizer, run.optimizer)
    alt = f"The path of {name} over the contours of the cost, from the start to where it ended."
    return picture(f"path{index}", name, alt, "", draw, (4.2, 4.0))


def contours(axes: Axes, surface: Surface, limits: tuple[Interval, Interval]) -> None:
    """Ellipses of equal cost, evenly apart, the highest through the farthest corner."""
    center = np.array([surface.weight, surface.bias])
    corners = np.array([(w, b) for w in limits[0] for b in limits[1]]) - center
    gram = (surface.gram + surface.gram.T) / 2
    curvature, axes_of_bowl = np.linalg.eigh(gram)
    curvature = np.maximum(curvature, 1e-9 * curvature.max())
    highest = np.sqrt(np.einsum("ij,jk,ik->i", corners, gram, corners).max())
    angle = float(np.degrees(np.arctan2(axes_of_bowl[1, 0], axes_of_bowl[0, 0])))
    for ring in range(RINGS, 0, -1):
        width, height = 2 * highest * ring / RINGS / np.sqrt(curvature)
        shade = {"facecolor": "#5c656d", "edgecolor": "#23272b", "alpha": 0.055}
        axes.add_patch(
            Ellipse((surface.weight, surface.bias), width, height, angle=angle, linewidth=0.6, **shade)
        )


def plane(runs: Sequence[Run], surface: Surface) -> tuple[Interval, Interval]:
    """The part of the plane that holds the optimum, the start and every step no higher than the start."""
    optimum = np.array([[surface.weight, surface.bias]])
    known = np.concatenate([optimum, *(no_higher(np.array(run.path), surface) for run in runs if run.path)])
    low, high = known.min(axis=0), known.max(axis=0)
    spans = high - low
    widest = spans.max() or 1.0
    # W and b share a scale where that leaves both readable: then the contours show their true shape.
    spans = np.where(spans > widest / 20, widest, np.where(spans > 0, spans, widest))
    middle = (low + high) / 2
    (left, bottom), (right, top) = (middle - spans * 0.55).tolist(), (middle + spans * 0.55).tolist()
    return (left, right), (bottom, top)


def no_higher(path: Matrix, surface: Surface) -> Matrix:
    """The points of a path (n, 2) at which the cost is no higher than at its start: (at most n, 2)."""
    path = path[(np.abs(path) < HUGE ** (1 / 3)).all(axis=1)]
    apart = path - (surface.weight, surface.bias)
    heights = np.einsum("ij,jk,ik->i", apart, surface.gram, apart)
    lower: Matrix = path[heights <= heights[:1]]
    return lower


def steps(run: Run, limits: tuple[Interval, Interval]) -> Matrix:
    """The path (n, 2), of a long one its beginning and an even choice of the rest; far outside it stops."""
    path: Matrix = np.array(run.path, dtype=np.float64).reshape(-1, 2)
    spans = np.array([high - low for low, high in limits])
    middle = np.array([(low + high) / 2 for low, high in limits])
    with np.errstate(invalid="ignore"):
        inside = (np.abs(path - middle) <= FAR * spans).all(axis=1)
    path = path[: len(path) if inside.all() else int(inside.argmin())]
    if len(path) <= MOST_STEPS:
        return path
    rest = np.linspace(MOST_JOINED, len(path) - 1, MOST_STEPS - MOST_JOINED).astype(int)
    chosen: Matrix = path[np.concatenate([np.arange(MOST_JOINED), rest])]
    return chosen
