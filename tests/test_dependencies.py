"""What serves is what is locked, and little."""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LOCKS = {"serve": (), "cloud": ("remote", "tracing"), "train": ("train",)}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MOST = 25


def lock(name: str) -> str:
    return (ROOT / f"requirements/{name}.txt").read_text(encoding="utf-8")


def locked(name: str) -> dict[str, str]:
    """The version of each distribution in a lock that is meant for this system."""
    lines = re.findall(r"^[a-z][^\\\n]+", lock(name), re.MULTILINE)
    pins = [pin for pin in map(Requirement, lines) if pin.marker is None or pin.marker.evaluate()]
    return {pin.name: str(pin.specifier).removeprefix("==") for pin in pins}


def closure(needs: list[str]) -> set[str]:
    """Every distribution that the requirements bring along here, as the installed ones say."""
    found: set[str] = set()
    asked: set[str] = set()
    while needs:
        written = needs.pop()
        if written in asked:
            continue
        asked.add(written)
        need = Requirement(written)
        found.add(canonicalize_name(need.name))
        needs += [
            line for line in metadata.requires(need.name) or [] if applies(Requirement(line), need.extras)
        ]
    return found


def applies(need: Requirement, extras: set[str]) -> bool:
    """Whether a distribution asks for this here, with the extras that are asked of itself."""
    return need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in {"", *extras})


@pytest.mark.parametrize("name", ["serve", "cloud"])
def test_the_distributions_that_serve_are_those_locked(name: str) -> None:
    assert closure(needed(name)) == set(locked(name))


def test_few_distributions_serve() -> None:
    assert len(locked("serve")) <= MOST


def test_neither_torch_nor_pandas_is_locked_for_serving() -> None:
    assert not {"torch", "pandas", "scipy", "scikit-learn"} & set(locked("serve"))


def needed(name: str) -> list[str]:
    """What a lock is made of."""
    extras = PROJECT["optional-dependencies"]
    return [*PROJECT["dependencies"], *(need for extra in LOCKS[name] for need in extras[extra])]


@pytest.mark.parametrize("name", LOCKS)
def test_the_locked_versions_are_ones_that_the_project_admits(name: str) -> None:
    versions = locked(name)
    for need in map(Requirement, needed(name)):
        if need.name != "torch":
            assert need.specifier.contains(versions[canonicalize_name(need.name)]), need


@pytest.mark.parametrize("name", ["cloud", "train"])
def test_the_other_locks_have_the_versions_that_serve(name: str) -> None:
    assert locked("serve").items() <= locked(name).items()


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_version_is_there_by_hash_and_from_nowhere_in_particular(name: str) -> None:
    text = lock(name)
    entries = re.split(r"\n(?=[a-z])", text.split("\n", 2)[2].split("\n\n")[0])
    assert len(entries) >= len(locked(name))
    for entry in entries:
        assert re.match(
            r"[a-z0-9-]+==[^ ]+( ; .+)? \\\n(    --hash=sha256:[0-9a-f]{64}( \\)?\n)+", f"{entry}\n"
        )
    assert not re.search(r"://|--(extra-)?index|--find-links|--trusted-host", text)


@pytest.mark.parametrize("name", LOCKS)
def test_what_has_machine_code_is_locked_for_both_kinds_of_machine(name: str) -> None:
    """A wheel for each of two machines and four Pythons, and then some: one system's hashes would be one."""
    for distribution in ("numpy", "uvloop", "pydantic-core"):
        (entry,) = re.findall(rf"^{distribution}==.+\n((?:    --hash.+\n)+)", lock(name), re.MULTILINE)
        assert entry.count("--hash") > 20


def test_the_image_that_trains_has_the_torch_that_the_project_asks_for() -> None:
    (pinned,) = [need for need in needed("train") if need.startswith("torch")]
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert re.findall(r"\btorch==[\w.+]+", dockerfile) == [pinned]


def audit(folder: Path, answer: str) -> subprocess.CompletedProcess[str]:
    """Run the audit with a pip-audit that does this."""
    (folder / "pip_audit.py").write_text(f"import sys\n{answer}\n")
    paths = os.pathsep.join([str(folder), str(ROOT)])
    command = [sys.executable, "-m", "tests.audit", "requirements/serve.txt"]
    environment = os.environ | {"PYTHONPATH": paths}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


Version = Mapping[str, object]


def report(*versions: Version) -> str:
    return f"print({json.dumps({'dependencies': versions})!r})"


GOOD: Version = {"name": "good", "version": "1", "vulns": []}
BAD: Version = {"name": "bad", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
UNKNOWN: Version = {"name": "odd", "skip_reason": "not found: odd (4)"}


def test_an_audit_without_findings_passes(tmp_path: Path) -> None:
    result = audit(tmp_path, report(GOOD))
    assert (result.returncode, result.stdout) == (0, "1 locked versions, 0 findings (pypi)\n")


def test_an_audit_fails_with_each_vulnerability(tmp_path: Path) -> None:
    result = audit(tmp_path, f"{report(GOOD, BAD)}; sys.exit(1)")
    assert result.returncode == 1
    assert "bad 2: CVE-1, mended in 3" in result.stdout


def test_an_audit_that_knows_only_some_versions_fails_with_all_it_knows(tmp_path: Path) -> None:
    result = audit(tmp_path, f"{report(UNKNOWN, BAD)}; sys.exit(1)")
    assert result.returncode == 1
    assert "not found: odd (4)" in result.stdout
    assert "CVE-1" in result.stdout


@pytest.mark.parametrize(
    "answer",
    [report(UNKNOWN), "sys.exit('requests.exceptions.ConnectionError: no such host')"],
    ids=["knows nothing", "is out of reach"],
)
def test_an_audit_says_that_no_source_answers(tmp_path: Path, answer: str) -> None:
    result = audit(tmp_path, answer)
    assert result.returncode == 0
    assert result.stdout.startswith("NOT AUDITED")


def test_an_audit_asks_the_second_source_where_the_first_does_not_answer(tmp_path: Path) -> None:
    result = audit(tmp_path, f"{report(BAD)} if 'osv' in sys.argv else sys.exit('ReadTimeout')")
    assert result.returncode == 1
    assert "(osv)" in result.stdout


def test_an_audit_that_breaks_does_not_pass(tmp_path: Path) -> None:
    result = audit(tmp_path, "sys.exit('requirements/serve.txt: no such file')")
    assert result.returncode == 1
    assert "no such file" in result.stderr
