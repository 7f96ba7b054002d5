"""Whatever bytes training reads, scoring reads the same numbers from them, or both refuse."""

import csv
import io
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from app.refusals import Refused
from model_store.cells import MISSING
from model_store.columns import NumericFeature
from tests.scoring import echo, score
from tests.toys import DECILES
from training.data import DataError, Table
from training.reading import read_table
from training.recipe import TableOptions, make_recipe

FILL = 7777.25
FEATURES = tuple(
    NumericFeature(name=name, mean=0, std=1, minimum=0, maximum=10, deciles=DECILES, example=4, fill=FILL)
    for name in "xy"
)
RECIPE = make_recipe({"target": {"name": "y"}, "features": [{"name": "x"}], "missing": "mean"})


class Dialect(NamedTuple):
    """How a table is written."""

    separator: str
    decimal: str
    grouping: str
    encoding: str
    line_end: str
    quoting: Any
    blank_lines: int
    units: tuple[str, str]
    ends: bool


class Written(NamedTuple):
    """A table as numbers, None for a missing one, and as bytes."""

    dialect: Dialect
    rows: list[tuple[float | None, float]]
    content: bytes


dialects = st.sampled_from([(".", ""), (".", ","), (".", "'"), (",", ""), (",", "."), (",", " ")]).flatmap(
    lambda marks: st.builds(
        Dialect,
        separator=st.sampled_from([",", ";", "\t", "|"]),
        decimal=st.just(marks[0]),
        grouping=st.just(marks[1]),
        encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16le", "cp1252"]),
        line_end=st.sampled_from(["\n", "\r\n", "\r"]),
        quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
        blank_lines=st.integers(0, 2),
        units=st.sampled_from(
            [("", ""), ("", " km"), ("", "km"), ("$", ""), ("€ ", ""), ("", " €"), ("", "%")]
        ),
        ends=st.booleans(),
    )
)
numbers = st.one_of(
    st.integers(-(10**7), 10**7).map(float),
    st.floats(-1e6, 1e6).map(lambda value: round(value, 3)),
    st.floats(allow_nan=False, allow_infinity=False),
)
notes = st.text('ab"é ', max_size=4)


def written_number(value: float, dialect: Dialect) -> str:
    """A number as a cell of the dialect; only one that is not in exponents is grouped."""
    text = repr(value).removesuffix(".0")
    if "e" not in text and dialect.grouping:
        whole, mark, rest = text.partition(".")
        text = f"{int(whole):,}".replace(",", dialect.grouping) + mark.replace(".", dialect.decimal) + rest
        text = f"-{text}" if whole == "-0" else text
    else:
        text = text.replace(".", dialect.decimal)
    return f"{dialect.units[0]}{text}{dialect.units[1]}"


@st.composite
def tables(draw: st.DrawFn) -> Written:
    dialect = draw(dialects)
    words = st.sampled_from([word for word in sorted(MISSING) if word])
    rows = draw(
        st.lists(st.tuples(st.one_of(st.none(), numbers), numbers, words, notes), min_size=2, max_size=9)
    )
    text = io.StringIO()
    writer = csv.writer(
        text, delimiter=dialect.separator, quoting=dialect.quoting, lineterminator=dialect.line_end
    )
    writer.writerow(["note", "x", "y"])
    for x, y, word, note in rows:
        cell = word if x is None else written_number(x, dialect)
        writer.writerow([note, cell, written_number(y, dialect)])
    lines = text.getvalue() if dialect.ends else text.getvalue().removesuffix(dialect.line_end)
    content = (dialect.line_end * dialect.blank_lines + lines).encode(dialect.encoding)
    return Written(dialect, [(x, y) for x, y, _, _ in rows], content)


def trained(content: bytes, options: TableOptions) -> Table:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        return read_table(Path(file.name), RECIPE.model_copy(update={"table": options}))


def scored(content: bytes, table: Table) -> dict[str, list[float]]:
    """The numbers that the service reads, by column; raises AssertionError for a row that it refuses."""
    answers = {name: score(echo(FEATURES, name, table.form), content).rows for name in "xy"}
    assert {row["error"] for rows in answers.values() for row in rows} == {""}
    return {
        name: [float(row["prediction"].replace(",", ".")) for row in rows] for name, rows in answers.items()
    }


@settings(deadline=None, max_examples=300)
@given(tables(), st.booleans())
def test_a_table_of_any_form_is_read_as_it_was_written_and_scored_as_it_was_read(
    written: Written, is_said: bool
) -> None:
    dialect = written.dialect
    # "1 000" alone could be two numbers: it is no sign of a decimal comma.
    is_said = is_said or dialect.grouping == " "
    said = {"separator": dialect.separator, "decimal": dialect.decimal} if is_said else {}
    table = trained(written.content, TableOptions.model_validate(said))
    rows = np.concatenate(list(table.blocks))
    assert table.form
    if not table.form.doubt:
        expected = [[np.nan if x is None else x, y] for x, y in written.rows]
        np.testing.assert_array_equal(rows, expected)
    found = scored(written.content, table)
    assert found["y"] == rows[:, 1].tolist()
    assert found["x"] == [FILL if np.isnan(value) else value for value in rows[:, 0]]


@settings(deadline=None, max_examples=500)
@given(st.lists(st.text('12,;."\n -ax', max_size=12), max_size=5), st.sampled_from([",", ";"]))
def test_lines_of_anything_are_scored_as_they_are_read_or_refused_by_both(
    lines: list[str], separator: str
) -> None:
    content = "\n".join([f"x{separator}y", f"1{separator}2", *lines, f"3{separator}4"]).encode()
    try:
        table: Table | None = trained(content, TableOptions())
    except DataError:
        table = None
    if table is None:
        assert is_refused(content)
        return
    rows = np.concatenate(list(table.blocks))
    found = scored(content, table)
    kept = [index for index, value in enumerate(found["y"]) if value != FILL]
    assert [found["y"][index] for index in kept] == rows[:, 1].tolist()
    assert [found["x"][index] for index in kept] == [FILL if np.isnan(x) else x for x in rows[:, 0]]


def is_refused(content: bytes) -> bool:
    """Whether the service refuses a table, or a row of it."""
    try:
        rows = score(echo(FEATURES, "x"), content).rows
    except Refused:
        return True
    return any(row["error"] for row in rows)
