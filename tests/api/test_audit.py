"""The log says who looked up, labelled or was refused, and never what a request or the store holds."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from api.app import Api
from api.line_budget import LINES_PER_SECOND
from fraud_detection.logs import JsonFormatter
from fraud_detection.settings import ApiSettings
from tests.support.environment import TOKEN
from tests.support.tokens import new_token

WRONG = {"Authorization": "Bearer a-token-that-opens-nothing"}


@pytest.fixture
def audited(caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, object]]]:
    """Return the audit's lines as a machine reads them; LOG_LEVEL hides the lines of programs, not these."""
    caplog.set_level(logging.ERROR)
    caplog.handler.setLevel(logging.NOTSET)

    def lines() -> list[dict[str, object]]:
        records = [record for record in caplog.records if record.name == "api.audit"]
        return [json.loads(JsonFormatter().format(record)) for record in records]

    return lines


def test_a_look_up_and_a_label_leave_one_line_each(
    lasting_client: FlaskClient, authorized: dict[str, str], audited: Callable[[], list[dict[str, object]]]
) -> None:
    body = {"data": [[0.123456] * 29] * 2, "transaction_ids": ["audited-order", "audited-order"]}
    lasting_client.post("/predict", json=body, headers=authorized)
    label = {"transaction_id": "audited-order", "is_fraud": True, "source": "analyst", "reporter": "ann"}
    labelled = lasting_client.post("/labels", json={"labels": [label]}, headers=authorized)
    found = lasting_client.get("/transactions/audited-order", headers=authorized)
    missing = lasting_client.get("/transactions/no-such-order", headers=authorized)

    lines = audited()

    assert [(line["event"], line["token_name"], line["count"]) for line in lines] == [
        ("labels", "API_TOKEN", 1),
        ("look-up", "API_TOKEN", 2),
        ("look-up", "API_TOKEN", 0),
    ]
    assert [line["request_id"] for line in lines] == [
        answer.headers["X-Request-Id"] for answer in (labelled, found, missing)
    ]
    written = json.dumps(lines)
    for value in ("audited-order", "no-such-order", "0.123456", "analyst", "ann", TOKEN):
        assert value not in written


def test_labels_that_are_not_stored_leave_a_line_too(
    lasting_client: FlaskClient, authorized: dict[str, str], audited: Callable[[], list[dict[str, object]]]
) -> None:
    label = {"transaction_id": "never-stored", "is_fraud": True, "source": "analyst"}

    assert lasting_client.post("/labels", json={"labels": [label]}, headers=authorized).status_code == 404

    assert [(line["event"], line["count"]) for line in audited()] == [("labels", 1)]


def test_junk_of_strangers_leaves_few_lines_and_hides_no_named_token(
    start_api: Callable[[ApiSettings], Api],
    sqlite_environment: dict[str, str],
    tmp_path: Path,
    audited: Callable[[], list[dict[str, object]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shop = {"Authorization": f"Bearer {new_token(tmp_path / 'tokens', 'shop', ['predict'])}"}
    own = {"API_TOKENS_FILE": str(tmp_path / "tokens")}
    app = start_api(ApiSettings.from_env(sqlite_environment | own))
    client = app.test_client()

    monkeypatch.setattr("api.line_budget.time.monotonic", lambda: 1e9)
    for _ in range(LINES_PER_SECOND + 5):
        client.get("/model", headers=WRONG)
    client.get("/metrics", headers=shop)
    monkeypatch.setattr("api.line_budget.time.monotonic", lambda: 1e9 + 1)
    client.post("/predict", headers=WRONG)
    monkeypatch.undo()

    lines = audited()

    assert [(line["event"], line["token_name"], line["count"]) for line in lines] == [
        *[("refused", "none", 1)] * LINES_PER_SECOND,
        ("refused", "shop", 1),
        ("refused", "none", 5),
        ("refused", "none", 1),
    ]
    figures = client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).text
    assert "fraud_audit_lines_left_out_total 5.0" in figures
    assert "opens-nothing" not in json.dumps(lines)
