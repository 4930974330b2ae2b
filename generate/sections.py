"""Replace the generated section of a file that people write."""

import re
from pathlib import Path


def replaced(path: Path, section: str, text: str) -> str:
    """Return the content of a file with `text` in place of the one match of `section`; raises ValueError otherwise."""
    content, times = re.subn(section, lambda _: text, path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    if times != 1:
        raise ValueError(f"{path.name}: the generated section was found {times} times")
    return content
