"""Keeps requests to servers inside away from the proxy that HTTP_PROXY and its relatives name."""

import ipaddress
import os
import socket
from urllib.parse import urlsplit
from urllib.request import getproxies_environment


def bypass_proxy_inside(url: str) -> None:
    """Add the host of an address to NO_PROXY if it is inside; call it before the first request to that address.

    Every HTTP library here obeys NO_PROXY, so this is the one rule of all clients. A host is inside if its name has no
    dot, or if none of its IP addresses is public: a Service of a cluster, its pods, a server of the private network.
    """
    known = getproxies_environment()  # of each scheme, and as "no" what NO_PROXY holds
    exempt = known.pop("no", "")
    host = urlsplit(url).hostname
    if not known or host is None or exempt == "*" or not _is_inside(host):
        return
    forms = [host, f"[{host}]"] if ":" in host else [host]  # urllib compares IPv6 addresses with their brackets
    entries = list(dict.fromkeys([*filter(None, exempt.split(",")), *forms]))
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = ",".join(entries)


def _is_inside(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:  # a name
        pass
    if "." not in host:
        return True
    try:
        found = socket.getaddrinfo(host, None)
    except (OSError, UnicodeError):  # only the proxy can look it up
        return False
    return not any(ipaddress.ip_address(address[0]).is_global for *_, address in found)
