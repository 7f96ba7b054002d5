"""Why a request is refused, in plain values: a voice makes an answer of them."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from itertools import islice

from msgspec import Struct

MOST_FAULTS = 10


class Fault(Struct, frozen=True):
    """One thing that is wrong with a request, and the JSON Pointer (RFC 6901) of where."""

    pointer: str
    detail: str


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
        self.status, self.detail = status, detail
        self.faults = list(islice(faults, MOST_FAULTS))
        self.headers = headers


def unacceptable(faults: Iterable[Fault]) -> Refused:
    """What is raised (422) for a body that can be read, but has these faults."""
    detail = "The request is not what the schema at /openapi.json asks for."
    return Refused(HTTPStatus.UNPROCESSABLE_ENTITY, detail, faults)
