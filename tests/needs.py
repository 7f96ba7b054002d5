"""What some tests need that not every machine has. Skipping them is said in one line each.

A test says so with `@pytest.mark.needs("strace")`, or by a fixture of `OF_FIXTURES`. Run without any of them:
`pytest -m "not needs"`.
"""

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest

DATA = "PLUMBLINE_USED_CARS"
USED_CARS = os.environ.get(DATA)
OF_FIXTURES = {
    "browser": "chromium",
    "images": "--images",
    "tracer": "strace",
    "used_cars": DATA,
    "workshop": "--torture",
}
WHY = {
    "--images": "`make image-test` builds the container images and runs them",
    "--torture": "--torture runs what takes minutes",
    "chromium": "chromium is not here: Debian's package chromium has it",
    "java": "java is not here, in which openapi-generator is written",
    "kubectl": "kubectl is not here",
    "nginx": "nginx is not here: Debian's package nginx-light has it",
    "prlimit": "prlimit is not here: Debian's package util-linux has it",
    "prometheus": "prometheus is not here: Debian's package prometheus has it",
    "promtool": "promtool is not here: Debian's package prometheus has it",
    "strace": "strace is not here: Debian's package strace has it",
    DATA: f"the real data are not here: {DATA} does not name their folder",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--torture` runs the fault tests at their full size, `--images` those of the container images."""
    parser.addoption("--torture", action="store_true", help="run the fault tests at their full size")
    parser.addoption("--images", action="store_true", help="build the container images and run them")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests whose fixtures need something."""
    for item in items:
        for fixture in OF_FIXTURES.keys() & getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.needs(OF_FIXTURES[fixture]))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test if something that it needs is missing."""
    for mark in item.iter_markers("needs"):
        for need in mark.args:
            if not is_here(need, item.config):
                pytest.skip(WHY[need])


def is_here(need: str, config: pytest.Config) -> bool:
    """Whether a program is on the PATH, an option is given, or the data's folder is named."""
    if need == DATA:
        return USED_CARS is not None
    if need.startswith("--"):
        return bool(config.getoption(need))
    return shutil.which(need) is not None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say once for each reason how many tests were not run."""
    skipped = Counter(report.longrepr[2] for report in terminalreporter.stats.get("skipped", []))
    for reason, times in sorted(skipped.items()):
        tests = "1 test" if times == 1 else f"{times} tests"
        terminalreporter.write_line(f"not run: {tests}: {reason.removeprefix('Skipped: ')}")


@pytest.fixture(scope="session", autouse=True)
def _no_setting_of_the_tests() -> None:
    """Hide the tests' own variable from the service, which would refuse it as no setting."""
    os.environ.pop(DATA, None)


@pytest.fixture(scope="session")
def torture(request: pytest.FixtureRequest) -> bool:
    """Whether the fault tests run at their full size."""
    return bool(request.config.getoption("--torture"))


@pytest.fixture(scope="session")
def used_cars() -> Path:
    """The folder of the real data set."""
    assert USED_CARS
    return Path(USED_CARS)
