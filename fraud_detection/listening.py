"""Where the API listens: the address of HOST, whether its ports can be opened, and its URL on this machine."""

import errno
import ipaddress
import socket

from fraud_detection.environment import BadSetting
from fraud_detection.settings import ApiSettings


def resolve(host: str) -> tuple[socket.AddressFamily, str]:
    """Return family and IP address of HOST; of several, one of IPv4.

    `::` is every address of both families, or of IPv4 alone if this machine has no IPv6.

    Raises BadSetting.
    """
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise _no_address(host) from None
    family, _, _, _, (address, *_) = min(found, key=lambda one: one[0])
    if address == "::":
        try:
            socket.socket(socket.AF_INET6).close()
        except OSError:
            return socket.AF_INET, "0.0.0.0"  # noqa: S104  what HOST asks for
    return family, str(address)


def require_ports(settings: ApiSettings) -> None:
    """Raise BadSetting if PORT or PROBE_PORT cannot be opened."""
    if settings.port == settings.probe_port:
        raise BadSetting(f"PROBE_PORT: expected another port than PORT, got {settings.probe_port}")
    family, address = resolve(settings.host)
    for variable, port in (("PORT", settings.port), ("PROBE_PORT", settings.probe_port)):
        try:
            with socket.socket(family) as unheard:  # it does not listen, so that no client reaches it
                unheard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gunicorn does
                unheard.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise _no_address(settings.host) from error
            raise BadSetting(
                f"{variable}: {port} on {settings.host} cannot be opened ({error.strerror}); "
                "choose another port, or stop the program that uses it"
            ) from error


def local_url(settings: ApiSettings) -> str:
    """Return the URL that reaches the API from this machine."""
    return f"http://{_host_of_url(settings.host)}:{settings.port}"


def _host_of_url(host: str) -> str:
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:  # a name
        return host
    if address.is_unspecified:  # `::` takes connections of IPv4 too, and a machine may have no ::1
        return "127.0.0.1"
    return str(address) if address.version == 4 else f"[{str(address).replace('%', '%25')}]"


def _no_address(host: str) -> BadSetting:
    return BadSetting(f"HOST: {host} is no address of this machine; expected one, as 127.0.0.1, 0.0.0.0, ::1 or ::")
