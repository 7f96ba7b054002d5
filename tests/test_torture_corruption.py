"""Every way to damage a version, and every way to make a wrong one that hangs together."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray

from model_store.errors import (
    GoldenDiffer,
    ManifestInvalid,
    PromotionInvalid,
    TensorsInvalid,
    VersionNotFound,
    VersionRefused,
)
from model_store.manifest import Linear, Mlp
from model_store.predictor import dump_weights
from model_store.store import Store, open_store
from tests.toys import expected_predictions, publish_toy, toy_description, toy_rows, toy_weights

Tensor = NDArray[np.float64]

FILES: Final = ["history.csv", "manifest.json", "weights.safetensors"]
# A prime, so that every bit of a byte has its turn.
STRIDE: Final = 37
DEEP: Final = Mlp(hidden=(5, 5, 3))
DEEP_TANH: Final = Mlp(hidden=(5, 5, 3), activation="tanh")


@pytest.fixture
def published(store: Store) -> Path:
    """The folder of a promoted version 1, its files writable."""
    publish_toy(store)
    store.promote("toy", 1)
    folder = Path(store.url, "toy", "versions", "1")
    for path in folder.iterdir():
        path.chmod(0o644)
    return folder


def stride(count: int, torture: bool) -> int:
    """One for all of `count` positions, or for a few that suffice."""
    return 1 if torture or count < 1000 else STRIDE


def check_refused(store: Store, name: str = "toy") -> None:
    """Both ways to load refuse the only version."""
    with pytest.raises(VersionRefused):
        store.load(name, 1)
    with pytest.raises(VersionRefused):
        store.load_promoted(name)


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize("file", FILES)
def test_a_file_cut_anywhere_is_refused(published: Path, store: Store, file: str, torture: bool) -> None:
    content = (published / file).read_bytes()
    for length in range(0, len(content), stride(len(content), torture)):
        (published / file).write_bytes(content[:length])
        check_refused(store)
    (published / file).write_bytes(content)
    assert store.load_promoted("toy").digest == store.load("toy", 1).digest


@pytest.mark.parametrize("file", FILES)
def test_a_file_with_any_bit_flipped_is_refused(
    published: Path, store: Store, file: str, torture: bool
) -> None:
    content = (published / file).read_bytes()
    for bit in range(0, len(content) * 8, stride(len(content) * 8, torture)):
        (published / file).write_bytes(flipped(content, bit))
        check_refused(store)
    (published / file).write_bytes(content)
    assert store.load_promoted("toy").digest == store.load("toy", 1).digest


def test_a_promotion_cut_anywhere_or_with_any_bit_flipped_is_refused(published: Path, store: Store) -> None:
    path = published.parent.parent / "promotions" / "1.json"
    content = path.read_bytes()
    path.chmod(0o644)
    cut = [content[:length] for length in range(len(content))]
    for damaged in [*cut, *(flipped(content, bit) for bit in range(len(content) * 8))]:
        path.write_bytes(damaged)
        with pytest.raises(PromotionInvalid):
            store.load_promoted("toy")
    path.write_bytes(content)
    assert store.load_promoted("toy").manifest.version == 1


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    "more", [b"\n", b" ", b"\0", b"}", b"x" * 4096], ids=["newline", "space", "NUL", "brace", "4096 bytes"]
)
def test_a_file_with_bytes_appended_is_refused(published: Path, store: Store, file: str, more: bytes) -> None:
    with (published / file).open("ab") as opened:
        opened.write(more)
    check_refused(store)


@pytest.mark.parametrize(
    ("file", "refusal"),
    [
        ("history.csv", VersionRefused),
        ("weights.safetensors", VersionRefused),
        ("manifest.json", VersionNotFound),
    ],
)
def test_a_version_with_a_file_missing_is_refused(
    published: Path, store: Store, file: str, refusal: type[Exception]
) -> None:
    publish_toy(store)
    (published / file).unlink()
    with pytest.raises(refusal):
        store.load("toy", 1)
    with pytest.raises(refusal):
        store.load_promoted("toy")


@pytest.mark.parametrize("extra", ["report.html", "weights", "manifest.json~", "history.csv.gz", "ñ"])
def test_a_version_with_a_file_too_many_is_refused(published: Path, store: Store, extra: str) -> None:
    shutil.copy(published / "history.csv", published / extra)
    check_refused(store)


@pytest.mark.parametrize("file", FILES)
def test_a_file_of_another_version_is_refused(published: Path, store: Store, file: str) -> None:
    description = toy_description(seed=2)
    weights = dump_weights(toy_weights(description.network, 5, seed=2))
    store.publish(description, weights, lambda _number: {"history.csv": b"epoch,cost\n0,2.0\n"})
    for ours, others in ((1, 2), (2, 1)):
        path = published.parent / str(ours) / file
        kept = path.read_bytes()
        path.chmod(0o644)
        path.write_bytes((published.parent / str(others) / file).read_bytes())
        with pytest.raises(VersionRefused):
            store.load("toy", ours)
        path.write_bytes(kept)
        assert store.load("toy", ours).manifest.version == ours


@pytest.mark.parametrize("files", [(0, 1), (0, 2), (1, 2)])
def test_two_files_of_a_version_exchanged_are_refused(
    published: Path, store: Store, files: tuple[int, int]
) -> None:
    one, other = (published / FILES[index] for index in files)
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    check_refused(store)


def overwritten(content: bytes, start: int, block: bytes, _other: int) -> bytes:
    return content[:start] + block[: len(content) - start] + content[start + len(block) :]


def inserted(content: bytes, start: int, block: bytes, _other: int) -> bytes:
    return content[:start] + block + content[start:]


def deleted(content: bytes, start: int, block: bytes, _other: int) -> bytes:
    return content[:start] + content[start + len(block) :]


def exchanged(content: bytes, start: int, block: bytes, other: int) -> bytes:
    """Two blocks, the second one behind the first, each in the other's place."""
    first, second = sorted((start, other))
    size = min(len(block), second - first)
    end = first + size
    rest = content[second + size :]
    return content[:first] + content[second : second + size] + content[end:second] + content[first:end] + rest


