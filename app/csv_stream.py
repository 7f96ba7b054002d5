"""`text/csv` in, the same CSV out with `prediction`, `lower`, `upper` and `error` added, in bounded memory.

Cells are read as training read them, units and all. A row that cannot be answered has an empty prediction and
says why in its `error`; the others are answered. A line that is no row, because a quote in it does not close
or it has too many cells, comes back whole in the first column.
"""

import asyncio
from codecs import getincrementaldecoder
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from dataclasses import replace
from difflib import get_close_matches
from http import HTTPStatus
from itertools import chain, compress, count, repeat
from operator import methodcaller

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request

from app.bodies import refuse_compressed
from app.faults import LONGEST_NAME, expected
from app.refusals import MOST_FAULTS, Fault, Refused
from app.schemas import encode_numbers
from app.serving import Served
from app.spool import Streamed, is_forwarded
from model_store.answers import Tally
from model_store.columns import Column, Feature, Matrix
from model_store.records import Records, cells_of, escaped, widened

ADDED = ("prediction", "lower", "upper", "error")
BLOCK_CHARACTERS, BLOCK_RECORDS = 2**16, 2**14
MOST_COMPARED = 1000
OVERFLOWS = "the inputs are so far outside their training range that the prediction overflows"
COMMAS = methodcaller("count", ",")


async def answer_csv(served: Served, request: Request, count: Callable[[Tally], None]) -> Streamed:
    """Answer a CSV while it arrives, and have its rows counted, block by block.

    Raises Refused before anything is sent: no header, a column missing.
    """
    refuse_compressed(request)
    blocks = record_blocks(request.stream())
    first: list[str] = await anext(blocks, [])
    if not first:
        raise Refused(HTTPStatus.BAD_REQUEST, "The CSV is empty: a line with the columns' names is expected.")
    table = await asyncio.to_thread(CsvTable, served, first[0])

    async def answered(block: list[str]) -> bytes:
        lines, tally = await asyncio.to_thread(table.answer, block)
        count(tally)
        return lines

    async def parts() -> AsyncIterator[bytes]:
        yield table.header + await answered(first[1:])
        async for block in blocks:
            yield await answered(block)

    headers = {"X-Model": served.name, "X-Model-Version": served.version}
    return Streamed(parts(), "text/csv; charset=utf-8", headers, held=is_forwarded(request))


async def record_blocks(chunks: AsyncIterator[bytes]) -> AsyncIterator[list[str]]:
    """The records of a CSV, without their line ends, as many at a time as there are in a block of text."""
    records = Records()
    async for text in text_blocks(chunks):
        for block in blocks_of(records.feed(text)):
            yield block
    for block in blocks_of(records.end()):
        yield block


def blocks_of(records: list[str]) -> Iterator[list[str]]:
    """The records, not too many at a time."""
    return (records[start : start + BLOCK_RECORDS] for start in range(0, len(records), BLOCK_RECORDS))


