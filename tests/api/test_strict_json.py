"""Only strict JSON within the limits is read, and numbers keep every bit."""

import json
from typing import Any

import gevent
import pytest
from flask.testing import FlaskClient
from gunicorn.http.errors import InvalidChunkSize
from werkzeug.test import TestResponse

from api.strict_json import parse_in_turn
from fraud_detection.contract import MAX_BODY_BYTES
from fraud_detection.store import Store, decisions

ROW = [0.5] * 29


def body_with(value: str) -> bytes:
    """Return a body that is right but for the first feature, which is `value` unchanged."""
    return f'{{"data": [[{value}{", 0.5" * 28}]]}}'.encode()


NOT_STRICT = [
    ("NaN", body_with("NaN"), "NaN and Infinity are not JSON"),
    ("Infinity", body_with("Infinity"), "NaN and Infinity are not JSON"),
    ("-Infinity", body_with("-Infinity"), "NaN and Infinity are not JSON"),
    ("4301 digits", body_with("9" * 4301), "an integer has more than 4300 digits"),
    ("5000 digits", body_with("-" + "9" * 5000), "an integer has more than 4300 digits"),
    ("duplicate key", b'{"data": [], "data": []}', "an object names a field twice"),
    ("duplicate key inside", b'{"data": [{"V1": 1, "V1": 1}]}', "an object names a field twice"),
    ("100,000 lists deep", b"[" * 100_000, "nested too deeply"),
    ("100,000 objects deep", b'{"a":' * 100_000, "nested too deeply"),
    ("as deep as the limit allows", b"[" * MAX_BODY_BYTES, "nested too deeply"),
    ("lone surrogate as text", b'{"data": "\\ud800"}', "a string holds half of a surrogate pair"),
    ("lone surrogate as key", b'{"\\udfff": 1}', "a string holds half of a surrogate pair"),
    ("UTF-8 of a surrogate", b'{"data": "\xed\xa0\x80"}', "byte 10: not UTF-8"),
    ("invalid UTF-8", b'{"data": "\xff"}', "byte 10: not UTF-8"),
    ("overlong UTF-8", b'{"data": "\xc0\xaf"}', "byte 10: not UTF-8"),
    ("UTF-16 with BOM", '{"data": []}'.encode("utf-16"), "byte 0: not UTF-8"),
    ("UTF-16", '{"data": []}'.encode("utf-16-le"), "character 1: not JSON"),
    ("UTF-32", '{"data": []}'.encode("utf-32-be"), "character 0: not JSON"),
    ("BOM", b'\xef\xbb\xbf{"data": []}', "character 0: not JSON"),
    ("trailing data", b'{"data": []} {}', "character 13: not JSON (Extra data)"),
    ("trailing NUL", b'{"data": []}\0', "character 12: not JSON (Extra data)"),
    ("leading zero", body_with("01"), "character 12: not JSON"),
    ("underscore", body_with("1_0"), "character 12: not JSON"),
    ("plus", body_with("+1"), "character 11: not JSON"),
    ("bare point", body_with(".5"), "character 11: not JSON"),
    ("hexadecimal", body_with("0x1"), "character 12: not JSON"),
    ("control character", b'{"data": "\x01"}', "character 10: not JSON (Invalid control character at)"),
    ("single quotes", b"{'data': []}", "character 1: not JSON"),
    ("trailing comma", b'{"data": [1,]}', "not JSON"),
    ("empty body", b"", "character 0: not JSON (Expecting value)"),
    ("only blanks", b" \r\n\t", "character 4: not JSON (Expecting value)"),
    ("blank of another kind", "\u00a0{}".encode(), "character 0: not JSON"),
]