def scattered(content: bytes, start: int, block: bytes, other: int) -> bytes:
    changed = bytearray(content)
    for index, byte in enumerate(block):
        changed[(start + index * other) % len(changed)] = byte
    return bytes(changed)


EDITS: Final = (overwritten, inserted, deleted, exchanged, scattered)


def edited(content: bytes, rng: np.random.Generator) -> bytes:
    """The content after one random edit of 1 to 64 bytes that changed it."""
    while True:
        edit = EDITS[rng.integers(len(EDITS))]
        start, other = (int(place) for place in rng.integers(len(content), size=2))
        changed = edit(content, start, rng.bytes(int(rng.integers(1, 65))), other)
        if changed != content:
            return changed


def test_no_random_edit_of_a_real_version_is_loaded(first_model: Path, tmp_path: Path, torture: bool) -> None:
    store = open_store(str(shutil.copytree(first_model, tmp_path / "copy")))
    folder = tmp_path / "copy" / "used-car-price" / "versions" / "1"
    contents = {path: path.read_bytes() for path in sorted(folder.iterdir())}
    assert len(contents) == 5
    rng = np.random.default_rng(19)
    for turn in range(10_000 if torture else 300):
        path = list(contents)[turn % len(contents)]
        path.chmod(0o644)
        path.write_bytes(edited(contents[path], rng))
        check_refused(store, "used-car-price")
        path.write_bytes(contents[path])
    assert store.load_promoted("used-car-price").manifest.version == 1


@dataclass
class Parts:
    """A version taken apart: the manifest's members, the tensors, the other files."""

    manifest: dict[str, Any]
    weights: dict[str, Tensor]
    history: bytes


def sealed(members: dict[str, Any]) -> bytes:
    """JSON whose last member is the SHA-256 of what is before it, written without the package."""
    body = json.dumps(members, indent=2, ensure_ascii=False).encode().removesuffix(b"\n}")
    return body + b',\n  "checksum": "' + hashlib.sha256(body).hexdigest().encode() + b'"\n}\n'


def members(path: Path) -> dict[str, Any]:
    """A document's members but the checksum."""
    found: dict[str, Any] = json.loads(path.read_bytes())
    del found["checksum"]
    return found


