"""What is no file is named before it is opened, in every place where an installation keeps a file."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fraud_detection.regular_file import NAMED, NotAFile, other_kind, require_file
from tests.support.no_files import NO_FILES


@pytest.mark.parametrize(("make", "kind"), NO_FILES)
def test_what_is_no_file_is_named(tmp_path: Path, make: Callable[[Path], object], kind: str) -> None:
    path = tmp_path / "requests.db"
    make(path)

    with pytest.raises(NotAFile, match=rf"requests\.db: expected a file, got {kind}; give the path of a file"):
        require_file(path, NAMED)


def test_a_file_a_link_to_one_and_nothing_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")

    assert [other_kind(tmp_path / name) for name in ("file", "link", "nothing", "file/below")] == [None] * 4
