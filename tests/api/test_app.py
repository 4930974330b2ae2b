"""The application opens its parts in order, closes them in order, and leaves nothing open when one fails."""

import threading
from collections.abc import Callable

import pytest
from flask.testing import FlaskClient

from api.app import Api, create_app
from fraud_detection.features import BadFeatureList
from fraud_detection.lock import StoreInUse, alone_with, alone_with_models
from fraud_detection.model.read import ModelRefused
from fraud_detection.settings import ApiSettings


def test_the_service_works_on_each_database(each_client: FlaskClient, authorized: dict[str, str]) -> None:
    answer = each_client.post("/predict", json={"data": [[0.5] * 29]}, headers=authorized)

    assert answer.status_code == 200
    stored = each_client.get(f"/transactions/{answer.get_json()['request_id']}:0", headers=authorized)
    assert stored.status_code == 200


def test_imports_and_restores_are_refused_while_the_api_has_store_and_models_open(
    start_api: Callable[[ApiSettings], Api], sqlite_environment: dict[str, str]
) -> None:
    settings = ApiSettings.from_env(sqlite_environment)
    app = start_api(settings)

    with pytest.raises(StoreInUse), alone_with(settings.store_location):
        pass
    with pytest.raises(StoreInUse), alone_with_models(settings.models_dir):
        pass

    app.close()
    with alone_with(settings.store_location), alone_with_models(settings.models_dir):
        pass


@pytest.mark.parametrize(
    ("wrong", "refused"),
    [
        ({"FEATURES_FILE": "nowhere.json"}, BadFeatureList),
        ({"MODEL_PATH": "nowhere/rf_model.pkl"}, ModelRefused),
    ],
)
def test_an_application_that_cannot_start_leaves_nothing_open(
    sqlite_environment: dict[str, str], wrong: dict[str, str], refused: type[Exception]
) -> None:
    settings = ApiSettings.from_env({**sqlite_environment, **wrong})
    threads = threading.active_count()

    with pytest.raises(refused):
        create_app(settings)

    assert threading.active_count() == threads
    with alone_with(settings.store_location):
        pass


def test_closing_the_application_leaves_no_thread(sqlite_environment: dict[str, str]) -> None:
    threads = threading.active_count()
    app = create_app(ApiSettings.from_env(sqlite_environment))
    app.served.watch()

    app.close()

    assert threading.active_count() == threads
