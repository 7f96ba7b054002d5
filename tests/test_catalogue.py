"""A store that hangs, asked for its versions: it holds up nobody but those who ask, and them not for long."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Event

import httpx
import pytest

from app.catalogue import Catalogue
from app.live import Live
from app.main import create_app
from app.refusals import Refused
from app.schemas import Versions
from app.settings import Settings
from app.telemetry import Telemetry
from model_store._storage import LocalDisk
from model_store.store import Store
from tests.in_process import InProcess
from tests.toys import AGE, FUEL, POWER, publish_toy, toy_rows

ROW = {AGE.name: 4.0, POWER.name: 90.5, FUEL.name: "diesel"}
CSV = f"{AGE.name},{POWER.name},{FUEL.name}\n4.0,90.5,diesel\n"
CALLERS = 8
FOREVER = 20.0


class HangingDisk(LocalDisk):
    """A disk that answers when it is told to, if it is asked which versions a model has."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.answers, self.asked, self.times, self.outlasted = Event(), Event(), 0, False
        self.answers.set()

    def list(self, folder: str) -> list[str]:
        if folder == "toy/versions" and not self.answers.is_set():
            self.times += 1
            self.asked.set()
            self.outlasted |= not self.answers.wait(FOREVER)
        return super().list(folder)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[HangingDisk]:
    disk = HangingDisk(tmp_path / "store")
    store = Store(disk)
    publish_toy(store)
    store.promote("toy", publish_toy(store).version)
    yield disk
    disk.answers.set()


@pytest.fixture
def live(disk: HangingDisk) -> Live:
    live = Live(Store(disk), Telemetry(), Settings(store=disk.url))
    live.look()
    disk.answers.clear()
    return live


def client_of(live: Live) -> httpx.Client:
    application = create_app(live, Settings(store=live.store.url))
    return httpx.Client(transport=InProcess(application), base_url="http://test")


def test_nothing_that_predicts_waits_for_a_store_that_hangs(
    disk: HangingDisk, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.main.Catalogue", partial(Catalogue, patience=FOREVER))
    with client_of(live) as client, ThreadPoolExecutor(CALLERS) as callers:
        waiting = [callers.submit(client.get, "/model/versions") for _ in range(CALLERS)]
        assert disk.asked.wait(FOREVER)
        assert client.post("/predict", json=ROW).status_code == 200
        assert client.post("/predict?explain=true", json=ROW).status_code == 200
        assert client.post("/predict/batch", json={"instances": toy_rows(1000)}).status_code == 200
        headers = {"Content-Type": "text/csv"}
        assert client.post("/predict/batch", content=CSV, headers=headers).status_code == 200
        assert client.get("/openapi.json").status_code == 200
        assert not disk.outlasted
        assert not any(map(Future.done, waiting))
        disk.answers.set()
        answers = [caller.result() for caller in waiting]
    assert {answer.status_code for answer in answers} == {200}
    expected = {"model": "toy", "served": "2", "promoted": "2", "versions": ["1", "2"]}
    assert [answer.json() for answer in answers] == [expected] * CALLERS


def test_callers_share_one_question_and_a_later_one_asks_again(disk: HangingDisk, live: Live) -> None:
    catalogue = Catalogue(live, patience=FOREVER)

    async def ask_together() -> None:
        callers = [asyncio.create_task(catalogue.versions()) for _ in range(CALLERS)]
        assert await asyncio.to_thread(disk.asked.wait, FOREVER)
        disk.answers.set()
        answers = await asyncio.gather(*callers)
        assert [answer.versions for answer in answers] == [["1", "2"]] * CALLERS
        assert disk.times == 1
        publish_toy(live.store)
        assert (await catalogue.versions()).versions == ["1", "2", "3"]

    asyncio.run(ask_together())


def test_who_loses_patience_is_refused_and_asks_no_second_question(disk: HangingDisk, live: Live) -> None:
    catalogue = Catalogue(live, patience=0.1)

    async def ask_in_vain() -> None:
        for _ in range(3):
            with pytest.raises(Refused, match="does not answer"):
                await catalogue.versions()
        assert disk.times == 1

    async def ask_until_answered() -> Versions:
        while True:
            with suppress(Refused):
                return await catalogue.versions()

    asyncio.run(ask_in_vain())
    disk.answers.set()
    assert asyncio.run(ask_until_answered()).versions == ["1", "2"]


def test_a_store_that_does_not_answer_is_a_problem(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.main.Catalogue", partial(Catalogue, patience=0.1))
    with client_of(live) as client:
        answer = client.get("/model/versions")
        assert answer.status_code == 503
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert "the store does not answer" in answer.json()["detail"].lower()
        assert client.get("/readyz").status_code == 200


def test_a_store_that_is_broken_is_told_from_one_that_hangs(
    disk: HangingDisk, live: Live, tmp_path: Path
) -> None:
    disk.answers.set()
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    (tmp_path / "store").touch()
    with pytest.raises(Refused, match="cannot be read"):
        asyncio.run(Catalogue(live).versions())


def test_a_defect_is_raised_to_whoever_asks(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "store", None)
    with pytest.raises(AttributeError):
        asyncio.run(Catalogue(live).versions())
