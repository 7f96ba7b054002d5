"""Tables of every form as columns in pieces, so that their length does not matter to the memory they take.

A table of text gives cells of text; one of another form gives arrays, without passing through text.
"""

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, Protocol, TypeAlias

import numpy as np
import openpyxl
from numpy.typing import NDArray

from model_store.forms import Form
from model_store.records import Layout, Records
from model_store.sniffing import ARROW, ARROW_STREAM, JSON, PARQUET, ZIP, Foreign, sniff
from training.data import DataError
from training.recipe import TableOptions
from training.sources import Source, needs_extra, start_of, unpacked

PIECE_ROWS, PIECE_BYTES = 50_000, 2**16
# n cells of a column: texts, or an array of numbers, datetime64 or values of any type, None if missing.
Cells: TypeAlias = Sequence[str] | NDArray[Any]


class OpenTable(Protocol):
    """A table whose columns can be read, once."""

    @property
    def header(self) -> Sequence[str]:
        """The columns' names as the table has them, '' for none."""

    @property
    def form(self) -> Form | None:
        """The form of a table of text."""

    @property
    def words(self) -> str:
        """What was found, for the person whose table it is."""

    def pieces(self, places: Sequence[int]) -> Iterator[list[Cells]]:
        """The columns at `places`, piece by piece; raises DataError for what is no row."""


@contextmanager
def open_table(source: Source, options: TableOptions) -> Iterator[OpenTable]:
    """The table in a source, by what its bytes are, whatever it is called; raises DataError for none."""
    if source.file is None:
        yield parquet_folder(source.path)
        return
    source.file.seek(0)
    with unpacked(source.file, source.name) as (file, kind):
        yield table_in(file, kind, source.name, options)


def table_in(file: IO[bytes], kind: Foreign | None, name: str, options: TableOptions) -> OpenTable:
    """The table in an unpacked file of that kind; raises DataError if there is none to read."""
    if kind is None:
        return TextTable(file, name, options)
    if kind in {PARQUET, ARROW, ARROW_STREAM}:
        return arrow_file(file, kind, name)
    if kind is ZIP:
        return ListTable(sheet_rows(file, name, options), "Excel", name)
    if kind is JSON:
        return ListTable(json_rows(file, name), "JSON", name)
    message = f"{name} looks like {kind.name}, which is not read here: {kind.advice}"
    raise DataError(message)


class TextTable:
    """A CSV or its like, whose form is found out; raises DataError for an empty one."""

    def __init__(self, file: IO[bytes], name: str, options: TableOptions) -> None:
        self._name = name
        self.form = sniff(start_of(file), options)
        self._blocks = record_blocks(file, self.form)
        self._first = next(filter(None, map(from_first_row, self._blocks)), [])
        if not self._first:
            message = f"{name} is empty: a first line with the columns' names is expected, then a line a row"
            raise DataError(message)
        self._layout = Layout(self.form, self._first[0])
        self.header = self._layout.header
        self.words = self.form.words

    def pieces(self, places: Sequence[int]) -> Iterator[list[Cells]]:
        """The cells of the columns at `places`; raises DataError for a line that is no row."""
        count = 0
        for block in chain([self._first[self.form.has_header :]], self._blocks):
            rows = self._layout.rows(block, places)
            if rows.faults:
                index, fault = next(iter(rows.faults.items()))
                row = count + sum(map(bool, rows.lines[: index + 1]))
                message = (
                    f"{self._name} cannot be read as a table: row {row}: {fault}. "
                    f"Put cells that hold {self.form.separator!r} in quotes, or say what separates the cells"
                )
                raise DataError(message)
            count += len(rows.whole)
            yield list(rows.cells)


def record_blocks(file: IO[bytes], form: Form) -> Iterator[list[str]]:
    """The records of a file of text, block by block."""
    records = Records(form)
    for content in iter(partial(file.read, PIECE_BYTES), b""):
        yield records.feed(content)
    yield records.end()


def from_first_row(block: list[str]) -> list[str]:
    """A block of records without the blank lines at its start."""
    start = next((index for index, record in enumerate(block) if record.strip("\r")), len(block))
    return block[start:]


class ArrowTable:
    """A table of Arrow's: Parquet or Feather files, or a stream."""

    form = None

    def __init__(self, names: list[str], batches: Callable[[list[str]], Iterator[Any]], words: str) -> None:
        self.header, self._batches, self.words = names, batches, words

    def pieces(self, places: Sequence[int]) -> Iterator[list[Cells]]:
        """The columns at `places` as arrays."""
        for batch in self._batches([self.header[place] for place in places]):
            yield [arrow_values(column) for column in batch.columns]


def parquet_folder(folder: Path) -> ArrowTable:
    """The Parquet files in a folder as one table; raises DataError without the extra for them."""
    try:
        from pyarrow import dataset  # noqa: PLC0415  (an extra that most tables do not need)
    except ImportError:
        raise needs_extra(str(folder), "Parquet", "parquet") from None
    files = dataset.dataset(folder, format="parquet")
    return ArrowTable(list(files.schema.names), batches_of(files), "a folder of Parquet files")


