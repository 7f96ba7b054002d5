"""Every route of the service. They translate HTTP and compute nothing."""

from typing import Any, Literal

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse

from app import problems
from app.protocol import read_body
from app.schemas import Health, ServedModel
from app.serving import Served

JSON = "application/json"


def body(schema: str, media_type: str = JSON) -> dict[str, Any]:
    """A request's or an answer's body in the OpenAPI document: one of `schemas.components`."""
    return {"content": {media_type: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}}


def problem(description: str) -> dict[str, Any]:
    """An error in the OpenAPI document."""
    return {"description": description, **body("Problem", problems.MEDIA_TYPE)}


REFUSALS: dict[int | str, dict[str, Any]] = {
    400: problem("The body is not JSON."),
    413: problem("The body is too large."),
    415: problem("The body is compressed."),
    422: problem("The body is JSON, but not what the schema asks for; `errors` says where."),
}


HEALTH: dict[int | str, dict[str, Any]] = {200: {"description": "It is so.", **body("Health")}}


def router(served: Served, max_body_bytes: int) -> APIRouter:
    """All routes, answering from `served`."""
    routes = APIRouter(default_response_class=Response)

    @routes.post(
        "/predict",
        operation_id="predict",
        openapi_extra={"requestBody": {"required": True, **body("Row")}},
        responses={200: {"description": "The prediction.", **body("Prediction")}, **REFUSALS},
    )
    async def predict(request: Request) -> Response:
        """Predict for one row."""
        return Response(served.predict(await read_body(request, max_body_bytes)), media_type=JSON)

    @routes.post(
        "/predict/batch",
        operation_id="predict_batch",
        openapi_extra={"requestBody": {"required": True, **body("Batch")}},
        responses={200: {"description": "The predictions, in order.", **body("BatchPrediction")}, **REFUSALS},
    )
    async def predict_batch(request: Request) -> Response:
        """Predict for many rows, given as instances or as columns."""
        return Response(served.predict_batch(await read_body(request, max_body_bytes)), media_type=JSON)

    @routes.get("/model", operation_id="model", response_class=JSONResponse)
    async def model(response: Response) -> ServedModel:
        """Describe the served version: inputs, target, training, scores, digest."""
        response.headers["ETag"] = f'"{served.digest}"'
        return served.describe()

    @routes.get("/livez", operation_id="live", responses=HEALTH)
    async def livez() -> Response:
        """Tell that the process answers."""
        return health("live")

    @routes.get("/readyz", operation_id="ready", responses=HEALTH)
    async def readyz() -> Response:
        """Tell which verified version is served."""
        return health("ready", served)

    @routes.get("/healthz", operation_id="health", responses=HEALTH)
    async def healthz() -> Response:
        """Tell both."""
        return health("healthy", served)

    @routes.get("/openapi.json", include_in_schema=False)
    async def openapi() -> JSONResponse:
        """The OpenAPI document for the served version."""
        return JSONResponse(served.openapi(routes.routes))

    @routes.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        """The documentation page; its addresses are relative, so it works behind any prefix."""
        return get_swagger_ui_html(
            title=served.name,
            openapi_url="openapi.json",
            swagger_js_url="docs/assets/swagger-ui-bundle.js",
            swagger_css_url="docs/assets/swagger-ui.css",
            swagger_favicon_url="docs/assets/favicon.png",
            swagger_ui_parameters={"validatorUrl": None},
        )

    return routes


def health(status: Literal["live", "ready", "healthy"], served: Served | None = None) -> Response:
    """A health answer, with what is served if that is part of it."""
    name, version = (served.name, served.version) if served else (None, None)
    return Response(msgspec.json.encode(Health(status, name, version)), media_type=JSON)
