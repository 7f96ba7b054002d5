"""The versions in the store, for callers who ask for them.

A store may hang. So it is asked in a thread of its own, which neither predictions nor the end of the process
wait for, and by one caller at a time: those who come meanwhile share the answer.
"""

import asyncio
from concurrent.futures import Future
from http import HTTPStatus
from threading import Thread
from typing import NoReturn, TypeAlias

from app.live import Live
from app.refusals import Refused
from app.schemas import Versions
from model_store.errors import NothingPromoted, PromotionInvalid, StoreError
from model_store.store import Store

PATIENCE = 3.0

Found: TypeAlias = tuple[list[str], str | None]


class Catalogue:
    """Lists the versions of the served model; nobody waits for it longer than `patience` seconds."""

    def __init__(self, live: Live, patience: float = PATIENCE) -> None:
        self._live, self._patience = live, patience
        self._asked: Future[Found] | None = None

    async def versions(self) -> Versions:
        """The versions in the store, which is promoted and which answers.

        Raises Refused (503) if nothing is served yet, or if the store cannot be read or does not answer.
        """
        served = self._live.current()
        if self._asked is None or self._asked.done():
            self._asked = ask(self._live.store, served.name)
        try:
            numbers, promoted = await asyncio.wait_for(asyncio.wrap_future(self._asked), self._patience)
        except StoreError:
            refuse("cannot be read")
        except TimeoutError:
            refuse("does not answer")
        return Versions(served.name, served.version, promoted, numbers)


def refuse(trouble: str) -> NoReturn:
    """Raise Refused (503) for the store's trouble."""
    detail = f"The store {trouble}; the served version goes on answering."
    raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, detail) from None


def ask(store: Store, name: str) -> Future[Found]:
    """Ask for a model's versions and the promoted one, in a thread that ends with the process."""
    asked: Future[Found] = Future()
    # From now on no caller who loses patience can cancel it for the others.
    asked.set_running_or_notify_cancel()
    Thread(target=find, args=(store, name, asked), daemon=True).start()
    return asked


def find(store: Store, name: str, asked: Future[Found]) -> None:
    """Find the answer, however long that takes."""
    try:
        asked.set_result((list(map(str, store.versions(name))), promoted_version(store, name)))
    except Exception as error:  # noqa: BLE001  (whatever it is, those who wait raise it)
        asked.set_exception(error)


def promoted_version(store: Store, name: str) -> str | None:
    """The promoted version; None if none is promoted as it should be."""
    try:
        return str(store.promoted(name).version)
    except (NothingPromoted, PromotionInvalid):
        return None