def entry(content: bytes) -> dict[str, Any]:
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def taken_apart(folder: Path, network: Linear | Mlp, seed: int = 1) -> Parts:
    history = (folder / "history.csv").read_bytes()
    return Parts(members(folder / "manifest.json"), toy_weights(network, 5, seed), history)


def write(folder: Path, parts: Parts) -> None:
    """Put a version together so that every size, SHA-256 and checksum is right."""
    files = {"weights.safetensors": dump_weights(parts.weights), "history.csv": parts.history}
    written = {file: entry(content) for file, content in files.items()}
    manifest = parts.manifest | {"files": parts.manifest.get("files", {}) | written}
    for file, content in (files | {"manifest.json": sealed(manifest)}).items():
        (folder / file).chmod(0o644)
        (folder / file).write_bytes(content)


def rewrite(store: Store, network: Linear | Mlp, change: "Change") -> None:
    """Take version 1 apart, change it and put it together again."""
    folder = Path(store.url, "toy/versions/1")
    parts = taken_apart(folder, network)
    change(parts)
    write(folder, parts)


def promote_by_hand(store: Store, digest: str | None = None) -> None:
    """Make the promotion say a digest, or what the manifest's is now."""
    path = Path(store.url, "toy/promotions/1.json")
    manifest = Path(store.url, "toy/versions/1/manifest.json").read_bytes()
    path.chmod(0o644)
    path.write_bytes(sealed(members(path) | {"digest": digest or hashlib.sha256(manifest).hexdigest()}))


Change = Callable[[Parts], None]


def put(path: str, to: object) -> Change:
    """Change a member of the manifest, to a value or by a function."""
    *before, last = (int(key) if key.isdigit() else key for key in path.split("."))

    def change(parts: Parts) -> None:
        inner: Any = parts.manifest
        for key in before:
            inner = inner[key]
        inner[last] = to(inner[last]) if callable(to) else to

    return change


def drop(path: str) -> Change:
    """Take a member out of an object of the manifest."""
    outer, _, last = path.rpartition(".")
    return put(outer, lambda found: {key: value for key, value in found.items() if key != last})


def both(*changes: Change) -> Change:
    def change(parts: Parts) -> None:
        for each in changes:
            each(parts)

    return change


def swap(path: str, other: str) -> Change:
    """Exchange two members of the manifest."""

    def change(parts: Parts) -> None:
        one, two = (member(parts, each) for each in (path, other))
        both(put(path, two), put(other, one))(parts)

    return change


def member(parts: Parts, path: str) -> Any:
    found: Any = parts.manifest
    for key in path.split("."):
        found = found[int(key) if key.isdigit() else key]
    return found


def tensor(name: str, to: Callable[[Tensor], Any]) -> Change:
    def change(parts: Parts) -> None:
        parts.weights[name] = to(parts.weights[name].copy())

    return change


def one(value: Callable[[float], float]) -> Callable[[Tensor], Tensor]:
    """Change the first number of a tensor."""

    def to(found: Tensor) -> Tensor:
        found.flat[0] = value(float(found.flat[0]))
        return found

    return to


def another_history(parts: Parts) -> None:
    parts.history += b"1,0.5\n"


def renamed_tensor(parts: Parts) -> None:
    parts.weights["layers.0.kernel"] = parts.weights.pop("layers.0.weight")


def a_tensor_too_many(parts: Parts) -> None:
    parts.weights["layers.9.bias"] = np.zeros(1)


def a_tensor_too_few(parts: Parts) -> None:
    del parts.weights["layers.0.bias"]


def swapped_layers(parts: Parts) -> None:
    for kind in ("weight", "bias"):
        first, second = f"layers.0.{kind}", f"layers.1.{kind}"
        parts.weights[first], parts.weights[second] = parts.weights[second], parts.weights[first]


def weights_of_another_run(parts: Parts) -> None:
    shapes = {name: found.shape for name, found in parts.weights.items()}
    parts.weights = {name: np.random.default_rng(7).normal(size=shape) for name, shape in shapes.items()}


def golden_of_another_run(parts: Parts) -> None:
    predictions = expected_predictions(Linear(), toy_weights(Linear(), 5, seed=2), toy_rows(32))
    for row, prediction in zip(parts.manifest["golden"], predictions, strict=True):
        row["prediction"] = float(prediction)


