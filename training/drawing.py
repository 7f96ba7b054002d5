"""What the pages share: drawing a picture as inlined SVG, writing a number, filling a template."""

import io
import math
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import matplotlib.style
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from model_store.columns import Matrix

BLUE, ORANGE, INK, GREY = "#1f6fb2", "#c2500a", "#23272b", "#5c656d"
MOST_POINTS, MOST_CURVE_POINTS, MOST_BINS = 2000, 600, 30
HUGE: Final = 1e300
STYLE: Final[Any] = (
    "default",
    {
        "svg.fonttype": "none", "text.parse_math": False, "path.simplify": False,
        "font.size": 11, "axes.labelsize": 11, "xtick.labelsize": 11, "ytick.labelsize": 11,
        "text.color": INK, "axes.labelcolor": INK, "xtick.labelcolor": GREY, "ytick.labelcolor": GREY,
        "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False,
        "axes.edgecolor": "#aab2b9", "axes.grid": True, "grid.color": "#e4e8eb", "axes.axisbelow": True,
        "xtick.major.size": 0, "ytick.major.size": 0, "lines.linewidth": 1.8,
        "figure.facecolor": "none", "axes.facecolor": "none",
    },
)  # fmt: skip

Draw: TypeAlias = Callable[[Axes], None]
Interval: TypeAlias = tuple[float, float]


@dataclass(frozen=True)
class Picture:
    """A drawing with its heading, what it shows for those who cannot see it, and a caption."""

    title: str
    alt: str
    caption: str
    view_box: str
    shapes: str


