"""Each token opens what its scopes allow, and nothing else."""

import hashlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import werkzeug
import yaml
from flask.testing import FlaskClient

from api.app import Api, create_app
from api.auth import Tokens
from api.metrics import Metrics
from api.scopes import UndeclaredNeed, needs_of
from fraud_detection.environment import BadSetting
from fraud_detection.settings import ApiSettings
from fraud_detection.token_file import SCOPES, NamedToken, read_tokens
from tests.support.environment import TOKEN
from tests.support.project import ROOT

DOCUMENT = yaml.safe_load((ROOT / "docs" / "openapi.yaml").read_text())
METRICS_TOKEN = "a-token-for-the-metrics"
TOKENS = {scope: f"a-token-that-may-{scope}" for scope in SCOPES}
MAY: dict[str, set[str]] = {
    **{token: {scope} for scope, token in TOKENS.items()},
    METRICS_TOKEN: {"metrics"},
    TOKEN: set(SCOPES),
    "a-token-of-two-scopes": {"read", "label"},
}


def line(name: str, scopes: str, token: str) -> str:
    return f"{name} {scopes} sha256:{hashlib.sha256(token.encode()).hexdigest()}\n"


@pytest.fixture(scope="module")
def app(lasting_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("scopes")
    (folder / "tokens").write_text(
        "".join(line(scope, scope, token) for scope, token in TOKENS.items())
        + line("helpdesk", "read,label", "a-token-of-two-scopes")
    )
    own = {
        "LATEST_DB": str(folder / "requests.db"),
        "API_TOKENS_FILE": str(folder / "tokens"),
        "METRICS_TOKEN": METRICS_TOKEN,
    }
    app = create_app(ApiSettings.from_env(lasting_environment | own), give_up=lambda _status: None)
    yield app
    app.close()


@pytest.fixture
def client(app: Api) -> FlaskClient:
    return app.test_client()


def documented_need(rule: str, method: str) -> str:
    """Return what the document says that a request needs; a route that is not in the document is a KeyError."""
    operation = DOCUMENT["paths"][re.sub("<.*>", "{id}", rule)]["get" if method == "HEAD" else method.lower()]
    security = operation.get("security", DOCUMENT["security"])
    if not security:
        return "no token"
    return "".join(security[0]["token"]) or "any token"


def endpoints(app: Api) -> Iterator[tuple[werkzeug.routing.Rule, str]]:
    """Yield each route of the application with each of its methods."""
    for route in app.url_map.iter_rules():
        for method in sorted(route.methods or ()):
            yield route, method


def test_the_matrix_of_endpoints_and_tokens(app: Api, client: FlaskClient) -> None:
    checked = 0
    for route, method in endpoints(app):
        path = re.sub("<.*>", "order-1001", route.rule)
        need = documented_need(route.rule, method)
        for token, scopes in MAY.items():
            answer = client.open(path, method=method, headers={"Authorization": f"Bearer {token}"})
            without = client.open(path, method=method)

            is_open = need in ("no token", "any token") or need in scopes
            assert (answer.status_code == 403) == (not is_open), (method, path, token)
            assert answer.status_code != 401
            assert (without.status_code == 401) == (need != "no token")
            checked += 1
    assert checked > 50


@pytest.mark.parametrize("start", ["/", "//", "/.", "/x/..", "/ ", "/\0"])
def test_a_path_with_another_start_is_unknown_whatever_the_token(app: Api, client: FlaskClient, start: str) -> None:
    for route, method in endpoints(app):
        path = start + re.sub("<.*>", "order-1001", route.rule)
        for token in (TOKEN, METRICS_TOKEN, "none"):
            answer = client.open(
                method=method, headers={"Authorization": f"Bearer {token}"}, environ_overrides={"PATH_INFO": path}
            )

            assert (answer.status_code, answer.mimetype) == (404, "application/json"), (method, path)
            assert "order-1001" not in answer.text


@pytest.mark.parametrize("end", ["/", "//", "/.", "/..", ";x", " "])
def test_a_path_with_another_end_is_unknown_or_another_id(app: Api, client: FlaskClient, end: str) -> None:
    for route, method in endpoints(app):
        path = re.sub("<.*>", "order-1001", route.rule) + end
        answer = client.open(
            method=method, headers={"Authorization": f"Bearer {TOKEN}"}, environ_overrides={"PATH_INFO": path}
        )

        assert (answer.status_code, answer.mimetype) == (404, "application/json"), (method, path)


def test_each_endpoint_declares_what_the_document_says(app: Api) -> None:
    declared = needs_of(app)

    for route, method in endpoints(app):
        assert declared[route.endpoint] == documented_need(route.rule, method), (method, route.rule)


def test_a_route_that_does_not_say_what_it_needs_ends_the_start(
    lasting_environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.labels.needs", lambda _need: lambda view: view)

    with pytest.raises(UndeclaredNeed, match="/labels: its view does not say"):
        create_app(ApiSettings.from_env({**lasting_environment, "LATEST_DB": str(tmp_path / "requests.db")}))


@pytest.mark.parametrize(
    ("method", "path", "token", "scope"),
    [
        ("POST", "/predict", TOKENS["read"], "predict"),
        ("POST", "/labels", TOKENS["predict"], "label"),
        ("GET", "/transactions/x", METRICS_TOKEN, "read"),
        ("GET", "/metrics", "a-token-of-two-scopes", "metrics"),
    ],
)
def test_a_refusal_names_the_scope_that_is_needed(
    client: FlaskClient, method: str, path: str, token: str, scope: str
) -> None:
    answer = client.open(path, method=method, headers={"Authorization": f"Bearer {token}"})

    error = answer.get_json()["error"]
    assert (answer.status_code, error["code"]) == (403, "forbidden")
    assert f"has not the scope {scope}," in error["message"]
    assert token not in answer.text


def test_a_refused_scope_is_refused_before_the_body_is_read(client: FlaskClient) -> None:
    class Unreadable:
        def read(self, _size: int) -> bytes:
            raise AssertionError("the body was read")

    for path in ("/predict", "/labels"):
        answer = client.post(
            path,
            content_type="application/json",
            headers={"Authorization": f"Bearer {TOKENS['read']}"},
            environ_overrides={"wsgi.input": Unreadable()},
        )
        assert answer.status_code == 403


def test_requests_are_counted_by_the_name_of_the_token(client: FlaskClient) -> None:
    for _ in range(3):
        client.get("/model", headers={"Authorization": f"Bearer {TOKENS['predict']}"})
    figures = client.get("/metrics", headers={"Authorization": f"Bearer {METRICS_TOKEN}"}).text

    assert 'fraud_auth_requests_total{token_id="METRICS_TOKEN"}' in figures
    counted = next(
        row for row in figures.splitlines() if row.startswith('fraud_auth_requests_total{token_id="predict"')
    )
    assert float(counted.split()[1]) >= 3


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text(line("checkout", "predict", "the first token"))
    return path


class Reading:
    """Tokens that look at their files for every credential."""

    def __init__(self, **environment: str) -> None:
        self.metrics = Metrics()
        self.tokens = Tokens(ApiSettings.from_env({"API_TOKEN": TOKEN, **environment}), self.metrics, recheck_seconds=0)

    def name(self, token: str) -> str | None:
        found = self.tokens.identify(token.encode())
        return found.name if found else None

    @property
    def failures(self) -> float | None:
        return self.metrics.registry.get_sample_value("fraud_token_reload_failures_total", {"token_id": "named"})


def test_a_changed_file_is_read_without_a_restart(file: Path) -> None:
    reading = Reading(API_TOKENS_FILE=str(file))
    assert reading.name("the first token") == "checkout"

    file.write_text(line("checkout", "predict", "the first token") + line("checkout", "predict", "the second token"))
    assert (reading.name("the first token"), reading.name("the second token")) == ("checkout", "checkout")
    file.write_text(line("checkout", "predict", "the second token"))
    assert (reading.name("the first token"), reading.name("the second token")) == (None, "checkout")
    file.write_text("")
    assert reading.name("the second token") is None
    assert reading.failures == 0


@pytest.mark.parametrize("content", ["checkout predict", "checkout predict the first token\n", None])
def test_the_last_good_tokens_outlive_a_wrong_file(
    file: Path, content: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    reading = Reading(API_TOKENS_FILE=str(file))

    if content is None:
        file.unlink()
    else:
        file.write_text(content)

    with caplog.at_level(logging.ERROR):
        assert reading.name("the first token") == "checkout"
    assert reading.failures == 1
    assert "API_TOKENS_FILE is wrong, and the last good tokens stay valid" in caplog.text
    assert "the first token" not in caplog.text
    file.write_text(line("checkout", "predict", "a good one again"))
    assert (reading.name("the first token"), reading.name("a good one again")) == (None, "checkout")
    assert reading.failures == 1


def test_a_removed_token_has_no_series_any_more(file: Path) -> None:
    reading = Reading(API_TOKENS_FILE=str(file))

    def series() -> set[str]:
        (family,) = [each for each in reading.metrics.registry.collect() if each.name == "fraud_auth_requests"]
        return {sample.labels["token_id"] for sample in family.samples} - {"current", "previous"}

    file.write_text(line("checkout", "predict", "the first token") + line("checkout", "predict", "the second token"))
    reading.name("the second token")
    assert series() == {"checkout", "checkout:previous"}
    file.write_text(line("checkout", "predict", "the second token") + line("desk", "read", "another token"))
    reading.name("the second token")
    assert series() == {"checkout", "desk"}
    file.write_text("checkout predict")
    reading.name("the second token")
    assert series() == {"checkout", "desk"}
    file.write_text("")
    reading.name("the second token")
    assert series() == set()


def test_a_wrong_file_is_read_once_and_counted_at_each_look(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading = Reading(API_TOKENS_FILE=str(file))
    opened: list[Path] = []

    def read(path: Path) -> list[NamedToken]:
        opened.append(path)
        return read_tokens(path)

    monkeypatch.setattr("api.auth.read_tokens", read)
    file.write_text("checkout predict")

    for _ in range(3):
        assert reading.name("the first token") == "checkout"

    assert (len(opened), reading.failures) == (1, 3)


def test_a_file_that_cannot_be_opened_is_tried_at_each_look(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading = Reading(API_TOKENS_FILE=str(file))
    file.write_text(line("checkout", "predict", "the second token"))

    def fail(*_: object) -> None:
        raise OSError("too many open files")

    with monkeypatch.context() as broken:
        broken.setattr("fraud_detection.token_file.read_regular", fail)
        assert reading.name("the second token") is None

    assert (reading.name("the second token"), reading.failures) == ("checkout", 1)


def test_a_wrong_file_ends_the_start_with_line_and_reason(file: Path) -> None:
    file.write_text("# comment\n\ncheckout everything sha256:00\n")

    with pytest.raises(BadSetting) as refused:
        Reading(API_TOKENS_FILE=str(file))

    assert str(refused.value) == (
        f"API_TOKENS_FILE: {file}, line 3: expected as its scopes some of predict, label, read, metrics, "
        "separated by commas without spaces"
    )


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"METRICS_TOKEN": TOKEN}, "METRICS_TOKEN: is the same token as API_TOKEN"),
        ({"METRICS_TOKEN": "fifteen-letters"}, "METRICS_TOKEN: expected 16 to 512 visible ASCII characters"),
    ],
)
def test_a_metrics_token_that_opens_more_or_is_short_is_refused(environment: dict[str, str], message: str) -> None:
    with pytest.raises(BadSetting, match=message) as refused:
        Reading(**environment)

    assert "fifteen" not in str(refused.value)


def test_a_named_token_that_is_also_the_api_token_is_refused(file: Path) -> None:
    file.write_text(line("checkout", "predict", TOKEN))

    with pytest.raises(BadSetting, match="checkout: is the same token as API_TOKEN"):
        Reading(API_TOKENS_FILE=str(file))


def test_the_metrics_token_follows_its_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics"
    reading = Reading(METRICS_TOKEN_FILE=str(path))
    assert reading.name(METRICS_TOKEN) is None

    path.write_text(f"{METRICS_TOKEN}\n")
    assert reading.name(METRICS_TOKEN) == "METRICS_TOKEN"
    path.write_text("too-short")
    assert (reading.name(METRICS_TOKEN), reading.name("too-short")) == ("METRICS_TOKEN", None)
    path.unlink()
    assert reading.name(METRICS_TOKEN) is None


def test_a_token_that_appears_under_a_second_name_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "metrics"
    reading = Reading(METRICS_TOKEN_FILE=str(path))

    path.write_text(TOKEN)

    assert reading.name(TOKEN) == "API_TOKEN"
    assert "METRICS_TOKEN: is the same token as API_TOKEN" in caplog.text


def test_a_label_is_stored_with_the_name_of_the_token(client: FlaskClient) -> None:
    predict, read, both = (
        {"Authorization": f"Bearer {token}"} for token in (TOKENS["predict"], TOKENS["read"], "a-token-of-two-scopes")
    )
    said = {"transaction_id": "of-the-helpdesk", "is_fraud": True, "source": "analyst", "reporter": "another"}
    client.post("/predict", json={"data": [[0.5] * 29], "transaction_ids": ["of-the-helpdesk"]}, headers=predict)

    assert client.post("/labels", json={"labels": [said]}, headers=both).status_code == 200

    found = client.get("/transactions/of-the-helpdesk", headers=read).get_json()
    assert [(label["reporter"], label["token_name"]) for label in found["labels"]] == [("another", "helpdesk")]


def test_a_key_of_another_token_gives_its_answer_only_for_the_same_body(client: FlaskClient) -> None:
    first, second = (
        {"Authorization": f"Bearer {token}", "Idempotency-Key": "of-two-clients"}
        for token in (TOKENS["predict"], TOKEN)
    )
    scored = client.post("/predict", json={"data": [[0.5] * 29]}, headers=first)

    other = client.post("/predict", json={"data": [[0.6] * 29]}, headers=second)
    same = client.post("/predict", json={"data": [[0.5] * 29]}, headers=second)

    assert (other.status_code, other.get_json()["error"]["code"]) == (422, "idempotency_key_reused")
    assert scored.get_json()["request_id"] not in other.text
    assert (same.data, same.headers["Idempotency-Replayed"]) == (scored.data, "true")