async def text_blocks(chunks: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """Text in blocks long enough to be worth a look; bytes that are not UTF-8 come through unharmed."""
    decoder = getincrementaldecoder("utf-8")("surrogateescape")
    waiting: list[str] = []
    length = 0
    async for chunk in chunks:
        waiting.append(decoder.decode(chunk))
        length += len(waiting[-1])
        if length >= BLOCK_CHARACTERS:
            yield "".join(waiting)
            waiting, length = [], 0
    yield "".join([*waiting, decoder.decode(b"", final=True)])


class CsvTable:
    """Answers the rows of one CSV, whose columns its header names; raises Refused if an input is missing."""

    def __init__(self, served: Served, header: str) -> None:
        self._served = served
        self._line_end = "\r\n" if header.endswith("\r") else "\n"
        header = header.removesuffix("\r")
        self._names = cells_of(header.removeprefix("\ufeff"))
        self._check(served.manifest.features)
        self._positions = [self._names.index(feature.name) for feature in served.manifest.features]
        added = ",".join(free_name(name, self._names) for name in ADDED)
        self.header = f"{header},{added}{self._line_end}".encode("utf-8", "surrogateescape")

    def _check(self, features: Sequence[Feature]) -> None:
        missing = [feature.name for feature in features if feature.name not in self._names]
        faults = [
            *map(self._missing, missing[:MOST_FAULTS]),
            *(
                Fault("", f"the column {feature.name!r} comes twice")
                for feature in features
                if self._names.count(feature.name) > 1
            ),
        ]
        if faults:
            detail = "The first line does not name the columns that the model needs."
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, detail, faults)

    def _missing(self, name: str) -> Fault:
        given = [other[:LONGEST_NAME].strip().casefold() for other in self._names[:MOST_COMPARED]]
        nearest = get_close_matches(name.casefold(), given, n=1)
        hint = ": one of another case or spelling is there" if nearest else ""
        return Fault("", f"the column {name!r} is missing{hint}")

    def answer(self, records: Sequence[str]) -> tuple[bytes, Tally]:
        """The records' lines with the answers added, and what to count; an empty line stays empty."""
        lines, text = list(records), "\n".join(records)
        if "\r" in text:
            lines = [record.removesuffix("\r") for record in records]
            text = "\n".join(lines)
        errors: dict[int, str] = {}
        cells, whole = self._split(lines, text, errors)
        columns, answerable = self._read(cells, whole, errors)
        added, tally = self._added(columns, answerable, errors)
        if len(answerable) == len(lines) and not errors:
            answered = list(map(",".join, zip(lines, *added, repeat(""), strict=False)))
        else:
            ends = dict(zip(answerable, map(",".join, zip(*added, repeat(""), strict=False)), strict=True))
            ends |= {index: f',,,"{escaped(error)}"' for index, error in errors.items()}
            answered = [f"{line},{ends[index]}" if line else "" for index, line in enumerate(lines)]
        content = self._line_end.join([*answered, ""]).encode("utf-8", "surrogateescape")
        return content, replace(tally, refused=len(errors))

    def _split(
        self, lines: list[str], text: str, errors: dict[int, str]
    ) -> tuple[list[Sequence[str]], Sequence[int]]:
        """The cells of each feature in the lines of the text that are rows, and the indices of those.

        The other lines are made as wide as rows; what is wrong with them goes into `errors`.
        """
        width = len(self._names)
        if '"' not in text and all(lines) and set(map(COMMAS, lines)) == {width - 1}:
            cells = text.replace("\n", ",").split(",")
            return [cells[position::width] for position in self._positions], range(len(lines))
        rows = list(map(cells_of, lines))
        for index, row in enumerate(rows):
            if lines[index] and len(row) != width:
                errors[index] = f"{width} cells are expected, {len(row)} are there; a quote may not close"
                lines[index] = widened(lines[index], len(row), width)
        whole = [index for index, line in enumerate(lines) if line and index not in errors]
        return [[rows[index][position] for index in whole] for position in self._positions], whole

    def _read(
        self, cells: Sequence[Sequence[str]], whole: Sequence[int], errors: dict[int, str]
    ) -> tuple[dict[str, Column], Sequence[int]]:
        """The columns of the rows that can be read, and the indices of those; why not goes into `errors`."""
        columns: dict[str, Column] = {}
        for feature, values in zip(self._served.manifest.features, cells, strict=True):
            reading = feature.read_cells(values)
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
            [""] * len(indices) if numbers is None else numbers_as_text(numbers)
            for numbers in (answers.values, answers.lower, answers.upper)
        )
        return list(cells), self._served.answerer.tally(answers)


def free_name(name: str, taken: Collection[str]) -> str:
    """The name, or with the first of _2, _3 … that no column has yet."""
    names = chain([name], (f"{name}_{number}" for number in count(2)))
    return next(free for free in names if free not in taken)


def only(kept: NDArray[np.bool_], values: Column) -> Column:
    """The values that a mask chooses."""
    return values[kept] if isinstance(values, np.ndarray) else list(compress(values, kept))


def numbers_as_text(numbers: Matrix) -> list[str]:
    """Each number in the fewest digits that give it back, as in JSON; shape (n,), n above 0."""
    return encode_numbers(numbers)[1:-1].decode().split(",")
