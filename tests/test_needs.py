import pytest

pytest_plugins = ["pytester"]

MODULE = """
import pytest

@pytest.mark.needs("strace")
@pytest.mark.parametrize("number", range(3))
def test_traced(number):
    pass

@pytest.mark.needs("--images")
def test_image():
    pass

def test_plain():
    pytest.skip("the moon is full")
"""


def test_what_is_not_run_is_said_in_one_line_for_each_thing_that_is_missing(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(MODULE)
    monkeypatch.setenv("PATH", "")
    result = pytester.runpytest("-p", "tests.needs")
    result.assert_outcomes(skipped=5)
    said = [line for line in result.outlines if line.startswith("not run: ")]
    assert said == [
        "not run: 1 test: `make image-test` builds the container images and runs them",
        "not run: 3 tests: strace is not here: Debian's package strace has it",
        "not run: 1 test: the moon is full",
    ]


def test_what_a_test_needs_is_looked_for(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(MODULE.replace("strace", "env"))
    result = pytester.runpytest("-p", "tests.needs", "--images")
    result.assert_outcomes(passed=4, skipped=1)
