"""The comparison of table readers measures the reader that the jobs use."""

from pathlib import Path

import pytest

from bench.tables import FILES, ROOT, imported, write_history


@pytest.mark.parametrize("file", FILES)
def test_the_reader_of_today_is_measured(tmp_path: Path, file: str) -> None:
    write_history(tmp_path, rows=50)

    measured = imported(ROOT, tmp_path / file)

    assert measured["rows"] == 50
    assert measured["seconds"] > 0
    assert measured["above_bare"] > measured["above_imports"] >= 0
