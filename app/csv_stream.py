"""`text/csv` in, the same CSV out with `prediction`, `lower`, `upper` and `error` added, in bounded memory.

Cells are read as training read them, units and all. A row that cannot be answered has an empty prediction and
says why in its `error`; the others are answered. A line that is no row, because a quote in it does not close
or it has too many cells, comes back whole in the first column.
"""

import asyncio
import re
from codecs import getincrementaldecoder
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from difflib import get_close_matches
from http import HTTPStatus
from itertools import compress

import msgspec
import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request

from app.faults import LONGEST_NAME, expected
from app.problems import MOST_FAULTS, Fault, Refused
from app.protocol import Streamed, refuse_compressed
from app.serving import Served
from app.telemetry import Tally
from model_store.cells import read_number
from model_store.encoding import Column, Matrix, out_of_range
from model_store.manifest import Feature, NumericFeature, is_fillable

ADDED = ("prediction", "lower", "upper", "error")
LONGEST_RECORD = 2**20
BLOCK_CHARACTERS, BLOCK_RECORDS = 2**16, 2**14
MOST_COMPARED = 1000
PLAIN = frozenset("0123456789+-.eE")

# RFC 4180: a field in quotes may hold commas, line ends and doubled quotes.
FIELD = r'(?:"(?:[^"]++|"")*+"[^,\n]*+|(?!")[^,\n]*+)'
RECORD = re.compile(rf"{FIELD}(?:,{FIELD})*+\n")
CELL = re.compile(rf"(?:^|,)({FIELD})")


async def answer_csv(served: Served, request: Request, count: Callable[[Tally], None]) -> Streamed:
    """Answer a CSV while it arrives, and have its rows counted, block by block.

    Raises Refused before anything is sent: no header, a column missing.
    """
    refuse_compressed(request)
    blocks = record_blocks(request.stream())
    first: list[str] = await anext(blocks, [])
    if not first:
        raise Refused(HTTPStatus.BAD_REQUEST, "The CSV is empty: a line with the columns' names is due.")
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
    return Streamed(parts(), "text/csv; charset=utf-8", headers)


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


def split_records(text: str) -> tuple[list[str], str]:
    """The whole records at the start of a text, and what is left of it."""
    if '"' not in text:
        head, end, rest = text.rpartition("\n")
        return (head.split("\n") if end else []), rest
    records, position = [], 0
    while found := RECORD.match(text, position):
        records.append(found[0][:-1])
        position = found.end()
    return records, text[position:]


class Records:
    """Puts the records of a CSV together from blocks of its text.

    A line that is none, because a quote in it does not close within LONGEST_RECORD or because it is longer,
    becomes a record of one cell; what is beyond that length is left out.
    """

    def __init__(self) -> None:
        self._rest, self._is_cut = "", False

    def feed(self, text: str) -> list[str]:
        """The records that are complete with this text."""
        if self._is_cut:
            _, end, text = text.partition("\n")
            self._is_cut = not end
        records, self._rest = split_records(self._rest + text)
        while len(self._rest) > LONGEST_RECORD:
            line, end, rest = self._rest.partition("\n")
            more, self._rest = split_records(rest)
            records += [one_cell(line), *more]
            self._is_cut = not end
        return records

    def end(self) -> list[str]:
        """The records that the end of the text completes."""
        rest = self._rest if self._rest.endswith("\n") or not self._rest else f"{self._rest}\n"
        records: list[str] = []
        while rest:
            more, rest = split_records(rest)
            records += more
            if rest:
                line, _, rest = rest.partition("\n")
                records.append(one_cell(line))
        return records


def one_cell(line: str) -> str:
    """A record with the line for its only cell."""
    kept = line[:LONGEST_RECORD].removesuffix("\r")
    return f'"{escaped(kept)}"'


def cells_of(record: str) -> list[str]:
    """The cells of a record, without their quotes."""
    if '"' not in record:
        return record.split(",")
    return [unquoted(cell) if cell.startswith('"') else cell for cell in CELL.findall(record)]


def unquoted(cell: str) -> str:
    """What stands in quotes, and what is wrongly behind them."""
    inside, _, behind = cell[1:].rpartition('"')
    return inside.replace('""', '"') + behind


