import hashlib
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from model_store.encoding import encode
from model_store.errors import (
    FileDiffers,
    GoldenDiffer,
    InvalidName,
    ManifestInvalid,
    ModelNotFound,
    NothingPromoted,
    NothingToRollBackTo,
    NotOneModel,
    StorageFailed,
    StoreError,
    TensorsInvalid,
    VersionNotFound,
    VersionRefused,
)
from model_store.manifest import GoldenRow, Manifest, Mlp, NumericFeature
from model_store.predictor import dump_weights
from model_store.store import Store, open_store
from tests.toys import DECILES, publish_toy, toy_description, toy_rows, toy_weights

TOY: Final = toy_description()
FILES: Final = ["history.csv", "manifest.json", "weights.safetensors"]


@pytest.fixture
def published(store: Store) -> Path:
    """The folder of a promoted version 1."""
    publish_toy(store)
    store.promote("toy", 1)
    return version_folder(store, 1)


def version_folder(store: Store, number: int) -> Path:
    return Path(store.url, "toy", "versions", str(number))


def history(store: Store) -> list[dict[str, Any]]:
    """The promotions, read without the package."""
    folder = Path(store.url, "toy", "promotions")
    generations = sorted(int(path.stem) for path in folder.iterdir()) if folder.exists() else []
    return [json.loads((folder / f"{generation}.json").read_bytes()) for generation in generations]


def overwrite(path: Path, content: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(content)


def everything_in(store: Store) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path(store.url).rglob("*") if path.is_file()}


def interrupted(_number: int) -> dict[str, bytes]:
    raise InterruptedError


def test_versions_are_numbered_one_two_three(store: Store) -> None:
    assert [publish_toy(store, seed=seed).version for seed in (1, 2, 3)] == [1, 2, 3]
    assert store.versions("toy") == [1, 2, 3]


def test_ten_comes_after_nine(store: Store) -> None:
    for _ in range(11):
        publish_toy(store)
    for number in range(1, 12):
        store.promote("toy", number)
    assert store.versions("toy") == list(range(1, 12))
    assert store.promoted("toy").generation == 11


def test_every_model_counts_for_itself(store: Store) -> None:
    assert publish_toy(store).version == publish_toy(store, name="other").version == 1
    assert store.models() == ["other", "toy"]


def test_a_loaded_version_is_the_published_one(store: Store) -> None:
    network = Mlp(hidden=(3,), activation="tanh")
    manifest = publish_toy(store, network, seed=4)
    version = store.load("toy", 1)
    assert version.manifest == manifest
    for name, tensor in toy_weights(network, 5, seed=4).items():
        np.testing.assert_array_equal(version.predictor.weights[name], tensor)


def test_the_digest_is_the_sha256_of_the_manifest(published: Path, store: Store) -> None:
    digest = hashlib.sha256((published / "manifest.json").read_bytes()).hexdigest()
    assert store.load("toy", 1).digest == digest == history(store)[0]["digest"]


def test_a_version_is_plain_files_that_nobody_writes_again(published: Path) -> None:
    assert sorted(os.listdir(published)) == FILES
    assert {path.stat().st_mode & 0o222 for path in published.iterdir()} == {0}


def test_a_number_that_was_claimed_and_never_finished_is_no_version(store: Store) -> None:
    publish_toy(store)
    with pytest.raises(InterruptedError):
        store.publish(TOY, dump_weights(toy_weights(TOY.network, 5)), interrupted)
    assert version_folder(store, 2).is_dir()
    assert store.versions("toy") == [1]
    for refused in (store.load, store.promote):
        with pytest.raises(VersionNotFound, match="toy has no version 2; it has 1"):
            refused("toy", 2)
    assert publish_toy(store).version == 3
    assert store.versions("toy") == [1, 3]


def test_publishing_promotes_nothing(store: Store) -> None:
    publish_toy(store)
    for refused in (store.promoted, store.load_promoted, store.rollback):
        with pytest.raises(NothingPromoted, match="promote toy 1"):
            refused("toy")


@pytest.mark.parametrize("number", [0, -1, 2])
def test_a_number_that_was_never_published_is_not_found(published: Path, store: Store, number: int) -> None:
    assert published.exists()
    with pytest.raises(VersionNotFound, match=f"toy has no version {number}; it has 1"):
        store.load("toy", number)


def test_an_empty_store_has_no_model(store: Store) -> None:
    assert store.models() == []
    assert store.versions("toy") == []
    for refused in (store.promoted, store.load_promoted, store.rollback):
        with pytest.raises(ModelNotFound, match="it is empty"):
            refused("toy")
    assert not Path(store.url).exists()


def test_a_name_with_a_path_in_it_reaches_no_file(published: Path, store: Store) -> None:
    assert published.exists()
    for name in ("../store/toy", "./toy", "toy/", ""):
        for refused in (store.versions, store.promoted, lambda bad: store.load(bad, 1)):
            with pytest.raises(InvalidName):
                refused(name)


