import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.forms import Form, FormOptions, known_encoding
from model_store.names import nearest_name, usable_names
from model_store.records import Layout, Records
from model_store.sniffing import PREFIX_BYTES, recognised, sniff


def test_a_plain_csv_has_the_usual_form() -> None:
    assert sniff(b"a,b\n1,2\n") == Form()


@pytest.mark.parametrize(
    ("content", "separator"),
    [
        ("a;b\n1;2\n", ";"),
        ("a\tb\n1\t2\n", "\t"),
        ("a|b\n1|2\n", "|"),
        ("a;b\n1,5;2,5\n3,5;4,5\n", ";"),
        ("name, first;b\nx;1\ny;2\n", ";"),
        ("a,b\nx; y,1\nz; w,2\n", ","),
        ('a,b\n"1;2",3\n', ","),
        ("x\n1,5\n2,7\n", ";"),
        ("x\n1\n2\n", ","),
        ("a,b,c\n1\n2,3\n", ","),
    ],
)
def test_the_separator_makes_most_rows_as_wide_as_the_header(content: str, separator: str) -> None:
    assert sniff(content.encode()).separator == separator


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_a_separator_that_is_said_is_taken(separator: str) -> None:
    assert sniff(b"a,b;c\td|e\n", FormOptions(separator=separator)).separator == separator


@pytest.mark.parametrize(
    ("cells", "decimal"),
    [
        ("12,5", ","),
        ("1.234,5", ","),
        ("0,125", ","),
        ("1.234.567", ","),
        ("1,5 kg", ","),
        ("12.5", "."),
        ("1,234.5", "."),
        ("0.125", "."),
        ("1,00,000", "."),
        ("$1,250.50", "."),
        ("1,500\n12,5", ","),
        ("1.500\n12.5", "."),
        ("5", "."),
        ("01.02.2020", "."),
    ],
)
def test_the_decimal_mark_is_the_one_that_the_numbers_have(cells: str, decimal: str) -> None:
    form = sniff(f"x;y\n{''.join(f'{cell};1{chr(10)}' for cell in cells.split())}".encode())
    assert (form.decimal, form.doubt) == (decimal, "")


@pytest.mark.parametrize("cell", ["1,500", "1.500"])
def test_a_number_that_could_be_two_is_read_as_is_usual_and_told(cell: str) -> None:
    content = f"x;y\n{cell};1\n".encode()
    assert sniff(content).decimal == "."
    assert sniff(content, prior=Form(separator=";", decimal=",")).decimal == ","
    assert sniff(content, prior=Form(separator=",", decimal=",")).decimal == "."
    form = sniff(content)
    assert form.doubt == f"{cell!r} is " + (
        "1500 with a decimal point and 1.5 with a decimal comma"
        if cell == "1,500"
        else "1.5 with a decimal point and 1500 with a decimal comma"
    )
    assert sniff(content, FormOptions(decimal=",")) == form.model_copy(
        update={"decimal": ",", "said": ("decimal",), "doubt": ""}
    )


@pytest.mark.parametrize("address", ["12, High Street", "12, Main Street 3.5"])
def test_a_comma_behind_the_number_of_a_house_is_no_decimal_comma(address: str) -> None:
    form = sniff(f'address,latitude\n"{address}",40.123\n'.encode())
    assert form.decimal == "."
    assert "40.123" in form.doubt
    assert sniff(f'address,latitude\n"{address}",40.12\n'.encode()) == Form()


def test_two_decimal_marks_in_one_table_are_told() -> None:
    form = sniff(b"x;y\n1,5;1.5\n2,5;2.55\n3,5;4\n")
    assert form.decimal == ","
    assert form.doubt == "'1.5' has a decimal point and '1,5' a decimal comma"


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        ("é;b\n".encode(), "utf-8"),
        ("é;b\n".encode("utf-8-sig"), "utf-8"),
        ("é;b\n".encode("utf-16"), "utf-16le"),
        ("\ufeffé;b\n".encode("utf-16be"), "utf-16be"),
        ("é;b\n1;2\n".encode("utf-16le"), "utf-16le"),
        ("é;b\n1;2\n".encode("utf-16be"), "utf-16be"),
        ("é;b\n".encode("cp1252"), "windows-1252"),
        ("ñ;b\n1;é\n".encode() + b"2;\xff\n", "utf-8"),
        (b"a,b\n1,\x00\n", "utf-8"),
        (b"", "utf-8"),
    ],
)
def test_the_encoding_is_found(content: bytes, encoding: str) -> None:
    assert sniff(content).encoding == encoding


