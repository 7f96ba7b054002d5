import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from model_store._storage import LocalDisk
from model_store.columns import encode
from model_store.errors import (
    FileDiffers,
    GoldenDiffer,
    InvalidName,
    ManifestInvalid,
    ModelNotFound,
    NoNumberLeft,
    NothingPromoted,
    NothingToRollBackTo,
    NotOneModel,
    NotPermitted,
    PromotionInvalid,
    StorageFailed,
    StoreError,
    TensorsInvalid,
    TooLarge,
    VersionNotFound,
    VersionRefused,
)
from model_store.manifest import GoldenRow, Manifest, Mlp
from model_store.predictor import dump_weights
from model_store.store import Store, open_store
from model_store.versions import MOST_MANIFEST_BYTES
from tests.toys import publish_toy, sealed_json, toy_description, toy_rows, toy_weights

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
    return [fields_of(folder / f"{generation}.json") for generation in generations]


def fields_of(path: Path) -> dict[str, Any]:
    """A JSON document without its checksum, read without the package."""
    fields: dict[str, Any] = json.loads(path.read_bytes())
    del fields["checksum"]
    return fields


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
    (published.parent.parent / "promotions" / "2.json").write_bytes(sealed_json(line))
    assert store.load_promoted("toy").manifest.version == 2


@pytest.mark.parametrize(
    "stray", [".2.json.0123456789abcdef", "2.json~", "02.json", "2", "two.json", "-2.json"]
)
def test_a_file_that_is_no_promotion_changes_nothing(published: Path, store: Store, stray: str) -> None:
    (published.parent.parent / "promotions" / stray).write_bytes(b"{")
    assert store.promoted("toy").generation == 1


def test_a_promotion_with_another_digest_is_refused(published: Path, store: Store) -> None:
    line = history(store)[0]
    overwrite(published.parent.parent / "promotions" / "1.json", sealed_json(line | {"digest": "0" * 64}))
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
    for content in (sealed_json(line), json.dumps(line).encode()):
        overwrite(published.parent.parent / "promotions" / "1.json", content)
        with pytest.raises(PromotionInvalid, match=rf"promotions/1\.json is refused: {next(iter(change))}"):
            store.load_promoted("toy")


def test_a_promotion_written_before_there_were_checksums_is_in_force(published: Path, store: Store) -> None:
    before = store.promoted("toy")
    line = history(store)[0]
    overwrite(published.parent.parent / "promotions" / "1.json", json.dumps(line).encode())
    assert store.promoted("toy") == before
    assert store.load_promoted("toy").digest == line["digest"]


def test_a_promotion_cut_at_any_byte_is_refused(published: Path, store: Store) -> None:
    path = published.parent.parent / "promotions" / "1.json"
    content = path.read_bytes()
    for length in range(len(content)):
        overwrite(path, content[:length])
        with pytest.raises(PromotionInvalid):
            store.promoted("toy")


def test_a_copy_under_another_number_or_name_is_refused(published: Path, store: Store) -> None:
    shutil.copytree(published, version_folder(store, 2))
    shutil.copytree(published, Path(store.url, "other", "versions", "1"))
    for name, number in (("toy", 2), ("other", 1)):
        with pytest.raises(ManifestInvalid, match="it is version 1 of toy"):
            store.load(name, number)


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


def link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def link_to_a_sibling(path: Path) -> None:
    path.symlink_to("history.csv")


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, os.mkfifo, link_to_itself, link_to_a_sibling])
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
    overwrite(path, sealed_json(fields_of(path) | {"generation": 2}))
    for refused in (lambda: store.promote("toy", 2), lambda: store.history("toy")):
        with pytest.raises(PromotionInvalid, match=f"{path} is refused: it says it is generation 2"):
            refused()


def test_publishing_to_a_dangling_link_fails_at_once(tmp_path: Path) -> None:
    (tmp_path / "store").symlink_to(tmp_path / "gone")
    with pytest.raises(StorageFailed):
        publish_toy(open_store(str(tmp_path / "store")))


