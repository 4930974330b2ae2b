"""`python -m api.smoke [--metrics]`: check that a running API serves, without storing a transaction."""

import argparse
import http.client
import json
import os
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from fraud_detection.environment import short_token_warning, what_failed, without_password
from fraud_detection.exit_codes import ExitCode, ExpectedError
from fraud_detection.proxies import bypass_proxy_inside
from fraud_detection.settings import ClientSettings

TIMEOUT_SECONDS = 10


class SmokeFailed(ExpectedError):
    """The API gave a wrong reply; the message says what was requested, expected and received."""


@dataclass(frozen=True)
class Reply:
    """The reply of an endpoint."""

    url: str
    status: int
    body: bytes

    @property
    def document(self) -> dict[str, Any]:
        """Return the body as JSON; raises SmokeFailed if it is not JSON."""
        try:
            document: dict[str, Any] = json.loads(self.body)
        except ValueError as error:
            raise SmokeFailed(
                f"{without_password(self.url)}: expected a reply of the API, got no JSON ({error})"
            ) from error
        return document


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; return 0, 1 for a wrong reply, 2 for bad configuration."""
    parser = argparse.ArgumentParser(prog="python -m api.smoke", description="Check that a running API serves.")
    parser.add_argument("--metrics", action="store_true", help="check its metrics instead, with and without a token")
    given = parser.parse_args(arguments)
    try:
        settings = ClientSettings.from_env(os.environ)
        bypass_proxy_inside(settings.api_url)
        check = metrics if given.metrics else smoke
        found = check(settings.api_url, settings.api_token)
    except ExpectedError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    warning = short_token_warning("API_TOKEN", settings.api_token)
    if warning is not None:
        sys.stderr.write(f"Warning: {warning}\n")
    sys.stdout.write(f"{settings.address}: {found}, no access without a token\n")
    return ExitCode.DONE


def smoke(api_url: str, api_token: str) -> str:
    """Check health, the model, and that a wrong token is rejected; return which model serves.

    Raises SmokeFailed.
    """
    _expect(f"{api_url}/health", 200, None)
    model = _expect(f"{api_url}/model", 200, api_token)
    if not model.document.get("golden_rows_verified"):
        raise SmokeFailed(f"{without_password(api_url)}/model: expected verified golden rows, got none")
    _expect_refusal(f"{api_url}/model", api_token)
    return f"healthy, model {model.document['version']} serves"


def metrics(api_url: str, api_token: str) -> str:
    """Check that the metrics are there, for the token only; return how many.

    Raises SmokeFailed.
    """
    url = f"{api_url}/metrics"
    _expect_refusal(url, api_token)
    figures = _expect(url, 200, api_token).body.decode(errors="replace").splitlines()
    if not any(line.startswith("fraud_model_info") for line in figures):
        raise SmokeFailed(f"{without_password(url)}: expected fraud_model_info among the metrics, got none")
    return f"{sum(not line.startswith('#') for line in figures)} metrics"


def _expect_refusal(url: str, api_token: str) -> None:
    _expect(url, 401, None)
    _expect(url, 401, "x" * len(api_token))


def _expect(url: str, status: int, token: str | None) -> Reply:
    reply = _get(url, token)
    if reply.status != status:
        problems = reply.document.get("problems") or reply.document.get("error") or ""
        raise SmokeFailed(
            f"{without_password(url)}: expected {status}, got {reply.status} {json.dumps(problems) if problems else ''}"
        )
    return reply


def _get(url: str, token: str | None) -> Reply:
    request = urllib.request.Request(url)  # noqa: S310  API_URL is checked to be http or https
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        try:
            response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)  # noqa: S310
        except urllib.error.HTTPError as error:
            response = error  # any other status is a reply too
        with response:
            return Reply(url, response.status, response.read())
    except (OSError, http.client.HTTPException) as error:
        raise SmokeFailed(
            f"{without_password(url)}: expected a reply of the API, got none ({what_failed(error, url)})"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
