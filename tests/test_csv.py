import asyncio
import csv
import gzip
import http.client
import io
import json
import select
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import spool
from app.csv_stream import ADDED
from model_store.manifest import Target
from model_store.records import LONGEST_RECORD, cells_of, split_records
from model_store.store import Store
from tests.conftest import wait_until_ready
from tests.in_process import calling
from tests.toys import AGE, FUEL, POWER, TARGET, publish_toy, toy_description, toy_rows

CSV = {"Content-Type": "text/csv"}
HEADER = f"{AGE.name},{POWER.name},{FUEL.name}"
GOOD = "4.0,90.5,diesel"
LOG = Target(**TARGET.model_dump() | {"transform": "log"})


@pytest.fixture(scope="module")
def toy(mixed_client: httpx.Client) -> httpx.Client:
    return mixed_client


def post(client: httpx.Client, content: str | bytes | Iterator[bytes]) -> bytes:
    answer = client.post("/predict/batch", content=content, headers=CSV)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    return answer.content


def table(content: bytes) -> list[dict[str, str]]:
    """The answer as Python's csv module reads it."""
    text = content.decode("utf-8", "surrogateescape")
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def expected(client: httpx.Client, row: dict[str, Any]) -> dict[str, str]:
    """What /predict answers, its numbers as the text they were sent in."""
    answer = json.loads(client.post("/predict", json=row).text, parse_float=str, parse_int=str)
    interval = answer["interval"] or {"lower": "", "upper": ""}
    numbers = {"prediction": answer["prediction"], "lower": interval["lower"], "upper": interval["upper"]}
    return {**numbers, "error": ""}


def added(row: dict[str, str]) -> dict[str, str]:
    return {name: row[name] for name in ADDED}


def good_answer(client: httpx.Client) -> dict[str, str]:
    return expected(client, {AGE.name: 4.0, POWER.name: 90.5, FUEL.name: "diesel"})


def is_spoiled(row: dict[str, str]) -> bool:
    return (row["prediction"], row["lower"], row["upper"]) == ("", "", "") and row["error"] != ""


def as_csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, [AGE.name, POWER.name, FUEL.name], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def test_every_row_of_a_csv_gets_the_bits_that_predict_gives_it(toy: httpx.Client) -> None:
    rows = toy_rows(50, seed=9)
    answers = table(post(toy, as_csv(rows)))
    assert [added(answer) for answer in answers] == [expected(toy, row) for row in rows]


def test_the_lines_come_back_as_they_were_with_four_columns_behind_them(toy: httpx.Client) -> None:
    lines = as_csv(toy_rows(50, seed=10)).splitlines()
    answers = post(toy, "\n".join(lines)).decode().splitlines()
    assert answers[0] == f"{lines[0]},prediction,lower,upper,error"
    assert all(answer.startswith(f"{line},") for line, answer in zip(lines, answers, strict=True))


@pytest.mark.parametrize(
    "cell",
    [
        b"plain",
        b"",
        b" spaces ",
        b'"a,b"',
        b'"say ""hi"""',
        b'"two\nlines"',
        b'"two\r\nlines"',
        b'""',
        b'a"b',
        b"\xff\xfe\x80",
        b"\xed\xa0\x80",
        "🚗 ñ \u2028".encode(),
        b"\x00",
        b"=1+1",
        b"\x0b\x0c\x1c\x85",
    ],
)
def test_extra_columns_pass_through_byte_for_byte(toy: httpx.Client, cell: bytes) -> None:
    header, row = f"{HEADER},extra,last".encode(), GOOD.encode() + b"," + cell + b",z"
    answer = post(toy, header + b"\n" + row + b"\n" + row + b"\n")
    numbers = ",".join(good_answer(toy).values()).encode()
    assert answer == header + b",prediction,lower,upper,error\n" + 2 * (row + b"," + numbers + b"\n")


def test_columns_come_in_any_order_among_others(toy: httpx.Client) -> None:
    answer = post(toy, f"a,{FUEL.name},b,{POWER.name},{AGE.name}\n1,diesel,2,90.5,4\n")
    assert added(table(answer)[0]) == good_answer(toy)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False], ids=["ended", "not ended"])
def test_line_ends_stay_what_they_are(toy: httpx.Client, end: str, *, last: bool) -> None:
    answer = post(toy, end.join([HEADER, GOOD, GOOD]) + end * last).decode()
    lines = answer.split(end)
    assert lines[-1] == ""
    assert len(lines) == 4
    assert not any("\r" in line or "\n" in line for line in lines)
    assert [added(row) for row in table(answer.encode())] == [good_answer(toy)] * 2


