"""Where the API listens is an address of this machine, with a URL that reaches it."""

import pytest

from fraud_detection.listening import local_url
from fraud_detection.settings import ApiSettings


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),  # noqa: S104
        ("::1", "[::1]"),
        ("[::1]", "[::1]"),
        ("::", "[::1]"),
        ("0:0:0:0:0:0:0:0", "[::1]"),
        ("fe80::1%eth0", "[fe80::1%25eth0]"),
        ("localhost", "localhost"),
    ],
)
def test_the_url_can_be_opened(host: str, shown: str) -> None:
    settings = ApiSettings.from_env({"API_TOKEN": "a-token-for-tests-only", "HOST": host, "PORT": "8080"})

    assert local_url(settings) == f"http://{shown}:8080"
