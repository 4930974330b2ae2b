"""Write every generated file and name those that changed."""

import sys

from generate.chart import ToolMissing
from generate.files import FILES, ROOT


def main() -> int:
    """Write every file whose tools are installed; return 1 if a tool was missing."""
    complete = True
    for path, text_of in FILES.items():
        target = ROOT / path
        try:
            text = text_of()
        except ToolMissing as missing:
            print(f"{path} was not written: {missing}", file=sys.stderr)
            complete = False
            continue
        if not target.exists() or target.read_text(encoding="utf-8") != text:
            target.write_text(text, encoding="utf-8")
            print(f"wrote {path}")
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
