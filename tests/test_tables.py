"""Every form of table, read by training; what is text is scored by the service to the same numbers."""

import gzip
import io
import json
import os
import sqlite3
import sys
import threading
import zipfile
from collections.abc import Callable
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pyarrow as pa
import pytest
from pyarrow import feather, ipc, parquet

from model_store.forms import Form
from model_store.sniffing import sniff
from tests.scoring import echo, score
from training import pieces
from training.data import DataError, Table
from training.reading import read_table
from training.recipe import Recipe, TableOptions, make_recipe
from training.statistics import describe_columns

TABLES = Path(__file__).parent / "tables"
TEXTS = sorted(path.name for path in TABLES.iterdir() if path.suffix not in {".json", ".jsonl"})
KM, PRICE, FUEL = [1500.0, 20000.5, 300.0], [9.5, 4.25, 12.0], ["gas", "diesel", "Öl, schwer"]
NAMES = {"no-header.csv": ["column_1", "column_2", "column_3"]}
OPTIONS = {"no-header.csv": TableOptions(has_header=False)}
FORMS = {
    "windows-1252.csv": "separated by ',', decimal point, windows-1252",
    "utf16-with-mark.csv": "separated by ',', decimal point, utf-16le",
    "semicolons-decimal-comma.csv": "separated by ';', decimal comma, utf-8",
    "excel-german.csv": "separated by ';', decimal comma, windows-1252",
    "tabs.tsv": "separated by tabs, decimal point, utf-8",
    "pipes.txt": "separated by '|', decimal point, utf-8",
    "commas-decimal-comma.csv": "separated by ',', decimal comma, utf-8",
    "row-names-of-r.csv": "separated by ',', decimal point, utf-8, a row's name in front of every row",
    "trailing-separators.csv": "separated by ';', decimal point, utf-8, a separator behind every row",
    "no-header.csv": "separated by ',', decimal point, utf-8, no header",
}


def recipe(names: list[str] | None = None, options: TableOptions | None = None, **fields: Any) -> Recipe:
    km, price, fuel = names or ["km", "price", "fuel"]
    features = [{"name": km}, {"name": fuel, "kind": "categorical"}]
    table = options or TableOptions()
    return make_recipe({"target": {"name": price}, "features": features, "table": table, **fields})


def read(path: Path, options: TableOptions | None = None) -> Table:
    return read_table(path, recipe(options=options))


def assert_right(table: Table) -> None:
    """The three rows that every table of these holds."""
    rows = np.concatenate(list(table.blocks))
    assert rows[:, 0].tolist() == KM
    assert table.target().tolist() == PRICE
    known = list(table.categories[table.recipe.features[1].name])
    assert [known[int(code)] for code in rows[:, 1]] == FUEL


def numbers(cells: list[str]) -> list[float]:
    return [float(cell.replace(",", ".")) for cell in cells if cell]


@pytest.mark.parametrize("name", TEXTS)
def test_a_table_of_text_is_read_and_told(name: str) -> None:
    table = read_table(TABLES / name, recipe(NAMES.get(name), OPTIONS.get(name)))
    assert_right(table)
    assert table.form
    assert table.form.doubt == ""
    expected = FORMS.get(name, "separated by ',', decimal point, utf-8")
    if not name.startswith(("thousands", "utf16")):
        assert table.form.words == expected
    assert table.notes[0] == f"read as {table.form.words}"


@pytest.mark.parametrize("name", TEXTS)
def test_what_training_reads_is_scored_as_the_same_numbers(name: str) -> None:
    table = read_table(TABLES / name, recipe(NAMES.get(name), OPTIONS.get(name), missing="mean"))
    features, _ = describe_columns(table)
    content = (TABLES / name).read_bytes()
    for feature, values in zip(features, np.concatenate(list(table.blocks)).T, strict=False):
        answer = score(echo(features, feature.name, table.form), content)
        if feature.kind == "numeric":
            assert feature.fill is not None
            expected = [feature.fill if np.isnan(value) else float(value) for value in values]
        elif feature.kind == "categorical":
            read = list(table.categories[feature.name])
            places = {category.value: float(place) for place, category in enumerate(feature.categories)}
            expected = [places[read[int(code)]] for code in values]
        found = answer.content.decode(answer.media_type.partition("charset=")[2].partition(";")[0])
        if name == "no-header.csv":
            assert [float(line.split(",")[-4]) for line in found.splitlines()] == expected
        elif name == "missing-words.csv":
            assert set(expected) <= set(numbers([row["prediction"] for row in answer.rows]))
        else:
            assert numbers([row["prediction"] for row in answer.rows]) == expected
            assert {row["error"] for row in answer.rows} == {""}