def scaled(feature: int, factor: float) -> Change:
    """A feature's statistics in another unit."""
    fields = [put(f"features.{feature}.{field}", lambda x: x * factor) for field in ("mean", "std")]
    ends = [put(f"features.{feature}.{field}", lambda x: x * factor) for field in ("minimum", "maximum")]
    deciles = put(f"features.{feature}.deciles", lambda found: [x * factor for x in found])
    return both(*fields, *ends, deciles)


def times(factor: float) -> Callable[[float], float]:
    return lambda value: value * factor


def backwards(values: list[Any]) -> list[Any]:
    return values[::-1]


def without_bounds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row | {"lower": None, "upper": None} for row in rows]


def renamed_category(parts: Parts) -> None:
    """In the feature only: the golden rows say the old name."""
    put("features.2.categories.1.value", "gas")(parts)
    put("features.2.example", "gas")(parts)


def renamed_category_everywhere(parts: Parts) -> None:
    renamed_category(parts)
    for row in parts.manifest["golden"]:
        row["inputs"]["fuel type"] = row["inputs"]["fuel type"].replace("diesel", "gas")


def text_for_a_fillable_number(parts: Parts) -> None:
    put("features.0.fill", 5.25)(parts)
    put("golden.3.inputs.age", "old")(parts)