def test_promoting_again_what_was_exchanged_since_is_refused(published: Path, store: Store) -> None:
    store.promote("toy", 1)
    path = published / "manifest.json"
    fields = fields_of(path)
    fields["training"]["seed"] = 2
    overwrite(path, sealed_json(fields))
    assert store.load("toy", 1).manifest.training.seed == 2
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


LINKED: Final = ["toy", "toy/versions", "toy/versions/1", *(f"toy/versions/1/{file}" for file in FILES)]


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize("place", LINKED)
@pytest.mark.parametrize("target", ["the same bytes", "nothing", "itself"])
def test_a_link_anywhere_below_the_store_is_refused_by_name(store: Store, place: str, target: str) -> None:
    path, aside = Path(store.url, place), Path(f"{store.url}-aside")
    path.rename(aside)
    targets = {"the same bytes": aside, "nothing": aside.with_name("gone"), "itself": path}
    path.symlink_to(targets[target])
    with pytest.raises(
        StorageFailed, match=f"^{store.url}/toy.*: a symbolic link, and links are not followed"
    ):
        store.load("toy", 1)


def test_a_link_where_versions_are_expected_is_not_published_through(published: Path, store: Store) -> None:
    elsewhere = published.parent.rename(f"{store.url}-aside")
    published.parent.symlink_to(elsewhere)
    with pytest.raises(StorageFailed, match="links are not followed"):
        publish_toy(store)
    assert os.listdir(elsewhere) == ["1"]


@pytest.mark.usefixtures("published")
def test_the_store_itself_may_be_a_link(store: Store, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(store.url)
    linked = open_store(str(tmp_path / "link"))
    assert linked.load_promoted("toy").digest == store.load_promoted("toy").digest
    linked.promote("toy", publish_toy(linked).version)
    assert store.promoted("toy").version == 2


VAST: Final = 2**40


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        ("manifest.json", "more than 67108864 bytes"),
        ("history.csv", "more than 17 bytes, expected 17"),
        ("weights.safetensors", "more than 192 bytes, expected 192"),
    ],
)
def test_a_file_longer_than_memory_is_refused_without_being_read(
    published: Path, store: Store, file: str, sentence: str
) -> None:
    (published / file).chmod(0o644)
    os.truncate(published / file, VAST)
    with pytest.raises(VersionRefused, match=f"^{published / file} is refused: {sentence}$"):
        store.load("toy", 1)


def test_a_manifest_at_the_limit_is_read_and_one_more_byte_is_not(published: Path, store: Store) -> None:
    path = published / "manifest.json"
    path.chmod(0o644)
    for size, sentence in ((MOST_MANIFEST_BYTES, "the document"), (MOST_MANIFEST_BYTES + 1, "more than")):
        os.truncate(path, size)
        with pytest.raises(ManifestInvalid, match=f"{path} is refused: {sentence}"):
            store.read_manifest("toy", 1)


def test_a_promotion_longer_than_memory_is_refused_without_being_read(published: Path, store: Store) -> None:
    path = published.parent.parent / "promotions" / "1.json"
    path.chmod(0o644)
    os.truncate(path, VAST)
    with pytest.raises(StorageFailed, match=f"^{path}: more than 65536 bytes$"):
        store.promoted("toy")


def test_a_manifest_too_long_to_be_read_is_not_written(store: Store) -> None:
    training = TOY.training.model_copy(update={"libraries": {"x": "1" * MOST_MANIFEST_BYTES}})
    with pytest.raises(TooLarge, match="more than 67108864 bytes"):
        publish_toy(store, training=training)
    assert store.models() == []


@pytest.mark.parametrize("shorter", [0, 1, 16])
def test_a_file_shorter_than_the_manifest_says_is_refused(
    published: Path, store: Store, shorter: int
) -> None:
    overwrite(published / "history.csv", b"x" * shorter)
    with pytest.raises(FileDiffers, match=f"{shorter} bytes, expected 17"):
        store.load("toy", 1)


@pytest.fixture
def four(store: Store) -> Path:
    """The promotions of a store where 1, 2, 3 and 1 again were promoted."""
    for seed in (1, 2, 3):
        publish_toy(store, seed=seed)
    for number in (1, 2, 3, 1):
        store.promote("toy", number, f"it is {number}")
    return Path(store.url, "toy", "promotions")


