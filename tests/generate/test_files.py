"""Every generated file is current, and Git knows that it is generated."""

import fnmatch

import pytest

from generate.files import FILES, WHOLE
from tests.support.project import ROOT

# These need helm-docs or Helm: tests/chart compares them.
BY_TOOLS = {"charts/fraud-detection/README.md", "tests/chart/snapshot/default.yaml"}


@pytest.mark.parametrize("path", sorted(FILES.keys() - BY_TOOLS))
def test_is_what_generation_gives(path: str) -> None:
    committed = (ROOT / path).read_text(encoding="utf-8")

    assert committed == FILES[path](), f"{path} is out of date: run `make generate`"


def test_git_knows_each_whole_file_as_generated() -> None:
    lines = (ROOT / ".gitattributes").read_text(encoding="utf-8").splitlines()
    patterns = [line.split()[0] for line in lines if "linguist-generated=true" in line]

    marked = {path for path in FILES for pattern in patterns if fnmatch.fnmatch(path, pattern)}
    assert marked == set(WHOLE)
