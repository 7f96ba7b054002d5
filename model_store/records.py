"""The records of a CSV of any form, put together from its bytes in bounded memory, and their cells.

One reader for all: what trains and what is scored is cut into the same cells, or refused in the same words.
"""

import csv
import re
from codecs import getincrementaldecoder
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from operator import methodcaller

from model_store.forms import Form
from model_store.names import usable_names

LONGEST_RECORD = 2**20


@dataclass(frozen=True)
class Patterns:
    """What finds records and cells that have quotes."""

    lines: re.Pattern[str]
    record: re.Pattern[str]
    cell: re.Pattern[str]
    strict: re.Pattern[str]


@cache
def patterns(separator: str) -> Patterns:
    """A cell in quotes may hold separators, line ends, doubled quotes; strictly, nothing is behind it."""
    mark = re.escape(separator)
    quoted, other = r'"(?:[^"]++|"")*+"', rf"[^{mark}\n]*+"
    line = rf'(?:"(?:[^"\n]++|"")*+"|[^"{mark}\n]*+)'
    cell, strict = rf'(?:{quoted}{other}|(?!"){other})', rf'(?:{quoted}|(?!"){other})'
    return Patterns(
        re.compile(rf"(?:{line}(?:{mark}{line})*+\r?+\n)*+"),
        re.compile(rf"{cell}(?:{mark}{cell})*+\n"),
        re.compile(rf"(?:^|{mark})({cell})"),
        re.compile(rf"{strict}(?:{mark}{strict})*+\r?"),
    )


def split_records(text: str, separator: str = ",") -> tuple[list[str], str]:
    """The whole records at the start of a text, and what is left of it."""
    if '"' not in text:
        head, end, rest = text.rpartition("\n")
        return (head.split("\n") if end else []), rest
    lines = patterns(separator).lines.match(text)
    assert lines
    match, position = patterns(separator).record.match, lines.end()
    records = lines[0].split("\n")[:-1]
    while found := match(text, position):
        records.append(found[0][:-1])
        position = found.end()
    return records, text[position:]


class Records:
    """Puts the records of a CSV together from pieces of its bytes.

    A line that is none, because a quote in it does not close within LONGEST_RECORD or because it is longer,
    becomes a record of one cell; what is beyond that length is left out.
    """

    def __init__(self, form: Form) -> None:
        self._form, self._separator = form, form.separator
        self._decoder = getincrementaldecoder(form.encoding)(form.errors)
        self._mark = "\ufeff" if form.marked else ""
        self._rest, self._is_cut = "", False

    def feed(self, content: bytes) -> list[str]:
        """The records that are complete with these bytes."""
        return self._more(self._decoder.decode(content))

    def _more(self, text: str) -> list[str]:
        if self._mark and text:
            text, self._mark = text.removeprefix(self._mark), ""
        if self._form.line_end == "\r":
            text = text.replace("\r", "\n")
        if self._is_cut:
            _, end, text = text.partition("\n")
            self._is_cut = not end
        records, self._rest = split_records(self._rest + text, self._separator)
        while len(self._rest) > LONGEST_RECORD:
            line, end, rest = self._rest.partition("\n")
            more, self._rest = split_records(rest, self._separator)
            records += [one_cell(line), *more]
            self._is_cut = not end
        return records

    def end(self) -> list[str]:
        """The records that the end of the bytes completes; half a character of UTF-16 is left out."""
        records = self._more(self._decoder.decode(b"", final=self._form.errors == "surrogateescape"))
        rest = self._rest if self._rest.endswith("\n") or not self._rest else f"{self._rest}\n"
        while rest:
            more, rest = split_records(rest, self._separator)
            records += more
            if rest:
                line, _, rest = rest.partition("\n")
                records.append(one_cell(line))
        return records


def one_cell(line: str) -> str:
    """A record with the line for its only cell."""
    kept = line[:LONGEST_RECORD].removesuffix("\r")
    return f'"{escaped(kept)}"'