def render(template: str, **fields: object) -> bytes:
    """A template of `pages` filled in, as UTF-8; what is not markup of ours is escaped."""
    environment = Environment(
        loader=PackageLoader("training", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"shown": shown, "exact": repr, "percent": percent, "brief": brief, "fixed": fixed}
    return environment.get_template(template).render(fields).encode()


def shown(number: float) -> str:
    """A number for people: five digits, thousands apart from 10,000 on, very large or small as powers."""
    if isinstance(number, int):
        return f"{number:,}"
    if not math.isfinite(number):
        return "not a number" if math.isnan(number) else "∞" if number > 0 else "−∞"
    rounded = float(f"{number:.5g}") or 0.0
    if rounded and not 1e-4 <= abs(rounded) < 1e12:
        return scientific(rounded)
    text = f"{rounded:.5g}" if abs(rounded) < 10_000 else f"{number:,.0f}"
    return text.replace("-", "−")


def brief(number: float) -> str:
    """Three digits of it."""
    return shown(float(f"{number:.3g}"))


def fixed(number: float) -> str:
    """Four decimals of a number that is one at best, as R² is."""
    return f"{round(number, 4) or 0.0:,.4f}".replace("-", "−") if abs(number) < 1e6 else shown(number)


def scientific(number: float) -> str:
    """1.5 × 10⁻⁷."""
    digits, _, power = f"{number:.4e}".partition("e")
    digits = digits.rstrip("0").rstrip(".")
    raised = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    text = f"10{raised}" if digits == "1" else f"{digits} × 10{raised}"
    return text.replace("-", "−")


def signed(number: float) -> str:
    """A number that is added."""
    return f"− {shown(-number)}" if number < 0 else f"+ {shown(number)}"


def percent(share: float) -> str:
    """A share of one."""
    return f"{brief(100 * share)} %"


def on_axis(text: str, most: int = 48) -> str:
    """A label that fits its axis, in one line."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def picture(
    key: str, title: str, alt: str, caption: str, draw: Draw, size: tuple[float, float] = (5.3, 3.5)
) -> Picture:
    """Draw a picture of `size` inches; `key` makes its ids differ from those of the page's other pictures.

    Text stays text, in the reader's font, so a glyph that ours lacks is nothing to warn of.
    """
    text = io.StringIO()
    with matplotlib.style.context([*STYLE, {"svg.hashsalt": key}]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot())
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    width, height = (round(72 * side, 2) for side in size)
    return Picture(title, alt, caption, f"0 0 {width:g} {height:g}", inlined(text.getvalue(), key))


def inlined(svg: str, key: str) -> str:
    """What is inside of an SVG file, its ids prefixed with `key`, without what only a file needs.

    Within matplotlib's text "<" is escaped, so whatever looks like a tag is one of its own.
    """
    inside = svg[svg.index("</defs>") + len("</defs>") : svg.rindex("</svg>")]
    inside = re.sub(r"<[^>]+>", lambda tag: shortened(tag[0], key), inside)
    return re.sub(r">\s+<", "><", inside).strip()


def shortened(tag: str, key: str) -> str:
    """A tag with hundredths at most, the page's font, and ids of its own picture."""
    tag = re.sub(r'^<g id="[^"]*"', "<g", tag)
    tag = re.sub(r'( id="|url\(#|xlink:href="#)', rf"\g<1>{key}-", tag)
    tag = re.sub(r" ?font-family: [^;\"]*;?", "", tag)
    tag = re.sub(r' transform="rotate\(-0 [^"]*"', "", tag)
    tag = re.sub(r"(\d+\.\d\d)\d+", r"\1", tag)
    tag = re.sub(r"M (\S+ \S+) \nL \1 ", r"M\1h0", tag)
    return re.sub(r"(?<=[MLCQ]) | ?\n| (?=[\"z])", "", tag)


def scatter(axes: Axes, x: Matrix, y: Matrix, across: Interval, up: Interval) -> None:
    """At most 2,000 of the points x, y, each (n,), in the window; where they crowd, the colour deepens."""
    inside = np.flatnonzero(within(x, across) & within(y, up))
    if len(inside) > MOST_POINTS:
        inside = np.random.default_rng(0).choice(inside, MOST_POINTS, replace=False)
    points = np.column_stack([x, y])[inside]
    for start in range(8):
        dots(axes, points[start::8], BLUE, 4, 0.3)


def dots(axes: Axes, points: Matrix, colour: str, size: float, alpha: float) -> None:
    """Points (n, 2) as one path of strokes without a length, a fifth of the bytes of as many markers."""
    if len(points):
        strokes = Path(np.repeat(points, 2, axis=0), [Path.MOVETO, Path.LINETO] * len(points))
        axes.add_patch(
            PathPatch(strokes, fill=False, linewidth=size, capstyle="round", alpha=alpha, edgecolor=colour)
        )


def histogram(axes: Axes, values: Matrix, limits: Interval) -> None:
    """How many values (n,) each of at most thirty bins holds; whole numbers get whole bins."""
    low, high = limits
    shares = np.linspace(0, 1, MOST_BINS + 1)
    edges = low + (high - low) * shares
    if high - low < 1000 and np.array_equal(values, np.rint(values)):
        width = math.ceil((high - low + 1) / MOST_BINS)
        edges = np.arange(math.floor(low) - 0.5, high + width, width)
    counts = np.diff(np.searchsorted(np.sort(values), edges))
    counts[-1] += np.count_nonzero(values == edges[-1])
    axes.stairs(counts, edges, fill=True, color=BLUE, alpha=0.75)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, 1.06 * max(1, counts.max()))
    plain_axis(axes.xaxis)
    plain_axis(axes.yaxis, whole=True, most=4)
    axes.grid(visible=False, axis="x")


def frame(axes: Axes, across: Interval, up: Interval) -> None:
    """Show the window and a little more."""
    for set_limits, (low, high) in ((axes.set_xlim, across), (axes.set_ylim, up)):
        margin = 0.03 * (high - low)
        set_limits(low - margin, high + margin)
    plain_axis(axes.xaxis)
    plain_axis(axes.yaxis)