def test_the_only_model_needs_no_name(store: Store) -> None:
    with pytest.raises(NotOneModel, match="is empty"):
        store.only_model()
    publish_toy(store)
    assert store.only_model() == "toy"
    publish_toy(store, name="other")
    with pytest.raises(NotOneModel, match="other, toy"):
        store.only_model()


def test_every_promotion_is_a_file_of_its_own(store: Store) -> None:
    digests = []
    for number in (1, 2, 3):
        publish_toy(store, seed=number)
        store.promote("toy", number, f"reason {number}")
        digests.append(store.load("toy", number).digest)
    assert [
        (line["generation"], line["version"], line["digest"], line["previous"], line["reason"])
        for line in history(store)
    ] == [
        (1, 1, digests[0], None, "reason 1"),
        (2, 2, digests[1], 1, "reason 2"),
        (3, 3, digests[2], 2, "reason 3"),
    ]
    assert store.load_promoted("toy").manifest.version == 3


def test_the_promoted_version_stays_until_another_is_promoted(published: Path, store: Store) -> None:
    publish_toy(store)
    assert store.load_promoted("toy").digest == store.load("toy", 1).digest
    assert published == version_folder(store, store.promoted("toy").version)


def test_promoting_the_promoted_version_writes_nothing(published: Path, store: Store) -> None:
    before = everything_in(store)
    assert store.promote("toy", 1, "again") == store.promoted("toy")
    assert everything_in(store) == before
    assert str(published / "manifest.json") in before


def test_a_rollback_promotes_the_version_before_and_a_second_one_the_version_after(store: Store) -> None:
    for number in (1, 2):
        publish_toy(store, seed=number)
        store.promote("toy", number)
    assert store.rollback("toy", "worse").version == 1
    assert store.rollback("toy").version == 2
    assert [(line["generation"], line["version"], line["previous"]) for line in history(store)] == [
        (1, 1, None),
        (2, 2, 1),
        (3, 1, 2),
        (4, 2, 1),
    ]
    assert [line["reason"] for line in history(store)] == [None, None, "worse", None]


def test_the_first_promotion_has_nothing_before_it(published: Path, store: Store) -> None:
    before = everything_in(store)
    with pytest.raises(NothingToRollBackTo, match="version 1 is the only one"):
        store.rollback("toy")
    assert everything_in(store) == before
    assert published.exists()


def test_a_broken_version_is_not_promoted(published: Path, store: Store) -> None:
    publish_toy(store)
    overwrite(version_folder(store, 2) / "history.csv", b"epoch,cost\n0,9.0\n")
    before = everything_in(store)
    with pytest.raises(FileDiffers, match=r"versions/2/history\.csv"):
        store.promote("toy", 2)
    assert everything_in(store) == before
    assert store.load_promoted("toy").manifest.version == 1
    assert published.exists()


def test_a_broken_version_is_not_rolled_back_to(published: Path, store: Store) -> None:
    publish_toy(store)
    store.promote("toy", 2)
    (published / "history.csv").unlink()
    with pytest.raises(VersionRefused, match="versions/1"):
        store.rollback("toy")
    assert store.promoted("toy").version == 2


def test_the_clock_orders_nothing(published: Path, store: Store) -> None:
    publish_toy(store)
    line = history(store)[0] | {"generation": 2, "version": 2, "previous": 1}
    line |= {"digest": store.load("toy", 2).digest, "promoted_at": "1970-01-01T00:00:00Z"}
    (published.parent.parent / "promotions" / "2.json").write_text(json.dumps(line), encoding="utf-8")
    assert store.load_promoted("toy").manifest.version == 2


@pytest.mark.parametrize(
    "stray", [".2.json.0123456789abcdef", "2.json~", "02.json", "2", "two.json", "-2.json"]
)
def test_a_file_that_is_no_promotion_changes_nothing(published: Path, store: Store, stray: str) -> None:
    (published.parent.parent / "promotions" / stray).write_bytes(b"{")
    assert store.promoted("toy").generation == 1


def test_a_promotion_with_another_digest_is_refused(published: Path, store: Store) -> None:
    line = history(store)[0]
    overwrite(
        published.parent.parent / "promotions" / "1.json", json.dumps(line | {"digest": "0" * 64}).encode()
    )
    with pytest.raises(ManifestInvalid, match=r"promoted was 0{64}"):
        store.load_promoted("toy")


def test_another_version_in_the_promoted_ones_place_is_refused(published: Path, store: Store) -> None:
    elsewhere = open_store(f"{store.url}-2")
    publish_toy(elsewhere, seed=2)
    shutil.rmtree(published)
    shutil.copytree(version_folder(elsewhere, 1), published)
    assert store.load("toy", 1).manifest.training.seed == 2
    with pytest.raises(ManifestInvalid, match="its digest is"):
        store.load_promoted("toy")


