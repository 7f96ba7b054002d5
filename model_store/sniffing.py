"""What form a table has, found out from its first 64 KiB alone: a file and a stream are decided on alike.

What is no table of text is recognised by its first bytes, and named.
"""

import codecs
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from operator import methodcaller
from typing import NamedTuple

from model_store.cells import DecimalMark, read_number
from model_store.forms import Form, FormOptions, LineEnd
from model_store.names import usable_names
from model_store.records import Records, cells_of, patterns

PREFIX_BYTES = 2**16
SEPARATORS = (",", ";", "\t", "|")
ENOUGH_EVIDENCE, MOST_CELLS = 100, 5000
# "12, High Street" tells nothing: the comma is no mark within a number.
MARKED = re.compile(r"[^.,]*+[.,]\d")
MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16le", codecs.BOM_UTF16_BE: "utf-16be"}


class Foreign(NamedTuple):
    """What is no table of text: what it looks like, and what to do with it."""

    name: str
    advice: str


AS_CSV = "save the table as CSV"
WHERE_MADE = "take the table from where it was made, as CSV"
ZIP = Foreign("a zip archive or an Excel file (.xlsx)", AS_CSV)
GZIP = Foreign("a file compressed with gzip", "unpack it: gzip -d")
ZSTD = Foreign("a file compressed with zstd", "unpack it: zstd -d")
PARQUET = Foreign("a Parquet file", AS_CSV)
ARROW = Foreign("an Arrow or Feather file", AS_CSV)
ARROW_STREAM = Foreign("a stream of Arrow", AS_CSV)
JSON = Foreign("JSON", "send it as application/json, or save the table as CSV")
# By what the first bytes match.
FOREIGN = {
    rb"PK(?:\x03\x04|\x05\x06)": ZIP,
    rb"\x1f\x8b": GZIP,
    rb"\x28\xb5\x2f\xfd": ZSTD,
    rb"PAR1": PARQUET,
    rb"ARROW1": ARROW,
    rb"\xff\xff\xff\xff[^\xff]{3}\x00": ARROW_STREAM,
    rb'\s*\{\s*["}]|\s*\[\s*[{\[\]]': JSON,
    rb"BZh[1-9]": Foreign("a file compressed with bzip2", "unpack it: bzip2 -d"),
    rb"\xfd7zXZ\x00": Foreign("a file compressed with xz", "unpack it: xz -d"),
    rb"7z\xbc\xaf\x27\x1c|Rar!\x1a\x07": Foreign("a 7z or RAR archive", "unpack it"),
    rb"FEA1": Foreign("an old Feather file", "write it again with pyarrow, or as CSV"),
    rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": Foreign("an old Excel or Word file", "save it as .xlsx or CSV"),
    rb"SQLite format 3\x00": Foreign("an SQLite database", "write the table as CSV: sqlite3 -header -csv"),
    rb"%PDF-": Foreign("a PDF document", WHERE_MADE),
    rb"\x89PNG|\xff\xd8\xff|GIF8": Foreign("an image", WHERE_MADE),
    rb"\x89HDF": Foreign("an HDF5 file", AS_CSV),
    rb"\{\\rtf": Foreign("a document of rich text", AS_CSV),
    rb"\x80[\x02-\x05]": Foreign("a pickle of Python, which could run code", AS_CSV),
    rb"(?i)\s*<(?:!doctype\s+html|html|head|body|\?xml|table)\b": Foreign(
        "a web page or XML", "get the file itself, not the page about it"
    ),
}


def recognised(prefix: bytes) -> Foreign | None:
    """What a file that is no table of text looks like; None for what may be one."""
    prefix = prefix.removeprefix(codecs.BOM_UTF8)
    return next((foreign for magic, foreign in FOREIGN.items() if re.match(magic, prefix)), None)


