"""Conditional requests (RFC 9110, section 13): who has an answer already is told so and sent nothing more."""

import hashlib
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response


def is_unchanged(request: Request, etag: str) -> bool:
    """Whether the caller has this very representation already (If-None-Match, RFC 9110, section 13.1.2)."""
    given = ",".join(request.headers.getlist("if-none-match"))
    known = {tag.strip().removeprefix("W/") for tag in given.split(",")}
    return etag in known or "*" in known


def conditional(request: Request, content: bytes, media_type: str) -> Response:
    """The content with its SHA-256 as strong ETag, or 304 if the caller has it."""
    etag = f'"{hashlib.sha256(content).hexdigest()}"'
    headers = {"ETag": etag, "Cache-Control": "no-cache"}
    if is_unchanged(request, etag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(content, headers=headers, media_type=media_type)
