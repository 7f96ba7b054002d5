"""What a table of any form is answered with: in its own form, or with a refusal that says what to send."""

import numpy as np
import pytest

from app.csv_stream import numbers_as_text
from app.refusals import Refused
from app.serving import Served
from model_store.columns import CategoricalFeature, Category, NumericFeature
from model_store.forms import Form
from tests.scoring import echo, score
from tests.toys import DECILES

KM = NumericFeature(name="km", mean=0, std=1, minimum=0, maximum=10, deciles=DECILES, example=4)
FUEL = CategoricalFeature(
    name="fuel", categories=(Category(value="gas", rows=1), Category(value="Öl", rows=1)), example="gas"
)
GERMAN = Form(separator=";", decimal=",")


def served(form: Form | None = None) -> Served:
    return echo((KM, FUEL), "km", form)


def answer(content: str | bytes, media_type: str = "text/csv", form: Form | None = None) -> tuple[str, str]:
    """The media type of an answer, and its text."""
    sent = content.encode() if isinstance(content, str) else content
    scored = score(served(form), sent, media_type)
    charset = scored.media_type.partition("charset=")[2].partition(";")[0]
    return scored.media_type, scored.content.decode(charset)


def refusal(content: bytes, media_type: str = "text/csv", form: Form | None = None) -> tuple[int, str, str]:
    with pytest.raises(Refused) as refused:
        score(served(form), content, media_type)
    problem = refused.value
    return problem.status, problem.detail, " ".join(fault.detail for fault in problem.faults)


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        ("km;fuel\n2,5;gas\n", "km;fuel;prediction;lower;upper;error\n2,5;gas;2,5;;;\n"),
        ("km\tfuel\r\n2.5\tgas\r\n", "km\tfuel\tprediction\tlower\tupper\terror\r\n2.5\tgas\t2.5\t\t\t\r\n"),
        ("km|fuel\r2|gas\r", "km|fuel|prediction|lower|upper|error\r2|gas|2.0|||\r"),
        ('km,fuel\n"2,5",gas\n', 'km,fuel,prediction,lower,upper,error\n"2,5",gas,"2,5",,,\n'),
        ("\n\nkm,fuel\n2,gas\n", "\n\nkm,fuel,prediction,lower,upper,error\n2,gas,2.0,,,\n"),
        ('"km","fuel"\n"7",2,gas\n', ',"km","fuel",prediction,lower,upper,error\n"7",2,gas,2.0,,,\n'),
        ("km;fuel\n2;gas;\n", "km;fuel;;prediction;lower;upper;error\n2;gas;;2.0;;;\n"),
    ],
)
def test_a_table_is_answered_in_its_own_form(sent: str, answered: str) -> None:
    assert answer(sent) == ("text/csv; charset=utf-8", answered)


@pytest.mark.parametrize(
    ("form", "cells"),
    [
        (Form(), ["2.5", "", "-1e+300"]),
        (GERMAN, ["2,5", "", "-1e+300"]),
        (Form(decimal=","), ['"2,5"', "", '"-1e+300"']),
    ],
)
def test_a_bound_that_is_not_claimed_is_an_empty_cell_in_any_form(form: Form, cells: list[str]) -> None:
    assert numbers_as_text(np.array([2.5, np.nan, -1e300]), form) == cells
    assert numbers_as_text(np.array([np.nan]), form) == [""]


@pytest.mark.parametrize(
    ("encoding", "charset"),
    [("cp1252", "windows-1252"), ("utf-16le", "utf-16le"), ("utf-16be", "utf-16be"), ("utf-16", "utf-16")],
)
def test_a_table_is_answered_in_its_own_encoding_and_the_media_type_says_so(
    encoding: str, charset: str
) -> None:
    media_type, text = answer("km,fuel\n2,Öl\n".encode(encoding))
    assert media_type == f"text/csv; charset={charset}"
    assert text == "km,fuel,prediction,lower,upper,error\n2,Öl,2.0,,,\n"


def test_an_error_that_the_encoding_cannot_write_does_not_break_the_answer() -> None:
    categories = (Category(value="☃", rows=1), Category(value="вода", rows=1))
    snow = FUEL.model_copy(update={"name": "снег", "categories": categories, "example": "☃"})
    content = "km,b,\u0441\u043d\u0435\u0433\n2,x,y\n".encode("windows-1251")
    scored = score(echo((KM, snow), "km"), content, "text/csv; charset=windows-1251")
    assert scored.rows[0]["error"] == "снег: one of '?', 'вода' is expected"


