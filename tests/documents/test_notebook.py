"""The notebook of docs/ runs on an installation as it says, and shows what it printed when it was written."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.project import ROOT

NOTEBOOK = ROOT / "docs" / "notebooks" / "first_look.ipynb"


def code_cells(notebook: Path) -> list[dict[str, Any]]:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def shown(cell: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the texts that a cell shows; of a picture, that it is one."""
    found = []
    for output in cell["outputs"]:
        assert output["output_type"] in {"stream", "execute_result", "display_data"}, output
        assert output.get("name") != "stderr", output
        data = output.get("data", {"text/plain": output.get("text")})
        texts = ("".join(data[kind]) for kind in sorted(data) if kind.startswith("text/"))
        found.append((*texts, *sorted(kind for kind in data if kind.startswith("image/"))))
    return found


def test_the_notebook_is_small_names_no_machine_and_was_run_from_the_first_to_the_last_cell() -> None:
    cells = code_cells(NOTEBOOK)
    shown_data = [output.get("data", {}) for cell in cells for output in cell["outputs"]]
    pictures = [each["image/png"] for each in shown_data if "image/png" in each]
    text = NOTEBOOK.read_text(encoding="utf-8")

    assert NOTEBOOK.stat().st_size < 300_000
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert all(cell["outputs"] for cell in cells)
    assert len(pictures) == 3
    assert {base64.b64decode(picture)[:4] for picture in pictures} == {b"\x89PNG"}
    assert not re.search(r"/(?:home|root|tmp|usr|work|var)/|\d{8}T\d{6}Z", text)


@pytest.mark.stories
def test_the_notebook_shows_what_it_shows_in_the_documents(used: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkout"
    shutil.copytree(used, folder, symlinks=True)
    shutil.copy(NOTEBOOK, folder)
    environment = {
        "PATH": f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "MPLCONFIGDIR": str(tmp_path),
    }

    subprocess.run(["fraudctl", "import", "history.parquet"], cwd=folder, env=environment, check=True)
    subprocess.run(["jupyter", "execute", "--inplace", NOTEBOOK.name], cwd=folder, env=environment, check=True)

    again = folder / NOTEBOOK.name
    forget_machine(again)
    now = f"if the change is right: cp {again} {NOTEBOOK}"
    assert [shown(cell) for cell in code_cells(again)] == [shown(cell) for cell in code_cells(NOTEBOOK)], now


def forget_machine(notebook: Path) -> None:
    """Remove times and versions from a notebook, so that it differs only when what it shows does."""
    document = json.loads(notebook.read_text(encoding="utf-8"))
    document["metadata"]["language_info"] = {"name": "python"}
    for cell in document["cells"]:
        cell["metadata"] = {}
    notebook.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