def sniff(
    prefix: bytes,
    options: FormOptions | None = None,
    prior: Form | None = None,
    numbers: Collection[str] | None = None,
) -> Form:
    """Find out the form of a table of text from its first PREFIX_BYTES, or all of it if it has fewer.

    What `options` say holds; of the encoding, only where no mark says another. `prior` is the form that is
    usual for such tables: it decides what could be meant so or so. `numbers` names the columns whose cells
    tell the decimal mark, if not all do: a text may hold a number that is written otherwise.
    """
    options = options or FormOptions()
    encoding = encoding_of(prefix, options, prior)
    text = prefix.decode(encoding, "replace")
    marked = any(map(prefix.startswith, MARKS))
    plain = Form(encoding=encoding, marked=marked, line_end=line_end_of(text))
    separators = [options.separator] if options.separator else separators_in(text, prior)
    outline = max((outlined(prefix, plain, separator, prior) for separator in separators), key=Outline.merit)
    form = outline.form
    if not has_header(outline, options, prior):
        form = form.model_copy(update={"has_header": False, "row_names": False, "trailing": False})
    cells = replace(outline, form=form).cells(numbers)
    decimal, doubt = decimal_of(cells, form, options, prior)
    said = tuple(name for name in ("separator", "decimal") if getattr(options, name))
    return form.model_copy(update={"decimal": decimal, "doubt": doubt, "said": said})


def has_header(outline: "Outline", options: FormOptions, prior: Form | None) -> bool:
    """Whether the first record names the columns; where none is usual, one with our own names does."""
    if options.has_header is not None:
        return options.has_header
    return prior is None or prior.has_header or "column_1" in outline.header


def decimal_of(
    cells: Iterable[str], form: Form, options: FormOptions, prior: Form | None
) -> tuple[DecimalMark, str]:
    """The decimal mark that cells tell, and in words what could be meant otherwise."""
    if options.decimal:
        return options.decimal, ""
    if prior is None or prior.separator != form.separator:
        return decimal_mark(cells, ".")
    if "decimal" in prior.said:
        return prior.decimal, ""
    return decimal_mark(cells, prior.decimal)


def separators_in(text: str, prior: Form | None) -> list[str]:
    """The separators that a text has, and one that it has not: it may have a single column."""
    if prior and "separator" in prior.said and prior.separator in text:
        return [prior.separator]
    absent = [each for each in SEPARATORS if each not in text]
    return [each for each in SEPARATORS if each in text or each in absent[:1]]


def encoding_of(prefix: bytes, options: FormOptions, prior: Form | None) -> str:
    """The encoding of a text that starts so."""
    for mark, encoding in MARKS.items():
        if prefix.startswith(mark):
            return encoding
    if options.encoding:
        return options.encoding
    for start, encoding in ((1, "utf-16le"), (0, "utf-16be")):
        if len(prefix) > 3 and 3 * prefix[start::2].count(0) > 2 * len(prefix[start::2]) > 0:
            return encoding
    if is_utf8(prefix):
        return "utf-8"
    return prior.encoding if prior and not prior.encoding.startswith("utf") else "windows-1252"


def is_utf8(prefix: bytes) -> bool:
    """Whether a text that starts so is UTF-8; if not throughout, its first line beyond ASCII decides."""
    if prefix.isascii():
        return True
    is_whole = len(prefix) < PREFIX_BYTES
    telling = [line for line in prefix.splitlines(keepends=True) if not line.isascii()]
    return not telling or decodes(b"".join(telling), is_whole) or decodes(telling[0], is_whole)


