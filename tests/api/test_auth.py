"""Requests need a valid token, and tokens rotate by their files without a rejected client."""

import logging
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from api.auth import Tokens
from api.metrics import Metrics
from fraud_detection.settings import ApiSettings
from fraud_detection.store import Store

ROW = {"data": [[0.5] * 29]}


class Counting:
    """Tokens whose files are looked at for every credential, and which of them a credential was counted as."""

    def __init__(self, environment: dict[str, str], recheck_seconds: float = 0) -> None:
        self.metrics = Metrics()
        self.tokens = Tokens(ApiSettings.from_env(environment), self.metrics, recheck_seconds)

    def identify(self, credential: bytes) -> str | None:
        token = self.tokens.identify(credential)
        return None if token is None else token.requests._labelvalues[0]


def tokens(environment: dict[str, str]) -> Counting:
    return Counting(environment)


MISSING = ("Bearer", "and the request has none")
EMPTY = ('Bearer error="invalid_request"', "expected a token after Bearer, got none")
MALFORMED = ('Bearer error="invalid_request"', "expected Bearer, a space, and a token of visible ASCII characters")
WRONG = ('Bearer error="invalid_token"', "this token is not valid")


@pytest.mark.parametrize(
    ("header", "refusal"),
    [
        (None, MISSING),
        ("", MISSING),
        ("Bearer", EMPTY),
        ("bearer ", EMPTY),
        ("Bearer a-token-for-tests-onl", WRONG),
        ("Bearer a-token-for-tests-only2", WRONG),
        ("Bearer A-TOKEN-FOR-TESTS-ONLY", WRONG),
        ("Bearer a-token-for-tests-only a-token-for-tests-only", MALFORMED),
        ("Bearer a-token-for-tests-only, Bearer a-token-for-tests-only", MALFORMED),
        ("Bearer\ta-token-for-tests-only", MALFORMED),
        ("Basic a-token-for-tests-only", MALFORMED),
        ("a-token-for-tests-only", MALFORMED),
        ("Bearer t\u00f6ken", MALFORMED),
        ("Bearer " + "x" * 8000, WRONG),
    ],
)
def test_without_a_valid_token_nothing_is_done(
    lasting_client: FlaskClient, lasting_store: Store, header: str | None, refusal: tuple[str, str]
) -> None:
    with lasting_store.begin() as connection:
        rows_before = lasting_store.count_rows(connection)

    answer = lasting_client.post("/predict", json=ROW, headers={} if header is None else {"Authorization": header})

    challenge, message = refusal
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, challenge)
    assert answer.get_json()["error"]["code"] == "unauthorized"
    assert message in answer.get_json()["error"]["message"]
    with lasting_store.begin() as connection:
        assert lasting_store.count_rows(connection) == rows_before


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_is_read_in_any_case(lasting_client: FlaskClient, scheme: str) -> None:
    answer = lasting_client.get("/model", headers={"Authorization": f"{scheme} a-token-for-tests-only"})

    assert answer.status_code == 200


@pytest.mark.parametrize("path", ["/model", "/metrics", "/transactions/x"])
def test_reading_needs_the_token_too(lasting_client: FlaskClient, path: str) -> None:
    assert lasting_client.get(path).status_code == 401


@pytest.mark.parametrize("path", ["/", "/health", "/openapi.json", "/docs"])
def test_a_public_path_needs_no_token(lasting_client: FlaskClient, path: str) -> None:
    assert lasting_client.get(path).status_code != 401


def test_the_token_is_asked_for_before_the_body_is_read(lasting_client: FlaskClient) -> None:
    class Unreadable:
        def read(self, _size: int) -> bytes:
            raise AssertionError("the body was read")

    answer = lasting_client.post(
        "/predict", content_type="application/json", environ_overrides={"wsgi.input": Unreadable()}
    )

    assert answer.status_code == 401


def test_an_unknown_path_or_method_is_answered_as_such_without_a_token(lasting_client: FlaskClient) -> None:
    assert lasting_client.get("/nothing").status_code == 404
    assert lasting_client.get("/predict").status_code == 405


def test_both_tokens_are_known_by_their_names() -> None:
    both = tokens({"API_TOKEN": "new", "API_TOKEN_PREVIOUS": "old"})

    assert [both.identify(credential) for credential in (b"new", b"old", b"other", b"")] == [
        "current",
        "previous",
        None,
        None,
    ]


def test_each_use_of_a_token_is_counted_under_its_name(lasting_client: FlaskClient, authorized: dict[str, str]) -> None:
    def counted() -> float:
        text = lasting_client.get("/metrics", headers=authorized).text
        (line,) = [line for line in text.splitlines() if 'fraud_auth_requests_total{token_id="current"}' in line]
        return float(line.split()[-1])

    before = counted()
    lasting_client.get("/model", headers=authorized)

    assert counted() == before + 2  # this request and the one for the metrics


@pytest.fixture
def token_files(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "current").write_text("first\n")
    (tmp_path / "previous").write_text("")
    return {"API_TOKEN_FILE": str(tmp_path / "current"), "API_TOKEN_PREVIOUS_FILE": str(tmp_path / "previous")}


