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

from app import problems
from app.access import Access
from app.csv_stream import CSV, TSV, answer_csv
from app.lifecycle import Lifecycle
from app.live import Live
from app.page import page
from app.problems import Fault, Refused
from app.protocol import SMALL_BODY, conditional, read_body
from app.schemas import Health, Versions
from app.serving import Served
from app.settings import Settings
from model_store.answers import Tally
from model_store.errors import NothingPromoted, PromotionInvalid, StoreError

T = TypeVar("T")
JSON, HTML, PLAIN = "application/json", "text/html; charset=utf-8", "text/plain; version=0.0.4"


def schema(name: str) -> dict[str, Any]:
    """One of `schemas.components`, in the OpenAPI document."""
    return {"schema": {"$ref": f"#/components/schemas/{name}"}}


def body(name: str, media_type: str = JSON) -> dict[str, Any]:
    """A request's or an answer's body in the OpenAPI document."""
    return {"content": {media_type: schema(name)}}


def problem(description: str) -> dict[str, Any]:
    """An error in the OpenAPI document."""
    return {"description": description, **body("Problem", problems.MEDIA_TYPE)}


def header(name: str, description: str, kind: str = "string") -> dict[str, Any]:
    """A header of an answer in the OpenAPI document."""
    return {"headers": {name: {"description": description, "schema": {"type": kind}}}}


CSV_BODY = {CSV: {"schema": {"type": "string", "description": "The columns' names, then a row a line."}}}
NOT_READY: dict[int | str, dict[str, Any]] = {
    503: problem("No verified version is loaded yet.") | header("Retry-After", "Seconds to wait.", "integer")
}
NO_STORE: dict[int | str, dict[str, Any]] = {
    503: problem("No verified version is loaded yet, or the store cannot be read.")
}
ETAG = header("ETag", "Changes with what is sent; for If-None-Match.")
KNOWN: dict[int | str, dict[str, Any]] = {
    304: {"description": "It is what If-None-Match names.", **ETAG},
    **NOT_READY,
}
REFUSALS: dict[int | str, dict[str, Any]] = {
    400: problem("The body is not JSON, or an empty CSV."),
    413: problem("The body is too large, or has too many rows."),
    415: problem("The body is compressed."),
    422: problem("The body can be read, but is not what the schema asks for; `errors` says where."),
    **NOT_READY,
}
HEALTH: dict[int | str, dict[str, Any]] = {200: {"description": "It is so.", **body("Health")}}
READINESS = HEALTH | {503: {"description": "It is not so; `detail` says what fails.", **body("Health")}}
TEXT_HTML = {"text/html": {"schema": {"type": "string"}}}
METRICS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}}
}
EXPLAIN = {
    "name": "explain",
    "in": "query",
    "description": "Take the prediction apart: a baseline and what each input adds to it.",
    "schema": {"type": "boolean", "default": False},
}
SECURITY = {"type": "http", "scheme": "bearer", "description": "A key of the service."}


def router(live: Live, lifecycle: Lifecycle, settings: Settings, access: Access) -> APIRouter:
    """All routes: those behind a key, where keys are asked for, and the open ones."""
    routes = APIRouter(default_response_class=Response)
    refused_keys: dict[int | str, dict[str, Any]] = (
        {401: problem("A key is due.")} if access.is_restricted else {}
    )

    keyed = APIRouter(
        default_response_class=Response, dependencies=[Depends(access.check)], responses=refused_keys
    )
    add_predictions(keyed, live, settings)
    add_metadata(keyed, live)
    routes.include_router(keyed)
    add_health(routes, live, lifecycle)
    metrics_dependencies = [] if settings.metrics_open else [Depends(access.check)]

    @routes.get(
        "/metrics",
        operation_id="metrics",
        dependencies=metrics_dependencies,
        responses=METRICS if settings.metrics_open else METRICS | refused_keys,
        openapi_extra={"security": []} if settings.metrics_open else None,
    )
    async def metrics() -> Response:
        """Give the service's metrics in Prometheus' text format."""
        return Response(live.telemetry.page(), media_type=PLAIN)

    add_documentation(routes, live, access)
    return routes


def add_predictions(routes: APIRouter, live: Live, settings: Settings) -> None:
    """The routes that predict."""

    @routes.post(
        "/predict",
        operation_id="predict",
        openapi_extra={"requestBody": {"required": True, **body("Row")}, "parameters": [EXPLAIN]},
        responses={
            200: {"description": "The prediction.", **either("ExplainedPrediction", "Prediction")},
            **REFUSALS,
        },
    )
    async def predict(request: Request) -> Response:
        """Predict for one row."""
        served, explained = live.current(), wants_explanation(request)
        row = await read_body(request, settings.max_body_bytes)
        prediction = await (
            asyncio.to_thread(served.explain, row) if explained else off_loop(served.predict, row)
        )
        live.telemetry.row(served.tenth(prediction.prediction), prediction.out_of_range)
        note(request, served, rows=1)
        return Response(served.encode(prediction), media_type=JSON)

    @routes.post(
        "/predict/batch",
        operation_id="predict_batch",
        openapi_extra={"requestBody": {"required": True, "content": {JSON: schema("Batch"), **CSV_BODY}}},
        responses={
            200: {
                "description": "The predictions, in order; for a CSV its own lines with columns added.",
                "content": {JSON: schema("BatchPrediction"), **CSV_BODY},
            },
            **REFUSALS,
        },
    )
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