def decodes(text: bytes, is_whole: bool) -> bool:
    """Whether bytes are UTF-8, which may be cut within a character if they are not whole."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(text, final=is_whole)
    except UnicodeDecodeError:
        return False
    return True


def line_end_of(text: str) -> LineEnd:
    """What ends the first line of a text."""
    first, end, _ = text.partition("\n")
    if end:
        return "\r\n" if first.endswith("\r") else "\n"
    return "\r" if "\r" in first[:-1] else "\n"


@dataclass(frozen=True)
class Outline:
    """How a prefix looks with one separator: its header, the other records, how many have the right width."""

    form: Form
    header: list[str]
    records: list[str]
    matches: int

    def merit(self) -> tuple[bool, int, bool, int]:
        """What makes one separator better than another, the most important first."""
        is_odd = self.form.row_names or self.form.trailing
        return len(self.header) > 1, self.matches, not is_odd, len(self.header)

    def cells(self, names: Collection[str] | None = None) -> Iterator[str]:
        """The cells of the columns of these names, by default of all, the header's first.

        Records in which no cell can hold a point or a comma are passed over.
        """
        separator = self.form.separator
        # Where commas separate, only a cell in quotes can hold one.
        marks = (".", '"') if separator == "," else (".", ",")
        text = "\n".join(self.records)
        found = [mark for mark in marks if mark in text]
        marked = (record for record in self.records if any(mark in record for mark in found)) if found else ()
        rows = chain([self.header], (cells_of(record, separator) for record in marked))
        if names is None:
            return chain.from_iterable(rows)
        header = self.header if self.form.has_header else [""] * len(self.header)
        known = usable_names([*[""] * self.form.row_names, *header])
        places = [place for place, name in enumerate(known) if name in names]
        return (row[place] for row in rows for place in places if place < len(row))


def outlined(prefix: bytes, plain: Form, separator: str, prior: Form | None) -> Outline:
    """How a prefix looks with a separator."""
    form = plain.model_copy(update={"separator": separator})
    reader = Records(form)
    records = reader.feed(prefix)
    if len(prefix) < PREFIX_BYTES or not records:
        records += reader.end()
    text = "\n".join(records)
    if "\r" in text:
        records = [record.removesuffix("\r") for record in records]
    records = list(filter(None, records))
    if not records:
        return Outline(form, [], [], 0)
    header, records = cells_of(records[0], separator), records[1:]
    widths = [count + 1 for count in map(methodcaller("count", separator), records)]
    if '"' in text:
        widths = [
            strict_width(record, separator) if '"' in record else width
            for record, width in zip(records, widths, strict=True)
        ]
    if widths and set(widths) == {len(header) + 1}:
        rows = [cells_of(record, separator) for record in records]
        is_trailing = not any(row[-1] for row in rows)
        are_named = not is_trailing and is_named(records, rows, prior)
        form = form.model_copy(update={"trailing": is_trailing, "row_names": are_named})
    expected = len(header) + (form.trailing or form.row_names)
    return Outline(form, header, records, widths.count(expected))


def strict_width(record: str, separator: str) -> int:
    """How many cells a record has; 0 for one with something behind a closing quote."""
    is_strict = patterns(separator).strict.fullmatch(record)
    return len(cells_of(record, separator)) if is_strict else 0


def is_named(records: Sequence[str], rows: Sequence[Sequence[str]], prior: Form | None) -> bool:
    """Whether the first cells of rows that are one cell too long can be nothing but the rows' names.

    They all differ, and are usual, or in quotes, or no numbers, or count the rows; others may be the first
    half of numbers that a comma splits.
    """
    names = [row[0] for row in rows]
    if len(set(names)) < len(names):
        return False
    if (prior and prior.row_names) or all(record.startswith('"') for record in records):
        return True
    are_counted = len(names) > 1 and names == [str(number) for number in range(1, len(names) + 1)]
    return are_counted or not any(map(str.isdigit, "".join(names)))


def distinct(cells: Iterable[str]) -> Iterator[str]:
    """Each different cell once, in the order they come."""
    seen: set[str] = set()
    for cell in cells:
        if cell not in seen:
            seen.add(cell)
            yield cell


def decimal_mark(cells: Iterable[str], usual: DecimalMark) -> tuple[DecimalMark, str]:
    """The decimal mark of the numbers among cells, and in words what could be meant otherwise."""
    found: dict[str, list[str]] = {".": [], ",": [], "either": []}
    marked = distinct(cell for cell in cells if MARKED.match(cell))
    for cell in islice(marked, MOST_CELLS):
        point, comma = value_of(cell, "."), value_of(cell, ",")
        if point != comma:
            found["," if point is None else "." if comma is None else "either"].append(cell)
        if len(found["."]) + len(found[","]) >= ENOUGH_EVIDENCE:
            break
    mark: DecimalMark = usual
    if found["."] or found[","]:
        mark = "," if len(found[","]) >= len(found["."]) else "."
    if found["."] and found[","]:
        return mark, f"{found['.'][0]!r} has a decimal point and {found[','][0]!r} a decimal comma"
    if found["either"] and not found[mark]:
        cell = found["either"][0]
        point, comma = value_of(cell, "."), value_of(cell, ",")
        return mark, f"{cell!r} is {point:.15g} with a decimal point and {comma:.15g} with a decimal comma"
    return mark, ""


def value_of(cell: str, decimal: DecimalMark) -> float | None:
    """The number in a cell under a decimal mark; None for another cell."""
    try:
        number = read_number(cell, decimal)
    except ValueError:
        return None
    return number and number[0]