def test_a_byte_order_mark_is_no_part_of_the_first_name(toy: httpx.Client) -> None:
    answer = post(toy, f"{HEADER}\n{GOOD}\n".encode("utf-8-sig"))
    assert added(table(answer.removeprefix(b"\xef\xbb\xbf"))[0]) == good_answer(toy)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_blank_lines_stay_blank(toy: httpx.Client, end: str) -> None:
    answer = post(toy, end.join([HEADER, "", GOOD, "", "", GOOD, ""])).decode()
    lines = answer.split(end)
    assert [bool(line) for line in lines] == [True, False, True, False, False, True, False]
    assert [added(row) for row in table(answer.encode())] == [good_answer(toy)] * 2


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_header_alone_is_answered_with_the_header(toy: httpx.Client, end: str) -> None:
    assert post(toy, HEADER + end).decode() == f"{HEADER},prediction,lower,upper,error{end or chr(10)}"


def test_an_empty_body_is_refused(toy: httpx.Client) -> None:
    answer = toy.post("/predict/batch", content=b"", headers=CSV)
    assert answer.status_code == 400
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("header", "word"),
    [
        (f"{POWER.name},{FUEL.name}", "'age' is missing"),
        (f"AGE,{POWER.name},{FUEL.name}", "another case or spelling"),
        (f"age ,{POWER.name},{FUEL.name}", "another case or spelling"),
        (f"{HEADER},age", "'age' comes twice"),
        ("\x00", "'age' is missing"),
    ],
)
def test_a_header_that_does_not_fit_is_refused_with_a_reason(
    toy: httpx.Client, header: str, word: str
) -> None:
    answer = toy.post("/predict/batch", content=f"MARKER,{header}\n1,{GOOD},1\n", headers=CSV)
    assert answer.status_code == 422
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert any(word in fault["detail"] for fault in answer.json()["errors"])
    assert "MARKER" not in answer.text


@pytest.mark.parametrize(
    ("taken", "added"),
    [
        ("prediction", "prediction_2,lower,upper,error"),
        ("error,lower", "prediction,lower_2,upper,error_2"),
        ("prediction_2,prediction", "prediction_3,lower,upper,error"),
        ('"upper"', "prediction,lower,upper_2,error"),
        ("Prediction", "prediction,lower,upper,error"),
    ],
)
def test_the_answers_columns_give_way_to_those_of_the_file(toy: httpx.Client, taken: str, added: str) -> None:
    more = taken.count(",") + 1
    header, row = post(toy, f"{HEADER},{taken}\n{GOOD}{',x' * more}\n").decode().splitlines()
    assert header == f"{HEADER},{taken},{added}"
    plain = post(toy, f"{HEADER}\n{GOOD}\n").decode().splitlines()[1]
    assert row.removeprefix(f"{GOOD}{',x' * more}") == plain.removeprefix(GOOD)


def test_an_answered_csv_can_be_answered_again(toy: httpx.Client) -> None:
    once = post(toy, f"{HEADER}\n{GOOD}\n")
    header, row = post(toy, once.decode()).decode().splitlines()
    assert header.endswith("prediction,lower,upper,error,prediction_2,lower_2,upper_2,error_2")
    _, *first = row.removeprefix(GOOD).split(",")
    assert first[:4] == first[4:]


@pytest.mark.parametrize("name", ADDED)
def test_an_input_may_have_the_name_of_an_answers_column(store: Store, name: str) -> None:
    renamed = (AGE.model_copy(update={"name": name}), POWER, FUEL)
    golden = [
        row.model_copy(update={"inputs": {name if key == "age" else key: x for key, x in row.inputs.items()}})
        for row in toy_description().golden
    ]
    store.promote("toy", publish_toy(store, features=renamed, golden=tuple(golden)).version)
    with calling(store) as client:
        header, row = post(client, f"{name},{POWER.name},{FUEL.name}\n{GOOD}\n").decode().splitlines()
        members = {name: 4.0, POWER.name: 90.5, FUEL.name: "diesel"}
        alone = client.post("/predict", content=json.dumps(members))
    assert f"{name}_2" in header.split(",")
    answer = row.removeprefix(GOOD).split(",")[1:]
    interval = alone.json()["interval"]
    assert list(map(float, answer[:3])) == [alone.json()["prediction"], interval["lower"], interval["upper"]]