def add_metadata(routes: APIRouter, live: Live) -> None:
    """The routes that tell what is served."""

    @routes.get(
        "/model",
        operation_id="model",
        responses={200: {"description": "The served version.", **body("ServedModel"), **ETAG}, **KNOWN},
    )
    async def model(request: Request) -> Response:
        """Describe the served version: inputs, target, training, scores, digest."""
        served = live.current()
        return conditional(request, served.description, JSON)

    @routes.get(
        "/model/versions",
        operation_id="model_versions",
        responses={200: {"description": "The versions.", **body("Versions")}, **NO_STORE},
    )
    async def versions() -> Response:
        """List the versions in the store, and say which is promoted and which answers."""
        return Response(await asyncio.to_thread(list_versions, live), media_type=JSON)

    @routes.get(
        "/model/report",
        operation_id="model_report",
        responses={
            200: {"description": "The report.", "content": TEXT_HTML, **ETAG},
            404: problem("The served version has no report."),
            **KNOWN,
        },
    )
    async def report(request: Request) -> Response:
        """Give the served version's report, one page with pictures."""
        served = live.current()
        if served.report is None:
            raise Refused(HTTPStatus.NOT_FOUND, "The served version has no report.")
        return conditional(request, served.report, HTML)


def add_health(routes: APIRouter, live: Live, lifecycle: Lifecycle) -> None:
    """The routes that probes ask; no key is asked for."""
    unkeyed: dict[str, Any] = {"security": []}

    @routes.get("/livez", operation_id="live", responses=HEALTH, openapi_extra=unkeyed)
    async def livez() -> Response:
        """Tell that the process answers."""
        return health(Health("live"))

    @routes.get("/readyz", operation_id="ready", responses=READINESS, openapi_extra=unkeyed)
    async def readyz() -> Response:
        """Tell which verified version is served, and what keeps a newer one from it; 503 before the end."""
        if lifecycle.is_draining:
            return health(Health("not ready", detail="it is about to end"), HTTPStatus.SERVICE_UNAVAILABLE)
        return readiness(live, "ready", "not ready")

    @routes.get("/healthz", operation_id="health", responses=READINESS, openapi_extra=unkeyed)
    async def healthz() -> Response:
        """Tell both."""
        return readiness(live, "healthy", "unhealthy")


def add_documentation(routes: APIRouter, live: Live, access: Access) -> None:
    """The OpenAPI document and the pages; open, since a browser shows no key: the pages ask for it."""

    @lru_cache(maxsize=1)
    def document(served: Served) -> bytes:
        return served.openapi(routes.routes, SECURITY if access.is_restricted else None)

    @routes.get("/openapi.json", include_in_schema=False)
    async def openapi(request: Request) -> Response:
        """The OpenAPI document for the served version."""
        served = live.current()
        return conditional(request, await asyncio.to_thread(document, served), JSON)

    @routes.get("/", include_in_schema=False)
    async def index(request: Request) -> Response:
        """Show the served version: a page for a browser, the body of /model for everybody else."""
        served = live.current()
        if "text/html" in request.headers.get("accept", ""):
            shown = page(served, is_restricted=access.is_restricted)
            answer = conditional(request, shown.encode(), HTML)
        else:
            await access.check(request)
            answer = conditional(request, served.description, JSON)
        answer.headers["Vary"] = "Accept"
        return answer

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


def either(*names: str) -> dict[str, Any]:
    """One of several bodies in the OpenAPI document, fullest first: clients take the first that fits."""
    return {"content": {JSON: {"schema": {"anyOf": [schema(name)["schema"] for name in names]}}}}


def media_type(request: Request) -> str:
    """What the request says its body is, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def wants_explanation(request: Request) -> bool:
    """The query's `explain`; raises Refused unless it is true or false."""
    given = request.query_params.getlist("explain")
    if given not in ([], ["true"], ["false"]):
        detail = "The query's 'explain' is true or false."
        raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, detail, [Fault("", "explain: true or false is due")])
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


def list_versions(live: Live) -> bytes:
    """The body of `GET /model/versions`; raises Refused if the store does not answer."""
    served = live.current()
    try:
        numbers = live.store.versions(served.name)
        promoted: str | None = str(live.store.promoted(served.name).version)
    except (NothingPromoted, PromotionInvalid):
        promoted = None
    except StoreError:
        detail = "The store cannot be read; the served version goes on answering."
        raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, detail) from None
    return msgspec.json.encode(
        Versions(served.name, served.version, promoted, [str(number) for number in numbers])
    )


def readiness(
    live: Live, good: Literal["ready", "healthy"], bad: Literal["not ready", "unhealthy"]
) -> Response:
    """A health answer that depends on there being a version: 200, or 503 with what fails."""
    if live.served is None:
        return health(Health(bad, detail=live.trouble), HTTPStatus.SERVICE_UNAVAILABLE)
    return health(Health(good, live.served.name, live.served.version, live.trouble))


def health(answer: Health, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """A health answer, which nobody should keep."""
    return Response(msgspec.json.encode(answer), status, {"Cache-Control": "no-store"}, JSON)
