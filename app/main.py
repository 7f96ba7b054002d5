"""The composition root: settings, store, version, application.

`uvicorn --factory app.main:build` starts it, as `python -m app` does.
"""

import asyncio
import gc
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI
from pydantic import ValidationError
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from app import problems
from app.access import Access
from app.api import router
from app.lane import Lane
from app.live import Live
from app.protocol import Edge
from app.settings import Settings, first_fault, unknown_variables
from app.telemetry import Telemetry
from model_store.errors import StoreError
from model_store.store import open_store

logger = logging.getLogger("plumbline")

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


def build_from(settings: Settings) -> ASGIApp:
    """Make the application, with a version if there is one to serve now; raises StoreError for no store."""
    configure_logging(settings.log_level)
    live = Live(open_store(settings.store), Telemetry(), settings)
    live.start()
    return create_app(live, settings)


def configure_logging(level: str) -> None:
    """Write the service's log lines to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(level.upper())


def log_settings(settings: Settings, *, is_local: bool) -> None:
    """Log the settings without their secrets, and loudly that anybody may call, if so."""
    logger.info("settings %s", json.dumps(settings.model_dump(mode="json")))
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

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        settle()
        following = asyncio.create_task(live.follow(settings.refresh_seconds))
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, live.wake)
        yield
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following

    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=lifespan)
    problems.install(app)
    access = Access(settings.key_digests)
    app.include_router(router(live, settings, access))
    app.mount("/docs/assets", StaticFiles(packages=[("fastapi_offline", "static")]))
    return Lane(Edge(app, live.telemetry), live, access)


def settle() -> None:
    """Shorten the pauses: no collecting of what start-up made, and threads give way to the loop soon."""
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()
