"""Ask a running API as a client does."""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from tests.support.environment import TOKEN
from tests.support.waiting import PATIENCE_SECONDS


def ask(
    url: str, method: str, path: str, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    """Send a request with the token, and return the status and the JSON of the answer."""
    content = None if body is None else json.dumps(body).encode()
    sent = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json", **(headers or {})}
    request = urllib.request.Request(url + path, content, sent, method=method)  # noqa: S310  our own address
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:  # noqa: S310
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)
