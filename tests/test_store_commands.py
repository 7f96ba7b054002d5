import json
import os
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from model_store.store import Store, open_store
from tests.conftest import run
from tests.toys import AGE, publish_toy


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
    return run("model_store", *arguments, "--store", store.url)


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
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store that no command may change."""
    store = open_store(str(tmp_path_factory.mktemp("shared") / "store"))
    publish_toy(store)
    publish_toy(store)
    yield store
    assert not Path(store.url, "toy", "promotions").exists()


@pytest.mark.parametrize("arguments", REFUSED)
def test_what_the_store_does_not_have_is_a_sentence_and_code_3(shared: Store, arguments: str) -> None:
    assert REFUSED[arguments] in refusal(command(shared, *arguments.split()))


@pytest.mark.parametrize(
    "arguments",
    ["", "publish", "show", "promote toy", "promote toy two", "promote toy 1.0", "rollback", "list --all"],
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
        assert f"{weights} is refused: 191 bytes, 192 are due" in refusal(command(promoted, *arguments))
    assert promoted.promoted("toy").generation == 2


def test_a_file_where_the_store_is_due_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(b"")
    store = open_store(str(tmp_path / "store"))
    for arguments in (["list"], ["show", "toy"], ["promote", "toy", "1"]):
        assert "Not a directory" in refusal(command(store, *arguments))


def test_help_names_every_command() -> None:
    text = output(run("model_store", "--help"))
    assert all(word in text for word in ("list", "show", "promote", "rollback"))


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
    assert command(store, "list").returncode == 0


def test_tensors_are_shown_in_the_same_order_each_time(store: Store) -> None:
    publish_toy(store)
    assert len({command(store, "show", "toy", "1").stdout for _ in range(4)}) == 1