def test_what_is_no_unicode_is_read_as_usual_or_as_is_said() -> None:
    content = "имя,b\n".encode("cp1251")
    assert sniff(content).encoding == "windows-1252"
    assert sniff(content, prior=Form(encoding="windows-1251")).encoding == "windows-1251"
    assert sniff(content, FormOptions(encoding="cp1251")).encoding == "windows-1251"


@pytest.mark.parametrize(("name", "known"), [("UTF8", "utf-8"), ("Latin-1", "windows-1252"), ("cp850", None)])
def test_an_encoding_goes_by_many_names(name: str, known: str | None) -> None:
    if known is None:
        with pytest.raises(ValueError, match="no encoding that is read"):
            known_encoding(name)
    else:
        assert known_encoding(name) == known


@pytest.mark.parametrize(
    ("content", "line_end"),
    [
        ("a\n1\n", "\n"),
        ("a\r\n1\r\n", "\r\n"),
        ("a\r1\r", "\r"),
        ("a", "\n"),
        ("a\r", "\n"),
        ("a\r\n", "\r\n"),
    ],
)
def test_the_line_end_is_that_of_the_first_line(content: str, line_end: str) -> None:
    assert sniff(content.encode()).line_end == line_end


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("km,price\n1,500,90\n2,1500,89\n", True),
        ('"km" "price"\n"3" 500 90\n"17" 1500 89\n'.replace(" ", ","), True),
        ("km,price\nFiat,500,90\nFord,1500,89\n", True),
        ('"km"\n"1",500\n"2",900\n', True),
        ("km,price\n1,500,90\n3,200,40\n", False),
        ("km,price\n7,500,90\n", False),
        ("km,price\nFiat,500,90\nFiat,1500,89\n", False),
        ("km,price\nFiat,500,90\n500,90\n", False),
        ("km,price\n500,90\n", False),
    ],
)
def test_names_of_rows_are_taken_for_that_only_if_they_can_be_nothing_else(
    content: str, *, named: bool
) -> None:
    assert sniff(content.encode()).row_names is named


def test_names_of_rows_that_are_usual_are_taken_for_that_in_a_single_row_too() -> None:
    assert sniff(b"km,price\n7,500,90\n", prior=Form(row_names=True)).row_names


def test_a_separator_behind_every_row_is_seen() -> None:
    assert sniff(b"a,b\n1,2,\n3,4,\n").trailing
    assert not sniff(b"a,b,\n1,2,\n3,4,\n").trailing
    assert not sniff(b"a,b\n1,2,\n3,4\n").trailing


def test_a_form_says_in_words_what_it_is() -> None:
    assert Form().words == "separated by ',', decimal point, utf-8"
    odd = Form(encoding="windows-1252", separator="\t", decimal=",", has_header=False, trailing=True)
    assert odd.words == (
        "separated by tabs, decimal comma, windows-1252, no header, a separator behind every row"
    )


