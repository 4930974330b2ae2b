"""The API, its reference, the imports and the client agree on limits and ids."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.labels import read_labels
from api.predict import read_transactions
from fraud_detection.contract import (
    IDEMPOTENCY_KEY,
    LABEL_SOURCES,
    MAX_BODY_BYTES,
    MAX_COUNTED,
    MAX_FOUND,
    MAX_LABEL_ROWS,
    MAX_LABELS,
    MAX_ROWS,
    MAX_ROWS_PER_LABEL,
    STORED_ID,
    TRANSACTION_ID,
)
from fraud_detection.features import Feature, FeatureList, InvalidTransactions
from jobs.exchange.api_client import rows_per_request
from jobs.exchange.table import BadTransactionFile
from jobs.exchange.transaction_file import pages, read_layout

OPENAPI = yaml.safe_load((Path(__file__).parents[2] / "docs" / "openapi.yaml").read_text(encoding="utf-8"))
ONE = FeatureList((Feature("amount"),))


def test_the_openapi_document_gives_the_same_limits_and_forms() -> None:
    schemas, predict = OPENAPI["components"]["schemas"], OPENAPI["paths"]["/predict"]["post"]
    [key] = [each for each in predict["parameters"] if each["name"] == "Idempotency-Key"]

    assert schemas["PredictRequest"]["properties"]["data"]["maxItems"] == MAX_ROWS
    assert schemas["LabelsRequest"]["properties"]["labels"]["maxItems"] == MAX_LABELS
    found = schemas["Decision"]["allOf"][1]["properties"]
    assert (found["labels"]["maxItems"], found["others"]["maxItems"]) == (MAX_FOUND, MAX_FOUND - 1)
    assert schemas["Count"]["maximum"] == MAX_COUNTED
    said_of_labels = " ".join(OPENAPI["paths"]["/labels"]["post"]["description"].split())
    assert (
        f"at most {MAX_ROWS_PER_LABEL:,} rows, and the labels of a request together at most {MAX_LABEL_ROWS:,}. "
        in (said_of_labels)
    )
    assert schemas["NewLabel"]["properties"]["source"]["enum"] == list(LABEL_SOURCES)
    assert schemas["TransactionId"]["pattern"] == f"^{TRANSACTION_ID.pattern}$"
    assert key["schema"]["pattern"] == f"^{IDEMPOTENCY_KEY.pattern}$"
    assert f"expected at most {MAX_BODY_BYTES} bytes" in json.dumps(OPENAPI["components"]["responses"])


@pytest.mark.parametrize(
    ("transaction_id", "is_right"),
    [
        ("payment-4711", True),
        ("a/b", True),
        ("~" * 128, True),
        ("~" * 129, False),
        ("/a", False),
        ("two words", False),
        ("zahlung-ä", False),
    ],
)
def test_an_import_takes_the_ids_that_the_api_takes(tmp_path: Path, transaction_id: str, is_right: bool) -> None:
    path = tmp_path / "history.csv"
    path.write_text(f"transaction_id,amount,Class\n{transaction_id},1,0\n", encoding="utf-8")

    def taken_by_the_api() -> list[str | None]:
        return read_transactions({"data": [[1]], "transaction_ids": [transaction_id]}, ONE, None).transaction_ids

    def taken_by_the_import() -> list[str | None]:
        return [each for page in pages(path, ONE, read_layout(path, ONE)) for each in page.transaction_ids]

    if is_right:
        assert taken_by_the_api() == taken_by_the_import() == [transaction_id]
    else:
        with pytest.raises(InvalidTransactions, match="1 to 128 visible ASCII characters, no leading /"):
            taken_by_the_api()
        with pytest.raises(BadTransactionFile, match="1 to 128 visible ASCII characters, no leading /"):
            taken_by_the_import()


def test_a_label_may_name_an_id_that_an_earlier_version_stored() -> None:
    label: dict[str, Any] = {"transaction_id": "/a", "is_fraud": True, "source": "review"}

    assert read_labels({"labels": [label]}, datetime.now(UTC))[0].transaction_id == "/a"
    assert STORED_ID.fullmatch("~" * 128)
    assert not STORED_ID.fullmatch("~" * 129)


@pytest.mark.parametrize("count", [1, 29, 500])
def test_the_largest_request_of_the_client_is_one_that_the_api_takes(count: int) -> None:
    features = FeatureList(tuple(Feature(f"f{number}") for number in range(count)))
    rows = rows_per_request(features)
    widest = {"data": [[-1.2345678901234567e-300] * count] * rows, "transaction_ids": ["~" * 128] * rows}

    assert rows <= MAX_ROWS
    assert len(json.dumps(widest)) <= MAX_BODY_BYTES