NOT_TRANSACTIONS = [
    ("1e400", body_with("1e400"), "row 0, feature V1: expected a finite number from -368.1 to 23.8"),
    ("-1e400", body_with("-1e400"), "row 0, feature V1: expected a finite number from -368.1 to 23.8"),
    ("400 digits", body_with("9" * 400), "row 0, feature V1: expected a finite number from -368.1 to 23.8"),
    ("500 lists deep", b'{"data": ' + b"[" * 500 + b"]" * 500 + b"}", "row 0: expected 29 numbers (V1 to"),
    ("true", body_with("true"), "row 0, feature V1: expected a number, got a boolean"),
    ("a text", body_with('"1.0"'), "row 0, feature V1: expected a number, got a string"),
    ("null", body_with("null"), "row 0, feature V1: expected a number, got null"),
    ("a list", body_with("[]"), "row 0, feature V1: expected a number, got a list"),
    ("an object", body_with("{}"), "row 0, feature V1: expected a number, got an object"),
    ("28 numbers", json.dumps({"data": [ROW, ROW[1:]]}).encode(), "row 1: expected 29 numbers (V1 to Amount_scaled)"),
    ("30 numbers", json.dumps({"data": [[*ROW, 1]]}).encode(), "row 0: expected 29 numbers (V1 to Amount_scaled)"),
    ("no rows", b'{"data": []}', "expected a list of at least one row"),
    ("a row that is a number", b'{"data": [1]}', "row 0: expected a list of 29 numbers, got a number"),
    ("data that is no list", b'{"data": {}}', "expected a list of at least one row"),
    ("1,001 rows", json.dumps({"data": [ROW] * 1001}).encode(), "expected at most 1000 rows in data, got 1001"),
    ("beyond the bound", body_with("23.81"), "row 0, feature V1: expected a finite number from -368.1 to 23.8. If the"),
    ("body a list", b"[]", "expected an object with the field data"),
    ("body a number", b"1", "expected an object with the field data"),
    ("body null", b"null", "expected an object with the field data"),
    ("missing field", b"{}", "expected an object with the field data"),
    ("unknown field", b'{"data": [[]], "dta": 1}', "expected the fields data and transaction_ids, and no others"),
]

ACCEPTED = [
    ("subnormal", body_with("5e-324"), 5e-324),
    ("too small for a float", body_with("1e-400"), 0.0),
    ("negative zero", body_with("-0.0"), -0.0),
    ("integer", body_with("7"), 7.0),
    ("at the bound", body_with("23.8"), 23.8),
    ("many digits", body_with("0." + "3" * 5000), 1 / 3),
    ("blanks around", b" \n" + body_with("0.5") + b"\r\n\t", 0.5),
]


def rows(store: Store) -> int:
    with store.begin() as connection:
        return store.count_rows(connection)


@pytest.fixture(params=["Content-Length", "chunked"])
def post(request: pytest.FixtureRequest, lasting_client: FlaskClient, authorized: dict[str, str]) -> Any:
    """Post bytes to /predict with a declared length or, as the server passes chunks on, without one."""

    def send(body: bytes) -> TestResponse:
        environ: dict[str, Any] = {}
        if request.param == "chunked":
            environ = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": None}
        return lasting_client.post(
            "/predict", data=body, content_type="application/json", headers=authorized, environ_overrides=environ
        )

    return send


@pytest.mark.parametrize(("body", "message"), [case[1:] for case in NOT_STRICT], ids=[case[0] for case in NOT_STRICT])
def test_what_is_not_strict_json_is_400_and_not_stored(
    post: Any, lasting_store: Store, body: bytes, message: str
) -> None:
    rows_before = rows(lasting_store)

    answer = post(body)

    assert (answer.status_code, answer.get_json()["error"]["code"]) == (400, "not_strict_json")
    assert message in answer.get_json()["error"]["message"]
    assert rows(lasting_store) == rows_before


@pytest.mark.parametrize(
    ("body", "message"), [case[1:] for case in NOT_TRANSACTIONS], ids=[case[0] for case in NOT_TRANSACTIONS]
)
def test_json_that_is_no_transactions_is_422_and_not_stored(
    post: Any, lasting_store: Store, body: bytes, message: str
) -> None:
    rows_before = rows(lasting_store)

    answer = post(body)

    assert (answer.status_code, answer.get_json()["error"]["code"]) == (422, "invalid_transactions")
    assert answer.get_json()["error"]["message"].startswith(message)
    assert rows(lasting_store) == rows_before


def test_990_lists_deep_are_refused_on_one_ground_or_the_other(post: Any) -> None:
    assert post(b'{"data": ' + b"[" * 990 + b"]" * 990 + b"}").status_code in {400, 422}


@pytest.mark.parametrize(("body", "number"), [case[1:] for case in ACCEPTED], ids=[case[0] for case in ACCEPTED])
def test_every_finite_number_in_range_is_accepted_and_stored_as_parsed(
    post: Any, lasting_store: Store, body: bytes, number: float
) -> None:
    answer = post(body)

    assert answer.status_code == 200
    with lasting_store.begin() as connection:
        (decision,) = decisions.find(lasting_store, connection, answer.get_json()["request_id"])
    assert decision.features["V1"] == number


