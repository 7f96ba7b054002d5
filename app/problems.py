"""Errors as `application/problem+json` (RFC 9457): what is wrong, where, and never the input itself."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from itertools import islice

import msgspec
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

MOST_FAULTS = 10
MOST_BYTES = 4096
MEDIA_TYPE = "application/problem+json"
# No status of HTTP's, which has none for it, but nginx's: the caller did not wait for an answer.
CLIENT_LEFT = 499


class Fault(msgspec.Struct, frozen=True):
    """One thing that is wrong with a request, and the JSON Pointer (RFC 6901) of where."""

    pointer: str
    detail: str


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of every error."""

    title: str
    status: int
    detail: str
    errors: list[Fault] = []
    request_id: str | None = None


class Refused(Exception):
    """A request that gets an error for an answer; `faults` are cut to the first ten."""

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        faults: Iterable[Fault] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.problem = Problem(status.phrase, status, detail, list(islice(faults, MOST_FAULTS)))
        self.headers = headers


def unacceptable(faults: Iterable[Fault]) -> Refused:
    """What is raised (422) for a body that can be read, but has these faults."""
    detail = "The request is not what the schema at /openapi.json asks for."
    return Refused(HTTPStatus.UNPROCESSABLE_ENTITY, detail, faults)


def answer(request: Request, problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """The problem as a response of at most 4 KiB; faults that do not fit are left out."""
    problem = msgspec.structs.replace(problem, request_id=getattr(request.state, "request_id", None))
    while len(content := msgspec.json.encode(problem)) > MOST_BYTES and problem.errors:
        problem = msgspec.structs.replace(problem, errors=problem.errors[:-1])
    return Response(content, problem.status, headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Make every error of the application a problem."""
    app.add_exception_handler(Refused, on_refused)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(ClientDisconnect, on_client_left)
    app.add_exception_handler(Exception, on_defect)


async def on_refused(request: Request, error: Exception) -> Response:
    """A request this service refuses."""
    assert isinstance(error, Refused)
    return answer(request, error.problem, error.headers)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """A request the framework refuses: no such path, no such method. OPTIONS only asks for the methods."""
    assert isinstance(error, HTTPException)
    status, headers = HTTPStatus(error.status_code), dict(error.headers or {})
    if allowed := headers.get("Allow"):
        headers["Allow"] = allowed = ", ".join(sorted({*allowed.split(", "), "OPTIONS"} | heads(allowed)))
        if request.method == "OPTIONS":
            return Response(status_code=HTTPStatus.NO_CONTENT, headers=headers)
    return answer(request, Problem(status.phrase, status, status.description), headers)


async def on_client_left(_request: Request, _error: Exception) -> Response:
    """A caller who left before the request was whole; what is sent goes nowhere."""
    return Response(status_code=CLIENT_LEFT)


def heads(allowed: str) -> set[str]:
    """HEAD, where GET is allowed (RFC 9110, section 9.3.2)."""
    return {"HEAD"} if "GET" in allowed.split(", ") else set()


async def on_defect(request: Request, _error: Exception) -> Response:
    """A defect of this service; the server's log has the traceback."""
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    return answer(request, Problem(status.phrase, status, "The service failed; its log says why."))
