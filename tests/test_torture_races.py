"""Sixteen processes publish and promote at once, on a disk and against the emulators of two clouds."""

import hashlib
import json
import multiprocessing
import os
from collections.abc import Mapping
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pytest
from obstore.store import from_url

from model_store.store import Store, open_store
from tests.clouds import BUCKET, azure, s3
from tests.toys import publish_toy, toy_weights

# The processes are forked from one without threads, which makes that safe, and which imports once for all.
FORKING = multiprocessing.get_context("forkserver")
FORKING.set_forkserver_preload(["tests.test_torture_races"])

# An emulator answers one request at a time, and each publish lists what all those before it left.
IN_A_CLOUD = 160


def wait_for_all(barrier: Barrier, variables: Mapping[str, str]) -> None:
    """Start a process's work when every process has come this far."""
    os.environ.update(variables)
    barrier.wait(120)


def work(url: str, seeds: list[int]) -> dict[int, int]:
    """What one of many processes does: publish and promote with each seed; gives the seed of each number."""
    store, numbers = open_store(url), {}
    for seed in seeds:
        number = publish_toy(store, seed=seed).version
        assert number not in numbers
        assert store.promote("toy", number, f"seed {seed}").version == number
        numbers[number] = seed
    return numbers


def race(url: str, processes: int, publishes: int, variables: Mapping[str, str]) -> dict[int, int]:
    """Publish with seeds 0 to `publishes` - 1 and promote; gives the seed of each number."""
    barrier = FORKING.Barrier(processes)
    shares = [(url, list(range(first, publishes, processes))) for first in range(processes)]
    with FORKING.Pool(processes, wait_for_all, (barrier, variables)) as pool:
        results = pool.starmap_async(work, shares, chunksize=1).get(900)
    numbers = {number: seed for result in results for number, seed in result.items()}
    assert sum(map(len, results)) == len(numbers) == publishes
    return numbers


def check_whole(store: Store, contents: Mapping[str, bytes], seeds: Mapping[int, int]) -> None:
    """Every version is its publisher's, the history has no gap, and nothing else is there."""
    numbers = list(range(1, len(seeds) + 1))
    assert sorted(seeds) == store.versions("toy") == numbers
    files = ("history.csv", "manifest.json", "weights.safetensors")
    assert sorted(contents) == sorted(
        [f"toy/versions/{number}/{file}" for number in numbers for file in files]
        + [f"toy/promotions/{generation}.json" for generation in numbers]
    )
    for number, seed in seeds.items():
        check_version(store, number, seed)
    check_history(contents, seeds)


def check_version(store: Store, number: int, seed: int) -> None:
    version = store.load("toy", number)
    assert (version.manifest.version, version.manifest.training.seed) == (number, seed)
    for name, tensor in toy_weights(version.manifest.network, 5, seed).items():
        np.testing.assert_array_equal(version.predictor.weights[name], tensor)


def check_history(contents: Mapping[str, bytes], seeds: Mapping[int, int]) -> None:
    """Generations 1 to n, each naming the version before it, each the very manifest that is there."""
    lines = [promotion(contents, generation) for generation in range(1, len(seeds) + 1)]
    versions = [line["version"] for line in lines]
    assert sorted(versions) == sorted(seeds)
    assert [line["generation"] for line in lines] == list(range(1, len(seeds) + 1))
    assert [line["previous"] for line in lines] == [None, *versions[:-1]]
    assert [line["reason"] for line in lines] == [f"seed {seeds[version]}" for version in versions]
    manifests = [contents[f"toy/versions/{version}/manifest.json"] for version in versions]
    assert [line["digest"] for line in lines] == [hashlib.sha256(each).hexdigest() for each in manifests]


def promotion(contents: Mapping[str, bytes], generation: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(contents[f"toy/promotions/{generation}.json"])
    return found


def on_disk(root: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    files = [path for path in root.rglob("*") if not path.is_dir()]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def in_bucket(url: str) -> dict[str, bytes]:
    """Every object of a bucket."""
    objects = from_url(url)
    paths = [entry["path"] for page in obstore.list(objects) for entry in page]
    return {path: bytes(obstore.get(objects, path).bytes()) for path in paths}


def check_race_in_bucket(
    url: str, processes: int, publishes: int, variables: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    seeds = race(url, processes, publishes, variables)
    check_whole(open_store(url), in_bucket(url), seeds)


def test_many_processes_publish_and_promote_at_once_on_a_disk(store: Store, torture: bool) -> None:
    seeds = race(store.url, 16, 1000 if torture else 96, {})
    check_whole(store, on_disk(Path(store.url)), seeds)


def test_many_processes_publish_and_promote_at_once_in_s3(
    monkeypatch: pytest.MonkeyPatch, torture: bool
) -> None:
    with s3() as variables:
        processes, publishes = (16, IN_A_CLOUD) if torture else (8, 24)
        check_race_in_bucket(f"s3://{BUCKET}", processes, publishes, variables, monkeypatch)


@pytest.mark.needs("--torture")
def test_many_processes_publish_and_promote_at_once_in_azure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with azure(tmp_path) as variables:
        check_race_in_bucket(f"az://{BUCKET}", 16, IN_A_CLOUD, variables, monkeypatch)
