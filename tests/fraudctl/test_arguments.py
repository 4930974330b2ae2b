"""The ending of a file's name decides its format."""

from pathlib import Path

import pytest

from fraudctl.arguments import opened
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
    with opened(tmp_path / name) as out, TableWriter(out, {"x": int}) as table:
        table.add((1,))

    assert (tmp_path / name).read_bytes().startswith(begin)


def test_a_link_that_leads_to_itself_is_replaced(tmp_path: Path) -> None:
    link = tmp_path / "out.csv"
    link.symlink_to("out.csv")

    with opened(link) as out, TableWriter(out, {"x": int}) as table:
        table.add((1,))

    assert link.read_text().split() == ["x", "1"]
