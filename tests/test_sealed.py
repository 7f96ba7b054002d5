from typing import Any

import pytest

from model_store._sealed import dump, is_sealed, parse
from model_store.parts import Part
from tests.toys import sealed_json


class Inner(Part):
    """What ends with a brace of its own."""

    share: float


class Note(Part):
    """A small document."""

    number: int
    text: str
    inner: Inner


NOTE = Note(number=7, text="“quoted”\n\ttabbed", inner=Inner(share=0.1))
FIELDS: dict[str, Any] = NOTE.model_dump()
SEALED = sealed_json(FIELDS)
PLAIN = NOTE.model_dump_json(indent=2).encode()


def refusal(content: bytes) -> str:
    """The one line that a refused document is told."""
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as refused:
        parse(Note, content)
    return str(refused.value)


def test_a_document_ends_with_the_sha256_of_all_before_it() -> None:
    assert dump(NOTE) == SEALED
    assert is_sealed(SEALED)


def test_a_sealed_document_is_read_again() -> None:
    assert parse(Note, SEALED) == NOTE


@pytest.mark.parametrize("content", [PLAIN, PLAIN + b"\n", NOTE.model_dump_json().encode()])
def test_a_document_from_before_there_were_checksums_is_read(content: bytes) -> None:
    assert not is_sealed(content)
    assert parse(Note, content) == NOTE


def test_every_flipped_bit_is_refused() -> None:
    for bit in range(len(SEALED) * 8):
        flipped = bytearray(SEALED)
        flipped[bit // 8] ^= 1 << bit % 8
        assert refusal(bytes(flipped))


def test_every_truncation_is_refused() -> None:
    for length in range(len(SEALED)):
        assert refusal(SEALED[:length])


def test_every_truncation_at_the_front_is_refused() -> None:
    for length in range(1, len(SEALED)):
        assert refusal(SEALED[length:])


@pytest.mark.parametrize("byte", [b" ", b"\n", b"\r\n", b"\x00", b"{", b"}", SEALED], ids=repr)
def test_anything_before_or_after_is_refused(byte: bytes) -> None:
    assert refusal(SEALED + byte)
    assert refusal(byte + SEALED)


def test_a_blank_added_inside_is_refused() -> None:
    for place in range(1, len(SEALED)):
        assert refusal(SEALED[:place] + b" " + SEALED[place:])


@pytest.mark.parametrize("checksum", [b"0" * 64, b"", b"0" * 63, b"A" * 64, b"0" * 65], ids=repr)
def test_another_checksum_is_refused(checksum: bytes) -> None:
    start = SEALED.rindex(b'"checksum": "') + len(b'"checksum": "')
    assert "checksum" in refusal(SEALED[:start] + checksum + SEALED[start + 64 :])


def test_a_checksum_anywhere_but_at_the_end_is_refused() -> None:
    checksum = SEALED[SEALED.rindex(b'"checksum"') :].partition(b"\n")[0]
    assert "checksum" in refusal(b"{\n  " + checksum + b"," + PLAIN[1:])


def test_a_right_checksum_does_not_excuse_a_wrong_document() -> None:
    assert refusal(sealed_json(FIELDS | {"number": "7"})).startswith("number: ")
    assert refusal(sealed_json(FIELDS | {"inner": {}})).startswith("inner.share: ")
    assert refusal(sealed_json(FIELDS | {"colour": "red"})).startswith("colour: ")
    assert refusal(sealed_json({"number": 7})).startswith("text: ")
    assert refusal(sealed_json(FIELDS | {"checksum": "0" * 64})).startswith("checksum: ")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"null",
        b"[]",
        b"{}",
        b"7",
        b"\xff\xfe",
        b"{" * 100_000,
        b'{"a":' * 100_000,
        b"\x00" * 1000,
    ],
    ids=lambda content: repr(content[:10]),
)
def test_what_is_no_such_document_is_refused_in_one_line(content: bytes) -> None:
    assert len(refusal(content)) < 200


@pytest.mark.parametrize(
    "name", ["two\nlines", "\x1b[31mred", "x" * 100_000], ids=lambda name: ascii(name[:10])
)
def test_a_strange_member_is_named_in_one_short_printable_line(name: str) -> None:
    sentence = refusal(sealed_json(FIELDS | {name: 1}))
    assert sentence.isprintable()
    assert len(sentence) < 1000
