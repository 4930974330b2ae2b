from pathlib import Path

import pytest

from fraud_detection.settings import ApiSettings, BadSetting, ClientSettings, JobSettings

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
        (TOKEN | {"PORT": "70000"}, "PORT: expected a whole number from 1 to 65535, got '70000'"),
        (TOKEN | {"FRAUD_THRESHOLD": "nan"}, "FRAUD_THRESHOLD: expected a number from 0.001 to 0.999, got 'nan'"),
        (TOKEN | {"FRAUD_THRESHOLD": "high"}, "FRAUD_THRESHOLD: expected a number from 0.001 to 0.999, got 'high'"),
        (TOKEN | {"MODEL_PATH": "m/a.pkl"}, "MODEL_PATH: expected a path that ends in rf_model.pkl, got 'm/a.pkl'"),
        (TOKEN | {"ROLLOUT_MODE": "hope"}, "ROLLOUT_MODE: expected one of reload, restart, none, got 'hope'"),
        (TOKEN | {"ALLOW_NETWORK_FILESYSTEM": "1"}, "ALLOW_NETWORK_FILESYSTEM: expected true or false, got '1'"),
    ],
)
def test_a_wrong_variable_is_named_with_its_value(environment: dict[str, str], message: str) -> None:
    with pytest.raises(BadSetting) as refused:
        ApiSettings.from_env(environment)

    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("name", "value"), [("API_TOKEN", "two words"), ("DATABASE_URL", "mysql://user:password@host/database")]
)
def test_the_value_of_a_secret_is_never_in_the_message(name: str, value: str) -> None:
    with pytest.raises(BadSetting, match=name) as refused:
        ApiSettings.from_env(TOKEN | {name: value})

    assert value not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_secret_comes_from_its_file_without_the_last_newline(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-a-file\n")

    settings = ApiSettings.from_env({"API_TOKEN_FILE": str(tmp_path / "token")})

    assert (settings.api_token, settings.api_token_file) == ("from-a-file", tmp_path / "token")


def test_a_secret_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match=r"API_TOKEN_FILE: .*none cannot be read"):
        ApiSettings.from_env({"API_TOKEN_FILE": str(tmp_path / "none")})


@pytest.mark.parametrize("optional", ["DATABASE_URL", "API_TOKEN_PREVIOUS"])
def test_an_optional_secret_whose_file_cannot_be_read_is_not_taken_for_none(tmp_path: Path, optional: str) -> None:
    file = tmp_path / ("none" if optional == "DATABASE_URL" else "")  # a folder is there, and no file to read

    with pytest.raises(BadSetting, match=f"{optional}_FILE: .* cannot be read"):
        ApiSettings.from_env(TOKEN | {f"{optional}_FILE": str(file)})


def test_the_file_of_the_previous_token_may_come_later(tmp_path: Path) -> None:
    settings = ApiSettings.from_env(TOKEN | {"API_TOKEN_PREVIOUS_FILE": str(tmp_path / "none")})

    assert (settings.api_token_previous, settings.api_token_previous_file) == (None, tmp_path / "none")


def test_a_secret_comes_from_one_place(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="API_TOKEN and API_TOKEN_FILE are both set"):
        ApiSettings.from_env(TOKEN | {"API_TOKEN_FILE": str(tmp_path / "token")})


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


def test_describes_each_variable_for_the_tables() -> None:
    described = {variable.name: variable for variable in ApiSettings.variables()}

    assert described["API_TOKEN"].required
    assert described["API_TOKEN"].secret
    assert described["PORT"].default == "5000"
    assert described["DATABASE_URL"].default is None