@pytest.mark.parametrize(
    "change",
    [
        {"generation": 0},
        {"version": "1"},
        {"version": 1.5},
        {"digest": "abc"},
        {"previous": 0},
        {"reason": 3},
        {"colour": "red"},
    ],
    ids=str,
)
def test_a_promotion_of_another_form_is_refused(
    published: Path, store: Store, change: dict[str, object]
) -> None:
    line = history(store)[0] | change
    overwrite(published.parent.parent / "promotions" / "1.json", json.dumps(line).encode())
    with pytest.raises(ManifestInvalid, match=r"promotions/1\.json"):
        store.load_promoted("toy")


def test_a_promotion_cut_at_any_byte_is_refused(published: Path, store: Store) -> None:
    path = published.parent.parent / "promotions" / "1.json"
    content = path.read_bytes()
    for length in range(content.rindex(b"}")):
        overwrite(path, content[:length])
        with pytest.raises(ManifestInvalid):
            store.promoted("toy")


def test_a_copy_under_another_number_or_name_is_refused(published: Path, store: Store) -> None:
    shutil.copytree(published, version_folder(store, 2))
    shutil.copytree(published, Path(store.url, "other", "versions", "1"))
    for name, number in (("toy", 2), ("other", 1)):
        with pytest.raises(ManifestInvalid, match="it is version 1 of toy"):
            store.load(name, number)


@pytest.fixture
def tiny(store: Store) -> Path:
    """The folder of a promoted version with as few bytes as can be."""
    number = NumericFeature(
        name="x", mean=1.0, std=2.0, minimum=0.0, maximum=9.0, deciles=DECILES, example=1.0
    )
    weights = {"layers.0.weight": np.array([[2.0]]), "layers.0.bias": np.array([1.0])}
    store.publish(
        toy_description(
            features=(number,),
            golden=tuple(GoldenRow(inputs={"x": float(x)}, prediction=float(x)) for x in range(32)),
        ),
        dump_weights(weights),
        lambda _number: {"history.csv": b"epoch,cost\n0,1.0\n"},
    )
    store.promote("toy", 1)
    return version_folder(store, 1)


@pytest.mark.parametrize(
    ("file", "refusal"),
    [("weights.safetensors", FileDiffers), ("history.csv", FileDiffers), ("manifest.json", ManifestInvalid)],
)
def test_a_file_cut_at_any_byte_is_refused(
    tiny: Path, store: Store, file: str, refusal: type[StoreError]
) -> None:
    content = (tiny / file).read_bytes()
    for length in range(len(content)):
        overwrite(tiny / file, content[:length])
        with pytest.raises(refusal) as refused:
            store.load_promoted("toy")
        assert str(tiny / file) in str(refused.value)


@pytest.mark.parametrize(
    ("file", "refusal"),
    [("weights.safetensors", FileDiffers), ("history.csv", FileDiffers), ("manifest.json", VersionRefused)],
)
def test_a_file_with_any_bit_flipped_is_refused(
    tiny: Path, store: Store, file: str, refusal: type[StoreError]
) -> None:
    content = (tiny / file).read_bytes()
    for bit in range(len(content) * 8):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        overwrite(tiny / file, bytes(flipped))
        with pytest.raises(refusal):
            store.load_promoted("toy")


@pytest.mark.parametrize("file", FILES)
def test_a_file_with_a_byte_appended_is_refused(published: Path, store: Store, file: str) -> None:
    overwrite(published / file, (published / file).read_bytes() + b"\n")
    with pytest.raises(VersionRefused, match=f"{published / file} is refused"):
        store.load_promoted("toy")


@pytest.mark.parametrize("file", ["history.csv", "weights.safetensors"])
def test_a_missing_file_is_refused_by_name(published: Path, store: Store, file: str) -> None:
    (published / file).unlink()
    with pytest.raises(VersionRefused, match=f"^{published} is refused: .*{file}"):
        store.load("toy", 1)


def test_without_its_manifest_a_version_does_not_exist(published: Path, store: Store) -> None:
    publish_toy(store)
    (published / "manifest.json").unlink()
    assert store.versions("toy") == [2]
    with pytest.raises(VersionNotFound, match="toy has no version 1; it has 2"):
        store.load_promoted("toy")


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, os.mkfifo])
def test_anything_extra_is_refused_by_name(
    published: Path, store: Store, make: Callable[[Path], object]
) -> None:
    make(published / "model.pkl")
    with pytest.raises(VersionRefused, match=r"model\.pkl"):
        store.load("toy", 1)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("kind", ["fifo", "link to the same bytes"])