def workbook(folder: Path, *sheets: str) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for sheet in sheets or ("cars",):
        page = book.create_sheet(sheet)
        page.append([None, None, None])
        page.append(["km", "price", "fuel", "sold"])
        for km, price, fuel in zip([1500, "20,000.5 km", 300], PRICE, FUEL, strict=True):
            page.append([km, price, fuel, date(2020, 5, 1)])
    book.save(folder / "cars.xlsx")
    return folder / "cars.xlsx"


def plain() -> bytes:
    return (TABLES / "plain.csv").read_bytes()


def gzipped(folder: Path) -> Path:
    (folder / "cars.csv.gz").write_bytes(gzip.compress(plain()))
    return folder / "cars.csv.gz"


def zipped(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "cars.zip", "w") as archive:
        archive.writestr("data/", b"")
        archive.writestr("data/cars.csv", plain())
        archive.writestr("__MACOSX/._cars.csv", b"x")
    return folder / "cars.zip"


def in_zstd(content: bytes) -> bytes:
    packed = pa.BufferOutputStream()
    with pa.CompressedOutputStream(packed, "zstd") as stream:
        stream.write(content)
    frame: bytes = packed.getvalue().to_pybytes()
    return frame


def zstd(folder: Path) -> Path:
    (folder / "cars.zst").write_bytes(in_zstd(plain()[:20]) + in_zstd(plain()[20:]))
    return folder / "cars.zst"


def arrow_table() -> pa.Table:
    return pa.table(
        {
            "km": pa.array(KM),
            "price": pa.array([None if price is None else str(price) for price in PRICE]).cast(
                pa.decimal128(5, 2)
            ),
            "fuel": pa.array(FUEL).dictionary_encode(),
            "sold": pa.array([date(2020, 5, 1)] * 3),
        }
    )


def parquet_file(folder: Path) -> Path:
    parquet.write_table(arrow_table(), folder / "cars.data")
    return folder / "cars.data"


def parquet_folder(folder: Path) -> Path:
    (folder / "cars").mkdir()
    parquet.write_table(arrow_table()[:2], folder / "cars" / "1.parquet")
    parquet.write_table(arrow_table()[2:], folder / "cars" / "2.parquet")
    return folder / "cars"


def feather_file(folder: Path) -> Path:
    feather.write_feather(arrow_table(), str(folder / "cars.feather"), compression="uncompressed")
    return folder / "cars.feather"


def arrow_stream(folder: Path) -> Path:
    with ipc.new_stream(folder / "cars.arrows", arrow_table().schema) as writer:
        writer.write_table(arrow_table())
    return folder / "cars.arrows"


def json_lines(_folder: Path) -> Path:
    return TABLES / "lines.jsonl"


def json_array(_folder: Path) -> Path:
    return TABLES / "array.json"


def gzipped_lines(folder: Path) -> Path:
    (folder / "lines.gz").write_bytes(gzip.compress((TABLES / "lines.jsonl").read_bytes()))
    return folder / "lines.gz"


