"""What large requests do to small ones beside them: `python -m benchmarks.large_requests`.

The service has a core of its own, the callers have the other. One connection posts rows to /predict without
pause: alone, while a CSV of 10,000,000 rows is answered, while large batches are, and while others are
refused.
"""

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx

from tests.conftest import run, serving
from tests.load import Load

NAME = b"Kilometers_Driven"
ROW = b'{"%s": 57000}' % NAME
CSV_ROWS, BLOCK = 10_000_000, 10_000
SECONDS = 5.0
BATCHES: dict[str, tuple[int, bytes]] = {
    "100,000 instances": (200, b'{"instances": [%s]}' % b",".join([ROW] * 100_000)),
    "100,000 rows as columns": (200, b'{"columns": {"%s": [%s]}}' % (NAME, b",".join([b"57000"] * 100_000))),
    "170,000 instances": (413, b'{"instances": [%s]}' % b",".join([ROW] * 170_000)),
    "100,000 instances, the last bad": (422, b'{"instances": [%s, {}]}' % b",".join([ROW] * 99_999)),
    "100,000 empty instances": (422, b'{"instances": [%s]}' % b",".join([b"{}"] * 100_000)),
    "100,000 values, the last bad": (
        422,
        b'{"columns": {"%s": [%s, "x"]}}' % (NAME, b",".join([b"57000"] * 99_999)),
    ),
    "400,000 unknown members": (413, b"{%s}" % b",".join(b'"k%d":1' % number for number in range(400_000))),
    "220,000 times the same member": (413, b"{%s}" % b",".join([b'"%s":1' % NAME] * 220_000)),
    "1,700,000 arrays": (413, b"[%s]" % b",".join([b"[]"] * 1_700_000)),
    "5 MB of white space": (422, b'{"instances": [%s]}' % (b" " * 5_000_000)),
    "a text of 5 MB": (422, b'{"instances": ["%s"]}' % (b"a" * 5_000_000)),
    "1,000,000 levels": (400, b'{"a":' * 1_000_000),
}


def main() -> None:
    """Print every figure."""
    with tempfile.TemporaryDirectory() as folder:
        store, cars = Path(folder, "models"), Path(folder, "cars.csv")
        must_run("training", "sample", cars)
        must_run(
            *("training", "fit", cars, "--target", "Price", "--feature", "Kilometers_Driven"),
            *("--name", "cars", "--store", store, "--promote"),
        )
        write_csv(table := Path(folder, "rows.csv"))
        os.sched_setaffinity(0, {0})
        with serving(store) as url:
            os.sched_setaffinity(0, {1})
            print(f"{'single rows beside':36}{'count':>9}{'p50 ms':>9}{'p99 ms':>9}{'worst ms':>10}")
            measure(url, "nothing", lambda: time.sleep(SECONDS))
            start = time.perf_counter()
            measure(url, f"a CSV of {CSV_ROWS:,} rows", lambda: stream(url, table))
            rate = CSV_ROWS / (time.perf_counter() - start)
            print(f"    {rate:,.0f} rows/s of CSV, the service's peak memory {peak_memory(url):.0f} MB")
            for label, (status, body) in BATCHES.items():
                measure(url, f"{label}, {status}", partial(repeat, url, body, status))


def must_run(*arguments: object) -> None:
    """Run a command of the project that has to succeed."""
    result = run(*arguments)
    assert result.returncode == 0, result.stderr


def write_csv(path: Path) -> None:
    """A table of kilometres, each other than its neighbours."""
    block = "".join(f"{1000 + 37 * number}\n" for number in range(BLOCK)).encode()
    with path.open("wb") as file:
        file.write(NAME + b"\n")
        for _ in range(CSV_ROWS // BLOCK):
            file.write(block)


def measure(url: str, label: str, work: Callable[[], None]) -> None:
    """Post single rows while the work is done, and print how long they took."""
    with Load(int(url.rpartition(":")[2]), "/predict", [ROW], 1) as load:
        work()
    answers = load.answers
    assert not answers.dropped, answers.dropped
    assert {status for _, status, _ in answers.seen} == {200}
    figures = [1000 * answers.quantile(part) for part in (0.5, 0.99, 1.0)]
    count = len(answers.seconds)
    print(f"{label:36}{count:>9,}{figures[0]:>9.2f}{figures[1]:>9.2f}{figures[2]:>10.1f}", flush=True)


def stream(url: str, table: Path) -> None:
    """Send the table with curl, which reads while it sends, and count the lines that come back."""
    head = ["-X", "POST", "-H", "content-type: text/csv"]
    command = ["/usr/bin/env", "curl", "-sS", *head, "-T", str(table), f"{url}/predict/batch"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as curl:
        output = curl.stdout
        assert output is not None
        lines = sum(block.count(b"\n") for block in iter(lambda: output.read(2**16), b""))
    assert lines == CSV_ROWS + 1, lines
    assert curl.returncode == 0


def repeat(url: str, body: bytes, status: int) -> None:
    """Post a batch over and over."""
    end = time.perf_counter() + SECONDS
    with httpx.Client(base_url=url, timeout=60) as client:
        while time.perf_counter() < end:
            answer = client.post("/predict/batch", content=body)
            assert answer.status_code == status, answer.text[:300]


def peak_memory(url: str) -> float:
    """The most memory that the process listening at the address has had, in MB."""
    port = url.rpartition(":")[2]
    for status in Path("/proc").glob("[0-9]*/status"):
        if f"--port\0{port}" in status.with_name("cmdline").read_text():
            found = re.search(r"VmHWM:\s*(\d+)", status.read_text())
            assert found
            return int(found[1]) / 1024
    message = f"no process listens on port {port}"
    raise LookupError(message)


if __name__ == "__main__":
    main()
