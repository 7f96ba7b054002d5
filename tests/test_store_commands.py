import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from model_store.__main__ import main
from model_store.manifest import Linear, Metrics, Mlp, Scores
from model_store.store import Store, open_store
from tests.conftest import only_json, run
from tests.in_process import run_here
from tests.toys import AGE, POWER, TARGET, publish_toy, toy_weights


@pytest.fixture
def two(store: Store) -> Store:
    """A store with versions 1 and 2 of the toy, none promoted."""
    publish_toy(store)
    publish_toy(store, seed=2)
    return store


@pytest.fixture
def promoted(two: Store) -> Store:
    """The same, 1 and then 2 promoted."""
    two.promote("toy", 1)
    two.promote("toy", 2)
    return two


def command(store: Store, *arguments: str) -> "CompletedProcess[str]":
    return run_here(main, *arguments, "--store", store.url)


def refusal(result: "CompletedProcess[str]") -> str:
    """The one sentence of a refused command."""
    assert (result.returncode, result.stdout) == (3, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def output(result: "CompletedProcess[str]") -> str:
    """What a command that succeeded printed."""
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def test_an_empty_store_is_called_empty_and_not_made(store: Store) -> None:
    assert output(command(store, "list")) == f"the store {store.url} is empty\n"
    assert not Path(store.url).exists()


def test_list_has_a_line_for_every_version_and_marks_the_promoted_one(promoted: Store) -> None:
    publish_toy(promoted, name="other")
    _, *lines = output(command(promoted, "list")).splitlines()
    assert [line.split()[:3] for line in lines if "promoted" in line] == [["toy", "2", "promoted"]]
    assert [line.split()[:2] for line in lines] == [["other", "1"], ["toy", "1"], ["toy", "2"]]
    assert all("price from age, power 'bhp' / ñ~, fuel type" in line for line in lines)


def test_list_says_which_version_is_refused_and_shows_the_others(promoted: Store) -> None:
    manifest = Path(promoted.url, "toy", "versions", "1", "manifest.json")
    manifest.chmod(0o644)
    manifest.write_bytes(manifest.read_bytes()[:100])
    _, first, second = output(command(promoted, "list")).splitlines()
    assert f"{manifest} is refused" in first
    assert "price from age" in second


def test_show_describes_the_promoted_version(promoted: Store) -> None:
    shown = output(command(promoted, "show", "toy"))
    assert shown.startswith("toy version 2, made ")
    assert promoted.load_promoted("toy").digest in shown
    assert "price (lakh)" in shown
    assert f"age (years): 0.5 to 10, mean {AGE.mean!r}, std {AGE.std!r}" in shown
    assert "fuel type: petrol, diesel, a,b" in shown


def test_show_prints_the_weights_to_the_last_digit(two: Store) -> None:
    lines = output(command(two, "show", "toy", "1")).splitlines()
    printed = {
        line.split()[1]: json.loads(line.split("= ")[1]) for line in lines if line.startswith("tensor")
    }
    assert printed == {
        name: tensor.ravel().tolist() for name, tensor in two.load("toy", 1).predictor.weights.items()
    }


def test_promote_and_rollback_say_what_is_promoted(two: Store) -> None:
    first = output(command(two, "promote", "toy", "1", "--reason", "günstiger"))
    assert first == "toy: version 1 is promoted (generation 1)\n"
    second = output(command(two, "promote", "toy", "2"))
    assert second == "toy: version 2 is promoted (generation 2, before it 1)\n"
    third = output(command(two, "rollback", "toy", "--reason", "worse"))
    assert third == "toy: version 1 is promoted (generation 3, before it 2)\n"
    promotions = Path(two.url, "toy", "promotions")
    lines = [json.loads((promotions / f"{number}.json").read_bytes()) for number in (1, 2, 3)]
    assert [(line["version"], line["reason"]) for line in lines] == [
        (1, "günstiger"),
        (2, None),
        (1, "worse"),
    ]


@pytest.mark.parametrize("arguments", [["show", "toy"], ["rollback", "toy"]], ids=" ".join)
def test_when_nothing_is_promoted_the_sentence_says_how_to(two: Store, arguments: list[str]) -> None:
    sentence = refusal(command(two, *arguments))
    assert "no version of toy is promoted" in sentence
    advice = sentence.strip().partition("python -m ")[2]
    output(run(*advice.split()))
    assert two.promoted("toy").version == 2


REFUSED = {
    "show other": "no model named other in the store",
    "show other 1": "no model named other in the store",
    "promote other 1": "no model named other in the store",
    "rollback other": "no model named other in the store",
    "show toy 9": "toy has no version 9; it has 1, 2",
    "promote toy 9": "toy has no version 9; it has 1, 2",
    "promote toy 0": "toy has no version 0; it has 1, 2",
    "promote toy -1": "toy has no version -1; it has 1, 2",
    "show ../toy": "'../toy' cannot name a model",
    "promote /toy 1": "'/toy' cannot name a model",
    "rollback TOY": "'TOY' cannot name a model",
    "verify other": "no model named other in the store",
    "verify toy 9": "toy has no version 9; it has 1, 2",
    "verify ../toy": "'../toy' cannot name a model",
    "history other": "no model named other in the store",
    "history toy": "no version of toy is promoted",
    "show toy 1 --against 9": "toy has no version 9; it has 1, 2",
    "show toy --against 1": "no version of toy is promoted",
    "prune other": "no model named other in the store",
    "prune ../toy": "'../toy' cannot name a model",
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store that no command may change."""
    store = open_store(str(tmp_path_factory.mktemp("shared") / "store"))
    publish_toy(store)
    publish_toy(store)
    yield store
    assert sorted(os.listdir(Path(store.url, "toy"))) == ["versions"]


@pytest.mark.parametrize("arguments", REFUSED)
def test_what_the_store_does_not_have_is_a_sentence_and_code_3(shared: Store, arguments: str) -> None:
    assert REFUSED[arguments] in refusal(command(shared, *arguments.split()))


@pytest.mark.parametrize(
    "arguments",
    [
        *(
            "",
            "publish",
            "show",
            "promote toy",
            "promote toy two",
            "promote toy 1.0",
            "rollback",
            "list --all",
        ),
        *("verify", "verify toy two", "history", "show toy 1 --against", "show toy 1 --against two"),
        *("prune", "prune toy 1", "prune toy --keep 0", "prune toy --keep -1", "prune toy --keep two"),
        *("prune toy --keep 1.5", "prune toy --keep ²", "prune toy --keep ٣", "prune toy --keep"),
    ],
)
def test_a_wrong_command_line_is_code_2(shared: Store, arguments: str) -> None:
    result = command(shared, *arguments.split())
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("usage: python -m model_store")
    assert "Traceback" not in result.stderr


def test_the_first_promotion_cannot_be_rolled_back(two: Store) -> None:
    two.promote("toy", 1)
    assert "nothing to roll back to" in refusal(command(two, "rollback", "toy"))


def test_a_broken_version_is_refused_and_the_promoted_one_stays(promoted: Store) -> None:
    weights = Path(promoted.url, "toy", "versions", "1", "weights.safetensors")
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1])
    for arguments in (["promote", "toy", "1"], ["rollback", "toy"], ["show", "toy", "1"]):
        assert f"{weights} is refused: 191 bytes, expected 192" in refusal(command(promoted, *arguments))
    assert promoted.promoted("toy").generation == 2


def test_a_file_where_the_store_is_expected_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(b"")
    store = open_store(str(tmp_path / "store"))
    for arguments in (["list"], ["show", "toy"], ["promote", "toy", "1"]):
        assert "Not a directory" in refusal(command(store, *arguments))


def test_a_broken_link_beside_the_only_model_stops_neither_a_start_nor_a_list(promoted: Store) -> None:
    Path(promoted.url, "old").symlink_to(Path(promoted.url, "gone"))
    assert run("app", "--check", "--store", promoted.url).returncode == 0
    _, *lines = output(command(promoted, "list")).splitlines()
    assert [line.split()[:2] for line in lines] == [["toy", "1"], ["toy", "2"]]


COMMANDS = ("list", "show", "verify", "history", "promote", "rollback", "prune")


def test_help_names_every_command() -> None:
    text = output(run_here(main, "--help"))
    assert all(word in text for word in COMMANDS)


def test_version_0_is_no_version(store: Store) -> None:
    publish_toy(store)
    store.promote("toy", 1)
    assert "has no version 0" in refusal(command(store, "show", "toy", "0"))


def test_a_reason_that_is_no_text_is_a_usage_error(store: Store) -> None:
    publish_toy(store)
    result = command(store, "promote", "toy", "1", "--reason", "\udcff")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


def test_list_goes_on_past_a_manifest_that_cannot_be_read(store: Store) -> None:
    publish_toy(store)
    publish_toy(store)
    path = Path(store.url, "toy/versions/1/manifest.json")
    path.unlink()
    os.mkfifo(path)
    lines = command(store, "list").stdout.splitlines()
    assert "not a plain file" in lines[1]
    assert "price from" in lines[2]


def test_a_terminal_without_unicode_is_no_obstacle(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_toy(store)
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    assert run("model_store", "list", "--store", store.url).returncode == 0


def test_tensors_are_shown_in_the_same_order_each_time(store: Store) -> None:
    publish_toy(store)
    assert len({command(store, "show", "toy", "1").stdout for _ in range(4)}) == 1


def lines_of_json(result: "CompletedProcess[str]", code: int = 0) -> list[dict[str, Any]]:
    """What `--json` printed: an object a line, with no NaN or Infinity in it."""
    assert result.returncode == code
    lines = [only_json(line) for line in result.stdout.splitlines()]
    assert all(isinstance(line, dict) for line in lines)
    return [line for line in lines if isinstance(line, dict)]


def spoil(path: Path) -> Path:
    """Flip the last bit of a file's last byte but one."""
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    return path


def digest(store: Store, number: int) -> str:
    manifest = Path(store.url, "toy", "versions", str(number), "manifest.json")
    return hashlib.sha256(manifest.read_bytes()).hexdigest()


def test_verify_tells_every_version_and_the_history(promoted: Store) -> None:
    assert output(command(promoted, "verify", "toy")).splitlines() == [
        f"toy version 1: whole, digest {digest(promoted, 1)}",
        f"toy version 2: whole, digest {digest(promoted, 2)}",
        "toy history: whole, 2 promotions",
    ]
    assert output(command(promoted, "verify", "toy", "2")) == (
        f"toy version 2: whole, digest {digest(promoted, 2)}\n"
    )


@pytest.mark.parametrize("file", ["manifest.json", "weights.safetensors", "history.csv"])
def test_verify_goes_on_past_a_broken_version_and_ends_with_code_3(promoted: Store, file: str) -> None:
    path = spoil(Path(promoted.url, "toy", "versions", "1", file))
    result = command(promoted, "verify", "toy")
    assert (result.returncode, result.stderr) == (3, "")
    first, second, history = result.stdout.splitlines()
    assert first.startswith(f"toy version 1: {path} is refused: ")
    assert second == f"toy version 2: whole, digest {digest(promoted, 2)}"
    assert history == "toy history: whole, 2 promotions"
    assert f"{path} is refused" in refusal(command(promoted, "verify", "toy", "1"))
    output(command(promoted, "verify", "toy", "2"))
    told = lines_of_json(command(promoted, "verify", "toy", "--json"), code=3)
    assert [(line["subject"], line["whole"]) for line in told] == [
        ("version 1", False),
        ("version 2", True),
        ("history", True),
    ]


def test_verify_finds_a_broken_promotion_that_is_not_in_force(promoted: Store) -> None:
    path = spoil(Path(promoted.url, "toy", "promotions", "1.json"))
    result = command(promoted, "verify", "toy")
    assert (result.returncode, result.stderr) == (3, "")
    *versions, history = result.stdout.splitlines()
    assert all("whole" in line for line in versions)
    assert history.startswith(f"toy history: {path} is refused: ")


def test_verify_finds_a_gap_in_the_history(promoted: Store) -> None:
    Path(promoted.url, "toy", "promotions", "1.json").unlink()
    result = command(promoted, "verify", "toy")
    assert result.returncode == 3
    assert "promotions/2.json is refused: it does not follow" in result.stdout


def test_history_has_a_line_for_every_promotion(two: Store) -> None:
    two.promote("toy", 1, "günstiger")
    two.promote("toy", 2)
    two.rollback("toy", "worse")
    heading, *lines = output(command(two, "history", "toy")).splitlines()
    assert heading.split() == ["generation", "version", "promoted", "(UTC)", "before", "reason"]
    when = [f"{line.promoted_at:%Y-%m-%d %H:%M:%S}" for line in two.history("toy")]
    assert [line.split(maxsplit=5) for line in lines] == [
        ["1", "1", *when[0].split(), "–", "günstiger"],
        ["2", "2", *when[1].split(), "1"],
        ["3", "1", *when[2].split(), "2", "worse"],
    ]


def test_a_broken_history_is_not_told(promoted: Store) -> None:
    path = spoil(Path(promoted.url, "toy", "promotions", "1.json"))
    assert f"{path} is refused" in refusal(command(promoted, "history", "toy"))


def tree(store: Store) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path(store.url).rglob("*") if path.is_file()}


def test_prune_says_what_it_would_do_and_then_does_it(promoted: Store) -> None:
    publish_toy(promoted)
    promoted.promote("toy", 3)
    promoted.promote("toy", 1)
    publish_toy(promoted)
    before = tree(promoted)
    assert output(command(promoted, "prune", "toy", "--keep", "1", "--dry-run")) == (
        "toy version 2 would be removed: older than the newest 1\n"
    )
    assert tree(promoted) == before
    assert output(command(promoted, "prune", "toy", "--keep", "1")) == (
        "toy version 2 removed: older than the newest 1\n"
    )
    assert promoted.versions("toy") == [1, 3, 4]
    nothing = f"nothing to do in the store {promoted.url}\n"
    assert output(command(promoted, "prune", "toy", "--keep", "1")) == nothing
    assert command(promoted, "show", "toy", "2").returncode == 3


def test_without_being_told_prune_keeps_the_newest_ten(store: Store) -> None:
    for _ in range(12):
        publish_toy(store)
    store.promote("toy", 12)
    assert output(command(store, "prune", "toy")).splitlines() == [
        f"toy version {number} removed: older than the newest 10" for number in (1, 2)
    ]
    assert store.versions("toy") == list(range(3, 13))


def test_prune_stops_at_what_it_cannot_remove_with_a_sentence(promoted: Store) -> None:
    publish_toy(promoted)
    promoted.promote("toy", 3)
    aside = Path(promoted.url, "aside")
    Path(promoted.url, "toy", "versions", "1").rename(aside)
    Path(promoted.url, "toy", "versions", "1").symlink_to(aside)
    assert "links are not followed" in refusal(command(promoted, "prune", "toy", "--keep", "1"))
    assert len(os.listdir(aside)) == 3


SCORES = Scores(mse=4.0, rmse=2.0, mae=1.5, r2=0.1 + 0.2)
WORSE = SCORES.model_copy(update={"r2": 0.25})


def measured(scores: Scores) -> Metrics:
    return Metrics(rows=9, model=scores, predict_the_mean=SCORES, least_squares=SCORES)


@pytest.fixture
def rivals(store: Store) -> Store:
    """Two linear versions that differ in weights, a statistic and a score; then two networks that do."""
    for network in (Linear(), Mlp(hidden=(3,))):
        publish_toy(store, network, metrics=measured(SCORES))
        target = TARGET.model_copy(update={"mean": 9.75})
        publish_toy(store, network, seed=2, metrics=measured(WORSE), target=target)
    return store


def test_show_against_names_each_weight_by_its_input(rivals: Store) -> None:
    heading, *lines = output(command(rivals, "show", "toy", "2", "--against", "1")).splitlines()
    assert heading.split() == ["toy", "version", "2", "version", "1", "change"]
    names = [re.split(r"  +", line)[0] for line in lines]
    assert [name for name in names if name.startswith("weight of")] == [
        "weight of age",
        f"weight of {POWER.name}",
        "weight of fuel type = petrol",
        "weight of fuel type = diesel",
        "weight of fuel type = a,b",
    ]
    values = {line.split()[0]: line.split()[1:] for line in lines}
    assert values["metrics.model.r2"] == ["0.25", "0.3", "-0.05"]
    assert values["target.mean"] == ["9.75", "9.5", "+0.25"]
    assert values["training.seed"] == ["2", "1", "+1"]
    ours, theirs = (toy_weights(Linear(), 5, seed)["layers.0.bias"][0] for seed in (2, 1))
    assert values["bias"] == [f"{ours:.7g}", f"{theirs:.7g}", f"{ours - theirs:+.4g}"]


def test_show_against_of_a_network_has_a_line_a_tensor(rivals: Store) -> None:
    _, *lines = output(command(rivals, "show", "toy", "4", "--against", "3")).splitlines()
    tensors = [line.split(",")[0] for line in lines if line.startswith("layers.")]
    assert set(tensors) >= {"layers.0.bias [3]", "layers.1.bias [1]"}
    assert len([tensor for tensor in tensors if tensor.startswith(("layers.0.w", "layers.1.w"))]) == 2
    assert any(line.startswith("metrics.model.r2") for line in lines)
    assert not any(line.startswith("weight of") for line in lines)


def test_show_against_takes_the_promoted_version_where_none_is_named(rivals: Store) -> None:
    rivals.promote("toy", 2)
    named, unnamed = (command(rivals, "show", "toy", *which, "--against", "1") for which in (["2"], []))
    assert output(unnamed) == output(named)


def test_a_version_against_itself_is_the_same(rivals: Store) -> None:
    sentence = "toy: versions 1 and 1 are the same in all but number and date\n"
    assert output(command(rivals, "show", "toy", "1", "--against", "1")) == sentence
    (told,) = lines_of_json(command(rivals, "show", "toy", "1", "--against", "1", "--json"))
    assert told == {"model": "toy", "version": 1, "against": 1, "differences": []}


def test_differences_in_json_have_the_numbers_to_the_last_bit(rivals: Store) -> None:
    (told,) = lines_of_json(command(rivals, "show", "toy", "2", "--against", "1", "--json"))
    assert (told["model"], told["version"], told["against"]) == ("toy", 2, 1)
    found = {each.pop("what"): each for each in told["differences"]}
    ours, theirs = (toy_weights(Linear(), 5, seed)["layers.0.weight"][0].tolist() for seed in (2, 1))
    assert found["weight of age"] == {
        "version": ours[0],
        "against": theirs[0],
        "change": ours[0] - theirs[0],
    }
    assert found["metrics.model.r2"] == {"version": 0.25, "against": 0.1 + 0.2, "change": 0.25 - (0.1 + 0.2)}


@pytest.mark.parametrize("number", [1, 3])
def test_a_version_in_json_is_its_manifest_and_weights_to_the_last_bit(rivals: Store, number: int) -> None:
    (told,) = lines_of_json(command(rivals, "show", "toy", str(number), "--json"))
    path = Path(rivals.url, "toy", "versions", str(number), "manifest.json")
    manifest = json.loads(path.read_bytes())
    assert told["digest"] == digest(rivals, number)
    assert manifest.pop("checksum")
    assert told["manifest"] == manifest
    network = Linear() if number == 1 else Mlp(hidden=(3,))
    assert told["weights"] == {name: tensor.tolist() for name, tensor in toy_weights(network, 5).items()}


def test_list_in_json_has_an_object_a_version(rivals: Store) -> None:
    rivals.promote("toy", 2)
    spoil(Path(rivals.url, "toy", "versions", "3", "manifest.json"))
    told = lines_of_json(command(rivals, "list", "--json"))
    assert [line["version"] for line in told] == [1, 2, 3, 4]
    assert [line["promoted"] for line in told] == [False, True, False, False]
    assert [line.get("digest") for line in told] == [
        *(digest(rivals, 1), digest(rivals, 2), None, digest(rivals, 4))
    ]
    assert told[0]["r2"] == 0.1 + 0.2
    assert told[0]["features"] == [AGE.name, POWER.name, "fuel type"]
    assert datetime.fromisoformat(told[0]["created_at"]) == rivals.load("toy", 1).manifest.created_at
    assert "is refused" in told[2]["error"]


def test_promote_history_rollback_and_prune_in_json(rivals: Store) -> None:
    sequence = [
        lines_of_json(command(rivals, *arguments, "--json"))
        for arguments in (
            ["promote", "toy", "2", "--reason", "“better”"],
            ["promote", "toy", "3"],
            ["rollback", "toy", "--reason", "worse"],
        )
    ]
    promotions = Path(rivals.url, "toy", "promotions")
    written = [json.loads((promotions / f"{number}.json").read_bytes()) for number in (1, 2, 3)]
    assert all(promotion.pop("checksum") for promotion in written)
    assert sequence == [[{"model": "toy"} | promotion] for promotion in written]
    assert lines_of_json(command(rivals, "history", "toy", "--json")) == written
    would = {"model": "toy", "version": 1, "reason": "older than the newest 1", "dry_run": True}
    assert lines_of_json(command(rivals, "prune", "toy", "--keep", "1", "--dry-run", "--json")) == [would]
    done = would | {"dry_run": False}
    assert lines_of_json(command(rivals, "prune", "toy", "--keep", "1", "--json")) == [done]
    assert lines_of_json(command(rivals, "prune", "toy", "--keep", "1", "--json")) == []


def test_in_json_an_empty_store_is_no_line(store: Store) -> None:
    assert output(command(store, "list", "--json")) == ""


def test_in_json_a_refusal_is_the_same_sentence(shared: Store) -> None:
    assert "toy has no version 9" in refusal(command(shared, "show", "toy", "9", "--json"))


@pytest.mark.parametrize(
    "url", ["ftp://example/store", "http://127.0.0.1/store", "S3://bucket", "://", "file:///x"]
)
def test_a_url_that_no_storage_serves_is_refused_by_a_sentence(url: str) -> None:
    sentence = refusal(run_here(main, "list", "--store", url))
    assert (
        sentence == f"error: {url} is no store: give a folder's path, s3://…, gs://…, az://… or memory://\n"
    )


def test_a_store_in_memory_is_empty_at_each_start() -> None:
    assert output(run("model_store", "list", "--store", "memory://")) == "the store memory:// is empty\n"
    assert "no model named toy" in refusal(run_here(main, "verify", "toy", "--store", "memory://"))


WITHOUT_OBSTORE = """
import sys
sys.modules["obstore"] = None
from model_store.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_without_its_extra_a_store_in_the_cloud_is_a_sentence_and_a_folder_goes_on(two: Store) -> None:
    def without(url: str) -> "CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-c", WITHOUT_OBSTORE, "list", "--store", url],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    assert "pip install 'plumbline[remote]'" in refusal(without("s3://bucket/models"))
    assert len(output(without(two.url)).splitlines()) == 3


def test_a_reader_that_leaves_early_is_no_traceback(two: Store) -> None:
    listing = subprocess.Popen(
        [sys.executable, "-m", "model_store", "list", "--store", two.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert listing.stdout
    listing.stdout.close()
    assert listing.stderr
    assert "Traceback" not in listing.stderr.read()
    listing.stderr.close()
    listing.wait(120)
