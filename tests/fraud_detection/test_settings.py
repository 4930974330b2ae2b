"""Settings have the documented defaults, and a wrong variable is named with its value."""

from pathlib import Path

import pytest

from fraud_detection.environment import BadSetting
from fraud_detection.settings import ApiSettings, ClientSettings, JobSettings

TOKEN = {"API_TOKEN": "t0k3n"}


def test_the_contract_has_its_defaults() -> None:
    api, jobs = ApiSettings.from_env(TOKEN), JobSettings.from_env({})

    assert (api.fraud_threshold, api.port) == (0.4, 5000)
    assert (api.model_path, api.latest_db) == (Path("models/rf_model.pkl"), Path("data/requests.db"))
    assert jobs.train_db == Path("data/requests.db")
    assert (jobs.mlflow_exper, jobs.mlflow_reg) == ("FraudDetection", "fraud-api")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "API_TOKEN is not set; it is required: bearer token"),
        ({"API_TOKEN": ""}, "API_TOKEN is not set"),
        (TOKEN | {"PORT": "5000.5"}, "PORT: expected a whole number from 1 to 65535, got '5000.5'"),
        (TOKEN | {"PORT": "\u0665000"}, "PORT: expected a whole number from 1 to 65535, got '\u0665000'"),
        (TOKEN | {"PORT": "70000"}, "PORT: expected a whole number from 1 to 65535, got '70000'"),
        (TOKEN | {"FRAUD_THRESHOLD": "nan"}, "FRAUD_THRESHOLD: expected a number from 0.001 to 0.999, got 'nan'"),
        (TOKEN | {"FRAUD_THRESHOLD": "high"}, "FRAUD_THRESHOLD: expected a number from 0.001 to 0.999, got 'high'"),
        (TOKEN | {"MODEL_PATH": "m/a.pkl"}, "MODEL_PATH: expected a path that ends in rf_model.pkl, got 'm/a.pkl'"),
        (TOKEN | {"ROLLOUT_MODE": "hope"}, "ROLLOUT_MODE: expected one of reload, restart, none, got 'hope'"),
        (TOKEN | {"TRUSTED_PROXIES": "*"}, "TRUSTED_PROXIES: expected addresses or networks, separated by commas"),
        (TOKEN | {"TRUSTED_PROXIES": "10.0.0.7,"}, "TRUSTED_PROXIES: expected addresses or networks"),
        (TOKEN | {"TRUSTED_PROXIES": "proxy.local"}, "TRUSTED_PROXIES: expected addresses or networks"),
        (TOKEN | {"TRUSTED_PROXIES": "10.0.0.1/8"}, "TRUSTED_PROXIES: expected addresses or networks"),
        (TOKEN | {"ALLOW_NETWORK_FILESYSTEM": "1"}, "ALLOW_NETWORK_FILESYSTEM: expected true or false, got '1'"),
    ],
)
def test_a_wrong_variable_is_named_with_its_value(environment: dict[str, str], message: str) -> None:
    with pytest.raises(BadSetting) as refused:
        ApiSettings.from_env(environment)

    assert str(refused.value).startswith(message)


def test_proxies_are_addresses_and_networks_of_both_families() -> None:
    settings = ApiSettings.from_env(TOKEN | {"TRUSTED_PROXIES": "10.0.0.7, 192.168.0.0/16,fd00::/8"})

    assert settings.trusted_proxies == "10.0.0.7/32,192.168.0.0/16,fd00::/8"
    assert ApiSettings.from_env(TOKEN).trusted_proxies is None


def test_postgresql_replaces_both_files() -> None:
    settings = JobSettings.from_env({"DATABASE_URL": "postgres://user:password@host/database"})

    assert settings.store_locations == ["postgresql+psycopg://user:password@host/database"]


def test_two_names_of_one_file_are_one_store() -> None:
    same = JobSettings.from_env({"LATEST_DB": "data/a.db", "TRAIN_DB": "./data/a.db"})
    other = JobSettings.from_env({"LATEST_DB": "data/a.db", "TRAIN_DB": "data/b.db"})

    assert len(same.store_locations) == 1
    assert other.store_locations == [Path("data/a.db"), Path("data/b.db")]


def test_an_address_must_be_one() -> None:
    with pytest.raises(BadSetting, match="API_URL: expected an address that starts with http"):
        ClientSettings.from_env(TOKEN | {"API_URL": "localhost:5000"})


@pytest.mark.parametrize("url", ["postgresql://a:b@[::", "postgresql://a@host:port/database"])
def test_a_database_url_that_cannot_be_read_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(BadSetting, match=r"^DATABASE_URL: expected postgresql://.*, got a value that is kept secret$"):
        JobSettings.from_env({"DATABASE_URL": url})
