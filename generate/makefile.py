"""Write the table of make commands in CONTRIBUTING.md from the Makefile's own texts."""

import re
from pathlib import Path

from generate.sections import replaced

_ROOT = Path(__file__).parent.parent


def contributing() -> str:
    """Return CONTRIBUTING.md with a new table of make commands."""
    makefile = (_ROOT / "Makefile").read_text(encoding="utf-8")
    rows = [f"| `make {name}` | {text} |" for name, text in re.findall(r"(?m)^([a-z0-9-]+):.*## (.+)$", makefile)]
    table = "\n".join(["| Command | What it does |", "|---|---|", *rows])
    return replaced(_ROOT / "CONTRIBUTING.md", r"^\| Command \| What it does \|.*?(?=^$)", f"{table}\n")