@pytest.mark.parametrize(
    "write",
    [
        gzipped,
        zipped,
        zstd,
        workbook,
        parquet_file,
        parquet_folder,
        feather_file,
        arrow_stream,
        json_lines,
        json_array,
        gzipped_lines,
    ],
)
def test_a_table_of_another_form_is_read_whatever_it_is_called(
    tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    assert_right(read(write(tmp_path)))


def test_a_sheet_is_asked_for_where_there_are_several(tmp_path: Path) -> None:
    path = workbook(tmp_path, "notes", "cars")
    with pytest.raises(
        DataError, match="has the sheets 'notes', 'cars': say which one, as in --sheet 'notes'"
    ):
        read(path)
    assert_right(read(path, TableOptions(sheet="cars")))


def test_booleans_whole_numbers_and_dates_are_categories_by_their_text(tmp_path: Path) -> None:
    columns = {"c": [True, False, None], "d": [7, 8, None], "e": [date(2020, 5, 1)] * 3, "y": [1, 2, 3]}
    for name, write in (("t.parquet", parquet.write_table), ("t.arrow", feather.write_feather)):
        write(pa.table(columns), str(tmp_path / name))
    (tmp_path / "t.jsonl").write_text(
        "".join(
            json.dumps(dict(zip(columns, row, strict=True)), default=str) + "\n"
            for row in zip(*columns.values(), strict=True)
        )
    )
    features = [{"name": name, "kind": "categorical"} for name in "cde"]
    asked = make_recipe({"target": {"name": "y"}, "features": features})
    for path in sorted(tmp_path.iterdir()):
        table = read_table(path, asked)
        assert table.categories == {
            "c": {"true": 1, "false": 1},
            "d": {"7": 1, "8": 1},
            "e": {"2020-05-01": 3},
        }


@pytest.mark.parametrize("is_array", [True, False])
def test_a_column_that_the_first_objects_of_json_lack_is_there(tmp_path: Path, *, is_array: bool) -> None:
    rows = [{"y": 1}, {"y": 2, "x": 5}, {"x": 7, "y": 3}]
    path = tmp_path / "t.json"
    path.write_text(json.dumps(rows) if is_array else "\n".join(map(json.dumps, rows)))
    table = read_table(path, make_recipe({"target": {"name": "y"}, "features": [{"name": "x"}]}))
    assert table.header == ("y", "x")
    assert np.concatenate(list(table.blocks)).tolist() == [[5, 2], [7, 3]]


def test_moments_finer_than_microseconds_are_read(tmp_path: Path) -> None:
    moments = pa.array([1_577_836_800_000_000_001, 1_577_923_200_000_000_999], pa.timestamp("ns"))
    parquet.write_table(pa.table({"day": moments, "y": [1, 2]}), tmp_path / "t.parquet")
    asked = make_recipe({"target": {"name": "y"}, "features": [{"name": "day", "kind": "date"}]})
    table = read_table(tmp_path / "t.parquet", asked)
    assert np.concatenate(list(table.blocks)).tolist() == [[18_262, 1], [18_263, 2]]


@pytest.mark.parametrize("from_stdin", [True, False])
def test_a_pipe_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, from_stdin: bool) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=[plain()])
    writer.start()
    if from_stdin:
        with path.open("rb") as pipe, monkeypatch.context() as patched:
            patched.setattr(sys, "stdin", io.TextIOWrapper(pipe))
            table = read(Path("-"))
        assert table.source == "the standard input"
    else:
        table = read(path)
    writer.join()
    assert_right(table)
    assert table.sha256 == read(TABLES / "plain.csv").sha256


@pytest.mark.parametrize("change", ["grows", "changes", "is written anew"])
def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    path = tmp_path / "cars.csv"
    path.write_bytes(plain() * 1)
    mode = {"grows": "ab", "changes": "r+b", "is written anew": "wb"}[change]

    def changed(prefix: bytes, options: TableOptions) -> Form:
        with path.open(mode) as file:
            file.write(b"5,5,gas\n" if mode == "ab" else plain().replace(b"1500", b"1600"))
        return sniff(prefix, options)

    monkeypatch.setattr(pieces, "sniff", changed)
    with pytest.raises(DataError, match="changed while it was read: wait until it is written"):
        read(path)


def unreadable(folder: Path) -> dict[str, bytes]:
    with closing(sqlite3.connect(folder / "db")) as database:
        database.execute("create table cars (km)")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as several:
        several.writestr("a.csv", plain())
        several.writestr("b.csv", plain())
    encrypted = bytearray(zipped(folder).read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        while (at := encrypted.find(mark, at + 1)) >= 0:
            encrypted[at + offset] |= 1
    word = io.BytesIO()
    with zipfile.ZipFile(word, "w") as document:
        document.writestr("word/document.xml", b"<w/>")
    return {
        "a PDF document": b"%PDF-1.7\n",
        "a web page or XML": b"<!doctype html><p>404",
        "an SQLite database": (folder / "db").read_bytes(),
        "an old Excel or Word file": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100),
        "a pickle of Python": b"\x80\x05\x95" + bytes(20),
        "2 files (a.csv, b.csv)": archive.getvalue(),
        "encrypted zip archive": bytes(encrypted),
        "a Word document": word.getvalue(),
        "compressed with gzip, but it cannot be unpacked": gzip.compress(plain())[:-12],
        "compressed with zstd, but it cannot be unpacked": in_zstd(plain())[:-5],
        "line 1 is no object": b'{\n  "km": 1,\n  "price": 2\n}\n',
        "an object a row is expected": b"[[1, 2], [3, 4]]",
        "is empty": b"\n\n",
        "cannot be read as a table": b"PAR1 and nothing else",
    }


@pytest.mark.parametrize("what", list(range(14)))
def test_what_cannot_be_read_is_named(tmp_path: Path, what: int) -> None:
    sentence, content = list(unreadable(tmp_path).items())[what]
    path = tmp_path / "cars.csv"
    path.write_bytes(content)
    with pytest.raises(DataError) as refusal:
        read(path)
    assert sentence in str(refusal.value)
    assert "cars.csv" in str(refusal.value)