WRONG: Final[dict[str, tuple[Linear | Mlp, Change, type[VersionRefused]]]] = {
    "two features' names swapped": (Linear(), swap("features.0.name", "features.1.name"), GoldenDiffer),
    "two features swapped": (Linear(), swap("features.0", "features.1"), GoldenDiffer),
    "a number and a category swapped": (Linear(), swap("features.0", "features.2"), GoldenDiffer),
    "two features' mean and std swapped": (
        Linear(),
        both(swap("features.0.mean", "features.1.mean"), swap("features.0.std", "features.1.std")),
        GoldenDiffer,
    ),
    "statistics of another run": (
        Linear(),
        both(put("features.0.mean", 5.26), put("features.0.std", 2.49), put("features.1.mean", 100.2)),
        GoldenDiffer,
    ),
    "a mean off by a millionth": (Linear(), put("features.1.mean", times(1 + 1e-6)), GoldenDiffer),
    "statistics in another unit": (Linear(), scaled(0, 1000), GoldenDiffer),
    "a std doubled": (Linear(), put("features.1.std", times(2)), GoldenDiffer),
    "mean and std exchanged": (Linear(), swap("features.0.mean", "features.0.std"), GoldenDiffer),
    "the target's transform changed to log": (Linear(), put("target.transform", "log"), GoldenDiffer),
    "weights of another run, a line": (Linear(), weights_of_another_run, GoldenDiffer),
    "weights of another run, a network": (DEEP, weights_of_another_run, GoldenDiffer),
    "a square layer transposed": (DEEP, tensor("layers.1.weight", np.transpose), GoldenDiffer),
    "the first layer transposed": (DEEP, tensor("layers.0.weight", np.transpose), GoldenDiffer),
    "an oblong layer transposed": (DEEP, tensor("layers.2.weight", np.transpose), TensorsInvalid),
    "an oblong layer of the same size reshaped": (
        DEEP,
        tensor("layers.2.weight", lambda found: found.reshape(5, 3)),
        TensorsInvalid,
    ),
    "a line's weights rolled by one": (
        Linear(),
        tensor("layers.0.weight", lambda found: np.roll(found, 1)),
        GoldenDiffer,
    ),
    "a layer's weights rolled by one": (
        DEEP,
        tensor("layers.1.weight", lambda found: np.roll(found, 1)),
        GoldenDiffer,
    ),
    "a line's bias zero": (Linear(), tensor("layers.0.bias", np.zeros_like), GoldenDiffer),
    "a hidden bias zero": (DEEP, tensor("layers.1.bias", np.zeros_like), GoldenDiffer),
    "a bias missing": (Linear(), a_tensor_too_few, TensorsInvalid),
    "a tensor too many": (Linear(), a_tensor_too_many, TensorsInvalid),
    "two hidden layers swapped": (DEEP, swapped_layers, GoldenDiffer),
    "the hidden sizes reversed": (DEEP, put("network.hidden", backwards), TensorsInvalid),
    "a hidden size more": (DEEP, put("network.hidden.1", 6), TensorsInvalid),
    "relu called tanh": (DEEP, put("network.activation", "tanh"), GoldenDiffer),
    "tanh called relu": (DEEP_TANH, put("network.activation", "relu"), GoldenDiffer),
    "a network called a line": (DEEP, put("network", {"kind": "linear"}), TensorsInvalid),
    "categories in another order": (Linear(), put("features.2.categories", backwards), GoldenDiffer),
    "a category renamed": (Linear(), renamed_category, GoldenDiffer),
    "two categories' names swapped": (
        Linear(),
        swap("features.2.categories.0.value", "features.2.categories.1.value"),
        GoldenDiffer,
    ),
    "a category twice": (Linear(), put("features.2.categories.0.value", "diesel"), ManifestInvalid),
    "a category too few": (
        Linear(),
        put("features.2.categories", lambda found: found[:2]),
        TensorsInvalid,
    ),
    "a weight's sign flipped": (Linear(), tensor("layers.0.weight", one(lambda x: -x)), GoldenDiffer),
    "the output's sign flipped": (DEEP, tensor("layers.3.weight", np.negative), GoldenDiffer),
    "a weight changed by a millionth": (
        Linear(),
        tensor("layers.0.weight", one(lambda x: x + 1e-6)),
        GoldenDiffer,
    ),
    "a hidden weight changed by a millionth": (
        DEEP_TANH,
        tensor("layers.1.weight", one(lambda x: x + 1e-6)),
        GoldenDiffer,
    ),
    "weights rounded to float32": (
        Linear(),
        tensor("layers.0.weight", lambda found: found.astype(np.float32).astype(np.float64)),
        GoldenDiffer,
    ),
    "float32 weights": (
        Linear(),
        tensor("layers.0.weight", lambda found: found.astype(np.float32)),
        TensorsInvalid,
    ),
    "integer weights": (
        Linear(),
        tensor("layers.0.weight", lambda found: found.astype(np.int64)),
        TensorsInvalid,
    ),
    "a NaN in a weight": (Linear(), tensor("layers.0.weight", one(lambda _: np.nan)), TensorsInvalid),
    "an infinite bias": (Linear(), tensor("layers.0.bias", one(lambda _: np.inf)), TensorsInvalid),
    "a tensor renamed": (Linear(), renamed_tensor, TensorsInvalid),
    "golden predictions of another run": (Linear(), golden_of_another_run, GoldenDiffer),
    "golden predictions in another unit": (
        Linear(),
        put("golden", lambda rows: [row | {"prediction": row["prediction"] * 1000} for row in rows]),
        GoldenDiffer,
    ),
    "the last golden row alone wrong": (
        Linear(),
        put("golden.31.prediction", lambda x: x + 1e-6),
        GoldenDiffer,
    ),
    "31 golden rows": (Linear(), put("golden", lambda rows: rows[:31]), ManifestInvalid),
    "no golden rows": (Linear(), put("golden", []), ManifestInvalid),
    "a golden row that lacks an input": (Linear(), drop("golden.5.inputs.age"), ManifestInvalid),
    "a golden row with an input more": (Linear(), put("golden.5.inputs", {"x": 1.0}), ManifestInvalid),
    "a golden row with a null": (Linear(), put("golden.5.inputs.age", None), ManifestInvalid),
    "a golden row with an unknown category": (
        Linear(),
        put("golden.5.inputs.fuel type", "coal"),
        GoldenDiffer,
    ),
    "a golden row with text for a number": (Linear(), put("golden.5.inputs.age", "old"), GoldenDiffer),
    "a golden row with text for a number that may be missing": (
        Linear(),
        text_for_a_fillable_number,
        GoldenDiffer,
    ),
    "a golden prediction that is null": (Linear(), put("golden.5.prediction", None), ManifestInvalid),
    "the interval wider": (Linear(), put("interval.upper", 3.0), GoldenDiffer),
    "the interval narrower by a billionth": (Linear(), put("interval.lower", times(1 - 1e-9)), GoldenDiffer),
    "no interval": (Linear(), put("interval", None), GoldenDiffer),
    "golden rows without bounds": (Linear(), put("golden", without_bounds), GoldenDiffer),
    "a golden row without its upper bound": (Linear(), put("golden.4.upper", None), GoldenDiffer),
    "golden rows with bounds in an earlier schema": (Linear(), put("schema_version", 3), GoldenDiffer),
    "a weight changed by a tenth of a billionth": (
        Linear(),
        tensor("layers.0.weight", one(lambda x: x * (1 + 1e-10))),
        GoldenDiffer,
    ),
    "a wrong weight under a great std": (
        Linear(),
        both(put("target.std", 1e30), tensor("layers.0.weight", one(lambda x: x + 1))),
        GoldenDiffer,
    ),
    "a std of zero": (Linear(), put("features.0.std", 0.0), ManifestInvalid),
    "a negative std": (Linear(), put("features.0.std", times(-1)), ManifestInvalid),
    "a std that is NaN": (Linear(), put("features.0.std", np.nan), ManifestInvalid),
    "a mean that is infinite": (Linear(), put("features.0.mean", np.inf), ManifestInvalid),
    "a mean given as text": (Linear(), put("features.0.mean", "5.25"), ManifestInvalid),
    "a target's std of zero": (Linear(), put("target.std", 0.0), ManifestInvalid),
    "minimum above maximum": (
        Linear(),
        swap("features.0.minimum", "features.0.maximum"),
        ManifestInvalid,
    ),
    "deciles out of order": (Linear(), put("features.1.deciles", backwards), ManifestInvalid),
    "the target's deciles out of order": (Linear(), put("target.deciles", backwards), ManifestInvalid),
    "the interval upside down": (Linear(), swap("interval.lower", "interval.upper"), ManifestInvalid),
    "two features of one name": (Linear(), put("features.1.name", "age"), ManifestInvalid),
    "no features": (Linear(), put("features", []), ManifestInvalid),
    "another model's name": (Linear(), put("name", "other"), ManifestInvalid),
    "another version's number": (Linear(), put("version", 2), ManifestInvalid),
    "a schema version from the future": (Linear(), put("schema_version", 5), ManifestInvalid),
    "schema version 1 with a checksum": (Linear(), put("schema_version", 1), ManifestInvalid),
    "a field that nobody declared": (Linear(), put("training.colour", None), ManifestInvalid),
    "a field missing": (Linear(), drop("target.std"), ManifestInvalid),
    "a file outside the folder": (
        Linear(),
        put("files", {"../2/history.csv": entry(b"x")}),
        ManifestInvalid,
    ),
    "a file listed that is not there": (
        Linear(),
        put("files", {"report.html": entry(b"x")}),
        VersionRefused,
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_version_that_hangs_together_and_is_wrong_is_refused(store: Store, name: str) -> None:
    network, change, refusal = WRONG[name]
    publish_toy(store, network)
    store.promote("toy", 1)
    rewrite(store, network, change)
    promote_by_hand(store)
    with pytest.raises(VersionRefused) as refused:
        store.load("toy", 1)
    with pytest.raises(VersionRefused) as promoted_refused:
        store.load_promoted("toy")
    assert type(refused.value) is type(promoted_refused.value) is refusal


@pytest.mark.parametrize("network", [Linear(), DEEP, DEEP_TANH], ids=["linear", "relu", "tanh"])
def test_a_version_put_together_in_the_same_way_and_right_is_loaded(
    store: Store, network: Linear | Mlp
) -> None:
    publish_toy(store, network)
    store.promote("toy", 1)
    rewrite(store, network, another_history)
    promote_by_hand(store)
    assert store.load_promoted("toy").digest == store.load("toy", 1).digest
    assert Path(store.url, "toy/versions/1/history.csv").read_bytes().endswith(b"1,0.5\n")


RELABELLED: Final[dict[str, Change]] = {
    "a feature's unit": put("features.0.unit", "months"),
    "a feature's description": put("features.1.description", "in kW"),
    "a feature's example": put("features.0.example", 4.5),
    "a feature's range": put("features.0.maximum", 11.0),
    "the target's unit": put("target.unit", "crore"),
    "the target's name": put("target.name", "cost"),
    "the rows trained on": put("training.rows", 14),
    "the data's SHA-256": put("training.data_sha256", "1" * 64),
    "the moment it was made": put("created_at", "1970-01-01T00:00:00Z"),
    "a category renamed everywhere": renamed_category_everywhere,
    "the history": another_history,
}


@pytest.mark.parametrize("name", RELABELLED)
def test_what_only_the_digest_can_show_is_refused_where_it_was_promoted(store: Store, name: str) -> None:
    publish_toy(store)
    store.promote("toy", 1)
    rewrite(store, Linear(), RELABELLED[name])
    assert store.load("toy", 1).manifest.version == 1
    with pytest.raises(ManifestInvalid, match="its digest is"):
        store.load_promoted("toy")
    with pytest.raises(ManifestInvalid, match="its digest is"):
        store.promote("toy", 1)


def test_a_promotion_whose_digest_was_edited_is_refused(published: Path, store: Store) -> None:
    assert published.exists()
    promote_by_hand(store, "0" * 64)
    assert store.load("toy", 1).manifest.version == 1
    with pytest.raises(ManifestInvalid, match=r"promoted was 0{64}"):
        store.load_promoted("toy")


def test_another_whole_version_in_the_place_of_the_promoted_one_is_refused(
    published: Path, store: Store, tmp_path: Path
) -> None:
    elsewhere = open_store(str(tmp_path / "elsewhere"))
    publish_toy(elsewhere, seed=2)
    shutil.rmtree(published)
    shutil.copytree(Path(elsewhere.url, "toy/versions/1"), published)
    assert store.load("toy", 1).manifest.training.seed == 2
    with pytest.raises(ManifestInvalid, match="its digest is"):
        store.load_promoted("toy")


def resealed(content: bytes, rng: np.random.Generator) -> bytes:
    """A manifest after a random edit, with a checksum that is right again."""
    body = edited(content[: content.rindex(b',\n  "checksum"')], rng)
    return body + b',\n  "checksum": "' + hashlib.sha256(body).hexdigest().encode() + b'"\n}\n'


def with_weights(manifest: bytes, weights: bytes) -> bytes:
    """A manifest that lists these bytes as the weights."""
    found = json.loads(manifest)
    del found["checksum"]
    found["files"]["weights.safetensors"] = entry(weights)
    return sealed(found)


def check_refused_or_right(store: Store) -> None:
    """Version 1 is refused in the store's words, or predicts what it always did."""
    try:
        predictor = store.load("toy", 1).predictor
    except VersionRefused:
        return
    rows = toy_rows(32)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    expected = expected_predictions(Linear(), toy_weights(Linear(), 5), rows)
    np.testing.assert_allclose(predictor.predict(columns), expected, rtol=1e-8, atol=1e-7)


def test_a_manifest_edited_at_random_with_a_right_checksum_is_refused_or_predicts_the_same(
    published: Path, store: Store, torture: bool
) -> None:
    content = (published / "manifest.json").read_bytes()
    rng = np.random.default_rng(20)
    for _ in range(10_000 if torture else 300):
        (published / "manifest.json").write_bytes(resealed(content, rng))
        check_refused_or_right(store)


def test_weights_edited_at_random_with_a_right_checksum_are_refused_or_predict_the_same(
    published: Path, store: Store, torture: bool
) -> None:
    manifest, content = (published / "manifest.json").read_bytes(), (published / FILES[2]).read_bytes()
    rng = np.random.default_rng(21)
    for _ in range(10_000 if torture else 300):
        weights = edited(content, rng)
        (published / FILES[2]).write_bytes(weights)
        (published / "manifest.json").write_bytes(with_weights(manifest, weights))
        check_refused_or_right(store)


def random_network(rng: np.random.Generator) -> Linear | Mlp:
    hidden = tuple(int(units) for units in rng.integers(1, 65, size=rng.integers(4)))
    if not hidden:
        return Linear()
    return Mlp(hidden=hidden, activation="tanh" if rng.integers(2) else "relu")


def test_no_whole_version_is_refused(published: Path, store: Store, torture: bool) -> None:
    found = members(published / "manifest.json")
    history = (published / "history.csv").read_bytes()
    rng = np.random.default_rng(22)
    for seed in range(10_000 if torture else 300):
        description = toy_description(network := random_network(rng), seed)
        manifest = found | json.loads(description.model_dump_json())
        write(published, Parts(manifest, weights := toy_weights(network, 5, seed), history))
        loaded = store.load("toy", 1).predictor.weights
        assert all(np.array_equal(loaded[name], weights[name]) for name in weights)
