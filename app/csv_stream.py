"""A CSV in, the same CSV out with `prediction`, `lower`, `upper` and `error` added, in bounded memory.

Its form is found out as training finds it out, and kept: encoding, separator, decimal mark, line ends. Cells
are read as training read them, units and all. A row that cannot be answered has an empty prediction and says
why in its `error`; the others are answered, with empty bounds where an input is so far outside training that
no interval can be claimed. A line that is no row, because a quote in it does not close or it has too many
cells, comes back whole in the first column.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from dataclasses import replace
from http import HTTPStatus
from itertools import chain, compress, count, repeat

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request

from app.bodies import refuse_compressed
from app.faults import expected
from app.refusals import MOST_FAULTS, Fault, Refused
from app.schemas import encode_numbers
from app.serving import Served
from app.spool import Streamed, is_forwarded
from model_store.answers import Tally
from model_store.columns import Column, Feature, Matrix
from model_store.forms import Form, FormOptions, known_encoding
from model_store.names import MOST_COMPARED, nearest_name
from model_store.records import Layout, Records, escaped
from model_store.sniffing import PREFIX_BYTES, recognised, sniff, value_of

ADDED = ("prediction", "lower", "upper", "error")
BLOCK_BYTES, BLOCK_RECORDS = 2**16, 2**14
CSV, TSV = "text/csv", "text/tab-separated-values"
OVERFLOWS = "the inputs are so far outside their training range that the prediction overflows"
EMPTY = "The CSV is empty: a line with the columns' names is expected."
NO_NAMES = "The first line does not name the columns that the model needs."
ONE_LINE = " It is the only line: curl's -d takes line ends away, --data-binary keeps them."
NUMBERS_ALONE = " It holds numbers alone: for a table without a header say text/csv; header=absent."


async def answer_csv(served: Served, request: Request, count: Callable[[Tally], None]) -> Streamed:
    """Answer a table of text while it arrives, and have its rows counted, block by block.

    Raises Refused before anything is sent: 400 for an empty body, 415 for one that is no text or of an
    unknown charset, 422 for a column that is missing.
    """
    refuse_compressed(request)
    kind, options = said_of(request.headers.get("content-type", ""))
    chunks = byte_blocks(request.stream())
    start = await anext(chunks)
    refuse_foreign(start)
    prior = served.manifest.training.form
    numbers = {feature.name for feature in served.manifest.features if feature.kind == "numeric"}
    form = await asyncio.to_thread(sniff, start[:PREFIX_BYTES], options, prior, numbers)
    blocks = record_blocks(form, start, chunks)
    blanks, first = await until_header(blocks)
    if not first:
        raise Refused(HTTPStatus.BAD_REQUEST, EMPTY)
    is_alone = not re.search(rb"[\r\n]", start)
    table = await asyncio.to_thread(CsvTable, served, form, first[0], is_alone=is_alone)

    async def completed(block: list[str]) -> bytes:
        lines, tally = await asyncio.to_thread(table.answer, block)
        count(tally)
        return lines

    async def parts() -> AsyncIterator[bytes]:
        yield table.header(blanks) + await completed(first[form.has_header :])
        async for block in blocks:
            yield await completed(block)

    headers = {"X-Model": served.name, "X-Model-Version": served.version}
    return Streamed(parts(), f"{kind}; {table.parameters}", headers, held=is_forwarded(request))


def said_of(content_type: str) -> tuple[str, FormOptions]:
    """The media type, and what its parameters (RFC 7111) say of the table's form.

    Raises Refused (415) for a charset that is not read.
    """
    kind, _, parameters = content_type.partition(";")
    kind = kind.strip().lower()
    said = {name.lower(): value for name, value in re.findall(r'([\w-]+)\s*=\s*"?([^\s";]+)', parameters)}
    try:
        encoding = known_encoding(said["charset"]) if "charset" in said else None
    except ValueError:
        detail = "The charset is none that is read here: send utf-8, utf-16, windows-125x or iso-8859-x."
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail) from None
    has_header = {"present": True, "absent": False}.get(said.get("header", "").lower())
    separator = "\t" if kind == TSV else None
    return kind, FormOptions(encoding=encoding, separator=separator, has_header=has_header)


def refuse_foreign(start: bytes) -> None:
    """Raise Refused (415) for a body that is no table of text."""
    if foreign := recognised(start):
        detail = f"A CSV is expected, and the body looks like {foreign.name}: {foreign.advice}."
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail)


async def byte_blocks(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in blocks long enough to be worth a look, the last of any length."""
    waiting: list[bytes] = []
    length = 0
    async for chunk in chunks:
        waiting.append(chunk)
        length += len(chunk)
        if length >= BLOCK_BYTES:
            yield b"".join(waiting)
            waiting, length = [], 0
    yield b"".join(waiting)


