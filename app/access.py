"""Who may call: the holders of a key, whose SHA-256 the settings have; anybody, if they have none."""

import hashlib
import hmac
from collections.abc import Collection
from http import HTTPStatus

from starlette.requests import HTTPConnection

from app.refusals import Refused


class Access:
    """Checks `Authorization: Bearer KEY` (RFC 6750) against the digests of the keys."""

    def __init__(self, digests: Collection[str]) -> None:
        self._digests = [bytes.fromhex(digest) for digest in digests]

    @property
    def is_restricted(self) -> bool:
        """Whether a key is asked for at all."""
        return bool(self._digests)

    async def check(self, connection: HTTPConnection) -> None:
        """Raise Refused (401) unless the request has a known key."""
        given = connection.headers.get("authorization")
        if not self.allows(None if given is None else given.encode("latin-1")):
            raise Refused(
                HTTPStatus.UNAUTHORIZED,
                "A key is expected: Authorization: Bearer KEY.",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def allows(self, authorization: bytes | None) -> bool:
        """Whether the header's value has a known key; comparing takes the same time for each."""
        if not self._digests:
            return True
        scheme, _, key = (authorization or b"").partition(b" ")
        given = hashlib.sha256(key.strip()).digest()
        matches = [hmac.compare_digest(given, digest) for digest in self._digests]
        return scheme.lower() == b"bearer" and any(matches)