def test_a_thousand_rows_in_full_precision_are_within_the_limit(post: Any, lasting_store: Store) -> None:
    body = json.dumps({"data": [[-1.2345678901234567] * 29] * 1000}).encode()
    rows_before = rows(lasting_store)

    assert post(body).status_code == 200
    assert rows(lasting_store) == rows_before + 1000


def test_a_body_at_the_limit_is_read_and_one_beyond_it_is_not(post: Any) -> None:
    at_the_limit = body_with("0.5").ljust(MAX_BODY_BYTES)

    assert post(at_the_limit).status_code == 200
    answer = post(at_the_limit + b" ")
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (413, "body_too_large")


def test_a_body_shorter_than_declared_is_incomplete(lasting_client: FlaskClient, authorized: dict[str, str]) -> None:
    answer = lasting_client.post(
        "/predict",
        data=body_with("0.5"),
        content_type="application/json",
        headers=authorized,
        environ_overrides={"CONTENT_LENGTH": "1000"},
    )

    assert (answer.status_code, answer.get_json()["error"]["code"]) == (400, "body_incomplete")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (TimeoutError("timed out"), 408, "body_too_slow"),
        (ConnectionResetError("reset by peer"), 400, "body_incomplete"),
        (InvalidChunkSize(b"xyz"), 400, "body_incomplete"),
    ],
)
def test_what_the_server_cannot_read_is_the_callers_mistake(
    lasting_client: FlaskClient, authorized: dict[str, str], error: Exception, status: int, code: str
) -> None:
    class Broken:
        def read(self, _size: int) -> bytes:
            raise error

    answer = lasting_client.post(
        "/predict", content_type="application/json", headers=authorized, environ_overrides={"wsgi.input": Broken()}
    )

    assert (answer.status_code, answer.get_json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Type": "application/jsonp"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
        {"Content-Type": "application/json", "Content-Encoding": "br"},
        {"Content-Type": "application/json", "Content-Encoding": "deflate"},
        {"Content-Type": "application/json", "Content-Encoding": "identity, gzip"},
    ],
    ids=str,
)
def test_only_plain_json_in_utf_8_is_taken(
    lasting_client: FlaskClient, authorized: dict[str, str], headers: dict[str, str]
) -> None:
    answer = lasting_client.post("/predict", data=body_with("0.5"), headers=authorized | headers)

    assert (answer.status_code, answer.get_json()["error"]["code"]) == (415, "unsupported_body")


def test_another_charset_is_named_as_the_fault(lasting_client: FlaskClient, authorized: dict[str, str]) -> None:
    headers = authorized | {"Content-Type": "application/json; charset=latin-1"}

    answer = lasting_client.post("/predict", data=body_with("0.5"), headers=headers)

    assert answer.get_json()["error"]["message"].startswith("expected charset=utf-8, or none, in Content-Type")


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/json; charset=UTF-8"},
        {"Content-Type": "Application/JSON"},
        {"Content-Type": "application/json", "Content-Encoding": "identity"},
    ],
    ids=str,
)
def test_json_may_be_declared_in_more_words(
    lasting_client: FlaskClient, authorized: dict[str, str], headers: dict[str, str]
) -> None:
    assert lasting_client.post("/predict", data=body_with("0.5"), headers=authorized | headers).status_code == 200


@pytest.mark.parametrize(("rows", "is_first"), [(30_000, True), (3, False)])
def test_a_large_body_lets_others_have_their_turn_before_it_is_parsed(
    lasting_client: FlaskClient, authorized: dict[str, str], rows: int, is_first: bool
) -> None:
    turns: list[str] = []
    other = gevent.spawn(turns.append, "other")

    answer = lasting_client.post("/predict", json={"data": [[]] * rows}, headers=authorized)

    turns.append("answer")
    other.join()
    assert answer.status_code == 422
    assert (turns[0] == "other") is is_first


def test_others_have_their_turn_between_two_large_bodies_too() -> None:
    ended: list[str] = []

    def parse_large() -> None:
        parse_in_turn(b"[" + b" " * 100_000 + b"]")
        ended.append("large")

    def need_three_turns() -> None:
        gevent.sleep(0)
        gevent.sleep(0)
        ended.append("other")

    large = [gevent.spawn(parse_large) for _ in range(9)]
    gevent.joinall([*large, gevent.spawn(need_three_turns)], raise_error=True)

    assert ended.index("other") < 5
