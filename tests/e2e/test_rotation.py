"""A new token replaces the old one, as docs/operations.md says, and no client and no scrape is rejected."""

import base64
import secrets
import time
from collections.abc import Callable

import pytest

from tests.e2e.cluster import wait_for
from tests.e2e.release import NAME, SECRET, TOKEN, Api, Installed, Release
from tests.e2e.traffic import LEAST_RATE, lost_or_altered, stored_rows, traffic
from tests.support.sample import Sample


@pytest.mark.prometheus
def test_a_rotation_rejects_no_client(installed: Installed, sample: Sample, figure: Callable[[str], None]) -> None:
    new = secrets.token_hex(32)
    with installed("rotation") as release:
        cluster, namespace = release.namespace.cluster, release.namespace.name
        up = f'up{{namespace="{namespace}", service="{NAME}-api"}}'
        wait_for("the API's target", lambda: cluster.series(f"{up} == 1"))
        began = time.monotonic()
        rows = sample.scaled(sample.calm, release.get("/model")["amount_scaling"])
        with traffic(release, rows, name="old-client") as old_client:
            # both are valid before any client uses the new one
            _set(release, **{"api-token-previous": new})
            wait_for("the new token", lambda: _status(release, new) == 200)
            _set(release, **{"api-token": new, "api-token-previous": TOKEN})
            with traffic(release, rows, name="new-client") as new_client:
                old_seen = old_client.stop()
                wait_for("the end of the old token's use", lambda: _old_token_rests(release, new))
                _set(release, **{"api-token-previous": None})
                wait_for("the end of the old token", lambda: _status(release, TOKEN) == 401)
                new_seen = new_client.stop()
        with release.api() as api:
            figures = api.ask("GET", "/metrics", token=new).text
        for handler in ("predict", "metrics"):
            assert f'fraud_request_seconds_count{{handler="{handler}",status="4xx"}} 0.0\n' in figures
        assert cluster.series(f"min_over_time({up}[{time.monotonic() - began:.0f}s]) == 0") == []
        for seen, name in ((old_seen, "old-client"), (new_seen, "new-client")):
            assert seen.rate >= LEAST_RATE
            assert seen.failed_with() == {}
            assert lost_or_altered(seen.answers, stored_rows(release.sql, name)) == []
        figure(f"rotation: the client with the old token made {old_seen}; the one with the new token {new_seen}")


def _set(release: Release, **keys: str | None) -> None:
    """Change keys of the token's Secret; None deletes one."""
    data = {name: None if value is None else base64.b64encode(value.encode()).decode() for name, value in keys.items()}
    release.namespace.cluster.core.patch_namespaced_secret(SECRET, release.namespace.name, {"data": data})


def _status(release: Release, token: str) -> int:
    with release.api() as api:
        return api.ask("GET", "/model", token=token).status_code


def _old_token_rests(release: Release, token: str) -> bool:
    """Say whether the API counted no request with the old token for two scrapes."""
    with release.api() as api:
        before = _uses_of_previous(api, token)
        time.sleep(25)
        return _uses_of_previous(api, token) == before


def _uses_of_previous(api: Api, token: str) -> str:
    figures = api.ask("GET", "/metrics", token=token).text.splitlines()
    return next(line for line in figures if line.startswith('fraud_auth_requests_total{token_id="previous"}'))
