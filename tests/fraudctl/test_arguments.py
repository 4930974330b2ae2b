"""The ending of a file's name decides its format."""

from pathlib import Path
from typing import BinaryIO, TextIO

import pytest

from fraudctl.arguments import WouldReplace, opened
from jobs.exchange.write_table import TableWriter


@pytest.mark.parametrize(
    ("name", "begin"),
    [
        ("a.csv", b"x"),
        ("a.csv.gz", b"\x1f\x8b"),
        ("A.CSV.GZ", b"\x1f\x8b"),
        ("a.parquet", b"PAR1"),
        ("a.Parquet", b"PAR1"),
        ("A.PARQUET", b"PAR1"),
    ],
)
def test_the_ending_in_either_case_decides_the_format(tmp_path: Path, name: str, begin: bytes) -> None:
    with opened(tmp_path / name, force=True) as out:
        write_row(out)

    assert (tmp_path / name).read_bytes().startswith(begin)


def test_a_link_that_leads_to_itself_is_replaced(tmp_path: Path) -> None:
    link = tmp_path / "out.csv"
    link.symlink_to("out.csv")

    with opened(link, force=True) as out:
        write_row(out)

    assert link.read_text().split() == ["x", "1"]


def test_a_file_with_other_content_stays_unless_it_is_forced(tmp_path: Path) -> None:
    todo = tmp_path / "todo.csv"
    todo.write_text("is_fraud\n1\n")

    with pytest.raises(WouldReplace, match=r"todo\.csv: exists and differs"), opened(todo, force=False) as out:
        write_row(out)
    kept = todo.read_text()
    with opened(todo, force=True) as out:
        write_row(out)
    forced = todo.read_text()
    with opened(todo, force=False) as out:  # the same content again
        write_row(out)

    assert (kept, forced.split(), todo.read_text()) == ("is_fraud\n1\n", ["x", "1"], forced)
    assert list(tmp_path.iterdir()) == [todo]


def write_row(out: TextIO | BinaryIO) -> None:
    with TableWriter(out, {"x": int}) as table:
        table.add((1,))
