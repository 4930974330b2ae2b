"""Find ports of 127.0.0.1 for servers that take their port from a variable."""

import random
import socket

_NEVER_EPHEMERAL = range(10_000, 32_768)
"""Below the ports that Linux gives to outgoing connections: none of those takes a port between look and start."""


def free_port() -> str:
    """Return a port that no process listens on, and reserve it: until this process ends, no other call returns it."""
    while True:
        port = random.SystemRandom().choice(_NEVER_EPHEMERAL)
        with socket.socket(socket.AF_UNIX) as reservation, socket.socket() as probe:
            try:
                reservation.bind(f"\0port of a test: {port}")  # an abstract name: it exists as long as its socket
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            reservation.detach()  # the process keeps it open
            return str(port)
