"""What loading costs, and whether a long history slows it: `python -m benchmarks.store`.

Loading is timed in processes of their own, after the imports; a store of 10,000 versions and promotions is
opened as a service opens it, beside a bare listing of its folders, in turn.
"""

import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from model_store._promotions import promotions_of
from model_store._storage import LocalDisk
from model_store.manifest import MANIFEST, Linear, Mlp
from model_store.store import Store, open_store
from model_store.versions import folder_of
from tests.toys import publish_toy

VERSIONS = 10_000
ROUNDS = 9
WIDE = Mlp(hidden=(1140, 1140))
MEASURE = """
import re, sys, time
from pathlib import Path
from model_store.store import open_store
def peak(): return int(re.search("VmHWM: *\\t *([0-9]+)", Path("/proc/self/status").read_text())[1]) / 1024
before, start = peak(), time.perf_counter()
version = open_store(sys.argv[1]).load("toy", 1)
print(time.perf_counter() - start, before, peak())
"""


def main() -> None:
    """Print every figure."""
    with tempfile.TemporaryDirectory() as folder:
        print(f"load and verify, median of {ROUNDS} processes{'':15} ms   MB before   MB at its peak")
        for label, network in (("linear, 5 inputs", Linear()), ("MLP 5-1140-1140-1", WIDE)):
            measure_load(label, open_store(f"{folder}/{network.kind}"), network)
        measure_open(open_store(f"{folder}/long"))


def measure_load(label: str, store: Store, network: Linear | Mlp) -> None:
    """Load a version in fresh processes."""
    publish_toy(store, network)
    size = Path(store.url, "toy/versions/1/weights.safetensors").stat().st_size
    figures = np.median([load_once(store.url) for _ in range(ROUNDS)], axis=0)
    name = f"{label}, {size / 1e6:.1f} MB of weights"
    print(f"{name:44} {figures[0] * 1000:8.1f} {figures[1]:11.1f} {figures[2]:16.1f}", flush=True)


def load_once(url: str) -> list[float]:
    """Seconds, and the process's peak memory before and after in MB."""
    command = [sys.executable, "-c", MEASURE, url]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return [float(figure) for figure in result.stdout.split()]


def measure_open(store: Store) -> None:
    """Open a store with a long history, beside a listing of it."""
    fill(store)
    root = Path(store.url, "toy")
    ways: dict[str, Callable[[], object]] = {
        "list both folders with os.listdir": lambda: (
            os.listdir(root / "versions"),
            os.listdir(root / "promotions"),
        ),
        "list every version's folder too": lambda: [list(names) for names in os.walk(root)],
        "open: load the promoted version by name": lambda: store.load_promoted("toy"),
        "open: the only model, then the same": lambda: store.load_promoted(store.only_model()),
        "Store.versions": lambda: store.versions("toy"),
        "Store.history": lambda: store.history("toy"),
    }
    times: dict[str, list[float]] = {label: [] for label in ways}
    for _ in range(ROUNDS):
        for label, way in ways.items():
            start = time.perf_counter()
            way()
            times[label].append(time.perf_counter() - start)
    print(f"\n{VERSIONS} versions, {VERSIONS} promotions, median of {ROUNDS} rounds{'':4} ms")
    for label, seconds in times.items():
        print(f"{label:44} {statistics.median(seconds) * 1000:8.1f}")


def fill(store: Store) -> None:
    """Copy version 1 and its promotion with other numbers, saying how far it is."""
    first = publish_toy(store)
    promotion = store.promote("toy", 1)
    disk, files = LocalDisk(Path(store.url)), Path(store.url, folder_of("toy", 1))
    promotions = promotions_of(disk, "toy")
    for number in range(2, VERSIONS + 1):
        manifest = first.model_copy(update={"version": number}).to_json()
        for file in first.files:
            disk.create(f"{folder_of('toy', number)}/{file}", (files / file).read_bytes())
        disk.create(f"{folder_of('toy', number)}/{MANIFEST}", manifest)
        following = {"generation": number, "version": number, "previous": number - 1}
        digest = hashlib.sha256(manifest).hexdigest()
        promotions.append(promotion.model_copy(update=following | {"digest": digest}))
        if number % 1000 == 0:
            print(f"{number} of {VERSIONS} versions written", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
