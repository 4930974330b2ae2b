"""No message repeats a password of MLFLOW_TRACKING_URI, API_URL, DATABASE_URL or PUSHGATEWAY_URL, even in part."""

import logging
from pathlib import Path

import pytest

from api import smoke
from fraud_detection.database import DatabaseRefused
from fraud_detection.environment import BadSetting, Settings
from fraud_detection.features import FeatureList
from fraud_detection.settings import ApiSettings, ClientSettings, JobSettings
from fraud_detection.store import Store
from jobs.exchange.api_client import ApiAway, ApiClient
from jobs.reporting.pushgateway import Run, push_retrain
from jobs.rollout.running_api import RunningApi, bring_to
from jobs.rollout.tracking import Tracking, TrackingFailed
from tests.support.environment import TOKEN

READ_BY: dict[str, type[Settings]] = {
    "API_URL": ClientSettings,
    "DATABASE_URL": ApiSettings,
    "MLFLOW_TRACKING_URI": JobSettings,
    "PUSHGATEWAY_URL": JobSettings,
}
UNREACHABLE = "http://someone:passw0rd@127.0.0.1:1"


def refusal_of(variable: str, address: str) -> BadSetting | None:
    """Return why an address is refused, None if it is taken."""
    try:
        READ_BY[variable].from_env({"API_TOKEN": TOKEN, variable: address})
    except BadSetting as error:
        return error
    return None


def is_repeated(message: str) -> bool:
    return "passw0rd" in message or "s3cond" in message


@pytest.mark.parametrize("variable", READ_BY)
@pytest.mark.parametrize(
    "rest",
    [
        "//someone:passw0rd",
        "//someone:passw0rd@",
        "//someone:passw0rd@host:port",
        "//someone:passw0rd@host:123456",
        "//someone:passw0rd@[::1",
        "//someone:passw0rd @host",
        "//someone:passw0rd@ho st",
        "//someone:passw0rd/s3cond@host",
        "//someone:passw0rd?s3cond@host",
        "//someone:passw0rd#s3cond@host",
        "/someone:passw0rd@host",
        "someone:passw0rd@host",
    ],
)
def test_a_wrong_address_is_refused_without_its_value(variable: str, rest: str) -> None:
    scheme = "postgresql" if variable == "DATABASE_URL" else "http"
    for address in (f"{scheme}:{rest}", f"{scheme}{rest}"):
        refusal = refusal_of(variable, address)
        assert refusal is None or str(refusal).startswith(f"{variable}: expected")
        assert not is_repeated(f"{refusal} {refusal.__cause__!r}" if refusal else ""), address


@pytest.mark.parametrize("variable", READ_BY)
@pytest.mark.parametrize("host", ["h..x", ".h", "s3cond..x:5432", "h" * 64])
def test_a_host_that_cannot_be_looked_up_is_refused_with_its_form(variable: str, host: str) -> None:
    scheme = "postgresql" if variable == "DATABASE_URL" else "http"

    refusal = str(refusal_of(variable, f"{scheme}://someone:passw0rd@{host}/rest"))

    assert refusal.startswith(f"{variable}: expected")
    assert "with a host of 1 to 63 characters between dots, got a value that is kept secret" in refusal
    assert not is_repeated(refusal)


def test_the_hosts_of_a_database_that_the_query_names_are_checked_and_folders_are_none() -> None:
    assert refusal_of("DATABASE_URL", "postgresql:///database?host=good,h..x") is not None
    assert refusal_of("DATABASE_URL", "postgresql:///database?host=good,/run/a..b") is None


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://someone:passw0rd@s3cond@host/database",
        "postgresql://someone:passw0rd@s3cond:more@host/database",
        "postgresql://someone:passw0rd/@s3cond@host/database",
    ],
)
def test_a_password_that_needs_percent_signs_is_refused_with_the_way_to_write_it(address: str) -> None:
    with pytest.raises(BadSetting, match="in user and password write each of @ : /") as refused:
        ApiSettings.from_env({"API_TOKEN": TOKEN, "DATABASE_URL": address})

    assert not is_repeated(str(refused.value))


@pytest.mark.parametrize("password", ["passw0rd", "pass%40w0rd", "passw0rd%", "p:assw0rd", "p/assw0rd"])
def test_a_password_that_the_driver_understands_is_taken(password: str) -> None:
    settings = ApiSettings.from_env(
        {"API_TOKEN": TOKEN, "DATABASE_URL": f"postgresql://me:{password}@host:5432/database"}
    )

    assert settings.database_url == f"postgresql+psycopg://me:{password}@host:5432/database"


def test_a_database_that_does_not_answer_is_named_without_the_password(features: FeatureList) -> None:
    with pytest.raises(DatabaseRefused) as refused:
        Store.open("postgresql+psycopg://someone:passw0rd@127.0.0.1:1/database", features)

    assert not is_repeated(str(refused.value))


def test_an_api_that_does_not_answer_is_named_without_the_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = ClientSettings.from_env({"API_TOKEN": TOKEN, "API_URL": UNREACHABLE})
    monkeypatch.setenv("API_TOKEN", TOKEN)
    monkeypatch.setenv("API_URL", UNREACHABLE)
    monkeypatch.setattr("jobs.rollout.running_api.SERVED_WITHIN_SECONDS", 0.0)

    with pytest.raises(ApiAway) as away, ApiClient(client, attempts=1) as api:
        api.served_model()
    seen = bring_to("digest", JobSettings.from_env({}), RunningApi(client))
    assert smoke.main([]) == 1

    said = [str(away.value), seen, *capsys.readouterr()]
    assert not is_repeated(" ".join(said))
    assert str(away.value).startswith("http://127.0.0.1:1: the API does not answer")
    assert said[-1].startswith("http://127.0.0.1:1/health: expected a reply")


def test_a_pushgateway_that_does_not_answer_is_named_without_the_password(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        push_retrain("http://someone:passw0rd@127.0.0.1", "skipped", Run(0, 1, succeeded=True))

    assert "the Pushgateway did not take the numbers" in caplog.text
    assert not is_repeated(caplog.text)


@pytest.mark.parametrize(
    "uri",
    [
        UNREACHABLE,
        "http://someone:passw0rd@s3cond@127.0.0.1:1",
        "ftp://someone:passw0rd@host",
        "postgresql://someone:passw0rd@s3cond:more@host/runs",
        "postgresql+psycopg://someone:passw0rd@127.0.0.1:1/runs",
        "postgresql+psycopg://someone:passw0rd@s3cond@127.0.0.1:1/runs",
    ],
)
def test_an_mlflow_that_does_not_answer_is_named_without_the_password(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    with pytest.raises(TrackingFailed) as failed:
        Tracking(uri, tmp_path, experiment="FraudDetection", registered_model="fraud-api")

    assert not is_repeated(str(failed.value))
