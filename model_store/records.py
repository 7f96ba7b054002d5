"""The records of a CSV (RFC 4180), put together from blocks of text in bounded memory, and their cells."""

import re

LONGEST_RECORD = 2**20

# A field in quotes may hold commas, line ends and doubled quotes.
FIELD = r'(?:"(?:[^"]++|"")*+"[^,\n]*+|(?!")[^,\n]*+)'
RECORD = re.compile(rf"{FIELD}(?:,{FIELD})*+\n")
CELL = re.compile(rf"(?:^|,)({FIELD})")


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


def widened(line: str, cells: int, width: int) -> str:
    """A line that is no row with as many cells as one: empty ones added, or itself in the first cell."""
    if cells > width:
        line, cells = one_cell(line), 1
    return line + "," * (width - cells)


def escaped(text: str) -> str:
    """Text as it stands between quotes in a CSV."""
    return text.replace('"', '""')