def test_a_rotation_by_files_never_rejects_a_known_token(tmp_path: Path, token_files: dict[str, str]) -> None:
    rotating = tokens(token_files)
    assert (rotating.identify(b"first"), rotating.identify(b"the-second-token")) == ("current", None)

    (tmp_path / "previous").write_text("first\n")
    assert rotating.identify(b"first") == "current"
    (tmp_path / "current").write_text("the-second-token\n")
    assert (rotating.identify(b"first"), rotating.identify(b"the-second-token")) == ("previous", "current")
    (tmp_path / "previous").write_text("\n")
    assert (rotating.identify(b"first"), rotating.identify(b"the-second-token")) == (None, "current")


@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"\xff\xfe", b"x" * 513])
def test_the_last_good_token_outlives_a_file_that_holds_none(
    tmp_path: Path, token_files: dict[str, str], content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    held = tokens(token_files)

    (tmp_path / "current").write_bytes(content)

    with caplog.at_level(logging.WARNING):
        assert held.identify(b"first") == "current"
    assert held.identify(content) is None
    assert "API_TOKEN_FILE holds no usable token" in caplog.text
    assert "two words" not in caplog.text


def test_the_last_good_token_outlives_its_file(tmp_path: Path, token_files: dict[str, str]) -> None:
    held = tokens(token_files)

    (tmp_path / "current").unlink()

    assert held.identify(b"first") == "current"


def test_the_previous_token_outlives_a_file_that_holds_none_but_not_its_removal(
    tmp_path: Path, token_files: dict[str, str]
) -> None:
    (tmp_path / "previous").write_text("the-older-token!")
    held = tokens(token_files)

    for content in (b"\xff", b"two words"):
        (tmp_path / "previous").write_bytes(content)
        assert held.identify(b"the-older-token!") == "previous"
    (tmp_path / "previous").unlink()
    assert held.identify(b"the-older-token!") is None


def test_a_rotation_starts_when_the_previous_token_gets_a_file(tmp_path: Path, token_files: dict[str, str]) -> None:
    (tmp_path / "previous").unlink()
    rotating = tokens(token_files)
    assert rotating.identify(b"the-older-token!") is None

    (tmp_path / "previous").write_text("the-older-token!")
    assert (rotating.identify(b"the-older-token!"), rotating.identify(b"first")) == ("previous", "current")


def test_each_look_at_a_file_without_a_usable_token_is_counted(tmp_path: Path, token_files: dict[str, str]) -> None:
    held = tokens(token_files)

    def counted() -> list[float | None]:
        name = "fraud_token_reload_failures_total"
        return [held.metrics.registry.get_sample_value(name, {"token_id": each}) for each in ("current", "previous")]

    held.identify(b"first")
    assert counted() == [0, 0]  # an empty file of the previous token is how it is withdrawn
    (tmp_path / "current").write_text("")
    (tmp_path / "previous").write_text("two words")
    held.identify(b"first")
    held.identify(b"first")
    assert counted() == [2, 2]


def test_files_are_not_read_for_every_request(tmp_path: Path, token_files: dict[str, str]) -> None:
    held = Counting(token_files, recheck_seconds=3600)

    (tmp_path / "current").write_text("the-second-token")

    assert (held.identify(b"first"), held.identify(b"the-second-token")) == ("current", None)


def test_neither_a_token_nor_an_attempt_is_logged(
    lasting_client: FlaskClient, authorized: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        lasting_client.get("/model", headers=authorized)
        lasting_client.get("/model", headers={"Authorization": "Bearer an-attempt"})

    assert "a-token-for-tests-only" not in caplog.text
    assert "an-attempt" not in caplog.text


def test_files_of_tokens_that_are_open_to_others_are_warned_of_once(
    tmp_path: Path, token_files: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    named = tmp_path / "named"
    named.write_text("")
    (tmp_path / "current").chmod(0o644)
    (tmp_path / "previous").chmod(0o600)
    named.chmod(0o604)

    held = tokens(token_files | {"API_TOKENS_FILE": str(named)})
    held.identify(b"first")

    warnings = [record.getMessage() for record in caplog.records if "is open to other users" in record.getMessage()]
    assert [warning.partition(":")[0] for warning in warnings] == ["API_TOKEN_FILE", "API_TOKENS_FILE"]


def test_a_short_token_works_if_it_was_there_before_and_is_refused_as_a_new_one(
    tmp_path: Path, token_files: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        held = tokens(token_files)
    assert "API_TOKEN: has fewer than 16 characters. It works, and version 0.3.0 will refuse it" in caplog.text
    assert held.metrics.registry.get_sample_value("fraud_short_tokens") == 1

    (tmp_path / "previous").write_text("fifteen-letters")
    assert (held.identify(b"first"), held.identify(b"fifteen-letters")) == ("current", None)
    assert "API_TOKEN_PREVIOUS_FILE holds a new token of fewer than 16 characters" in caplog.text
    (tmp_path / "previous").write_text("first")
    (tmp_path / "current").write_text("sixteen-letters!")
    assert (held.identify(b"first"), held.identify(b"sixteen-letters!")) == ("previous", "current")
    (tmp_path / "previous").write_text("")
    assert (held.identify(b"first"), held.metrics.registry.get_sample_value("fraud_short_tokens")) == (None, 0)
    assert "fifteen-letters" not in caplog.text
