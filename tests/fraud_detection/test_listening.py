"""Where the API listens is an address of this machine, with a URL that reaches it."""

import errno
import socket

import pytest

from fraud_detection.listening import local_url, resolve
from fraud_detection.settings import ApiSettings


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),  # noqa: S104
        ("::1", "[::1]"),
        ("[::1]", "[::1]"),
        ("::", "127.0.0.1"),
        ("0:0:0:0:0:0:0:0", "127.0.0.1"),
        ("fe80::1%eth0", "[fe80::1%25eth0]"),
        ("localhost", "localhost"),
    ],
)
def test_the_url_can_be_opened(host: str, shown: str) -> None:
    settings = ApiSettings.from_env({"API_TOKEN": "a-token-for-tests-only", "HOST": host, "PORT": "8080"})

    assert local_url(settings) == f"http://{shown}:8080"


def test_every_address_is_one_of_ipv4_on_a_machine_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a kernel that was booted so has no IPv6: no test can take it away."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    assert resolve("::") == (socket.AF_INET6, "::")
    monkeypatch.setattr(socket, "socket", refuse)

    assert resolve("::") == (socket.AF_INET, "0.0.0.0")  # noqa: S104
