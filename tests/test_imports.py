"""Tests share helpers in plain modules: each file of tests is read by pytest alone or imported, never both."""

import ast
from pathlib import Path

import pytest

from tests.support.project import ROOT

FILES = sorted((ROOT / "tests").rglob("*.py"))


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("tests.")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_neither_a_conftest_nor_a_test_module(path: Path) -> None:
    parts = {part for name in imported(path) for part in name.split(".")[1:3]}

    assert {part for part in parts if part == "conftest" or part.startswith("test_")} == set()


def test_what_is_shared_imports_no_folder_of_tests() -> None:
    support = [path for path in FILES if path.parent.name == "support"]

    folders = {name.split(".")[1] for path in support for name in imported(path)}
    assert folders == {"support"}


def test_folders_share_only_what_is_in_support() -> None:
    borrowed = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in FILES
        for name in imported(path)
        if name.split(".")[1] not in {"support", path.relative_to(ROOT / "tests").parts[0]}
    }

    assert borrowed == set()