def test_the_first_64_kib_decide_alone() -> None:
    start = b"a;b\n" + b"1;2\n" * (PREFIX_BYTES // 4)
    assert sniff(start[:PREFIX_BYTES]) == sniff((start + "é,é,é\n".encode("cp1252"))[:PREFIX_BYTES])


@given(st.binary(max_size=300))
def test_any_bytes_have_a_form_and_come_back_as_they_were(content: bytes) -> None:
    form = sniff(content)
    records = Records(form)
    lines = records.feed(content) + records.end()
    if form.encoding == "utf-8" or form.encoding.startswith("windows"):
        text = content.decode(form.encoding, form.errors)
        assert form.encode(text.replace("\r", "\n") if form.line_end == "\r" else text) == content
    for line in lines[:1]:
        Layout(form, line).rows(lines, [0])


@given(st.lists(st.binary(max_size=20)))
def test_records_do_not_depend_on_how_the_bytes_come(chunks: list[bytes]) -> None:
    content = b"".join(chunks)
    form = sniff(content)
    whole, cut = Records(form), Records(form)
    pieces = [record for chunk in chunks for record in cut.feed(chunk)] + cut.end()
    assert pieces == whole.feed(content) + whole.end()


def test_what_an_encoding_lacks_is_written_as_a_question_mark() -> None:
    assert Form(encoding="windows-1252").encode("é🚗\udcff") == b"\xe9?\xff"


def test_names_that_no_request_could_spell_are_given_usable_ones() -> None:
    names = ["plain", 'size "mm"', "two\nlines", "a\\b", "", "  blank", "x" * 300]
    usable = usable_names(names)
    assert usable == ["plain", "size mm", "two lines", "a b", "column_5", "  blank", "x" * 200]
    assert usable_names(usable) == usable


@pytest.mark.parametrize(
    ("name", "nearest"), [("price", "Price "), ("prise", "Price "), ("KM", "km"), ("zebra", None)]
)
def test_the_nearest_name_is_found_whatever_its_case_and_blanks(name: str, nearest: str | None) -> None:
    assert nearest_name(name, ["Price ", "km", "Kilometers"]) == nearest


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"PK\x03\x04", "a zip archive or an Excel file (.xlsx)"),
        (b"\x1f\x8b\x08", "a file compressed with gzip"),
        (b"PAR1\x15", "a Parquet file"),
        (b"%PDF-1.7", "a PDF document"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel or Word file"),
        (b"SQLite format 3\x00", "an SQLite database"),
        (b'\xef\xbb\xbf{"a": 1}', "JSON"),
        (b'[{"a": 1}]', "JSON"),
        (b"  <!DOCTYPE html>", "a web page or XML"),
        (b"\x80\x05\x95", "a pickle of Python, which could run code"),
    ],
)
def test_what_is_no_table_of_text_is_named(start: bytes, name: str) -> None:
    foreign = recognised(start)
    assert foreign
    assert foreign.name == name


@pytest.mark.parametrize("start", [b"", b"a,b\n", b"[km],price\n", b"{x},y\n", b"<5,6\n", b"PK,x\n"])
def test_a_table_of_text_is_not_taken_for_anything_else(start: bytes) -> None:
    assert recognised(start) is None


def test_what_a_person_said_of_the_training_table_holds_for_others_of_its_kind() -> None:
    content = b"note;x\n0,5;1,500\n1,5;2,500\n"
    said = sniff(content, FormOptions(decimal="."))
    assert (said.decimal, sniff(content).decimal) == (".", ",")
    assert sniff(content, prior=said) == said.model_copy(update={"said": ()})
    tabs = sniff(b"a;b\tc;d\n", FormOptions(separator=";"))
    assert sniff(b"a;b\tc;d\n", prior=tabs).separator == ";"


@pytest.mark.parametrize(
    "neighbour", ['"a",b', 'a"b,c', '"a\nb",c', "a\rb,c", f'"{"x" * 200_000}",c', '"a"b"c,d', ""]
)
@pytest.mark.parametrize(
    "line", ['"x",y', 'x"y,z', '"x"y"z,1', "x\ry,z", '"x\ry",z', "x,y", '"x', f'"{"x" * 200_000}",y']
)
def test_a_record_has_the_same_cells_beside_any_other(line: str, neighbour: str) -> None:
    layout = Layout(Form(), "a,b")
    alone, beside = layout.rows([line], [0, 1]), layout.rows([neighbour, line, neighbour], [0, 1])
    assert alone.faults.get(0) == beside.faults.get(1)
    if alone.whole:
        index = list(beside.whole).index(1)
        assert [column[0] for column in alone.cells] == [column[index] for column in beside.cells]