def arrow_file(file: IO[bytes], kind: Foreign, name: str) -> ArrowTable:
    """A Parquet, Arrow or Feather file, or a stream of Arrow; raises DataError without the extra for it."""
    try:
        from pyarrow import dataset, ipc  # noqa: PLC0415  (an extra that most tables do not need)
    except ImportError:
        raise needs_extra(name, kind.name, "parquet") from None
    if kind is ARROW_STREAM:
        stream = ipc.open_stream(file)
        return ArrowTable(
            stream.schema.names, lambda names: (batch.select(names) for batch in stream), kind.name
        )
    form = dataset.ParquetFileFormat() if kind is PARQUET else dataset.IpcFileFormat()
    fragment = form.make_fragment(file)
    return ArrowTable(list(fragment.physical_schema.names), batches_of(fragment), kind.name)


def batches_of(rows: Any) -> Callable[[list[str]], Iterator[Any]]:
    """What gives the batches of a dataset's or a fragment's named columns."""
    return lambda names: rows.to_batches(columns=names, batch_size=PIECE_ROWS)


def arrow_values(column: Any) -> NDArray[Any]:
    """A column of Arrow's, (n,): numbers as float64 where exact, dates as datetime64, others as they are."""
    from pyarrow import ArrowInvalid, float64, timestamp, types  # noqa: PLC0415  (as above)

    kind = column.type
    if types.is_dictionary(kind):
        return arrow_values(column.dictionary_decode())
    if types.is_timestamp(kind):
        column = column.cast(timestamp("us"), safe=False)
    if types.is_date(kind) or types.is_timestamp(kind):
        dates: NDArray[Any] = column.to_numpy(zero_copy_only=False)
        return dates
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        with suppress(ArrowInvalid):
            numbers: NDArray[Any] = column.cast(float64()).to_numpy(zero_copy_only=False)
            return numbers
    return objects(column.to_pylist())


def objects(values: Sequence[Any]) -> NDArray[Any]:
    """Values of any type as an array, (n,)."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


class ListTable:
    """A table that comes as lists of values, its header first; raises DataError for an empty one."""

    form = None

    def __init__(self, rows: Iterator[list[Any]], words: str, name: str) -> None:
        self._name, self._rows, self.words = name, rows, words
        self.header = ["" if value is None else str(value) for value in next(rows, [])]
        if not self.header:
            message = f"{name} is empty: a first row with the columns' names is expected"
            raise DataError(message)

    def pieces(self, places: Sequence[int]) -> Iterator[list[Cells]]:
        """The columns at `places` as arrays (n,) of any type; raises DataError for a row of another width."""
        count = 0
        while rows := list(islice(self._rows, PIECE_ROWS)):
            for row in rows:
                count += 1
                if len(row) != len(self.header):
                    message = (
                        f"{self._name} cannot be read as a table: row {count}: "
                        f"{len(self.header)} cells are expected, {len(row)} are there"
                    )
                    raise DataError(message)
            yield [objects([row[place] for row in rows]) for place in places]


def json_rows(file: IO[bytes], name: str) -> Iterator[list[Any]]:
    """The names in a table's JSON objects, in the order in which they come, then each object's values.

    Raises DataError for what is not an object a row.
    """
    header = list(dict.fromkeys(chain.from_iterable(json_objects(file, name))))
    yield header
    file.seek(0)
    for row in json_objects(file, name):
        yield [row.get(column) for column in header]


def json_objects(file: IO[bytes], name: str) -> Iterator[dict[str, Any]]:
    """The objects of a JSON array, or of JSON lines; raises DataError for anything else."""
    for row in json_values(file, name):
        if not isinstance(row, dict):
            message = f"{name} looks like JSON, but not like a table: an object a row is expected"
            raise DataError(message)
        yield row


def json_values(file: IO[bytes], name: str) -> Iterator[Any]:
    """The items of a JSON array, or of JSON lines; raises DataError for a line that is not JSON."""
    if start_of(file).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        yield from json.load(file)
        return
    for number, line in enumerate(file, 1):
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError as error:
                message = f"{name} looks like JSON, but line {number} is no object: {error}"
                raise DataError(message) from None


def sheet_rows(file: IO[bytes], name: str, options: TableOptions) -> Iterator[list[Any]]:
    """The rows of an Excel file's sheet, as wide as the first; empty ones are no rows.

    Raises DataError for a sheet that is not there, or for none where there are several with content.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of styles, which no table needs
        book = openpyxl.load_workbook(file, read_only=True, data_only=True)
    sheet = chosen_sheet(book, name, options)
    rows = (list(row) for row in sheet.iter_rows(values_only=True))
    rows = (row for row in rows if any(value is not None for value in row))
    first = without_nothing(next(rows, []))
    yield first if options.has_header is not False else [""] * len(first)
    if options.has_header is False:
        yield first
    for row in rows:
        yield [*row, *[None] * len(first)][: max(len(first), len(without_nothing(row)))]


def chosen_sheet(book: Any, name: str, options: TableOptions) -> Any:
    """The sheet that is asked for, or the only one; raises DataError if there is none such."""
    if options.sheet is None and len(book.sheetnames) == 1:
        return book[book.sheetnames[0]]
    if options.sheet in book.sheetnames:
        return book[options.sheet]
    listed = ", ".join(map(repr, book.sheetnames[:10]))
    message = f"{name} has the sheets {listed}: say which one, as in --sheet {book.sheetnames[0]!r}"
    raise DataError(message)


def without_nothing(row: Sequence[Any]) -> list[Any]:
    """A row up to its last value."""
    last = max((place for place, value in enumerate(row, 1) if value is not None), default=0)
    return list(row[:last])
