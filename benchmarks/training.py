"""Training against what one would write instead: `python -m benchmarks.training` (or `make bench`).

Each pair runs in turn, A B A B …, because the speed of shared machines drifts: the medians and the median
of the ratios pair by pair are what to quote.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from model_store.manifest import Linear
from training.blocks import Blocks
from training.descent import descend
from training.encoding import encode_table
from training.network import FeedForward
from training.reading import read_table
from training.recipe import Schedule, make_recipe
from training.sample import write_used_cars
from training.statistics import describe_columns

PAIRS = 9
LONG_ROWS = 10_000_000
FIT = ("--target", "Price", "--feature", "Kilometers_Driven", "--name", "cars", "--holdout", "0")


def main() -> None:
    """Print every comparison."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        cars = Path(folder) / "cars.csv"
        write_used_cars(cars)
        recipe = make_recipe({"target": {"name": "Price"}, "features": [{"name": "Kilometers_Driven"}]})
        table = read_table(cars, recipe)
        data = encode_table(recipe, describe_columns(table)[0], table)
        print(f"{'':58} {'ours':>9} {'other':>9} {'ratio':>7}   median of {PAIRS} pairs")
        race(
            "1,000 epochs of all 6,019 rows: ours, plain torch",
            loop(data, "gd", 1000),
            plain_loop(data, 1000),
        )
        race("20 epochs in batches of 64: ours, DataLoader", loop(data, "sgd", 20), dataloader_loop(data, 20))
        race("20 epochs in batches of 64: ours, by hand", loop(data, "sgd", 20), manual_loop(data, 20))
        fitting = process("-m", "training", "fit", str(cars), *FIT, "--store", f"{folder}/models")
        race("the whole process: fit, `import torch` and the loop", fitting, process("-c", TORCH_SCRIPT))
        race(
            "the whole process: fit, a scikit-learn script", fitting, process("-c", SKLEARN_SCRIPT, str(cars))
        )
        long_table(Path(folder))


def race(label: str, ours: Callable[[], None], other: Callable[[], None]) -> None:
    """Time the two in turn and print the medians and the median ratio."""
    ours()
    other()
    pairs = [(timed(ours), timed(other)) for _ in range(PAIRS)]
    first, second = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"{label:58} {first:8.3f}s {second:8.3f}s {ratio:7.2f}", flush=True)


def timed(work: Callable[[], None]) -> float:
    """Seconds that `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def loop(data: Blocks, optimizer: str, epochs: int) -> Callable[[], None]:
    """Our loop."""
    schedule = Schedule.model_validate({"optimizer": optimizer, "epochs": epochs, "learning_rate": 0.01})
    return lambda: keep(descend(FeedForward(Linear(), data.width - 1, 0), schedule, data))


def keep(_result: object) -> None:
    """Drop a result."""


def tensors(data: Blocks) -> tuple[torch.Tensor, torch.Tensor]:
    """The inputs (n, 1) and the target (n, 1) of a table of one block."""
    values = torch.from_numpy(data[0])
    return values[:, :1].contiguous(), values[:, 1:].contiguous()


def plain_loop(data: Blocks, epochs: int) -> Callable[[], None]:
    """The loop as one writes it in a notebook, on all rows."""
    inputs, target = tensors(data)

    def work() -> None:
        line = nn.Linear(1, 1, dtype=torch.float64)
        optimizer, loss = torch.optim.SGD(line.parameters(), lr=0.01), nn.MSELoss()
        costs = []
        for _ in range(epochs):
            optimizer.zero_grad()
            cost = loss(line(inputs), target)
            cost.backward()
            optimizer.step()
            costs.append(cost.item())

    return work


def dataloader_loop(data: Blocks, epochs: int) -> Callable[[], None]:
    """The loop as one writes it in a notebook, in batches."""
    loader = DataLoader(TensorDataset(*tensors(data)), batch_size=64, shuffle=True)

    def work() -> None:
        line = nn.Linear(1, 1, dtype=torch.float64)
        optimizer, loss = torch.optim.SGD(line.parameters(), lr=0.01), nn.MSELoss()
        for _ in range(epochs):
            for inputs, target in loader:
                optimizer.zero_grad()
                loss(line(inputs), target).backward()
                optimizer.step()

    return work


def manual_loop(data: Blocks, epochs: int) -> Callable[[], None]:
    """The gradient of a line written by hand: what autograd costs."""
    inputs, target = tensors(data)

    def work() -> None:
        weight, bias = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        for _ in range(epochs):
            order = torch.randperm(len(target))
            batches = zip(torch.split(inputs[order], 64), torch.split(target[order], 64), strict=True)
            for batch, actual in batches:
                residual = torch.addcmul(bias, batch, weight) - actual
                weight -= 0.02 * (residual * batch).mean()
                bias -= 0.02 * residual.mean()

    return work


TORCH_SCRIPT = """
import torch
x, y = torch.randn(6019, 1, dtype=torch.float64), torch.randn(6019, 1, dtype=torch.float64)
line = torch.nn.Linear(1, 1, dtype=torch.float64)
optimizer, loss = torch.optim.SGD(line.parameters(), lr=0.1), torch.nn.MSELoss()
for _ in range(200):
    optimizer.zero_grad()
    loss(line(x), y).backward()
    optimizer.step()
"""
SKLEARN_SCRIPT = """
import sys, pandas
from sklearn.linear_model import SGDRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
table = pandas.read_csv(sys.argv[1])
model = make_pipeline(StandardScaler(), SGDRegressor(max_iter=20, tol=None))
model.fit(table[["Kilometers_Driven"]], table["Price"])
"""


def process(*arguments: str) -> Callable[[], None]:
    """A whole Python process."""
    command = [sys.executable, *arguments]
    return lambda: keep(subprocess.run(command, check=True, capture_output=True))


def long_table(folder: Path) -> None:
    """Rows a second and peak memory on a CSV that plain pandas has to hold in memory."""
    path = folder / "long.csv"
    rng = np.random.default_rng(0)
    for start in range(0, LONG_ROWS, 500_000):
        x = rng.normal(50_000, 20_000, 500_000).round(1)
        piece = pd.DataFrame({"x": x, "y": (3 - x / 10_000 + rng.normal(size=len(x))).round(4)})
        piece.to_csv(path, mode="a", header=start == 0, index=False)
    print(f"\n{LONG_ROWS:,} rows, {path.stat().st_size / 1e6:.0f} MB of CSV          rows/s     peak memory")
    store = f"{folder}/long-models"
    fit_long = ("-m", "training", "fit", str(path), "--target", "y", "--feature", "x", "--name", "long")
    measure("ours: fit, 3 epochs of adam, scores, report", [*fit_long, *ADAM, "--store", store])
    measure("plain pandas: read_csv alone", ["-c", PANDAS_SCRIPT, str(path)])


ADAM = ("--optimizer", "adam", "--learning-rate", "0.01", "--batch-size", "8192", "--epochs", "3")
PANDAS_SCRIPT = "import sys, pandas; pandas.read_csv(sys.argv[1])"
MEASURED = """
import resource, subprocess, sys
subprocess.run([sys.executable, *sys.argv[1:]], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def measure(label: str, arguments: list[str]) -> None:
    """Run a process once over the long table and print its speed and its peak resident memory."""
    start = time.perf_counter()
    command = [sys.executable, "-c", MEASURED, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    print(f"{label:45} {LONG_ROWS / seconds:12,.0f} {int(done.stdout) / 1024:12,.0f} MB", flush=True)


if __name__ == "__main__":
    main()
