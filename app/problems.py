"""Refusals as `application/problem+json` (RFC 9457): what is wrong, where, and never the input itself."""

import msgspec
from starlette.responses import Response

from app.refusals import Fault, Refused

MOST_BYTES = 4096
MEDIA_TYPE = "application/problem+json"


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of every error."""

    title: str
    status: int
    detail: str
    errors: list[Fault] = []
    request_id: str | None = None


def problem(refused: Refused, request_id: str) -> Response:
    """The refusal as a response of at most 4 KiB; faults that do not fit are left out."""
    said = Problem(refused.status.phrase, refused.status, refused.detail, refused.faults, request_id)
    while len(content := msgspec.json.encode(said)) > MOST_BYTES and said.errors:
        said = msgspec.structs.replace(said, errors=said.errors[:-1])
    return Response(content, refused.status, refused.headers, MEDIA_TYPE)