def cells_of(record: str, separator: str = ",") -> list[str]:
    """The cells of a record, without their quotes."""
    if '"' not in record:
        return record.split(separator)
    try:
        return next(csv.reader([record], delimiter=separator))
    except csv.Error:  # a cell that is longer than csv takes, or a line end out of its place
        cells = patterns(separator).cell.findall(record)
        return [unquoted(cell) if cell.startswith('"') else cell for cell in cells]


def rows_of(lines: list[str], text: str, separator: str) -> list[list[str]]:
    """The cells of each of the lines, which joined are the text."""
    if "\r" not in text:
        with suppress(csv.Error):
            rows = list(csv.reader(lines, delimiter=separator))
            if len(rows) == len(lines):
                return rows
    return [cells_of(line, separator) for line in lines]


def unquoted(cell: str) -> str:
    """What stands in quotes, and what is wrongly behind them."""
    inside, _, behind = cell[1:].rpartition('"')
    return inside.replace('""', '"') + behind


def escaped(text: str) -> str:
    """Text as it stands between quotes in a CSV."""
    return text.replace('"', '""')


@dataclass(frozen=True)
class Rows:
    """Records taken apart.

    `lines` are the records without line ends; `cells` the asked columns of those that are rows; `whole` the
    indices of those, ascending; `faults` what is wrong with the others, by index; blank lines are neither.
    """

    lines: list[str]
    cells: list[Sequence[str]]
    whole: Sequence[int]
    faults: dict[int, str]


class Layout:
    """The columns of a CSV, as its first record that is not blank tells them."""

    def __init__(self, form: Form, first: str) -> None:
        self.form = form
        header = cells_of(first.removesuffix("\r"), form.separator)
        if not form.has_header:
            header = [""] * len(header)
        self.header = [*[""] * form.row_names, *header, *[""] * form.trailing]
        self.names = usable_names(self.header)
        self.width = len(self.names)
        self._separators = methodcaller("count", form.separator)

    def rows(self, records: list[str], positions: Sequence[int]) -> Rows:
        """Take records apart; `positions` are those of the columns that are asked for."""
        lines, text = records, "\n".join(records)
        if "\r" in text:
            lines = [record.removesuffix("\r") for record in records]
            text = "\n".join(lines)
        if '"' not in text and all(lines) and set(map(self._separators, lines)) == {self.width - 1}:
            cells = text.replace("\n", self.form.separator).split(self.form.separator)
            if not self.form.trailing or not any(cells[self.width - 1 :: self.width]):
                return Rows(lines, [cells[place :: self.width] for place in positions], range(len(lines)), {})
        return self._with_faults(lines, text, positions)

    def _with_faults(self, lines: list[str], text: str, positions: Sequence[int]) -> Rows:
        rows = rows_of(lines, text, self.form.separator)
        if not self.form.trailing and set(map(len, rows)) == {self.width}:
            return Rows(lines, [[row[place] for row in rows] for place in positions], range(len(rows)), {})
        faults = {k: self._fault(row) for k, row in enumerate(rows) if lines[k] and not self._is_whole(row)}
        whole = [index for index, line in enumerate(lines) if line and index not in faults]
        return Rows(lines, [[rows[index][place] for index in whole] for place in positions], whole, faults)

    def _is_whole(self, row: list[str]) -> bool:
        return len(row) == self.width and not (self.form.trailing and row[-1])

    def _fault(self, row: list[str]) -> str:
        width = f"{self.width - 1} cells and an empty one" if self.form.trailing else f"{self.width} cells"
        return f"{width} are expected, {len(row)} are there; a quote may not close"

    def widened(self, line: str) -> str:
        """A line that is no row with as many cells as one: empty ones added, or itself in the first cell."""
        cells = len(cells_of(line, self.form.separator))
        if cells > self.width or (self.form.trailing and cells == self.width):
            line, cells = one_cell(line), 1
        return line + self.form.separator * (self.width - cells)