def test_the_history_is_every_promotion_oldest_first(four: Path, store: Store) -> None:
    told = store.history("toy")
    assert [json.loads(line.model_dump_json()) for line in told] == history(store)
    assert [line.version for line in told] == [1, 2, 3, 1]
    assert told[-1] == store.promoted("toy")
    assert len(os.listdir(four)) == 4


def test_without_promotions_the_history_is_empty(store: Store) -> None:
    assert store.history("toy") == []
    publish_toy(store)
    assert store.history("toy") == []
    with pytest.raises(InvalidName):
        store.history("../toy")


@pytest.mark.parametrize(("gone", "named"), [(1, 2), (2, 3), (3, 4)])
def test_a_gap_in_the_history_is_refused_after_it(four: Path, store: Store, gone: int, named: int) -> None:
    (four / f"{gone}.json").unlink()
    with pytest.raises(PromotionInvalid, match=rf"promotions/{named}\.json is refused: it does not follow"):
        store.history("toy")


@pytest.mark.parametrize(("generation", "previous"), [(1, 1), (2, None), (2, 2), (3, 1), (4, 2)])
def test_a_promotion_that_names_another_before_it_is_refused(
    four: Path, store: Store, generation: int, previous: int | None
) -> None:
    path = four / f"{generation}.json"
    overwrite(path, sealed_json(fields_of(path) | {"previous": previous}))
    with pytest.raises(PromotionInvalid, match=f"{path} is refused: it does not follow"):
        store.history("toy")


def test_any_byte_of_an_old_promotion_counts_for_the_history(four: Path, store: Store) -> None:
    content = (four / "2.json").read_bytes()
    overwrite(four / "2.json", content.replace(b"it is 2", b"it is 3"))
    with pytest.raises(PromotionInvalid, match="its checksum is not its content's"):
        store.history("toy")
    assert store.promoted("toy").version == 1


def test_once_a_broken_promotion_is_removed_the_one_before_it_holds(four: Path, store: Store) -> None:
    overwrite(four / "4.json", b"")
    with pytest.raises(PromotionInvalid, match="Once it is removed, the promotion before it holds"):
        store.promoted("toy")
    (four / "4.json").unlink()
    assert store.load_promoted("toy").manifest.version == 3
    assert [line.version for line in store.history("toy")] == [1, 2, 3]


@pytest.mark.parametrize("version", [2, 3])
def test_a_promotion_put_there_beyond_the_next_is_refused_until_it_is_removed(
    four: Path, store: Store, version: int
) -> None:
    stray = four / "9999999999.json"
    line = fields_of(four / "3.json") | {"generation": 9_999_999_999, "version": 3}
    stray.write_bytes(sealed_json(line))
    before = everything_in(store)
    what = r"it does not follow on the one before it \(there is no 5\.json\)\. Once it is removed"
    for refused in (lambda: store.promote("toy", version), lambda: store.history("toy")):
        with pytest.raises(PromotionInvalid, match=f"^{stray} is refused: {what}"):
            refused()
    assert everything_in(store) == before
    stray.unlink()
    assert store.promote("toy", version).generation == 5
    assert [promotion.version for promotion in store.history("toy")] == [1, 2, 3, 1, version]


@pytest.mark.parametrize("gone", [1, 2, 3])
def test_after_a_gap_nothing_is_promoted_and_what_is_promoted_is_served(
    four: Path, store: Store, gone: int
) -> None:
    (four / f"{gone}.json").unlink()
    refusals: list[Callable[[], object]] = [lambda: store.promote("toy", 2), lambda: store.rollback("toy")]
    for refused in refusals:
        with pytest.raises(PromotionInvalid, match=rf"{gone + 1}\.json is refused: it does not follow"):
            refused()
    assert store.load_promoted("toy").manifest.version == 1


