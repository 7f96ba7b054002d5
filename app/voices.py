"""Who tells a caller what went wrong: one voice for all paths below a prefix, whatever it was."""

from collections.abc import Callable
from http import HTTPStatus
from typing import TypeAlias

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.exchange import CLIENT_LEFT
from app.problems import problem
from app.refusals import Refused

# A voice makes an answer of a refusal and the request's id.
Voice: TypeAlias = Callable[[Refused, str], Response]

VOICES: dict[str, Voice] = {"/": problem}


def voice_of(path: str) -> Voice:
    """The voice of the longest prefix that the path is below; that of "/" also for what is no path."""
    return VOICES[max((prefix for prefix in VOICES if is_below(path, prefix)), key=len, default="/")]


def is_below(path: str, prefix: str) -> bool:
    """Whether the path's first segments are the prefix's: /v2 and /v2/models are below /v2, /v20 is not."""
    return f"{path}/".startswith(f"{prefix.rstrip('/')}/")


def voiced(request: Request, refused: Refused) -> Response:
    """The refusal in the voice of the request's path."""
    return voice_of(request.scope["path"])(refused, request.state.request_id)


def install(app: FastAPI) -> None:
    """Have every error of the application said by a voice."""
    app.add_exception_handler(Refused, on_refused)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(ClientDisconnect, on_client_left)
    app.add_exception_handler(Exception, on_defect)


async def on_refused(request: Request, error: Exception) -> Response:
    """A request this service refuses."""
    assert isinstance(error, Refused)
    return voiced(request, error)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """A request the framework refuses: no such path, no such method. OPTIONS only asks for the methods."""
    assert isinstance(error, HTTPException)
    status, headers = HTTPStatus(error.status_code), dict(error.headers or {})
    if allowed := headers.get("Allow"):
        headers["Allow"] = allowed = ", ".join(sorted({*allowed.split(", "), "OPTIONS"} | heads(allowed)))
        if request.method == "OPTIONS":
            return Response(status_code=HTTPStatus.NO_CONTENT, headers=headers)
    return voiced(request, Refused(status, status.description, headers=headers))


async def on_client_left(_request: Request, _error: Exception) -> Response:
    """A caller who left before the request was whole; what is sent goes nowhere."""
    return Response(status_code=CLIENT_LEFT)


def heads(allowed: str) -> set[str]:
    """HEAD, where GET is allowed (RFC 9110, section 9.3.2)."""
    return {"HEAD"} if "GET" in allowed.split(", ") else set()


async def on_defect(request: Request, _error: Exception) -> Response:
    """A defect of this service; the server's log has the traceback."""
    return voiced(request, Refused(HTTPStatus.INTERNAL_SERVER_ERROR, "The service failed; its log says why."))