def test_what_is_no_plain_file_is_refused_by_name(
    published: Path, store: Store, file: str, kind: str
) -> None:
    path, aside = published / file, Path(store.url, "aside")
    path.rename(aside)
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(aside)
    with pytest.raises(StorageFailed, match=f"^{path}: "):
        store.load("toy", 1)


def without_fuel(row: GoldenRow) -> GoldenRow:
    return GoldenRow(
        inputs={name: value for name, value in row.inputs.items() if name != "fuel type"},
        prediction=row.prediction,
    )


WRONG = pytest.mark.parametrize(
    ("wrong", "refusal"),
    [
        ({"golden": toy_description(seed=2).golden}, GoldenDiffer),
        ({"features": TOY.features[::-1]}, GoldenDiffer),
        ({"features": TOY.features[:2], "golden": tuple(map(without_fuel, TOY.golden))}, TensorsInvalid),
    ],
    ids=["golden rows of another model", "features in another order", "a feature too few"],
)


@WRONG
def test_what_is_consistent_but_wrong_is_neither_loaded_nor_promoted(
    store: Store, wrong: dict[str, Any], refusal: type[StoreError]
) -> None:
    publish_toy(store)
    path = Path(store.url, "toy/versions/1/manifest.json")
    manifest = Manifest.from_json(path.read_bytes(), str(path)).model_copy(update=wrong)
    path.chmod(0o644)
    path.write_bytes(manifest.to_json())
    for refused in (store.load, store.promote):
        with pytest.raises(refusal, match="versions/1"):
            refused("toy", 1)
    assert history(store) == []


@WRONG
def test_what_would_not_load_is_not_published(
    store: Store, wrong: dict[str, Any], refusal: type[StoreError]
) -> None:
    with pytest.raises(refusal, match="the new version of toy"):
        store.publish(
            TOY.model_copy(update=wrong), dump_weights(toy_weights(TOY.network, 5)), lambda _number: {}
        )
    assert not Path(store.url).exists()


def test_a_promotion_that_contradicts_its_file_name_is_refused(store: Store) -> None:
    for _ in range(2):
        publish_toy(store)
    for number in (1, 2, 1):
        store.promote("toy", number)
    path = Path(store.url, "toy/promotions/3.json")
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b'"generation": 3', b'"generation": 2'))
    with pytest.raises(ManifestInvalid, match="generation 2"):
        store.promote("toy", 2)


def test_publishing_to_a_dangling_link_fails_at_once(tmp_path: Path) -> None:
    (tmp_path / "store").symlink_to(tmp_path / "gone")
    with pytest.raises(StorageFailed):
        publish_toy(open_store(str(tmp_path / "store")))


def test_promoting_again_what_was_exchanged_since_is_refused(published: Path, store: Store) -> None:
    store.promote("toy", 1)
    path = published / "manifest.json"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b'"seed": 1', b'"seed": 2'))
    with pytest.raises(ManifestInvalid, match="digest"):
        store.promote("toy", 1)


def test_strays_in_the_store_are_no_models_and_no_versions(published: Path, store: Store) -> None:
    Path(store.url, "lost+found").mkdir()
    Path(store.url, "notes.txt").touch()
    (published.parent / "5").touch()
    assert store.only_model() == "toy"
    assert store.versions("toy") == [1]


def test_a_store_elsewhere_answers_with_the_same_bits(published: Path, store: Store, tmp_path: Path) -> None:
    columns = {name: [row[name] for row in toy_rows(50)] for name in toy_rows(1)[0]}
    before = store.load_promoted("toy").predictor.predict(columns)
    Path(store.url).rename(tmp_path / "moved")
    moved = open_store(str(tmp_path / "moved")).load_promoted("toy")
    assert moved.predictor.predict(columns).tobytes() == before.tobytes()
    assert encode(moved.manifest.features, columns).shape == (50, 5)
    assert not published.exists()


def publish_and_promote(url: str, seed: int, barrier: Barrier) -> None:
    """What one of many processes does, all of them at once."""
    store = open_store(url)
    barrier.wait(60)
    for _ in range(5):
        store.promote("toy", publish_toy(store, seed=seed).version)


def test_many_processes_publish_and_promote_whole_versions_at_once(store: Store) -> None:
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(8)
    processes = [
        spawn.Process(target=publish_and_promote, args=(store.url, seed, barrier)) for seed in range(8)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 8

    versions = [store.load("toy", number).manifest for number in store.versions("toy")]
    assert [version.version for version in versions] == list(range(1, 41))
    assert sorted(version.training.seed for version in versions) == sorted(list(range(8)) * 5)
    lines = history(store)
    assert [line["generation"] for line in lines] == list(range(1, 41))
    assert [line["previous"] for line in lines] == [None, *(line["version"] for line in lines[:-1])]
    assert sorted(line["version"] for line in lines) == list(range(1, 41))