@pytest.mark.parametrize(
    "row",
    [
        "4.0,90.5",
        "MARKER",
        ",90.5,diesel",
        "4.0,,diesel",
        "4.0,90.5,",
        "4.0,null bhp,diesel",
        "1e400,90.5,diesel",
        "-1e400,90.5,diesel",
        "nan,90.5,diesel",
        "inf,90.5,diesel",
        "-Infinity,90.5,diesel",
        "true,90.5,diesel",
        "1_000,90.5,diesel",
        "0x10,90.5,diesel",
        "1e,90.5,diesel",
        "MARKER,90.5,diesel",
        "4.0,90.5,MARKER",
        "4.0,90.5,Diesel",
    ],
)
def test_a_row_that_cannot_be_read_spoils_itself_alone_and_is_not_echoed(toy: httpx.Client, row: str) -> None:
    answer = post(toy, f"{HEADER}\n{GOOD}\n{row}\n{GOOD}\n")
    spoiled = answer.decode().split("\n")[2]
    assert spoiled.startswith(row)
    assert "MARKER" not in spoiled.removeprefix(row)
    first, _, last = table(answer)
    assert added(first) == added(last) == good_answer(toy)
    cells = next(csv.reader([spoiled], strict=False))
    assert cells[-4:-1] == ["", "", ""]
    assert cells[-1] != ""


def test_a_row_with_too_few_cells_has_its_error_in_the_column_error(toy: httpx.Client) -> None:
    rows = table(post(toy, f"{HEADER},extra\n4.0\n{GOOD}\n"))
    assert all(is_spoiled(row) for row in rows)
    assert [row["error"].split(", ")[1].split()[0] for row in rows] == ["1", "3"]


