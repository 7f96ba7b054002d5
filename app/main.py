"""The composition root: settings, store, version, application.

`uvicorn --factory app.main:build` starts it, as `python -m app` does.
"""

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
from app.edge import Admission, Edge
from app.exchange import Records
from app.lane import Lane
from app.lifecycle import Lifecycle
from app.live import Live
from app.logs import logger
from app.settings import Settings, first_fault, unknown_variables
from app.telemetry import Telemetry
from model_store.errors import StoreError
from model_store.store import open_store

SWITCH_SECONDS = 0.0005


def build() -> ASGIApp:
    """Make the application from `PLUMBLINE_…` variables; exit with a sentence if they cannot be used."""
    try:
        settings = read_settings({})
        application = build_from(settings)
    except (UsageError, StoreError) as error:
        sys.exit(f"error: {error}")
    # Only the server that calls this knows whose address it listens on.
    log_settings(settings, is_local=False)
    return application


def build_from(settings: Settings, shared: Path | None = None) -> ASGIApp:
    """Make the application, with a version if there is one to serve now; raises StoreError for no store.

    `shared` is a folder for the counts of several workers.
    """
    lines = logs.configure(settings.log_level)
    live = Live(open_store(settings.store), Telemetry(shared, lambda: lines.dropped), settings)
    live.start()
    return create_app(live, settings)


def log_settings(settings: Settings, *, is_local: bool) -> None:
    """Log the settings without their secrets, and loudly that anybody may call, if so."""
    logger.info("settings", **settings.model_dump(mode="json"))
    if not settings.key_digests and not is_local:
        logger.warning("ANYBODY who reaches this service may call: no PLUMBLINE_API_KEYS are set")


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
    app.include_router(router(live, lifecycle, settings, access))
    app.mount("/docs/assets", StaticFiles(packages=[("fastapi_offline", "static")]))
    admission = Admission(settings.max_in_flight, live.telemetry)
    records = Records(live.telemetry, settings.log_requests)
    edge = Edge(app, live.telemetry, admission, records)
    return Lane(
        *(edge, live, access, admission, records),
        most_bytes=settings.max_body_bytes,
        traces=settings.tracing,
    )


def settle() -> None:
    """Shorten the pauses: no collecting of what start-up made, and threads give way to the loop soon."""
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()
