"""What is no file is named before it is opened, in every place where an installation keeps a file."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fraud_detection.regular_file import NAMED, NotAFile, make_folder, other_kind, require_file
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


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        *NO_FILES[1:],
        (Path.touch, "a file"),
        (lambda path: path.symlink_to("nowhere"), "a link that leads nowhere"),
    ],
)
def test_what_is_no_folder_is_named(tmp_path: Path, make: Callable[[Path], object], kind: str) -> None:
    path = tmp_path / "data"
    make(path)
    expected = rf"data: expected a folder, got {kind}; give another path, or move it away"

    for folder in (path, path / "below"):
        with pytest.raises(NotAFile, match=expected):
            make_folder(folder)
        with pytest.raises(NotAFile, match=expected):
            require_file(folder / "requests.db", NAMED)


def test_a_folder_is_made_with_those_above_it_and_a_link_to_one_stays(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "folder").mkdir()

    make_folder(tmp_path / "link" / "above" / "below")
    make_folder(tmp_path / "link")

    assert (tmp_path / "folder" / "above" / "below").is_dir()
    assert (tmp_path / "link").is_symlink()
