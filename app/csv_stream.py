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
from itertools import compress, repeat
from operator import methodcaller

import msgspec
import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request

from app.bodies import refuse_compressed
from app.faults import LONGEST_NAME, expected
from app.refusals import MOST_FAULTS, Fault, Refused
from app.schemas import encode_numbers
from app.serving import Served
from app.spool import Streamed, is_forwarded
from app.telemetry import Tally
from model_store.cells import read_number
from model_store.encoding import Column, Matrix, out_of_range
from model_store.manifest import Feature, NumericFeature, is_fillable

ADDED = ("prediction", "lower", "upper", "error")
LONGEST_RECORD = 2**20
BLOCK_CHARACTERS, BLOCK_RECORDS = 2**16, 2**14
MOST_COMPARED = 1000
OVERFLOWS = "the inputs are so far outside their training range that the prediction overflows"
COMMAS = methodcaller("count", ",")
# Numbers as JSON has them, the usual case, are read ten times as fast as those with units.
DECODE = msgspec.json.Decoder(list[float]).decode

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
        return content, msgspec.structs.replace(tally, refused=len(errors))

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
                errors[index] = f"{width} cells are due, {len(row)} are there; a quote may not close"
                lines[index] = widened(lines[index], len(row), width)
        whole = [index for index, line in enumerate(lines) if line and index not in errors]
        return [[rows[index][position] for index in whole] for position in self._positions], whole

    def _read(
        self, cells: Sequence[Sequence[str]], whole: Sequence[int], errors: dict[int, str]
    ) -> tuple[dict[str, Column], Sequence[int]]:
        """The columns of the rows that can be read, and the indices of those; why not goes into `errors`."""
        columns: dict[str, Column] = {}
        for feature, values in zip(self._served.manifest.features, cells, strict=True):
            columns[feature.name], refused = read_column(feature, values)
            for k in refused:
                errors.setdefault(whole[k], f"{feature.name}: {expected(feature)} is due")
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
        answers = self._served.answers(columns)
        outside = out_of_range(self._served.manifest.features, columns)
        tally = self._served.tally(answers.predictions[answers.finite], outside)
        for k in np.flatnonzero(~answers.finite).tolist():
            errors[indices[k]] = OVERFLOWS
        nothing = [""] * len(indices)
        bounds = map(numbers_as_text, answers.bounds) if answers.bounds else (nothing, nothing)
        return [numbers_as_text(answers.predictions), *bounds], tally


def widened(line: str, cells: int, width: int) -> str:
    """A line that is no row with as many cells as one: empty ones added, or itself in the first cell."""
    if cells > width:
        line, cells = one_cell(line), 1
    return line + "," * (width - cells)


def read_column(feature: Feature, cells: Sequence[str]) -> tuple[Column, list[int]]:
    """The cells as a column, and the positions of those that cannot be answered."""
    if isinstance(feature, NumericFeature):
        return read_numbers(feature, cells)
    known = frozenset(feature.values)
    if known.issuperset(cells):
        return cells, []
    return cells, [position for position, cell in enumerate(cells) if cell not in known]


def read_numbers(feature: NumericFeature, cells: Sequence[str]) -> tuple[Matrix, list[int]]:
    """The cells as float64, missing ones as NaN, and the positions of those that cannot be answered."""
    try:
        numbers, unreadable = np.array(DECODE(f"[{','.join(cells)}]")), set[int]()
    except (msgspec.DecodeError, UnicodeEncodeError):
        numbers, unreadable = read_each(cells)
    if len(numbers) != len(cells):
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
    return encode_numbers(numbers)[1:-1].decode().split(",")


def escaped(text: str) -> str:
    """Text as it stands between quotes in a CSV."""
    return text.replace('"', '""')
