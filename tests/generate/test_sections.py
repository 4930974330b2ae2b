"""A generated section replaces exactly one part of a file that people write."""

from pathlib import Path

import pytest

from generate.sections import replaced

SECTION = r"^<!-- table -->.*?^<!-- end -->\n"


def file(folder: Path, content: str) -> Path:
    path = folder / "page.md"
    path.write_text(content)
    return path


def test_only_the_section_is_replaced_and_its_text_is_taken_literally(tmp_path: Path) -> None:
    page = file(tmp_path, "# Page\n<!-- table -->\nold\n<!-- end -->\nlast line\n")

    assert replaced(page, SECTION, "a \\1 in `[\\w/]+`\n") == "# Page\na \\1 in `[\\w/]+`\nlast line\n"
    assert "old" in page.read_text()


@pytest.mark.parametrize("times", [0, 2])
def test_a_section_that_is_absent_or_repeated_is_refused(tmp_path: Path, times: int) -> None:
    page = file(tmp_path, "# Page\n" + "<!-- table -->\nold\n<!-- end -->\n" * times)

    with pytest.raises(ValueError, match=rf"^page\.md: the generated section was found {times} times$"):
        replaced(page, SECTION, "new\n")
