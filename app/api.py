"""Every route of the service. They translate HTTP and compute nothing."""

import asyncio
from collections.abc import Callable
from functools import lru_cache, partial
from http import HTTPStatus
from typing import Any, Literal, TypeVar

import msgspec
from fastapi import APIRouter, Depends, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse

from app import openapi
from app.access import Access
from app.bodies import SMALL_BODY, read_body
from app.catalogue import Catalogue
from app.conditional import conditional
from app.csv_stream import CSV, TSV, answer_csv
from app.lifecycle import Lifecycle
from app.live import Live
from app.openapi import JSON
from app.page import page_html
from app.refusals import Fault, Refused
from app.schemas import Health
from app.serving import Served
from app.settings import Settings
from model_store.answers import Tally

T = TypeVar("T")
HTML, PLAIN = "text/html; charset=utf-8", "text/plain; version=0.0.4"


def router(
    live: Live, catalogue: Catalogue, lifecycle: Lifecycle, settings: Settings, access: Access
) -> APIRouter:
    """All routes: those behind a key, where keys are asked for, and the open ones."""
    routes = APIRouter(default_response_class=Response)
    keyed = APIRouter(
        default_response_class=Response,
        dependencies=[Depends(access.check)],
        responses=openapi.KEY_REFUSED if access.is_restricted else None,
    )
    add_predictions(keyed, live, settings)
    add_metadata(keyed, live, catalogue)
    if settings.metrics_open:
        add_metrics(routes, live, openapi.OPEN_METRICS)
    else:
        add_metrics(keyed, live, openapi.METRICS)
    routes.include_router(keyed)
    add_health(routes, live, lifecycle)
    add_documentation(routes, live, access)
    return routes


def add_predictions(routes: APIRouter, live: Live, settings: Settings) -> None:
    """The routes that predict."""

    @routes.post("/predict", **openapi.PREDICT)
    async def predict(request: Request) -> Response:
        """Predict for one row."""
        served, explained = live.current(), wants_explanation(request)
        row = await read_body(request, settings.max_body_bytes)
        prediction = await (
            asyncio.to_thread(served.predict_explained, row) if explained else off_loop(served.predict, row)
        )
        live.telemetry.row(served.tenth(prediction.prediction), prediction.out_of_range)
        note(request, served, rows=1)
        return Response(served.encode(prediction), media_type=JSON)

    @routes.post("/predict/batch", **openapi.PREDICT_BATCH)
    async def predict_batch(request: Request) -> Response:
        """Predict for many rows, given as instances, as columns or as a CSV of any length."""
        served = live.current()
        if "explain" in request.query_params:
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "Only /predict explains, one row at a time.")
        if media_type(request) in {CSV, TSV}:
            return await answer_csv(served, request, partial(count, request, served))
        rows = await read_body(request, settings.max_body_bytes)
        content, tally = await off_loop(served.predict_batch, rows)
        count(request, served, tally)
        return Response(content, media_type=JSON)

    def count(request: Request, served: Served, tally: Tally) -> None:
        live.telemetry.rows(tally)
        note(request, served, rows=sum(tally.tenths) + tally.refused)


def add_metadata(routes: APIRouter, live: Live, catalogue: Catalogue) -> None:
    """The routes that tell what is served."""

    @routes.get("/model", **openapi.MODEL)
    async def model(request: Request) -> Response:
        """Describe the served version: inputs, target, training, scores, digest."""
        served = live.current()
        return conditional(request, served.model_body, JSON)

    @routes.get("/model/versions", **openapi.MODEL_VERSIONS)
    async def versions() -> Response:
        """List the versions in the store, and say which is promoted and which answers."""
        return Response(msgspec.json.encode(await catalogue.versions()), media_type=JSON)

    @routes.get("/model/report", **openapi.MODEL_REPORT)
    async def report(request: Request) -> Response:
        """Give the served version's report, one page with pictures."""
        served = live.current()
        if served.report is None:
            raise Refused(HTTPStatus.NOT_FOUND, "The served version has no report.")
        return conditional(request, served.report, HTML)


