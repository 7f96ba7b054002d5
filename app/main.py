"""The composition root, which `python -m app` runs: settings, store, version, application."""

import gc
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic import ValidationError
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from app import logs, voices
from app.access import Access
from app.api import router
from app.catalogue import Catalogue
from app.edge import Admission, Edge
from app.exchange import Accounts
from app.lane import Lane
from app.lifecycle import Lifecycle
from app.live import Live
from app.logs import Lines
from app.settings import Settings, first_fault, unknown_variables
from app.telemetry import Telemetry
from model_store.store import open_store

SWITCH_SECONDS = 0.0005


class UsageError(Exception):
    """An argument or a variable that cannot be used."""


def read_settings(arguments: dict[str, Any]) -> Settings:
    """The variables' settings with the arguments' on top; raises UsageError."""
    if unknown := unknown_variables(os.environ):
        message = f"{unknown[0]} is no setting: python -m app --help lists them"
        raise UsageError(message)
    try:
        return Settings(**arguments)
    except ValidationError as error:
        raise UsageError(first_fault(error)) from None


def go_live(settings: Settings, lines: Lines, shared: Path | None = None) -> Live:
    """What is live of the store, a version if there is one to serve now; raises StoreError for no store.

    `shared` is a folder for the counts of several workers.
    """
    live = Live(open_store(settings.store), Telemetry(shared, lambda: lines.dropped), settings)
    live.start()
    return live


def build(settings: Settings, shared: Path) -> ASGIApp:
    """Make the application of one of several workers; raises StoreError for no store."""
    return create_app(go_live(settings, logs.configure(settings.log_level), shared), settings)


def create_app(live: Live, settings: Settings) -> ASGIApp:
    """Make the application that answers from what is live, and follows the store while it runs."""
    lifecycle = Lifecycle(settings.drain_seconds)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        settle()
        live.follow()
        lifecycle.attach(on_hang_up=live.wake)
        with live.telemetry.sharing():
            yield
        # A worker is ended by the signal that its server raises once more, before Python would do this.
        logs.flush()

    app = FastAPI(
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        telemetry={
            "auto_configure": settings.tracing,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
        },
    )
    voices.install(app)
    access = Access(settings.key_digests)
    app.include_router(router(live, Catalogue(live), lifecycle, settings, access))
    app.mount("/docs/assets", StaticFiles(packages=[("fastapi_offline", "static")]))
    admission = Admission(settings.max_in_flight, live.telemetry)
    accounts = Accounts(live.telemetry, settings.log_requests)
    edge = Edge(app, live.telemetry, admission, accounts)
    return Lane(
        *(edge, live, access, admission, accounts),
        most_bytes=settings.max_body_bytes,
        traces=settings.tracing,
    )


def settle() -> None:
    """Shorten the pauses: no collecting of what start-up made, and threads give way to the loop soon."""
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()
