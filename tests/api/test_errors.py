"""Every error has one JSON form, which never repeats what the client sent."""

import logging
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from api.app import Api
from api.errors import ANSWERS
from api.writer import NotStored


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/transactions/", 404),
        ("POST", "/predict/", 404),
        ("POST", "/predict//", 404),
        ("GET", "/predict//x", 404),
        ("GET", "/transactions//x", 404),
        ("GET", "//nothing//x", 404),
        ("GET", "/predict", 405),
        ("DELETE", "/labels", 405),
        ("POST", "/model", 405),
        ("OPTIONS", "/predict", 405),
        ("BREW", "/predict", 405),
    ],
)
def test_http_errors_have_the_one_form_too(
    lasting_client: FlaskClient, authorized: dict[str, str], method: str, path: str, status: int
) -> None:
    answer = lasting_client.open(method=method, headers=authorized, environ_overrides={"PATH_INFO": path})

    error = answer.get_json()["error"]
    assert (answer.status_code, answer.mimetype) == (status, "application/json")
    assert error["code"] == {404: "not_found", 405: "method_not_allowed"}[status]
    assert error["request_id"] == answer.headers["X-Request-Id"]
    assert ("Allow" in answer.headers) is (status == 405)


@pytest.mark.parametrize(
    ("path", "expected", "allowed"),
    [("/predict", "POST", "POST"), ("/labels", "POST", "POST"), ("/model", "GET", "GET, HEAD")],
)
def test_another_method_is_answered_with_the_expected_one(
    lasting_client: FlaskClient, path: str, expected: str, allowed: str
) -> None:
    answer = lasting_client.delete(path)

    assert answer.headers["Allow"] == allowed
    assert answer.get_json()["error"]["message"] == f"expected the method {expected} for this path"


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("/predict/", "expected /predict, without a slash at the end"),
        ("/health/", "expected /health, without a slash at the end"),
        ("/predict//", "GET /docs lists all paths"),
        ("/nothing/", "GET /docs lists all paths"),
        ("/transactions/", "GET /docs lists all paths"),
        ("//predict", "expected exactly one slash at its start"),
        ("///nothing", "expected exactly one slash at its start"),
        ("predict", "expected exactly one slash at its start"),
    ],
)
def test_a_path_with_a_slash_too_many_or_too_few_is_answered_with_advice(
    lasting_client: FlaskClient, authorized: dict[str, str], path: str, advice: str
) -> None:
    answer = lasting_client.post(headers=authorized, environ_overrides={"PATH_INFO": path})

    assert answer.get_json()["error"]["message"] == f"no such path; {advice}"


@pytest.mark.parametrize("host", ["a" * 8000, "a" * 64 + ".example", "..", "example..com"])
def test_a_host_that_is_none_is_refused_with_advice(lasting_client: FlaskClient, host: str) -> None:
    answer = lasting_client.get("/health", headers={"Host": host})

    assert answer.status_code == 400
    assert answer.get_json()["error"] == {
        "code": "bad_request",
        "message": "expected a Host header of at most 63 characters between dots; send host and port of the API's URL",
        "request_id": answer.headers["X-Request-Id"],
    }


def test_a_rejection_is_counted_by_its_code(lasting_client: FlaskClient, authorized: dict[str, str]) -> None:
    lasting_client.get("/nothing", headers=authorized)

    assert (
        'fraud_rejected_requests_total{reason="not_found"}' in lasting_client.get("/metrics", headers=authorized).text
    )


def raising(api: Api, error: Exception) -> FlaskClient:
    """Return a client whose GET /metrics raises in the view of the application, so everything around it is real."""

    def fail() -> Any:
        raise error

    api.view_functions["metrics.show_metrics"] = fail
    return api.test_client()


@pytest.mark.parametrize(("kind", "expected"), ANSWERS.items(), ids=lambda part: getattr(part, "__name__", None))
def test_every_exception_of_the_table_has_its_answer(
    api: Api, authorized: dict[str, str], kind: type[Exception], expected: tuple[int, str]
) -> None:
    argument: Any = 3 if kind.__name__ == "UnknownTransaction" else "what was expected"

    answer = raising(api, kind(argument)).get("/metrics", headers=authorized)

    status, code = expected
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (status, code)
    assert answer.get_json()["error"]["message"] == str(kind(argument))
    assert ("Retry-After" in answer.headers) is (status in {429, 503})


def test_what_could_not_be_stored_is_503_with_its_reason(api: Api, authorized: dict[str, str]) -> None:
    answer = raising(api, NotStored("storage_full")).get("/metrics", headers=authorized)

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert answer.get_json()["error"]["code"] == "storage_full"


def test_a_database_that_cannot_be_read_is_503(
    api: Api, authorized: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    error = sa.exc.OperationalError("SELECT 1", {"V1": "0.987654321"}, Exception("connection refused"))

    answer = raising(api, error).get("/metrics", headers=authorized)

    assert (answer.status_code, answer.get_json()["error"]["code"]) == (503, "storage_failed")
    assert "connection refused" in caplog.text
    assert "0.987654321" not in caplog.text


def test_a_statement_that_is_wrong_is_500(api: Api, authorized: dict[str, str]) -> None:
    error = sa.exc.ProgrammingError("SELEC 1", {}, Exception("syntax error"))

    assert raising(api, error).get("/metrics", headers=authorized).status_code == 500


def test_an_unexpected_error_is_500_with_its_traceback_in_the_log_alone(
    api: Api, authorized: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        answer = raising(api, ZeroDivisionError("a secret detail")).get("/metrics", headers=authorized)

    error = answer.get_json()["error"]
    assert (answer.status_code, error["code"]) == (500, "internal_error")
    assert "secret" not in answer.text
    assert "Traceback" in caplog.text
    assert error["request_id"] in caplog.text


@pytest.mark.parametrize("text", ["0.987654321", "no-feature-of-ours", "CANARY"])
def test_no_message_repeats_what_was_sent(lasting_client: FlaskClient, authorized: dict[str, str], text: str) -> None:
    row: list[Any] = [0.5] * 29
    answers = [
        lasting_client.post(path, json=body, headers=authorized | headers)
        for path, body, headers in (
            ("/predict", {"data": [[text, *row[1:]]]}, {}),
            ("/predict", {"data": [row], text: 1}, {}),
            ("/predict", {"data": [{f"{text} ": 1}]}, {}),
            ("/predict", {"data": [{"V1": text, "Amount": text}]}, {}),
            ("/predict", {"data": [row], "transaction_ids": [f"{text} "]}, {}),
            ("/predict", {"data": [row]}, {"Idempotency-Key": f"{text} {text}"}),
            ("/predict", {"data": [row]}, {"Content-Encoding": text}),
            ("/labels", {"labels": [{"transaction_id": text, "is_fraud": True, "source": text}]}, {}),
            ("/labels", {"labels": [{"transaction_id": text, "is_fraud": True, "source": "review"}]}, {}),
            ("/labels", {text: []}, {}),
        )
    ]
    answers += [lasting_client.get(f"{path}/{text}", headers=authorized) for path in ("/transactions", "/elsewhere")]

    assert [answer.status_code // 100 for answer in answers] == [4] * len(answers)
    assert not [answer.text for answer in answers if text in answer.text]