def plain_axis(axis: Axis, *, whole: bool = False, most: int = 5) -> None:
    """A few round numbers on a linear axis."""
    axis.set_major_locator(MaxNLocator(most, integer=whole, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(tick))


def log_axis(axes: Axes, axis: Axis, low: float, high: float) -> None:
    """A logarithmic axis from `low` to `high`, both positive, with a few round numbers on it."""
    ratio = max(high / low, 1.05) if high / low < HUGE else HUGE
    margin = min(ratio, HUGE) ** 0.05
    vertical = axis is axes.yaxis
    # Limits first: matplotlib would find its own, and overflow with a cost that did.
    (axes.set_ylim if vertical else axes.set_xlim)(low / margin, high * margin)
    (axes.set_yscale if vertical else axes.set_xscale)("log")
    subs = (1.0, 2.0, 5.0) if ratio < 1000 else (1.0,)
    axis.set_major_locator(MaxNLocator(5) if ratio < 8 else LogLocator(subs=subs, numticks=6))
    axis.set_major_formatter(FuncFormatter(tick))
    axis.set_minor_locator(NullLocator())


def tick(number: float, _position: object = None) -> str:
    """The number at a tick."""
    number = float(f"{number:.8g}")
    return scientific(number) if abs(number) >= 1e7 or 0 < abs(number) < 1e-3 else shown(number)


def thinned_curve(x: Matrix, y: Matrix) -> tuple[Matrix, Matrix]:
    """The points that a logarithmic curve can show, of many the least and the greatest y of 300 stretches.

    x and y are each (n,), and (at most 602,) afterwards.
    """
    possible = np.flatnonzero((y > 1 / HUGE) & (y < HUGE))
    if len(possible) > MOST_CURVE_POINTS:
        stretches = np.array_split(possible, MOST_CURVE_POINTS // 2)
        ends = {int(part[pick]) for part in stretches for pick in (y[part].argmin(), y[part].argmax())}
        possible = np.array(sorted(ends | {int(possible[0]), int(possible[-1])}))
    return x[possible], y[possible]


def curve(rows: Matrix, across: Interval) -> Matrix:
    """Of rows (n, k) those at distinct first values in the window, ascending; at most 300, evenly spread."""
    distinct, first = np.unique(rows[:, 0], return_index=True)
    first = first[within(distinct, across)]
    chosen = np.unique(np.linspace(0, len(first) - 1, MOST_CURVE_POINTS // 2).astype(int))
    drawn: Matrix = rows[first[chosen]]
    return drawn


def finite(values: Matrix) -> Matrix:
    """The values (n,) that can be drawn."""
    return values[np.abs(values) < HUGE]


def finite_pairs(x: Matrix, y: Matrix) -> tuple[Matrix, Matrix]:
    """The pairs of x and y, each (n,), that can be drawn."""
    possible = (np.abs(x) < HUGE) & (np.abs(y) < HUGE)
    return x[possible], y[possible]


def drawable(values: Matrix) -> bool:
    """Whether the values (n,) differ by more than rounding."""
    return bool(len(values) and np.ptp(values) > 1e-9 * np.abs(values).max())


def window(values: Matrix) -> Interval:
    """The range of values (n,) to draw: all but an outermost half percent that would take most room."""
    low, first, last, high = np.quantile(values, [0, 0.005, 0.995, 1]).tolist()
    core = last - first
    if core <= 1e-9 * max(abs(low), abs(high)):
        return low, high
    return (low if first - low <= core / 2 else first), (high if high - last <= core / 2 else last)


def within(values: Matrix, limits: Interval) -> NDArray[np.bool_]:
    """Which of the values (n,) the limits hold: (n,)."""
    return (values >= limits[0]) & (values <= limits[1])


def outside_note(x: Matrix, y: Matrix, across: Interval, up: Interval) -> str:
    """How many of n points, x and y each (n,), the window leaves out; "" if none."""
    count = len(x) - int(np.count_nonzero(within(x, across) & within(y, up)))
    if not count:
        return ""
    return f" {shown(count)} of {shown(len(x))} rows lie outside of the picture."
