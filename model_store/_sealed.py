"""JSON documents that show they are whole: the last member is the SHA-256 of every byte before it."""

import hashlib
import re
from typing import TypeVar

from pydantic import BaseModel, ValidationError

CHECKSUM = re.compile(rb',\n  "checksum": "([0-9a-f]{64})"\n\}\n\Z')

LONGEST_NAME = 400

Document = TypeVar("Document", bound=BaseModel)


def dump(document: BaseModel) -> bytes:
    """A document as indented JSON with a checksum at its end."""
    body = document.model_dump_json(indent=2).encode().removesuffix(b"\n}")
    return body + b',\n  "checksum": "%b"\n}\n' % hashlib.sha256(body).hexdigest().encode()


def is_sealed(content: bytes) -> bool:
    """Whether a document ends with a checksum."""
    return CHECKSUM.search(content, max(0, len(content) - 100)) is not None


def parse(kind: type[Document], content: bytes) -> Document:
    """Parse a document, whole or written before there were checksums.

    Raises ValueError with one line: the checksum is wrong, or the first field that is.
    """
    body = content
    if found := CHECKSUM.search(content, max(0, len(content) - 100)):
        body = content[: found.start()] + b"\n}"
        if hashlib.sha256(content[: found.start()]).hexdigest().encode() != found[1]:
            message = "its checksum is not its content's"
            raise ValueError(message)
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the document"
        where = where if where.isprintable() else ascii(where)
        message = f"{where[:LONGEST_NAME]}: {first['msg'][:LONGEST_NAME]}"
        raise ValueError(message) from None
