"""A client that openapi-python-client writes from GET /openapi.json works, as does the Python of docs/clients.md."""

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.environment import TOKEN
from tests.support.project import ROOT

pytestmark = pytest.mark.stories

PACKAGE = "fraud_detection_client"


@pytest.fixture
def generated(running_api: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the client, which can be imported until the test ends."""
    programs = Path(sys.executable).parent  # the generator calls ruff
    subprocess.run(
        [programs / "openapi-python-client", "generate", "--url", f"{running_api['API_URL']}/openapi.json",
         "--meta", "none", "--output-path", tmp_path / PACKAGE, "--fail-on-warning"],
        check=True, env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
    )  # fmt: skip
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / PACKAGE
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


def test_a_generated_client_scores_labels_and_looks_up(running_api: dict[str, str], generated: Path) -> None:
    models = importlib.import_module(f"{PACKAGE}.models")
    url = running_api["API_URL"]
    identifier = "order/7?of=8#9%41"  # everything that a client must percent-encode
    row = [0.5] * 29
    names = [f"V{number}" for number in range(1, 29)] + ["Amount_scaled"]
    named = models.NamedTransaction.from_dict(dict(zip(names, row, strict=True)))

    with importlib.import_module(PACKAGE).AuthenticatedClient(url, TOKEN, raise_on_unexpected_status=True) as client:
        listed = call("transactions.predict", client, body=models.PredictRequest([row], [identifier]))
        by_name = call("transactions.predict", client, body=models.PredictRequest([named]), idempotency_key="once")
        repeated = call("transactions.predict", client, body=models.PredictRequest([named]), idempotency_key="once")
        with_amount = models.TransactionWithAmount.from_dict(
            {**dict(zip(names[:-1], row[:-1], strict=True)), "Amount": 5.0}
        )
        paid = call("transactions.predict", client, body=models.PredictRequest([with_amount], ["paid"]))
        moment = datetime.now(UTC)
        labels = [
            models.NewLabel(True, models.NewLabelSource.CHARGEBACK, moment, transaction_id=identifier),
            models.NewLabel(False, models.NewLabelSource.REVIEW, request_id=by_name.request_id, row=0),
        ]
        labelled = call("transactions.add_labels", client, body=models.LabelsRequest(labels))
        found = call("transactions.show_transaction", client, id=identifier)
        stored = call("transactions.show_transaction", client, id="paid")
        unknown = call("transactions.show_transaction", client, id="unknown")
        model = call("service.show_model", client)
        health = call("service.show_health", client)
        metrics = call("service.show_metrics", client)

    assert by_name.fraud_probability == listed.fraud_probability
    assert repeated == by_name
    assert labelled.labels_added == 2
    assert (found.request_id, found.is_fraud, found.labels[0].reported_at) == (listed.request_id, True, moment)
    assert found.features.to_dict() == named.to_dict()
    assert unknown.error.code == "unknown_transaction"
    assert (stored.request_id, stored.features.amount_scaled) == (paid.request_id, (5.0 - 88.35) / 250.12)
    assert model.version == health.model_version == listed.model_version
    assert "fraud_rows_stored_total 3.0" in metrics


def test_the_python_of_the_page_for_clients_works_as_printed(running_api: dict[str, str], generated: Path) -> None:
    page = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)

    for block in blocks:
        program = block.replace("http://127.0.0.1:5000", running_api["API_URL"])
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(generated.parent), "API_TOKEN": TOKEN}
        printed = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        assert re.fullmatch(r"\[[\d.]+\]\n", printed.stdout), f"{block}\n{printed}"
    assert len(blocks) == 2


def call(operation: str, client: Any, **parameters: Any) -> Any:
    """Call an operation and return what the client made of the answer."""
    return importlib.import_module(f"{PACKAGE}.api.{operation}").sync(client=client, **parameters)
