import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import model_store

ROOT = Path(__file__).parent.parent
OURS = {"app", "model_store", "training", "tests", "benchmarks"}
HEAVY = {"torch", "pandas"}


def imports(package: str) -> set[str]:
    """The top-level names of everything that a package's files import, at any depth of their code."""
    return {
        name.split(".")[0]
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        for name in imported(package, node)
    }


def imported(package: str, node: ast.AST) -> list[str]:
    """The modules that one statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [package if node.level else str(node.module)]
    return []


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("app", {"app", "model_store"}),
        ("model_store", {"model_store"}),
        ("training", {"training", "model_store"}),
    ],
)
def test_a_package_imports_only_those_below_it(package: str, allowed: set[str]) -> None:
    assert imports(package) & OURS == allowed


def test_a_package_shows_what_others_may_use_and_hides_the_rest_by_its_name() -> None:
    modules = {path.stem for path in (ROOT / "model_store").glob("*.py")} - {"__init__", "__main__"}
    assert {name for name in modules if not name.startswith("_")} == set(model_store.__all__)
    used = {
        name
        for package in ("app", "training")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "model_store"
        for name in [str(node.module).partition(".")[2]]
        for name in ([name] if name else [alias.name for alias in node.names])
    }
    assert used == set(model_store.__all__)


@pytest.mark.parametrize("package", ["app", "model_store", "training"])
def test_a_package_tells_type_checkers_that_it_is_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()


@pytest.mark.parametrize("package", ["app", "model_store"])
def test_what_serves_imports_neither_torch_nor_pandas(package: str) -> None:
    assert not imports(package) & HEAVY


@pytest.mark.parametrize("package", ["app", "model_store", "training"])
def test_no_package_loads_code_from_data_or_from_a_name_made_at_run_time(package: str) -> None:
    assert not imports(package) & {"pickle", "marshal", "shelve", "runpy", "imp"}
    for path in (ROOT / package).rglob("*.py"):
        assert not re.search(r"__import__|import_module|\b(eval|exec)\(", path.read_text(encoding="utf-8")), (
            path
        )


def test_the_serving_process_has_loaded_nothing_that_only_training_needs(first_model: Path) -> None:
    code = (
        "import json, sys; from app.__main__ import Path, build, read_settings;"
        "build(read_settings({}), Path()); json.dump(list(sys.modules), sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=os.environ | {"PLUMBLINE_STORE": str(first_model), "PLUMBLINE_NAME": "used-car-price"},
    )
    loaded = {name.split(".")[0] for name in json.loads(result.stderr)}
    assert "app" in loaded
    # Not rich: structlog looks for it, and this environment has it.
    assert not loaded & {*HEAVY, "sklearn", "matplotlib", "typer", "scipy", "training"}


def test_the_makefile_installs_the_torch_that_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (pinned,) = [need for need in project["optional-dependencies"]["train"] if need.startswith("torch")]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.findall(r"\btorch==[\w.+]+", makefile) == [pinned]


def test_the_project_serves_without_what_training_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {re.split(r"[^\w.-]", need)[0] for need in project["dependencies"]}
    assert not needed & {*HEAVY, "typer", "rich"}


def test_what_serves_is_declared_wherever_it_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["remote"]]
    known = {canonicalize_name(Requirement(need).name) for need in declared}
    distributions = metadata.packages_distributions()
    for name in (imports("app") | imports("model_store")) - OURS - sys.stdlib_module_names:
        assert known.intersection(map(canonicalize_name, distributions[name])), name