@pytest.mark.parametrize(
    "line", ["4.0,90.5,diesel,5", '4.0,90.5,"diesel', '"4.0""', 'a"b,"c', f'{GOOD},"x"', ",,,,"]
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_line_that_is_no_row_comes_back_whole_in_its_first_column(
    toy: httpx.Client, line: str, end: str
) -> None:
    answer = post(toy, end.join([HEADER, GOOD, GOOD, line])).decode()
    header, *rows = csv.reader(answer.splitlines(), strict=True)
    assert {len(row) for row in rows} == {len(header)}
    assert rows[2][0] == line
    assert rows[2][1:-1] == [""] * (len(header) - 2)
    assert rows[2][-1]
    assert rows[0] == rows[1] == [*GOOD.split(","), *good_answer(toy).values()]


@pytest.mark.parametrize("cell", ["4.0 years", '"4"', "4.", "+4", "4e0", " 4 ", "4years"])
def test_a_number_is_read_as_training_reads_it(toy: httpx.Client, cell: str) -> None:
    assert added(table(post(toy, f"{HEADER}\n{cell},90.5,diesel\n"))[0]) == good_answer(toy)


def test_a_category_in_quotes_may_hold_a_comma(toy: httpx.Client) -> None:
    answer = table(post(toy, f'{HEADER}\n4.0,90.5,"a,b"\n'))
    assert added(answer[0]) == expected(toy, {AGE.name: 4.0, POWER.name: 90.5, FUEL.name: "a,b"})


def test_a_missing_number_is_filled_where_the_model_has_a_filling(store: Store) -> None:
    filled = AGE.model_copy(update={"fill": 3.25})
    store.promote("toy", publish_toy(store, features=(filled, POWER, FUEL)).version)
    cells = ["", "null", "null years", "nan", "NA", "3.25"]
    with calling(store) as client:
        answers = table(post(client, "\n".join([HEADER, *(f"{cell},90.5,diesel" for cell in cells)])))
        null = expected(client, {AGE.name: None, POWER.name: 90.5, FUEL.name: "diesel"})
    assert [added(answer) for answer in answers] == [null] * len(cells)


def test_a_row_far_outside_training_has_empty_bounds(toy: httpx.Client) -> None:
    rows = [{AGE.name: age, POWER.name: 90.5, FUEL.name: "diesel"} for age in (4.0, 10.94, 10.96, -1e9)]
    answers = [added(answer) for answer in table(post(toy, as_csv(rows)))]
    assert answers == [expected(toy, row) for row in rows]
    assert [answer["lower"] == answer["upper"] == "" for answer in answers] == [False, False, True, True]
    assert all(answer["prediction"] for answer in answers)


def test_a_row_that_overflows_the_model_spoils_itself_alone(toy: httpx.Client) -> None:
    first, far, last = table(post(toy, f"{HEADER}\n{GOOD}\n-1.7e308,1.7e308,diesel\n{GOOD}\n"))
    good = good_answer(toy)
    single = toy.post("/predict", json={AGE.name: -1.7e308, POWER.name: 1.7e308, FUEL.name: "diesel"})
    assert added(first) == added(last) == good
    assert is_spoiled(far) == (single.status_code == 422)


def test_a_quote_that_never_closes_spoils_its_own_line(toy: httpx.Client) -> None:
    answer = post(toy, f'{HEADER},extra\n{GOOD},x\n{GOOD},"open\n{GOOD},x\n{GOOD},x')
    lines = answer.decode().split("\n")
    assert [line.endswith(",") for line in lines[1:5]] == [True, False, True, True]


def test_a_quote_that_never_closes_in_a_long_file_is_given_up_after_the_longest_record(
    toy: httpx.Client,
) -> None:
    count = 2 * LONGEST_RECORD // len(GOOD)
    answer = post(toy, f'{HEADER}\n4.0,90.5,"diesel\n' + f"{GOOD}\n" * count)
    lines = answer.decode().split("\n")
    numbers = ",".join(good_answer(toy).values())
    assert lines[1].startswith('"4.0,90.5,""diesel",,,')
    assert lines[2:] == [f"{GOOD},{numbers}"] * count + [""]


def test_a_line_that_never_ends_is_cut_and_the_next_is_answered(toy: httpx.Client) -> None:
    endless = b"4" * (10 * LONGEST_RECORD)
    answer = post(toy, f"{HEADER}\n{GOOD}\n".encode() + endless + f"\n{GOOD}\n".encode())
    lines = answer.decode().splitlines()
    assert len(lines) == 4
    assert len(lines[2]) < 2 * LONGEST_RECORD
    assert lines[1] == lines[3]
    assert list(added(dict(zip(lines[0].split(","), lines[1].split(","), strict=True))).values()) == list(
        good_answer(toy).values()
    )


def test_a_header_of_names_that_are_nearly_right_is_refused_soon(toy: httpx.Client) -> None:
    names = ",".join(f"{AGE.name}{number}" for number in range(100_000))
    assert len(names) < LONGEST_RECORD
    answer = toy.post("/predict/batch", content=f"{names}\n", headers=CSV)
    assert answer.status_code == 422
    assert f"the column {AGE.name!r} is missing: one of another case" in answer.json()["errors"][0]["detail"]


def test_the_headers_name_the_model_and_the_version(toy: httpx.Client) -> None:
    answer = toy.post("/predict/batch", content=f"{HEADER}\n{GOOD}\n", headers=CSV)
    assert (answer.headers["X-Model"], answer.headers["X-Model-Version"]) == ("toy", "1")


def test_a_compressed_csv_is_refused(toy: httpx.Client) -> None:
    headers = {**CSV, "Content-Encoding": "gzip"}
    answer = toy.post("/predict/batch", content=gzip.compress(HEADER.encode()), headers=headers)
    assert answer.status_code == 415


def test_a_csv_cut_anywhere_on_its_way_gets_the_same_answer(toy: httpx.Client) -> None:
    body = f'\ufeff{HEADER},x\r\n{GOOD},"ñ🚗\r\n"""\r\n\r\n,,\r\n{GOOD},é'.encode()
    whole = post(toy, body)
    for cut in range(1, len(body)):
        assert post(toy, iter([body[:cut], body[cut:]])) == whole, cut
    assert post(toy, (bytes([byte]) for byte in body)) == whole


@settings(deadline=None)
@given(st.text(alphabet='a",\n\r', max_size=60))
def test_records_and_their_rest_are_the_text(text: str) -> None:
    records, rest = split_records(text)
    assert "".join(f"{record}\n" for record in records) + rest == text


@settings(deadline=None)
@given(st.lists(st.lists(st.text('ab",\n é', max_size=5), min_size=2, max_size=4), max_size=6))
def test_records_of_a_well_formed_csv_are_the_rows_of_pythons_csv(rows: list[list[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    records, rest = split_records(text.getvalue())
    assert rest == ""
    assert [cells_of(record) for record in records] == rows


@settings(deadline=None)
@given(st.text(alphabet='a",\n', max_size=40), st.integers(0, 40))
def test_records_do_not_depend_on_where_the_text_is_cut(text: str, cut: int) -> None:
    first, rest = split_records(text[:cut])
    second, left = split_records(rest + text[cut:])
    assert ([*first, *second], left) == split_records(text)


def connect(url: str, *forwarded: str) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    connection.putrequest("POST", "/predict/batch")
    connection.putheader("Content-Type", "text/csv")
    for name in forwarded:
        connection.putheader(name, "192.0.2.1")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    return connection


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


def test_the_first_rows_come_back_before_the_last_are_sent(mixed_service: str) -> None:
    connection, many = connect(mixed_service), 20_000
    connection.send(chunk(f"{HEADER}\n".encode() + f"{GOOD}\n".encode() * many))
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.readline().decode() == f"{HEADER},prediction,lower,upper,error\n"
    assert answer.readline().decode().startswith(f"{GOOD},")
    connection.send(chunk(f"{GOOD}\n".encode()) + b"0\r\n\r\n")
    assert answer.read().count(b"\n") == many
    connection.close()


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "Via"])
def test_nothing_comes_back_through_a_proxy_before_the_last_row_is_sent(
    mixed_service: str, header: str
) -> None:
    connection, many = connect(mixed_service, header), 20_000
    connection.send(chunk(f"{HEADER}\n".encode() + f"{GOOD}\n".encode() * many))
    assert connection.sock
    assert select.select([connection.sock], [], [], 0.5)[0] == []
    connection.send(chunk(f"{GOOD}\n".encode()) + b"0\r\n\r\n")
    assert connection.getresponse().read().count(b"\n") == many + 2
    connection.close()


def test_a_caller_that_sends_everything_before_it_reads_gets_everything(mixed_service: str) -> None:
    connection, block, blocks = connect(mixed_service), f"{GOOD}\n".encode() * 10_000, 60
    connection.send(chunk(f"{HEADER}\n".encode()))
    for _ in range(blocks):
        connection.send(chunk(block))
    connection.send(b"0\r\n\r\n")
    lines = connection.getresponse().read().splitlines()
    connection.close()
    assert len(lines) == 10_000 * blocks + 1
    assert lines[1].startswith(f"{GOOD},".encode())
    assert set(lines[1:]) == {lines[1]}


@pytest.mark.parametrize("has_disk", [True, False])
@pytest.mark.parametrize("held", [True, False])
def test_what_is_made_ahead_comes_whole_and_in_order(
    monkeypatch: pytest.MonkeyPatch, *, has_disk: bool, held: bool
) -> None:
    def refuse(**_: object) -> NoReturn:
        raise FileNotFoundError

    if not has_disk:
        monkeypatch.setattr(spool, "TemporaryFile", refuse)
    made = [bytes([number]) * 100_000 for number in range(100)]

    async def parts() -> AsyncIterator[bytes]:
        for part in made:
            yield part

    async def taken_slowly() -> bytes:
        taken = []
        async for part in spool.ahead(parts(), held=held):
            taken.append(part)
            await asyncio.sleep(0)
        return b"".join(taken)

    assert asyncio.run(taken_slowly()) == b"".join(made)


@pytest.mark.parametrize("held", [True, False])
def test_what_breaks_while_it_is_made_breaks_the_answer(*, held: bool) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"a"
        raise ZeroDivisionError

    async def taken() -> list[bytes]:
        return [part async for part in spool.ahead(parts(), held=held)]

    with pytest.raises(ZeroDivisionError):
        asyncio.run(taken())


def test_a_client_that_goes_away_in_the_middle_does_not_hurt_the_service(
    first_model: Path, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "app", "--store", str(first_model), "--port", url.rpartition(":")[2]]
    log = tmp_path / "log"
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, text=True)
        try:
            wait_until_ready(process, url)
            for content in (b"", b"Kilometers_Driven\n", b"Kilometers_Driven\n" + b"57000\n" * 100_000):
                connection = connect(url)
                connection.send(chunk(content) if content else b"")
                connection.close()
            answer = httpx.post(f"{url}/predict", json={"Kilometers_Driven": 57000})
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=20)
    assert answer.status_code == 200
    assert "Traceback" not in log.read_text(encoding="utf-8")


def test_all_rows_of_the_real_test_file_are_answered(first_client: httpx.Client, used_cars: Path) -> None:
    content = (used_cars / "test-data.csv").read_bytes()
    given, answers = table(content), table(post(first_client, content))
    assert len(answers) == 1234
    for row, answer in zip(given[::100], answers[::100], strict=True):
        km = float(row["Kilometers_Driven"])
        assert added(answer) == expected(first_client, {"Kilometers_Driven": km})
    assert [{name: answer[name] for name in given[0]} for answer in answers] == given
    assert not any(answer["error"] for answer in answers)