class CsvTable:
    """Answers the rows of one CSV, whose columns its header names; raises Refused if an input is missing."""

    def __init__(self, served: Served, header: str) -> None:
        self._served = served
        self._line_end = "\r\n" if header.endswith("\r") else "\n"
        header = header.removesuffix("\r")
        self._names = cells_of(header.removeprefix("\ufeff"))
        self._check(served.manifest.features)
        self._positions = [self._names.index(feature.name) for feature in served.manifest.features]
        self.header = f"{header},{','.join(ADDED)}{self._line_end}".encode("utf-8", "surrogateescape")

    def _check(self, features: Sequence[Feature]) -> None:
        missing = [feature.name for feature in features if feature.name not in self._names]
        faults = [
            *map(self._missing, missing[:MOST_FAULTS]),
            *(
                Fault("", f"the column {feature.name!r} comes twice")
                for feature in features
                if self._names.count(feature.name) > 1
            ),
            *(
                Fault("", f"the column {name!r} is in the way of the answer's: rename it")
                for name in ADDED
                if name in self._names
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
        lines = [record.removesuffix("\r") for record in records]
        rows = [cells_of(line) for line in lines]
        width = len(self._names)
        errors = {
            index: f"{width} cells are due, {len(row)} are there; a quote may not close"
            for index, row in enumerate(rows)
            if len(row) != width
        }
        for index in errors:
            if len(rows[index]) > width:
                lines[index], rows[index] = one_cell(lines[index]), [lines[index]]
        whole = [index for index in range(len(rows)) if index not in errors]
        columns = self._read([rows[index] for index in whole], whole, errors)
        answered = [index for index in whole if index not in errors]
        ends, tally = self._answer_columns(columns, answered, errors)
        for index, error in errors.items():
            missing = "," * max(0, width - len(rows[index]))
            ends[index] = f'{missing},,,,"{escaped(error)}"'
        whole_lines = (
            f"{line}{ends[index]}{self._line_end}" if line else self._line_end
            for index, line in enumerate(lines)
        )
        refused = sum(1 for index in errors if lines[index])
        content = "".join(whole_lines).encode("utf-8", "surrogateescape")
        return content, msgspec.structs.replace(tally, refused=refused)

    def _read(
        self, rows: Sequence[Sequence[str]], indices: Sequence[int], errors: dict[int, str]
    ) -> dict[str, Column]:
        """The columns of the rows that can be read; why not goes into `errors`, by the row's index."""
        columns: dict[str, Column] = {}
        for feature, position in zip(self._served.manifest.features, self._positions, strict=True):
            cells = [row[position] for row in rows]
            if isinstance(feature, NumericFeature):
                columns[feature.name], refused = read_numbers(feature, cells)
            else:
                columns[feature.name] = cells
                known = frozenset(feature.values)
                refused = (
                    []
                    if known.issuperset(cells)
                    else [k for k, cell in enumerate(cells) if cell not in known]
                )
            for k in refused:
                errors.setdefault(indices[k], f"{feature.name}: {expected(feature)} is due")
        kept = np.array([index not in errors for index in indices], dtype=bool)
        return columns if kept.all() else {name: only(kept, values) for name, values in columns.items()}

    def _answer_columns(
        self, columns: dict[str, Column], indices: Sequence[int], errors: dict[int, str]
    ) -> tuple[dict[int, str], Tally]:
        """What is added to each row that has an answer, by its index, and what to count of them.

        Overflows go into `errors`.
        """
        if not indices:
            return {}, Tally((), {})
        answers = self._served.answers(columns)
        outside = out_of_range(self._served.manifest.features, columns)
        tally = self._served.tally(answers.predictions[answers.finite], outside)
        for k in np.flatnonzero(~answers.finite).tolist():
            errors[indices[k]] = (
                "the inputs are so far outside their training range that the prediction overflows"
            )
        nothing = [""] * len(indices)
        bounds = map(numbers_as_text, answers.bounds) if answers.bounds else (nothing, nothing)
        texts = numbers_as_text(answers.predictions), *bounds
        ends = {
            index: f",{prediction},{lower},{upper},"
            for index, prediction, lower, upper in zip(indices, *texts, strict=True)
        }
        return ends, tally


def read_numbers(feature: NumericFeature, cells: Sequence[str]) -> tuple[Matrix, list[int]]:
    """The cells as float64, missing ones as NaN, and the positions of those that cannot be answered."""
    if PLAIN.issuperset("".join(cells)):
        try:
            numbers = np.array(list(map(float, cells)))
        except ValueError:
            numbers, unreadable = read_each(cells)
        else:
            unreadable = set()
    else:
        numbers, unreadable = read_each(cells)
    refused = np.isinf(numbers) if is_fillable(feature) else ~np.isfinite(numbers)
    return numbers, sorted(unreadable.union(np.flatnonzero(refused).tolist()))


def read_each(cells: Sequence[str]) -> tuple[Matrix, set[int]]:
    """Cells that may have units or be missing as float64, and the positions of those that are no numbers."""
    numbers, unreadable = np.full(len(cells), np.nan), set()
    for position, cell in enumerate(cells):
        try:
            found = read_number(cell)
        except ValueError:
            unreadable.add(position)
        else:
            numbers[position] = np.nan if found is None else found[0]
    return numbers, unreadable


def only(kept: NDArray[np.bool_], values: Column) -> Column:
    """The values that a mask chooses."""
    return values[kept] if isinstance(values, np.ndarray) else list(compress(values, kept))


def numbers_as_text(numbers: Matrix) -> list[str]:
    """Each number in the fewest digits that give it back, as in JSON; shape (n,), n above 0."""
    return msgspec.json.encode(numbers.tolist())[1:-1].decode().split(",")


def escaped(text: str) -> str:
    """Text as it stands between quotes in a CSV."""
    return text.replace('"', '""')
