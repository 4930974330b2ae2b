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
