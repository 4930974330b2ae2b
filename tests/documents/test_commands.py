"""Every shell block of the README and of docs/ runs as printed, or says why no test runs it."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from fraud_detection.model.read import current_version
from tests.documents.blocks import Block, blocks_of, run
from tests.support.project import ROOT

README, OPERATIONS = ROOT / "README.md", ROOT / "docs" / "operations.md"
DOCUMENTS = (README, *sorted(ROOT.glob("docs/**/*.md")))
TOLD = re.compile(r"^\$ .*fraudctl (?:score|retrain) .*\n([^$`]*?) …$", re.MULTILINE)
"""What the README shows of a command, up to the dots that leave out the rest."""
PAGES = [document for document in DOCUMENTS if any(block.not_run is None for block in blocks_of(document))]


def test_every_block_is_run_or_marked_and_few_of_the_first_pages_are_marked() -> None:
    blocks = {document: blocks_of(document) for document in DOCUMENTS}
    marked = {document: [each for each in found if each.not_run] for document, found in blocks.items()}

    print(f"{sum(map(len, blocks.values()))} blocks, {sum(map(len, marked.values()))} of them not run")
    assert {README, OPERATIONS} <= set(PAGES)
    for document in (README, OPERATIONS):
        assert len(marked[document]) <= len(blocks[document]) / 5, [str(block) for block in marked[document]]


@pytest.mark.stories
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_blocks_of_a_page_run_in_order(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    is_new = page == README  # its reader has no installation yet; those of the other pages have one that serves
    folder = tmp_path / "checkout"
    shutil.copytree(request.getfixturevalue("checkout" if is_new else "used"), folder, symlinks=True)
    blocks = [block for block in blocks_of(page) if block.not_run is None]
    if is_new:
        printed, shown = masked(run(blocks, folder, {})), TOLD.findall(page.read_text(encoding="utf-8"))
        assert len(shown) == 2
        assert [told for told in shown if masked(told) not in printed] == []
        return
    served = Block(page, 0, "fraudctl serve\n", not_run=None)
    replaced = {
        "postgresql://fraud:secret@db.example/fraud": request.getfixturevalue("postgresql_database"),
        "20260822T101530Z-3f9ac1d07b52": str(current_version(folder / "models")),
        "0198c2a5-8f1e-7cc3-9d2b-3a5be0a4f5c1": pd.read_csv(folder / "used-scored.csv").request_id[0],
        "old/rf_model.pkl": "old/rf_model.pkl --trust",  # there is no terminal that could ask
        "API_TOKEN=... PORT=8080": "API_TOKEN=$(cat .api_token)",
    }
    run([served, *blocks], folder, replaced)


@pytest.mark.stories
def test_a_block_with_a_false_command_fails(checkout: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n```bash\ntrue\n```\n\n```sh\nfraudctl modles list\n```\n\n```bash\ntouch later\n```\n")
    shutil.copytree(checkout, tmp_path / "checkout", symlinks=True)

    with pytest.raises(AssertionError, match=r"page\.md:7 failed with 2:\n(.*\n)*.*No such command 'modles'"):
        run(blocks_of(page), tmp_path / "checkout", {})

    assert not (tmp_path / "checkout" / "later").exists()


def masked(told: str) -> str:
    """Return what a command told on one line, without versions and dates."""
    return re.sub(r"\b\d{8}T\d{6}Z-\w{12}\b|\b\d{4}-\d\d-\d\d\b", "MASKED", " ".join(told.split()))
