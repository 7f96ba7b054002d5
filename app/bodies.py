"""The bodies of requests: read whole up to a limit, never inflated."""

from http import HTTPStatus

from starlette.requests import Request

from app.refusals import Refused

SMALL_BODY = 2**15


async def read_body(request: Request, limit: int) -> bytes:
    """The request's body of at most `limit` bytes, whatever its Content-Type says.

    Raises Refused: 413 for a longer one, of which no more is read, 415 for a compressed one.
    """
    refuse_compressed(request)
    declared = request.headers.get("content-length", "0")
    body = bytearray()
    if int(declared) <= limit:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                break
        else:
            return bytes(body)
    raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A body of at most {limit} bytes is expected.")


def refuse_compressed(request: Request) -> None:
    """Raise Refused (415) for a body that would have to be inflated."""
    if request.headers.get("content-encoding", "").lower() not in {"", "identity"}:
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send the body without Content-Encoding.")
