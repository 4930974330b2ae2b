"""`python -m api.smoke`: ask a running API whether it serves, without leaving a transaction behind."""

import json
import os
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from fraud_detection.settings import BadSetting, ClientSettings

TIMEOUT_SECONDS = 10


class SmokeFailed(Exception):
    """The API does not answer as it should; the message says what was asked, expected and got."""


@dataclass(frozen=True)
class Answer:
    """What an endpoint answered."""

    status: int
    document: dict[str, Any]


def main() -> int:
    """Run from the command line; 0, 1 when the API does not answer as it should, 2 bad configuration."""
    try:
        settings = ClientSettings.from_env(os.environ)
        version = smoke(settings.api_url, settings.api_token)
    except BadSetting as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except SmokeFailed as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{settings.api_url}: healthy, model {version} serves, no entry without a token\n")
    return 0


def smoke(api_url: str, api_token: str) -> str:
    """Check health, the model and that a wrong token is refused; return the model's version.

    Raises SmokeFailed.
    """
    _expect(f"{api_url}/health", 200, None)
    model = _expect(f"{api_url}/model", 200, api_token)
    if not model.document.get("golden_rows_verified"):
        raise SmokeFailed(f"{api_url}/model: expected verified golden rows, got none")
    _expect(f"{api_url}/model", 401, None)
    _expect(f"{api_url}/model", 401, "x" * len(api_token))
    return str(model.document["version"])


def _expect(url: str, status: int, token: str | None) -> Answer:
    answer = _get(url, token)
    if answer.status != status:
        problems = answer.document.get("problems") or answer.document.get("error") or ""
        raise SmokeFailed(f"{url}: expected {status}, got {answer.status} {json.dumps(problems) if problems else ''}")
    return answer


def _get(url: str, token: str | None) -> Answer:
    request = urllib.request.Request(url)  # noqa: S310  API_URL is checked to be http or https
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        try:
            response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)  # noqa: S310
        except urllib.error.HTTPError as error:
            response = error  # any other status is an answer too
        with response:
            return Answer(response.status, json.load(response))
    except (OSError, ValueError) as error:
        raise SmokeFailed(f"{url}: expected an answer of our API, got none ({error})") from error


if __name__ == "__main__":
    sys.exit(main())