@pytest.mark.parametrize("taken", ["versions/9999999999", "pruned/9999999999.0123456789abcdef.json"])
def test_a_version_whose_number_nobody_would_read_is_not_published(store: Store, taken: str) -> None:
    publish_toy(store)
    Path(store.url, "toy", taken).mkdir(parents=True)
    before = everything_in(store)
    sentence = f"^{store.url}/toy has no number left for a new version: 9999999999, the highest there can be,"
    with pytest.raises(NoNumberLeft, match=sentence):
        publish_toy(store)
    assert everything_in(store) == before
    Path(store.url, "toy", taken).rmdir()
    assert publish_toy(store).version == 2


@contextmanager
def without_the_rights_of_root() -> Iterator[None]:
    """This process as nobody, if it is root's, who may read everything."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture
def shown() -> Iterator[Store]:
    """An empty store in a place that everybody can reach."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield open_store(f"{folder}/store")


def private_folder(path: Path) -> None:
    path.mkdir(mode=0o000)


def private_versions(path: Path) -> None:
    path.mkdir()
    (path / "versions").mkdir(mode=0o000)


NOT_PERMITTED = pytest.mark.parametrize(
    ("make", "why"),
    [
        (private_folder, "Permission denied"),
        (private_versions, "Permission denied"),
        (link_to_itself, "a symbolic link, and links are not followed"),
        (link_to_a_sibling, "a symbolic link, and links are not followed"),
    ],
    ids=["private folder", "private versions", "link to itself", "broken link"],
)


@NOT_PERMITTED
@pytest.mark.parametrize("name", ["another", "zoo"])
def test_what_may_not_be_read_beside_a_model_does_not_keep_it_from_being_found(
    shown: Store, name: str, make: Callable[[Path], None], why: str
) -> None:
    publish_toy(shown)
    shown.promote("toy", 1)
    make(Path(shown.url, name))
    with without_the_rights_of_root():
        assert shown.models() == ["toy"]
        assert shown.load_promoted(shown.only_model()).manifest.version == 1
        with pytest.raises(ModelNotFound, match="it has toy"):
            shown.load_promoted("gone")
        with pytest.raises(NotPermitted, match=f"^{shown.url}/{name}.*: {why}$"):
            shown.load_promoted(name)


@NOT_PERMITTED
def test_a_store_of_which_nothing_may_be_read_is_not_called_empty(
    shown: Store, make: Callable[[Path], None], why: str
) -> None:
    Path(shown.url).mkdir()
    make(Path(shown.url, "toy"))
    with without_the_rights_of_root():
        for refused in (shown.models, shown.only_model, lambda: shown.load_promoted("toy")):
            with pytest.raises(NotPermitted, match=f"^{shown.url}/toy.*: {why}$"):
                refused()
        with pytest.raises(ModelNotFound, match="no model named gone"):
            shown.load_promoted("gone")


def test_a_model_is_not_passed_over_for_a_version_that_may_not_be_read(store: Store) -> None:
    publish_toy(store)
    publish_toy(store, name="other")
    publish_toy(store)
    version_folder(store, 2).rename(f"{store.url}-aside")
    version_folder(store, 2).symlink_to(f"{store.url}-aside")
    with pytest.raises(NotPermitted, match=f"^{version_folder(store, 2)}: a symbolic link"):
        store.only_model()


class Failing(LocalDisk):
    """A disk on which one folder cannot be listed at the moment."""

    def list(self, folder: str) -> list[str]:
        if folder == "other/versions":
            raise StorageFailed(folder, "Connection timed out")
        return super().list(folder)


def test_a_model_is_not_passed_over_for_trouble_that_may_be_gone_the_next_moment(store: Store) -> None:
    publish_toy(store)
    publish_toy(store, name="other")
    with pytest.raises(StorageFailed, match="Connection timed out"):
        Store(Failing(Path(store.url))).only_model()


def test_a_model_without_a_finished_version_is_none(store: Store) -> None:
    publish_toy(store, name="other")
    with pytest.raises(InterruptedError):
        store.publish(TOY, dump_weights(toy_weights(TOY.network, 5)), interrupted)
    assert Path(store.url, "toy").is_dir()
    assert store.models() == ["other"]
    assert store.only_model() == "other"


def test_a_description_of_another_schema_version_is_not_accepted() -> None:
    with pytest.raises(ValueError, match="schema version 5"):
        toy_description(schema_version=5)
