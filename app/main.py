"""The composition root: settings, store, version, application.

`uvicorn --factory app.main:build` starts it, as `python -m app` does.
"""

import gc
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from pydantic import ValidationError
from starlette.staticfiles import StaticFiles

from app import problems
from app.api import router
from app.serving import Served, load_served
from app.settings import Settings, first_fault
from model_store.errors import StoreError


def build() -> FastAPI:
    """Make the application from `PLUMBLINE_…` variables; without a version to serve, exit with a sentence."""
    try:
        settings = Settings()
        return create_app(load_served(settings.store, settings.name), settings)
    except ValidationError as error:
        sys.exit(f"error: {first_fault(error)}")
    except StoreError as error:
        sys.exit(f"error: {error}")


def create_app(served: Served, settings: Settings) -> FastAPI:
    """Make the application that answers from `served`."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=settled)
    problems.install(app)
    app.include_router(router(served, settings.max_body_bytes))
    app.mount("/docs/assets", StaticFiles(packages=[("fastapi_offline", "static")]))
    return app


@asynccontextmanager
async def settled(_app: FastAPI) -> AsyncIterator[None]:
    """Put what start-up made out of the garbage collector's sight, which shortens its pauses."""
    gc.collect()
    gc.freeze()
    yield