@pytest.mark.parametrize(
    ("media_type", "content", "km"),
    [
        ("text/csv; charset=UTF-8", "km,fuel,é\n2,gas,x\n".encode(), "2.0"),
        ('TEXT/CSV ; Charset="iso-8859-1"', "km,fuel\n2,Öl\n".encode("latin-1"), "2.0"),
        ("text/csv; header=present", b"km,fuel\n2,gas\n", "2.0"),
        ("text/tab-separated-values", b"km\tfuel\n2\tgas\n", "2.0"),
    ],
)
def test_what_the_media_type_says_holds(media_type: str, content: bytes, km: str) -> None:
    scored = score(served(), content, media_type)
    assert [row["prediction"] for row in scored.rows] == [km]
    assert scored.media_type.startswith(media_type.lower().partition(";")[0].strip())


def test_a_table_without_a_header_is_answered_without_one() -> None:
    nameless = echo((KM.model_copy(update={"name": "column_2"}),), "column_2")
    scored = score(nameless, b"x,2\ny,3\n", "text/csv; header=absent")
    assert scored.media_type == "text/csv; charset=utf-8; header=absent"
    assert scored.content == b"x,2,2.0,,,\ny,3,3.0,,,\n"


def test_a_model_of_a_table_without_a_header_takes_tables_with_and_without() -> None:
    nameless = echo((KM.model_copy(update={"name": "column_2"}),), "column_2", Form(has_header=False))
    assert score(nameless, b"x,2\ny,3\n").content == b"x,2,2.0,,,\ny,3,3.0,,,\n"
    assert [row["prediction"] for row in score(nameless, b"column_1,column_2\nx,2\n").rows] == ["2.0"]


@pytest.mark.parametrize(("form", "prediction"), [(None, "1.5"), (GERMAN, "1500,0")])
def test_what_could_be_two_numbers_is_read_as_in_training(form: Form | None, prediction: str) -> None:
    assert answer("km;fuel\n1.500;gas\n", form=form)[1].splitlines()[1] == f"1.500;gas;{prediction};;;"


def test_a_column_whose_name_had_to_be_made_usable_is_found_by_both_names() -> None:
    inches = echo((KM.model_copy(update={"name": "km (odometer)"}),), "km (odometer)")
    for header in ('"km\n(odometer)"', "km (odometer)"):
        assert [row["prediction"] for row in score(inches, f"{header}\n2\n".encode()).rows] == ["2.0"]


def test_a_missing_word_of_the_column_is_missing() -> None:
    filled = KM.model_copy(update={"fill": 7.0, "missing_words": ("?", "-999")})
    rows = score(echo((filled,), "km"), b"km,n\n?,1\n-999,2\n-999.0 ,3\n2,4\nbhp,5\n").rows
    assert [row["prediction"] for row in rows] == ["7.0", "7.0", "7.0", "2.0", ""]


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"PK\x03\x04", "a zip archive or an Excel file (.xlsx): save the table as CSV"),
        (b"PAR1\x15\x04", "a Parquet file"),
        (b"\x1f\x8b\x08\x00", "a file compressed with gzip: unpack it"),
        (b'{"instances": []}', "JSON: send it as application/json"),
        (b"%PDF-1.7", "a PDF document"),
    ],
)
def test_a_body_that_is_no_table_of_text_is_named(content: bytes, word: str) -> None:
    status, detail, _ = refusal(content)
    assert (status, word in detail) == (415, True)


def test_a_charset_that_is_not_read_is_refused_without_repeating_it() -> None:
    status, detail, _ = refusal(b"km,fuel\n2,gas\n", "text/csv; charset=marker")
    assert status == 415
    assert "send utf-8" in detail
    assert "marker" not in detail


@pytest.mark.parametrize("content", [b"km,fuel2,gas3,gas", b"km,fuel,n2,gas,13,gas,2"])
def test_a_file_that_lost_its_line_ends_is_refused_with_the_remedy(content: bytes) -> None:
    status, detail, _ = refusal(content)
    assert status == 422
    assert "--data-binary" in detail


def test_a_first_line_of_numbers_is_refused_with_the_remedy() -> None:
    status, detail, _ = refusal(b"2,3\n4,5\n")
    assert status == 422
    assert "text/csv; header=absent" in detail


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf", b"\r\r", "\ufeff".encode("utf-16le")])
def test_a_body_without_a_header_is_empty(content: bytes) -> None:
    assert refusal(content)[0] == 400


@pytest.mark.parametrize("separator", [",", ";"])
def test_a_number_in_a_text_tells_nothing_about_the_decimal_mark(separator: str) -> None:
    form = Form(separator=separator)
    row = separator.join(["11.187", "gas", '"1,5 l"'])
    content = f"{separator.join(['km', 'fuel', 'note'])}\n{row}\n".encode()
    (scored,) = score(served(form), content).rows
    assert (scored["prediction"], scored["error"]) == ("11.187", "")