def add_metrics(routes: APIRouter, live: Live, operation: dict[str, Any]) -> None:
    """The route that Prometheus asks."""

    @routes.get("/metrics", **operation)
    async def metrics() -> Response:
        """Give the service's metrics in Prometheus' text format."""
        return Response(live.telemetry.exposition(), media_type=PLAIN)


def add_health(routes: APIRouter, live: Live, lifecycle: Lifecycle) -> None:
    """The routes that probes ask; no key is asked for."""

    @routes.get("/livez", **openapi.LIVE)
    async def livez() -> Response:
        """Tell that the process answers."""
        return health(Health("live"))

    @routes.get("/readyz", **openapi.READY)
    async def readyz() -> Response:
        """Tell which verified version is served, and what keeps a newer one from it; 503 before the end."""
        if lifecycle.is_draining:
            return health(Health("not ready", detail="it is about to end"), HTTPStatus.SERVICE_UNAVAILABLE)
        return readiness(live, "ready", "not ready")

    @routes.get("/healthz", **openapi.HEALTH)
    async def healthz() -> Response:
        """Tell both."""
        return readiness(live, "healthy", "unhealthy")


def add_documentation(routes: APIRouter, live: Live, access: Access) -> None:
    """The OpenAPI document and the pages; open, since a browser shows no key: the pages ask for it."""

    @lru_cache(maxsize=1)
    def document(served: Served) -> bytes:
        return openapi.document(served, routes.routes, is_restricted=access.is_restricted)

    @routes.get("/openapi.json", include_in_schema=False)
    async def openapi_json(request: Request) -> Response:
        """The OpenAPI document for the served version."""
        served = live.current()
        return conditional(request, await asyncio.to_thread(document, served), JSON)

    @routes.get("/", include_in_schema=False)
    async def index(request: Request) -> Response:
        """Show the served version: a page for a browser, the body of /model for everybody else."""
        served = live.current()
        if "text/html" in request.headers.get("accept", ""):
            shown = page_html(served, is_restricted=access.is_restricted)
            response = conditional(request, shown.encode(), HTML)
        else:
            await access.check(request)
            response = conditional(request, served.model_body, JSON)
        response.headers["Vary"] = "Accept"
        return response

    @routes.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        """The documentation page; its addresses are relative, so it works behind any prefix."""
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title=live.current().name,
            swagger_js_url="docs/assets/swagger-ui-bundle.js",
            swagger_css_url="docs/assets/swagger-ui.css",
            swagger_favicon_url="docs/assets/favicon.png",
            swagger_ui_parameters={"validatorUrl": None},
        )


def media_type(request: Request) -> str:
    """What the request says its body is, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def wants_explanation(request: Request) -> bool:
    """The query's `explain`; raises Refused (422) unless it is true or false."""
    given = request.query_params.getlist("explain")
    if given not in ([], ["true"], ["false"]):
        fault = Fault("", "explain: true or false is expected")
        raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "The query's 'explain' is true or false.", [fault])
    return given == ["true"]


def note(request: Request, served: Served, *, rows: int) -> None:
    """Note for the log what answers, and add that many rows."""
    request.state.version = served.version
    request.state.rows = getattr(request.state, "rows", 0) + rows


async def off_loop(work: Callable[[bytes], T], request_body: bytes) -> T:
    """Do the work here if it is small, in a thread if it would hold up others."""
    return (
        work(request_body) if len(request_body) <= SMALL_BODY else await asyncio.to_thread(work, request_body)
    )


def readiness(
    live: Live, good: Literal["ready", "healthy"], bad: Literal["not ready", "unhealthy"]
) -> Response:
    """A health answer that depends on there being a version: 200, or 503 with what fails."""
    if live.served is None:
        return health(Health(bad, detail=live.trouble), HTTPStatus.SERVICE_UNAVAILABLE)
    return health(Health(good, live.served.name, live.served.version, live.trouble))


def health(state: Health, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """A health answer, which nobody should keep."""
    return Response(msgspec.json.encode(state), status, {"Cache-Control": "no-store"}, JSON)