async def record_blocks(form: Form, start: bytes, chunks: AsyncIterator[bytes]) -> AsyncIterator[list[str]]:
    """The records of a CSV, without their line ends, as many at a time as there are in a block of bytes."""
    records = Records(form)
    for block in blocks_of(records.feed(start)):
        yield block
    async for chunk in chunks:
        for block in blocks_of(records.feed(chunk)):
            yield block
    for block in blocks_of(records.end()):
        yield block


def blocks_of(records: list[str]) -> Iterator[list[str]]:
    """The records, not too many at a time."""
    return (records[start : start + BLOCK_RECORDS] for start in range(0, len(records), BLOCK_RECORDS))


async def until_header(blocks: AsyncIterator[list[str]]) -> tuple[int, list[str]]:
    """How many blank lines there are before the header, and what is left of its block from there on."""
    blanks = 0
    async for block in blocks:
        index = next((index for index, record in enumerate(block) if record.strip("\r")), None)
        if index is not None:
            return blanks + index, block[index:]
        blanks += len(block)
    return blanks, []


class CsvTable:
    """Answers the rows of one table of text, whose columns its first record names.

    Raises Refused (422) if an input is missing there, or if the record is alone and seems to hold all rows.
    """

    def __init__(self, served: Served, form: Form, first: str, *, is_alone: bool = False) -> None:
        self._served, self._form, self._first = served, form, first.removesuffix("\r")
        self._separator, self._layout = form.separator, Layout(form, first)
        self._line_end = "\r\n" if form.line_end == "\r\n" else "\n"
        self._check(served.manifest.features, is_alone=is_alone)
        self._positions = [self._layout.names.index(feature.name) for feature in served.manifest.features]

    @property
    def parameters(self) -> str:
        """Those of the answer's media type: its charset, and that it has no header if it has none."""
        charset = self._form.encoding
        if self._form.marked and charset.startswith("utf-16"):
            charset = "utf-16"
        return f"charset={charset}" + ("" if self._form.has_header else "; header=absent")

    def header(self, blanks: int) -> bytes:
        """The header with the names of the added columns behind as many blank lines as stood before it."""
        line = ""
        if self._form.has_header:
            taken = {*self._layout.header, *self._layout.names}
            front, behind = (self._separator * odd for odd in (self._form.row_names, self._form.trailing))
            names = f"{front}{self._first}{behind}"
            added = self._separator.join([names, *(free_name(name, taken) for name in ADDED)])
            line = f"{added}{self._line_end}"
        mark = "\ufeff" if self._form.marked else ""
        return self._form.encode(mark + self._line_end * blanks + line)

    def _check(self, features: Sequence[Feature], *, is_alone: bool) -> None:
        names = self._layout.names
        missing = [feature.name for feature in features if feature.name not in names]
        twice = [feature.name for feature in features if names.count(feature.name) > 1]
        faults = [
            *map(self._missing, missing[:MOST_FAULTS]),
            *(Fault("", f"the column {name!r} comes twice") for name in twice),
        ]
        header = self._layout.header[:MOST_COMPARED]
        numbers = [value_of(name, self._form.decimal) is not None for name in header]
        if faults or (is_alone and any(numbers)):
            detail = NO_NAMES + (ONE_LINE if is_alone else NUMBERS_ALONE if all(numbers) else "")
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, detail, faults)

    def _missing(self, name: str) -> Fault:
        hint = ": one of another case or spelling is there" if nearest_name(name, self._layout.names) else ""
        return Fault("", f"the column {name!r} is missing{hint}")

    def answer(self, records: list[str]) -> tuple[bytes, Tally]:
        """The records' lines with the answers added, and what to count; an empty line stays empty."""
        rows = self._layout.rows(records, self._positions)
        lines, errors = rows.lines, dict(rows.faults)
        if errors:
            lines = [self._layout.widened(line) if k in errors else line for k, line in enumerate(lines)]
        columns, answerable = self._read(rows.cells, rows.whole, errors)
        added, tally = self._added(columns, answerable, errors)
        joined = self._separator.join
        if len(answerable) == len(lines) and not errors:
            completed = list(map(joined, zip(lines, *added, repeat(""), strict=False)))
        else:
            ends = dict(zip(answerable, map(joined, zip(*added, repeat(""), strict=False)), strict=True))
            ends |= {k: f'{self._separator * 3}"{escaped(error)}"' for k, error in errors.items()}
            completed = [f"{line}{self._separator}{ends[k]}" if line else "" for k, line in enumerate(lines)]
        content = self._form.encode(self._line_end.join([*completed, ""]))
        return content, replace(tally, refused=len(errors))

    def _read(
        self, cells: Sequence[Sequence[str]], whole: Sequence[int], errors: dict[int, str]
    ) -> tuple[dict[str, Column], Sequence[int]]:
        """The columns of the rows that can be read, and the indices of those; why not goes into `errors`."""
        columns: dict[str, Column] = {}
        for feature, values in zip(self._served.manifest.features, cells, strict=True):
            reading = feature.read_cells(values, self._form.decimal)
            columns[feature.name] = reading.column
            for k in reading.refused.tolist():
                errors.setdefault(whole[k], f"{feature.name}: {expected(feature, values[k])}")
        if not errors:
            return columns, whole
        kept = np.array([index not in errors for index in whole], dtype=bool)
        readable = {name: only(kept, values) for name, values in columns.items()}
        return readable, list(compress(whole, kept))

    def _added(
        self, columns: dict[str, Column], indices: Sequence[int], errors: dict[int, str]
    ) -> tuple[list[list[str]], Tally]:
        """The cells that are added to the rows, by column, and what to count; overflows go into `errors`."""
        if not indices:
            return [[], [], []], Tally((), {})
        answers = self._served.answerer.answer(columns)
        for k in np.flatnonzero(~answers.finite).tolist():
            errors[indices[k]] = OVERFLOWS
        cells = (
            [""] * len(indices) if numbers is None else numbers_as_text(numbers, self._form)
            for numbers in (answers.values, answers.lower, answers.upper)
        )
        return list(cells), self._served.answerer.tally(answers)


def free_name(name: str, taken: Collection[str]) -> str:
    """The name, or with the first of _2, _3 … that no column has yet."""
    names = chain([name], (f"{name}_{number}" for number in count(2)))
    return next(free for free in names if free not in taken)


def only(kept: NDArray[np.bool_], values: Column) -> Column:
    """The values of a column (n,) that a mask (n,) chooses."""
    return values[kept] if isinstance(values, np.ndarray) else list(compress(values, kept))


def numbers_as_text(numbers: Matrix, form: Form) -> list[str]:
    """Each number in the fewest digits that give it back, as a cell of that form, NaN as an empty one.

    The shape is (n,), n above 0.
    """
    texts = encode_numbers(numbers)[1:-1].decode().replace("null", "").split(",")
    if form.decimal == ",":
        texts = [text.replace(".", ",") for text in texts]
        if form.separator == ",":
            texts = [f'"{text}"' if text else "" for text in texts]
    return texts
