"""What the tests of the API share: the assembled application on real parts, and a way to look behind it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from api import writer
from api.app import Api, create_app
from fraud_detection.features import FeatureList, load_features
from fraud_detection.model.write import promote
from fraud_detection.settings import ApiSettings
from fraud_detection.store import Store
from tests.support.environment import TOKEN, variables
from tests.support.waiting import PATIENCE_SECONDS


def never(status: int) -> None:
    raise AssertionError(f"the service gave up with status {status}")


@pytest.fixture(autouse=True)
def _storing_may_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may need more than the 2 seconds after which the API answers that it stored nothing in time."""
    monkeypatch.setattr(writer, "DEADLINE_SECONDS", PATIENCE_SECONDS)


@pytest.fixture
def start_api() -> Iterator[Callable[[ApiSettings], Api]]:
    """Assemble applications that end with the test."""
    started: list[Api] = []

    def start(settings: ApiSettings) -> Api:
        started.append(create_app(settings, give_up=never))
        return started[-1]

    yield start
    for app in started:
        app.close()


@pytest.fixture
def api(start_api: Callable[[ApiSettings], Api], sqlite_environment: dict[str, str]) -> Api:
    """The application on SQLite, for what has nothing to do with the database."""
    return start_api(ApiSettings.from_env(sqlite_environment))


@pytest.fixture
def client(api: Api) -> FlaskClient:
    return api.test_client()


@pytest.fixture
def each_client(start_api: Callable[[ApiSettings], Api], api_settings: ApiSettings) -> FlaskClient:
    """A client of the application on each database in turn."""
    return start_api(api_settings).test_client()


@pytest.fixture(scope="session")
def authorized() -> dict[str, str]:
    """The header that opens every endpoint of every application here."""
    return {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="session")
def lasting_environment(tmp_path_factory: pytest.TempPathFactory, make_version: Callable[..., str]) -> dict[str, str]:
    """The variables of one installation for many tests that each look only at what they changed themselves."""
    folder = tmp_path_factory.mktemp("lasting")
    version = make_version(folder / "models")
    promote(folder / "models", version, actor="test", reason="the first one")
    return variables(folder, folder / "models")


@pytest.fixture(scope="session")
def lasting_client(lasting_environment: dict[str, str]) -> Iterator[FlaskClient]:
    app = create_app(ApiSettings.from_env(lasting_environment), give_up=never)
    yield app.test_client()
    app.close()


@pytest.fixture(scope="session")
def lasting_store(
    lasting_client: FlaskClient, lasting_environment: dict[str, str], features: FeatureList
) -> Iterator[Store]:
    """The store behind `lasting_client`, read-only."""
    opened = Store.open(Path(lasting_environment["LATEST_DB"]), features, read_only=True)
    yield opened
    opened.close()


@pytest.fixture
def reader(api: Api, sqlite_environment: dict[str, str]) -> Iterator[Store]:
    """The store behind `client`."""
    settings = ApiSettings.from_env(sqlite_environment)
    opened = Store.open(settings.store_location, load_features(None), read_only=True)
    yield opened
    opened.close()
