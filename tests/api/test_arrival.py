"""Every answer has an id, which the header and the error body share."""

from uuid import UUID

import pytest
from flask.testing import FlaskClient

from api.app import Api


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/docs", 200), ("GET", "/model", 401), ("GET", "/nowhere", 404), ("PUT", "/predict", 405)],
)
def test_every_answer_has_its_own_id(lasting_client: FlaskClient, method: str, path: str, status: int) -> None:
    first, second = (lasting_client.open(path, method=method) for _ in range(2))

    assert (first.status_code, second.status_code) == (status, status)
    ids = [UUID(answer.headers["X-Request-Id"]) for answer in (first, second)]
    assert ids[0].version == 7
    assert ids[0] < ids[1]


def test_an_error_of_the_api_has_an_id_too(api: Api, authorized: dict[str, str]) -> None:
    def fail() -> str:
        raise ZeroDivisionError

    api.view_functions["model.show_model"] = fail

    answer = api.test_client().get("/model", headers=authorized)

    assert answer.status_code == 500
    assert answer.get_json()["error"]["request_id"] == answer.headers["X-Request-Id"]


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/docs"), ("GET", "/model"), ("GET", "/nowhere"), ("PUT", "/predict")]
)
def test_every_answer_tells_browsers_neither_to_guess_nor_to_frame_it(
    lasting_client: FlaskClient, method: str, path: str
) -> None:
    answer = lasting_client.open(path, method=method)

    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in answer.headers.getlist("Content-Security-Policy")


def test_a_score_carries_the_headers_too(lasting_client: FlaskClient, authorized: dict[str, str]) -> None:
    answer = lasting_client.post("/predict", json={"data": [[0.5] * 29]}, headers=authorized)

    assert (answer.status_code, answer.headers["X-Content-Type-Options"]) == (200, "nosniff")
    assert answer.headers["Content-Security-Policy"] == "frame-ancestors 'none'"


@pytest.mark.parametrize("token", [True, False])
def test_no_browser_and_no_proxy_keeps_a_transaction(
    lasting_client: FlaskClient, authorized: dict[str, str], token: bool
) -> None:
    body = {"data": [[0.5] * 29], "transaction_ids": ["kept-nowhere"]}
    lasting_client.post("/predict", json=body, headers=authorized)

    for identifier in ("kept-nowhere", "unknown"):
        answer = lasting_client.get(f"/transactions/{identifier}", headers=authorized if token else {})
        assert answer.headers["Cache-Control"] == "no-store"
